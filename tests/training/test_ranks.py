"""Several processes train what one process trains."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import llama_folder

slow = pytest.mark.slow
HERE = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("ranks")
    llama_folder(place / "base")
    llama_folder(place / "reference", seed=9)
    (place / "data").mkdir()
    return place


def _start(kind, strategy, folder, ranks, stop_at=None, seconds=2000):
    """Exit code of a training on so many processes."""
    launch = [sys.executable] if ranks == 1 else [*TORCHRUN, f"--nproc_per_node={ranks}"]
    arguments = [str(HERE / "ranks.py"), kind, strategy, str(folder), *([str(stop_at)] if stop_at else [])]
    path = f"{HERE}:{HERE.parent.parent}"
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "HOME": str(folder)}
    return subprocess.run([*launch, *arguments], env=environment, cwd=HERE, capture_output=True, timeout=seconds)


def _losses(output):
    lines = [json.loads(line) for line in (output / "logs/metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["tokens"], line.get("loss", line.get("valid_loss", 0.0))) for line in lines]


def _assert_same_stream(one, two):
    assert [place[:2] for place in one] == [place[:2] for place in two]
    assert [place[2] for place in one] == pytest.approx([place[2] for place in two], rel=1e-5)


def _assert_same_weights(one, two):
    """Equal up to what a changed order of sums does to AdamW in a few steps, and named alike."""
    expected, actual = (load_file(output / "model/model.safetensors") for output in (one, two))
    assert expected.keys() == actual.keys()
    for name, weight in expected.items():
        assert weight.dtype == actual[name].dtype and torch.allclose(weight, actual[name], atol=5e-4), name


def _assert_same_gradients(one, two):
    """Of the first step, to 1e-6 of each tensor's norm: after it, rounding has moved the weights apart."""
    one, two = load_file(one / "grads.safetensors"), load_file(two / "grads.safetensors")
    assert one.keys() == two.keys() and len(one) > 10
    for name, gradient in one.items():
        assert (gradient - two[name]).norm() <= 1e-6 * gradient.norm(), name


@pytest.mark.parametrize("kind", ["cpt", *(pytest.param(kind, marks=slow) for kind in ("dpo", "kto", "nan"))])
def test_two_ranks_follow_the_losses_of_one(folder, kind):
    """T-B1, T-B3, T-G3.

    KTO with another model as reference: its reference point is the mean of the step before over all ranks.

    Where one rank's loss is not a number, all ranks throw the step away.
    """
    place = folder / kind
    place.mkdir()
    for model in ("base", "reference"):
        (place / model).symlink_to(folder / model)
    (place / "data").mkdir()
    assert _start(kind, "single", place, 1).returncode == 0
    for strategy in ("ddp", "fsdp", "tp"):
        done = _start(kind, strategy, place, 2)
        assert done.returncode == 0, done.stderr.decode()[-6000:]
        _assert_same_stream(_losses(place / "single"), _losses(place / strategy))
        if strategy == "ddp":
            _assert_same_gradients(place / "single", place / "ddp")
        metrics = json.loads((place / strategy / "metrics.json").read_text())
        if kind == "dpo":
            assert metrics["margin_first"] == 0.0
        assert metrics["skipped_steps"] == (1 if kind == "nan" else 0)
        _assert_same_weights(place / "single", place / strategy)


def test_mixed_precision_keeps_float32_shards_and_gathers_bfloat16(folder):
    """Two processes add bfloat16 gradients up in another order than one, so losses agree to bfloat16's 8 bits."""
    place = folder / "mixed"
    place.mkdir()
    (place / "base").symlink_to(folder / "base")
    for strategy, ranks in (("single", 1), ("fsdp", 2)):
        done = _start("mixed", strategy, place, ranks)
        assert done.returncode == 0, done.stderr.decode()[-6000:]
        formats = [json.loads((place / strategy / f"formats-{rank}.json").read_text()) for rank in range(ranks)]
        weight = "torch.bfloat16" if strategy == "fsdp" else "torch.float32"  # autocast converts a single process'
        single = ["torch.float32"]
        expected = {"kept": single, "moments": single, "weight": weight, "output": "torch.bfloat16"}
        assert formats == [expected] * ranks
    one, two = (_losses(place / strategy) for strategy in ("single", "fsdp"))
    assert [place[:2] for place in one] == [place[:2] for place in two]
    assert [place[2] for place in one] == pytest.approx([place[2] for place in two], rel=4e-3)
    assert one[0][2] > 1.05 * one[-1][2]
    checkpointed = load_file(place / "fsdp/model/model.safetensors")
    assert {weight.dtype for weight in checkpointed.values()} == {torch.float32}


@slow
def test_two_ranks_with_compiled_layers_follow_the_losses_of_one(folder):
    """In graphs that are not compiled further. Ten rows of several lengths and two layers share them."""
    place = folder / "compiled"
    place.mkdir()
    (place / "base").symlink_to(folder / "base")
    assert _start("compiled", "single", place, 1).returncode == 0
    done = _start("compiled", "ddp", place, 2)
    assert done.returncode == 0, done.stderr.decode()[-6000:]
    _assert_same_stream(_losses(place / "single"), _losses(place / "ddp"))
    _assert_same_weights(place / "single", place / "ddp")
    assert 0 < json.loads((place / "ddp" / "metrics.json").read_text())["graphs"] < 20


@slow
def test_every_rank_is_deterministic(folder):
    place = folder / "deterministic"
    (place / "ddp").mkdir(parents=True)
    (place / "base").symlink_to(folder / "base")
    done = _start("deterministic", "ddp", place, 2)
    assert done.returncode == 0, done.stderr.decode()[-6000:]
    assert [json.loads((place / f"ddp/deterministic-{n}.json").read_text()) for n in (0, 1)] == [[True, ":4096:8"]] * 2


@slow
def test_weights_split_in_two_halves_are_sharded_saved_and_resumed_by_another_number_of_ranks(folder):
    place = folder / "split"
    place.mkdir()
    (place / "base").symlink_to(folder / "base")
    assert _start("split", "single", place, 1).returncode == 0
    expected = _losses(place / "single")
    (place / "single").rename(place / "expected")
    assert _start("split", "fsdp", place, 2, stop_at=2).returncode != 0
    (checkpoint,) = (place / "fsdp" / "checkpoints").iterdir()
    low = {n: t for n, t in load_file(checkpoint / "tensors.safetensors").items() if "low_bits" in n}
    assert len(low) > 10 and all(tensor.view(torch.int16).any() for tensor in low.values())
    (place / "fsdp").rename(place / "single")
    done = _start("split", "single", place, 1)
    assert done.returncode == 0, done.stderr.decode()[-6000:]
    found = _losses(place / "single")
    assert [place[:2] for place in expected] == [place[:2] for place in found]
    assert [place[2] for place in expected] == pytest.approx([place[2] for place in found], rel=4e-3)


@slow
def test_four_ranks_in_two_pairs_that_share_layers_follow_the_losses_of_one(folder):
    place = folder / "pairs"
    place.mkdir()
    (place / "base").symlink_to(folder / "base")
    assert _start("cpt", "single", place, 1).returncode == 0
    done = _start("cpt", "tp", place, 4)
    assert done.returncode == 0, done.stderr.decode()[-6000:]
    _assert_same_stream(_losses(place / "single"), _losses(place / "tp"))
    _assert_same_weights(place / "single", place / "tp")


@pytest.mark.parametrize("strategy", ["tp", pytest.param("ddp", marks=slow)])
def test_a_stop_of_one_rank_in_validation_stops_all_ranks_after_the_next_step(folder, strategy):
    """T-A7. Ranks that share layers compute each batch together: one that left would leave the others waiting."""
    place = folder / f"stopped-{strategy}"
    place.mkdir()
    (place / "base").symlink_to(folder / "base")
    done = _start("stopped-in-validation", strategy, place, 2, seconds=200)
    assert done.returncode != 0 and b"Error" not in done.stdout
    (checkpoint,) = (place / strategy / "checkpoints").iterdir()
    assert checkpoint.name == "step-00000003"
    lines = [json.loads(line) for line in (place / strategy / "logs/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "valid_loss" in line] == [0, 2]


@pytest.mark.parametrize("first,then", [(2, 1), (1, 2)])
@slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp", "tp"])
def test_a_change_of_the_number_of_ranks_keeps_the_samples_and_the_losses(folder, first, then, engine):
    """T-G3."""
    place = folder / f"{first}-{then}-{engine}"
    place.mkdir()
    (place / "base").symlink_to(folder / "base")
    assert _start("cpt", "single", place, 1).returncode == 0
    names = {1: "single", 2: engine}
    expected = _losses(place / "single")
    (place / "single").rename(place / "expected")
    assert _start("cpt", names[first], place, first, stop_at=2).returncode != 0
    checkpoints = list((place / names[first] / "checkpoints").iterdir())
    assert len(checkpoints) == 1 and checkpoints[0].name in ("step-00000002", "step-00000003")
    (place / names[first]).rename(place / names[then])
    done = _start("cpt", names[then], place, then)
    assert done.returncode == 0, done.stderr.decode()[-6000:]
    _assert_same_stream(expected, _losses(place / names[then]))
