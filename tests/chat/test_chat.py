"""A model answers on standard output, and what goes wrong is one clear line."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from solar import chat
from solar.chat import Options, Speaker, find_model, main
from solar.errors import ConfigError

STORIES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "stories260K"


@pytest.fixture
def stories() -> Path:
    if not STORIES.is_dir():
        pytest.skip("the model stories260K is not on this machine")
    return STORIES


@pytest.fixture
def talking(stories, tmp_path) -> Path:
    """The same model with a chat template."""
    from solar.data.encode.templates import TEMPLATES

    shutil.copytree(stories, tmp_path, dirs_exist_ok=True)
    settings = json.loads((stories / "tokenizer_config.json").read_text())
    settings["chat_template"] = TEMPLATES["solar"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


def make_run(root: Path, when: str, stages: dict[str, str], age: int) -> None:
    run = root / "runs" / "quickstart" / when
    run.mkdir(parents=True)
    (run / "artifacts.json").write_text(json.dumps(stages))
    os.utime(run / "artifacts.json", (1_000_000 - age, 1_000_000 - age))
    for stage, folder in stages.items():
        (root / "artifacts" / folder / ("model" if stage != "docs" else "data")).mkdir(parents=True, exist_ok=True)


def test_one_prompt_is_answered_once(stories, capsys):
    assert main([str(stories), "prompt=Once upon a time", "max_new_tokens=24"]) == 0
    assert capsys.readouterr().out == ", there was a little girl named Lily. She loved to play outside in the p\n"


def test_lines_on_standard_input_are_answered_one_by_one(stories, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Once upon a time\n\nOne day\n"))
    assert main([str(stories), "max_new_tokens=8"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_an_artifact_is_as_good_as_its_model_folder(stories, tmp_path):
    (tmp_path / "model").symlink_to(stories)
    assert find_model(str(tmp_path), Path("outputs")) == tmp_path / "model"


def test_a_stage_is_found_in_the_run_that_ended_last(tmp_path):
    make_run(tmp_path, "b", {"sft": "sft-old"}, age=10)
    make_run(tmp_path, "a", {"sft": "sft-new", "docs": "docs-1"}, age=0)
    assert find_model("sft", tmp_path) == tmp_path / "artifacts" / "sft-new" / "model"
    with pytest.raises(ConfigError, match=r"dpo: no such folder, and no model of the last run .* which has sft$"):
        find_model("dpo", tmp_path)
    with pytest.raises(ConfigError, match="docs: "):
        find_model("docs", tmp_path)


def test_a_conversation_remembers_and_new_forgets(talking):
    speaker = Speaker(talking, Options(max_new_tokens=8, system="Be brief."))
    first = "".join(speaker.answer("Who is Lily?"))
    assert [message["role"] for message in speaker.messages] == ["system", "user", "assistant"]
    assert speaker.messages[-1]["content"] == first.strip()
    list(speaker.answer("And Tom?"))
    assert len(speaker.messages) == 5
    chat.talk(speaker, iter(["/new"]))
    assert [message["role"] for message in speaker.messages] == ["system"]


def test_the_model_is_asked_in_its_own_template(talking, monkeypatch):
    speaker = Speaker(talking, Options())
    asked = []
    monkeypatch.setattr(speaker, "_write", lambda prompt, stop: iter([asked.append(prompt) or "yes"]))
    assert "".join(speaker.answer("Hello?")) == "yes"
    text = speaker.tokenizer.decode(asked[0], skip_special_tokens=True)
    assert text == "### User:\nHello?\n\n### Assistant:\n"


def test_without_a_template_the_text_goes_on_and_nothing_is_remembered(stories):
    speaker = Speaker(stories, Options(max_new_tokens=8))
    first = "".join(speaker.answer("Once upon a time"))
    assert "".join(speaker.answer("Once upon a time")) == first and speaker.messages == []


def test_stopping_an_answer_forgets_it_and_the_conversation_goes_on(talking, monkeypatch, capsys):
    speaker = Speaker(talking, Options(max_new_tokens=8))
    write = speaker._write

    def interrupted(prompt, stop):
        yield "half"
        raise KeyboardInterrupt

    def texts():
        monkeypatch.setattr(speaker, "_write", interrupted)
        yield "Who?"
        monkeypatch.setattr(speaker, "_write", write)
        yield "Lily?"

    chat.talk(speaker, texts())
    assert capsys.readouterr().out.startswith("half [stopped]\n")
    assert [message["content"] for message in speaker.messages if message["role"] == "user"] == ["Lily?"]


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt])
def test_ctrl_d_and_ctrl_c_at_the_prompt_end_it(monkeypatch, capsys, end):
    lines = iter(["hello", "  ", end()])

    def typed(prompt):
        line = next(lines)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", typed)
    assert list(chat.typed()) == ["hello"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "error: nowhere: no such folder, and no run under"),
        (["nowhere", "temprature=1"], "error: temprature: no such option; did you mean 'temperature'?"),
        (["nowhere", "seed=x"], "error: seed: found x, expected a whole number"),
        (["nowhere", "top_p=0"], "error: expected max_new_tokens of 1 or more"),
        (["."], "error: .: holds no model (no config.json), and no run under"),
    ],
)
def test_errors_are_one_line_and_exit_1(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1


def test_an_adapter_is_refused_as_merge_refuses_it(stories, tmp_path, capsys):
    shutil.copy(stories / "tokenizer.json", tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    assert main([str(tmp_path), "prompt=x"]) == 1
    way_out = "expected a whole model; add it to its base first (peft's merge_and_unload)"
    assert capsys.readouterr().err == f"error: {tmp_path}: holds an adapter, {way_out}\n"


def test_a_token_without_an_embedding_is_refused_in_one_line(stories, tmp_path, capsys):
    folder = shutil.copytree(stories, tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(
        {"id": 512, "content": "<extra>", "special": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    )
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert main([str(folder), "prompt=Once <extra>"]) == 1
    error = capsys.readouterr().err
    assert "the tokenizer gives token 512, but the model has embeddings for 0 to 511" in error
    assert error.count("\n") == 1


def test_help_needs_no_torch_and_no_words_are_a_mistake(capsys):
    import subprocess

    code = "import sys; from solar.chat import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0
    assert main([]) == 2
