"""Commands and links of the pages work: runs compose and plan, other commands know their options."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from safetensors.numpy import save_file

from solar import run as solar_run
from solar.config.store import register
from tests.docs.commands import commands
from tests.docs.pages import PAGES, ROOT

COMMANDS = commands()
RUNS = [words[1:] for words in COMMANDS if words[0] == "solar.run"]
ON_FOLDERS = [words for words in COMMANDS if words[0] in ("solar.grow", "solar.merge") and words[1] != "convert"]
OTHERS = [words for words in COMMANDS if words[0] not in ("solar.run", "solar.grow", "solar.merge")]


def test_the_commands_are_found() -> None:
    assert len(RUNS) > 15
    assert {words[0] for words in COMMANDS} >= {"solar.run", "solar.grow", "solar.merge", "solar.chat", "solar.data"}


@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_each_run_makes_a_plan(words: list[str], tmp_path: Path) -> None:
    """T-D4."""
    model = _model(tmp_path / "model", 30)
    overrides = [_first_of_a_sweep(word) for word in words if word != "--multirun"]
    overrides = [word.replace("=DIR", f"={model}") for word in overrides]
    if not any(word.startswith("+experiment=") for word in overrides):
        overrides.insert(0, f"+experiment={solar_run.DEFAULT_EXPERIMENT}")
    register()
    with initialize_config_dir(str(solar_run.conf_folder()), version_base="1.3"):
        composed = compose("config", overrides=[*overrides, "dry_run=true", f"paths.root={tmp_path / 'root'}"])
    solar_run.run(composed)


def _first_of_a_sweep(word: str) -> str:
    """`key=1,2,3` stands for several runs; lists in brackets are one value."""
    key, equals, value = word.partition("=")
    return word if value.startswith("[") else f"{key}{equals}{value.split(',')[0]}"


def _model(folder: Path, layers: int) -> Path:
    """A Llama of the smallest size."""
    folder.mkdir()
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = {"model_type": "llama", "vocab_size": 16, "num_hidden_layers": layers, "rms_norm_eps": 1e-5, **sizes}
    config |= {"tie_word_embeddings": True, "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 32}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    square, norm = np.ones((8, 8), np.float32), np.ones(8, np.float32)
    tensors = {"model.embed_tokens.weight": np.ones((16, 8), np.float32), "model.norm.weight": norm}
    for layer in range(layers):
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
            tensors[f"model.layers.{layer}.{name}.weight"] = square
        for name in ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
            tensors[f"model.layers.{layer}.{name}.weight"] = square
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = norm
    save_file(tensors, str(folder / "model.safetensors"), {"format": "pt"})
    return folder


def _python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    return subprocess.run([sys.executable, "-m", *words], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("words", ON_FOLDERS, ids=" ".join)
def test_each_command_on_folders_says_what_it_would_write(words: list[str], tmp_path: Path) -> None:
    """T-D6."""
    for name in ("BASE", "A", "B"):
        _model(tmp_path / name, 32)
    done = _python(*words, *([] if "dry_run=true" in words else ["dry_run=true"]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_each_other_command_knows_the_options_that_it_is_shown_with(words: list[str], tmp_path: Path) -> None:
    subcommand = words[1:2] if words[0] == "solar.data" else []
    done = _python(words[0], *subcommand, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in words[1:]:
        if option := re.match(r"--[a-z-]+|[a-z_]+=", word):
            assert option[0] in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_target_of_make_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)) <= targets
