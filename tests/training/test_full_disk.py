"""T-A6. A disk that fills up, or becomes read-only, stops a training in one line, and costs it nothing but time."""

import hashlib
from pathlib import Path

import pytest
from tiny import llama_folder, row, settings, train_rows

from solar.config.training import PretrainConfig
from solar.errors import SolarError
from solar.training.checkpoint.points import checkpoints, newest_whole
from tests.faults.disks import remount, small_disk

ROWS = [row(9, 6, seed=n, sample=n) for n in range(8)]
CONFIG = PretrainConfig(**settings(duration="6 steps"))


def _train(base: Path, output: Path) -> str:
    train_rows(ROWS, CONFIG, base, output, checkpoint_every_seconds=0.0)
    return hashlib.sha256((output / "model/model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama_folder(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def expected(base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _train(base, tmp_path_factory.mktemp("straight") / "output")


def _tiny(base: Path) -> int:
    """kB of a model; a checkpoint holds it three times."""
    return (base / "model.safetensors").stat().st_size // 1024


@pytest.mark.parametrize("models", [1, 2.8, 4, 5.9])
def test_a_training_goes_on_to_the_same_bytes_when_there_is_room_again(base, expected, tmp_path, models):
    """Room for so many models: for less than one checkpoint, which is three, or for less than two."""
    with small_disk(tmp_path / "disk", f"{int(models * _tiny(base)) + 24}k") as disk:
        with pytest.raises(SolarError, match="No space left on device") as refusal:
            _train(base, disk / "output")
        assert "\n" not in str(refusal.value) and not (disk / "output/model/model.safetensors").exists()
        before = newest_whole(disk / "output/checkpoints")
        assert before[1] == [], "a torn checkpoint has the name of a whole one"
        assert (before[0] is not None) is (models > 3.5)
        remount(disk, "size=20m")
        assert _train(base, disk / "output") == expected


def test_a_disk_that_becomes_read_only_is_one_line_and_finished_work_stays(base, expected, tmp_path):
    with small_disk(tmp_path / "disk", "20m") as disk:
        assert _train(base, disk / "output") == expected
        kept = checkpoints(disk / "output/checkpoints")
        remount(disk, "ro")
        with pytest.raises((SolarError, OSError), match="Read-only file system"):
            _train(base, disk / "output")
        assert checkpoints(disk / "output/checkpoints") == kept
        remount(disk, "rw")
        assert _train(base, disk / "output") == expected
