"""From nothing to an aligned, merged, evaluated model, and again without doing anything."""

import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from .conftest import Run

STAGES = {
    "docs", "tokenizer", "pretrain_data", "init", "base", "diagnosis", "upscale", "pretrain", "sft_data", "sft",
    "dpo_data", "sft_logps", "dpo_a", "dpo_b", "merge", "evaluation", "report",
}  # fmt: skip


def _artifact(root: Path, stage: str) -> Path:
    (found,) = [p for p in (root / "artifacts").iterdir() if re.fullmatch(rf"{stage}-[0-9a-f]{{12}}", p.name)]
    return found


def _weights(root: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(_artifact(root, stage) / "model" / "model.safetensors")


def _manifest(root: Path, stage: str) -> dict:
    return json.loads((_artifact(root, stage) / "manifest.json").read_text())


def _stamps(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (root / "artifacts").rglob("*")}


def test_every_stage_leaves_an_artifact_and_nothing_half_done(finished: Path) -> None:
    names = {path.name.rsplit("-", 1)[0] for path in (finished / "artifacts").iterdir()}
    assert names == STAGES
    assert not list((finished / "artifacts").glob("*.partial"))
    assert not list((finished / "artifacts").rglob("checkpoints"))


def test_grown_layers_are_the_base_layers_bit_for_bit(finished: Path) -> None:
    base, grown = _weights(finished, "base"), _weights(finished, "upscale")
    # n = 8, m = 2: layers 0-5 of the first copy, 2-7 of the second.
    sources = [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]
    assert len([name for name in grown if name.endswith("input_layernorm.weight")]) == 12
    for name, tensor in grown.items():
        layer = re.match(r"model\.layers\.(\d+)\.", name)
        source = name.replace(f".{layer[1]}.", f".{sources[int(layer[1])]}.", 1) if layer else name
        assert torch.equal(tensor, base[source]), name


def test_each_manifest_names_the_chat_template_that_the_stage_leaves(finished: Path) -> None:
    """T-E3: by the hash of the text that transformers reads; `init` takes the tokenizer's, `sft` that of its data."""
    for stage in ("tokenizer", "init", "sft", "dpo_a", "merge"):
        folder = "tokenizer" if stage == "tokenizer" else "model"
        template = AutoTokenizer.from_pretrained(_artifact(finished, stage) / folder).chat_template
        assert _manifest(finished, stage)["metrics"]["chat_template_sha256"] == sha256(template.encode()).hexdigest()


def test_training_moves_the_loss_down(finished: Path) -> None:
    metrics = _manifest(finished, "base")["metrics"]
    assert metrics["valid_loss_last"] < metrics["valid_loss_first"] - 0.3


def test_merge_is_the_mean_of_its_models(finished: Path) -> None:
    first, second, merged = (_weights(finished, stage) for stage in ("dpo_a", "dpo_b", "merge"))
    for name, tensor in merged.items():
        torch.testing.assert_close(
            tensor, (first[name].double() + second[name].double()).div(2).float(), rtol=0, atol=1e-7
        )
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_evaluation_has_a_row_for_every_model_of_the_chain(finished: Path) -> None:
    rows = json.loads((_artifact(finished, "evaluation") / "scores.json").read_text())
    assert [row["stage"] for row in rows] == ["init", "base", "upscale", "pretrain", "sft", "dpo_a", "dpo_b", "merge"]
    assert all(0 < row["nats_per_token"] < 7 and 0 < row["bits_per_byte"] < 8 for row in rows)


def test_the_model_it_leaves_is_an_ordinary_hugging_face_folder(finished: Path) -> None:
    folder = _artifact(finished, "merge") / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello?"}], add_generation_prompt=True, return_tensors="pt"
    )
    generated = model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert generated.shape[1] > prompt["input_ids"].shape[1]


def test_a_manifest_holds_configuration_inputs_and_files(finished: Path) -> None:
    manifest = _manifest(finished, "dpo_a")
    assert manifest["config"]["beta"] == 0.1
    assert set(manifest["inputs"]) == {"sft", "dpo_data", "sft_logps"}
    assert manifest["inputs"]["sft"] == _manifest(finished, "sft")["id"]
    assert manifest["files"]["model/model.safetensors"]["size"] > 0
    assert manifest["provenance"]["packages"]["torch"]


def test_second_run_executes_nothing_and_says_so(finished: Path, run: Run) -> None:
    """T-C6."""
    before = _stamps(finished)
    done = run(finished)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "plan quickstart: 17 stages, 17 done, 0 to run"
    assert "nothing to run" in done.stdout
    assert _stamps(finished) == before


def test_another_beta_runs_that_stage_and_what_reads_it_and_nothing_else(
    finished: Path, run: Run, tmp_path: Path
) -> None:
    """T-C6."""
    root = tmp_path / "copy"
    shutil.copytree(finished, root)
    before = set((root / "artifacts").iterdir())
    done = run(root, "stages.dpo_a.beta=0.4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "plan quickstart: 17 stages, 13 done, 4 to run"
    made = {path.name.rsplit("-", 1)[0] for path in set((root / "artifacts").iterdir()) - before}
    assert made == {"dpo_a", "merge", "evaluation", "report"}


def test_sweep_over_m_shares_everything_upstream_of_the_growth(finished: Path, run: Run, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished, root)
    before = set((root / "artifacts").iterdir())
    done = run(root, "--multirun", "stages.upscale.m=1,3", "until=upscale")
    assert done.returncode == 0, done.stderr
    made = sorted(path.name.rsplit("-", 1)[0] for path in set((root / "artifacts").iterdir()) - before)
    assert made == ["upscale", "upscale"]


def test_until_stops_after_a_stage_and_what_it_needs(finished: Path, run: Run) -> None:
    done = run(finished, "until=upscale")
    assert done.stdout.splitlines()[0] == "plan quickstart: 6 stages, 6 done, 0 to run"


def test_a_dropped_stage_is_gone_from_everything_that_takes_all(finished: Path, run: Run) -> None:
    done = run(finished, "~stages.merge", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "plan quickstart: 16 stages, 14 done, 2 to run"


@pytest.mark.parametrize("folder", ("runs", "artifacts"))
def test_everything_is_written_below_the_root(finished: Path, folder: str) -> None:
    assert (finished / folder).is_dir()
    if folder == "runs":
        first = min((finished / "runs" / "quickstart").glob("*/artifacts.json"))
        assert set(json.loads(first.read_text())) == STAGES
