"""Hostile model folders against every command: one line of refusal or a right result, and nothing of the folder runs.

T-E2 (pickles), T-E3 (keys that choose code), T-E4 (files outside the folder), T-E12 (terminal codes in names).
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from solar.config.model import ImportModelConfig
from solar.plan.facts import model_facts
from tests.faults.commands import COMMANDS, Outcome, Server
from tests.faults.hostile import CASES, CODE, JSON_FILES, Damage, marker, planted

MOST_RSS_BYTES = 1.5e9
_UNESCAPED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
PUBLISHING = ("merge", "merge_second", "grow", "import_model")
WORTH_ALL = [
    *("weights-cut-by-1", "header-name-twice", "tensor-overlap", "tensor-negative", "tensor-shape", "index-up"),
    *("index-pickle", "link-out-config.json", "link-out-tokenizer.json", "pipe-tokenizer_config.json", "name-tensor"),
    *(
        "code-auto_map-config.json",
        "size-num_hidden_layers",
        "size-deep-config.json",
        "layer-digits",
        "size-vocab_size",
    ),
]
"""Damages that every command is tried with in the quick tests."""
TOKENIZERS = [
    *("tokenizer-object", "tokenizer-ids", "tokenizer-template-ids", "tokenizer-regex-bad", "template-recursion"),
    *("template-syntax", "name-eos", "name-template", "pickle-as-tokenizer"),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("good")


@pytest.fixture(scope="module")
def server(here):
    server = Server(here)
    yield server
    server.close()


def outcome(server: Server, here: Path, tmp_path: Path, command: str, damage: Damage) -> Outcome:
    folder, out = tmp_path / "case" / "model", tmp_path / "out"
    out.mkdir()
    server.ready()
    shutil.copytree(here / "base", folder)
    damage(folder)
    return server.run(command, folder, out)


def problems(done: Outcome, command: str, tmp_path: Path) -> list[str]:
    """What is wrong with the end of a command, whatever the folder was."""
    lines = [line for line in done.err.splitlines() if not line.startswith("warning: ")]
    found = [f"ran {what}" for what in done.ran]
    if marker(tmp_path / "case" / "model").exists():
        found.append("code of the folder ran")
    if done.status not in (0, 1):
        found.append(f"ended with {done.status}")
    if done.status == 1 and (len(lines) != 1 or not lines[0].startswith("error: ")):
        found.append(f"not one line: {done.err[-1500:]}")
    if done.status == 0 and lines:
        found.append(f"went on, and said {done.err[-1500:]}")
    if done.status == 1 and command in PUBLISHING and any((tmp_path / "out" / "out").glob("model*/*.safetensors")):
        found.append("left weights behind")
    if done.status == 1 and command in ("merge", "merge_second", "grow") and (tmp_path / "out" / "out").exists():
        found.append("left a folder behind")
    if _UNESCAPED.search(done.out + done.err):
        found.append(f"printed a control character: {(done.out + done.err)!r}")
    if done.rss_bytes > MOST_RSS_BYTES:
        found.append(f"took {done.rss_bytes / 1e9:.1f} GB")
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_a_good_folder_is_taken(command, server, here, tmp_path):
    """Else the refusals below would say nothing."""
    done = outcome(server, here, tmp_path, command, lambda folder: None)
    assert done.status == 0 and problems(done, command, tmp_path) == []


@pytest.mark.parametrize("name", WORTH_ALL)
@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "prepare_data"])
def test_damage_is_refused_in_one_line_by_every_command(command, name, server, here, tmp_path):
    """T-E3, T-E4, T-E5, T-E12."""
    done = outcome(server, here, tmp_path, command, CASES[name])
    assert problems(done, command, tmp_path) == []
    assert done.status == 1 or (name == "size-vocab_size" and command == "grow")


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("command", ["chat", "diagnose", "prepare_data"])
def test_a_hostile_tokenizer_is_refused_in_one_line(command, name, server, here, tmp_path):
    done = outcome(server, here, tmp_path, command, CASES[name])
    assert problems(done, command, tmp_path) == []


@pytest.mark.parametrize("name", ["pickle-only", "pickle-index", "pickle-beside", "pickle-as-weights"])
@pytest.mark.parametrize("command", ["chat", "merge", "grow", "import_model"])
def test_no_pickle_is_read(command, name, server, here, tmp_path):
    """T-E2."""
    done = outcome(server, here, tmp_path, command, CASES[name])
    assert problems(done, command, tmp_path) == []
    assert done.status == (0 if name == "pickle-beside" else 1)


def test_the_sentinel_sees_code_and_pickles_of_a_folder(server, here, tmp_path):
    """Else `ran` would say nothing."""
    done = outcome(server, here, tmp_path, "run_code_of_the_folder", planted("config.json", 1, "auto_map"))
    assert any("exec" in what for what in done.ran) and any("pickle.find_class" in what for what in done.ran)
    assert marker(tmp_path / "case" / "model").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "merge_second"])
def test_all_hostile_folders(command, server, here, tmp_path):
    """T-E2, T-E3, T-E4, T-E12. Each folder meets two or three commands; with SWEEP=all, every command."""
    wrong = {}
    swept = [name for name in CASES if not name.startswith("code-")]  # those have a test of their own
    if command == "prepare_data":
        swept = [name for name in swept if "token" in name or "template" in name]
    elif os.environ.get("SWEEP") != "all":
        swept = swept[list(COMMANDS).index(command) % 3 :: 3]
    for number, name in enumerate(swept):
        place = tmp_path / str(number)
        place.mkdir()
        done = outcome(server, here, place, command, CASES[name])
        if found := problems(done, command, place):
            wrong[name] = found
        shutil.rmtree(place)
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", JSON_FILES)
@pytest.mark.parametrize("key", CODE)
def test_a_key_that_chooses_code_is_refused_at_every_depth_of_every_file(key, name, server, here, tmp_path):
    """T-E3."""
    for depth in range(1, 6):
        command = ("chat", "merge")[depth % 2]
        place = tmp_path / f"{depth}-{command}"
        place.mkdir()
        done = outcome(server, here, place, command, planted(name, depth, key))
        assert problems(done, command, place) == [] and done.status == 1
        assert f"{key} asks to run code" in done.err and name in done.err


@pytest.mark.parametrize("name", ["pipe-config.json", "size-deep-config.json", "config-text_config", "config-nul"])
def test_a_plan_is_made_without_waiting_for_or_trusting_a_folder(name, tmp_path):
    """T-E4: planning looks at config.json for its estimates, before the stage refuses the folder."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    CASES[name](tmp_path / "model")
    facts = model_facts({"base": ImportModelConfig(kind="import_model", path=str(tmp_path / "model"))})
    assert facts["base"].num_hidden_layers is None and facts["base"].work is None
