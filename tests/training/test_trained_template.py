"""A trained model carries the chat template it was trained with, and stops where its training stopped."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import Place, llama, settings
from transformers import AutoTokenizer, GenerationConfig

from solar.chat import Options, Speaker
from solar.config.data import Format, Packing, PrepareDataConfig, SourceConfig, Task
from solar.config.training import SftConfig
from solar.data.encode import tokenizer
from solar.data.encode.encode import Encoder
from solar.data.encode.templates import TEMPLATES
from solar.data.encode.trained_template import save_for_model
from solar.data.prepare import prepare
from solar.data.store.dataset import TokenDataset
from solar.training.fit import fit
from solar.training.modules.next_token import InstructionTuning

QUESTION = [{"role": "user", "content": "Which colour is the sky?"}]
OTHER = "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + eos_token }}{% endfor %}"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    lines = [f"The sky of day {number} is blue, and the sea is deep." for number in range(200)]
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return folder


def base_of(folder: Path, texts: Path, tokens: str, own: str | None) -> Path:
    """An artifact of a small base model; `tokens`: the template whose special tokens it has, `own`: its template."""
    tokenizer.train(texts, 300, tokens, folder / "model")
    llama(vocab_size=300, eos_token_id=2).save_pretrained(folder / "model")
    (folder / "model/chat_template.jinja").unlink(missing_ok=True)
    path = folder / "model/tokenizer_config.json"
    said = {**json.loads(path.read_text()), "chat_template": own}
    path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))
    return folder


def data_of(folder: Path, base: Path, template: str | None, task: Task = Task.instruct) -> Path:
    row = {"messages": [*QUESTION, {"role": "assistant", "content": "Blue."}]}
    if task is Task.pretrain:
        row = {"text": "The sky is blue."}
    folder.mkdir()
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    source = SourceConfig(format=Format.messages if task is Task.instruct else Format.text)
    source.path = str(folder / "rows.jsonl")
    values: dict[str, Any] = {"tokenizer": "t", "sequence_length": 128, "packing": Packing.none, "seed": 0}
    values |= {"task": task, "template": template, "held_out_fraction": 0.0, "sources": {"rows": source}}
    prepare(PrepareDataConfig(kind="prepare_data", **values), {}, base, folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("own", [None, OTHER])
def test_a_model_trained_with_a_named_template_asks_and_stops_as_its_training_did(tmp_path, texts, own):
    base = base_of(tmp_path / "base", texts, "chatml", own)
    data = data_of(tmp_path / "data", base, "chatml")
    config = SftConfig(**settings(kind="sft", duration="1 steps", global_batch_size=1))
    fit(InstructionTuning, config, base / "model", data, tmp_path / "out", Place(tmp_path / "out"))
    row = TokenDataset(data, "train")[0]
    start = int((row.labels != -100).argmax())
    prompt, end = row.input_ids[:start].tolist(), int(row.input_ids[-1])
    made = AutoTokenizer.from_pretrained(tmp_path / "out/model")
    assert made.convert_ids_to_tokens(end) == "<|im_end|>"
    text = made.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>user\nWhich colour is the sky?<|im_end|>\n<|im_start|>assistant\n"
    assert [made.bos_token_id, *made(text, add_special_tokens=False).input_ids] == prompt
    assert GenerationConfig.from_pretrained(tmp_path / "out/model").eos_token_id == [2, end]
    speaker = Speaker(tmp_path / "out/model", Options())
    assert speaker.encoder.prompt(QUESTION) == prompt and speaker.encoder.end_of_turn_ids() == [2, end]


def test_a_template_without_a_token_of_its_own_stops_at_eos(tmp_path, texts):
    base = base_of(tmp_path / "base", texts, "solar", None)
    data = data_of(tmp_path / "data", base, "solar")
    before = files(base / "model")
    save_for_model(base / "model", data)
    assert AutoTokenizer.from_pretrained(base / "model").chat_template == TEMPLATES["solar"]
    changed = {name for name, content in files(base / "model").items() if before[name] != content}
    assert changed == {"tokenizer_config.json"}


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja"])
def test_the_template_of_the_base_is_replaced_wherever_it_was(tmp_path, texts, place):
    base = base_of(tmp_path / "base", texts, "solar", OTHER if place == "tokenizer_config.json" else None)
    if place == "chat_template.jinja":
        (base / "model" / place).write_text(OTHER)
    assert AutoTokenizer.from_pretrained(base / "model").chat_template == OTHER
    save_for_model(base / "model", data_of(tmp_path / "data", base, "zephyr"))
    assert AutoTokenizer.from_pretrained(base / "model").chat_template == TEMPLATES["zephyr"]


def test_a_model_trained_with_its_own_template_keeps_its_files_and_learns_where_to_stop(tmp_path, texts):
    base = base_of(tmp_path / "base", texts, "chatml", TEMPLATES["chatml"])
    data = data_of(tmp_path / "data", base, None)
    before = files(base / "model")
    save_for_model(base / "model", data)
    after = files(base / "model")
    assert {name for name in after if before[name] != after[name]} == {"generation_config.json"}
    end = Encoder(tokenizer.load(base)).end_of_turn_ids()[-1]
    assert json.loads(after["generation_config.json"])["eos_token_id"] == [2, end]
    save_for_model(base / "model", data)
    assert files(base / "model") == after


def test_continued_pretraining_changes_no_file(tmp_path, texts):
    base = base_of(tmp_path / "base", texts, "chatml", None)
    before = files(base / "model")
    save_for_model(base / "model", data_of(tmp_path / "data", base, None, Task.pretrain))
    assert files(base / "model") == before


def test_a_model_without_a_tokenizer_is_left_alone(tmp_path, texts):
    base = base_of(tmp_path / "base", texts, "solar", None)
    data = data_of(tmp_path / "data", base, "solar")
    shutil.copytree(base / "model", tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    before = files(tmp_path / "bare")
    save_for_model(tmp_path / "bare", data)
    assert files(tmp_path / "bare") == before
