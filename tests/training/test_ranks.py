"""Several processes train what one process trains."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import llama_folder

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("ranks")
    llama_folder(place / "base")
    (place / "data").mkdir()
    return place


def _start(kind, strategy, folder, ranks, stop_at=None):
    """Exit code of a training on so many processes."""
    launch = [sys.executable] if ranks == 1 else [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    arguments = [str(HERE / "ranks.py"), kind, strategy, str(folder), *([str(stop_at)] if stop_at else [])]
    path = f"{HERE}:{HERE.parent.parent}"
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "HOME": str(folder)}
    return subprocess.run([*launch, *arguments], env=environment, cwd=HERE, capture_output=True, timeout=200)


def _losses(output):
    lines = [json.loads(line) for line in (output / "logs/metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["tokens"], line.get("loss", line.get("valid_loss"))) for line in lines]


def _assert_same_stream(one, two):
    assert [place[:2] for place in one] == [place[:2] for place in two]
    assert [place[2] for place in one] == pytest.approx([place[2] for place in two], rel=1e-5)


@pytest.mark.parametrize("kind", ["cpt", "dpo"])
def test_two_ranks_follow_the_losses_of_one(folder, kind):
    place = folder / kind
    place.mkdir()
    (place / "base").symlink_to(folder / "base")
    (place / "data").mkdir()
    assert _start(kind, "single", place, 1).returncode == 0
    for strategy in ("ddp", "fsdp"):
        done = _start(kind, strategy, place, 2)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        _assert_same_stream(_losses(place / "single"), _losses(place / strategy))
        metrics = json.loads((place / strategy / "metrics.json").read_text())
        if kind == "dpo":
            assert metrics["margin_first"] == 0.0
        assert (place / strategy / "model/model.safetensors").exists()


@pytest.mark.parametrize("first,then", [(2, 1), (1, 2)])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_change_of_the_number_of_ranks_keeps_the_samples_and_the_losses(folder, first, then, sharded):
    place = folder / f"{first}-{then}-{sharded}"
    place.mkdir()
    (place / "base").symlink_to(folder / "base")
    assert _start("cpt", "single", place, 1).returncode == 0
    names = {1: "single", 2: "fsdp" if sharded else "ddp"}
    expected = _losses(place / "single")
    (place / "single").rename(place / "expected")
    assert _start("cpt", names[first], place, first, stop_at=2).returncode != 0
    checkpoints = list((place / names[first] / "checkpoints").iterdir())
    assert len(checkpoints) == 1 and checkpoints[0].name in ("step-00000002", "step-00000003")
    (place / names[first]).rename(place / names[then])
    done = _start("cpt", names[then], place, then)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    _assert_same_stream(expected, _losses(place / names[then]))
