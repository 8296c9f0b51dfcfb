"""A configuration file that nobody composes is broken and nobody knows: compose all of them, and count."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from solar.config.root import typed
from solar.config.store import register
from solar.plan.checks.check import check
from solar.run import conf_folder

CONF = conf_folder()
FILES = sorted(path.relative_to(CONF).with_suffix("") for path in CONF.rglob("*.yaml"))
MOUNTS = {
    "base": "+base@stages={}",
    "upscale": "+upscale@stages.upscale={}",
    "data": "+data@stages.some_data={}",
    "stage": "+stage@stages.some={}",
    "optimizer": "optimizer@stages.base.optimizer={}",
    "schedule": "schedule@stages.base.schedule={}",
    "trainer": "trainer={}",
    "logger": "logger={}",
    "paths": "paths={}",
    "sweep": "+sweep={}",
}
"""Group -> how a person chooses one of its files."""
SOURCE = "+data/source@stages.some_data.sources.one={}"
TOLD = {
    "dus_10b_math": ["stages.math.seeds.path=.", "stages.math.base_url=http://host/v1", "stages.math.server_model=m"],
}
"""Overrides that an experiment requires."""


def _compose(*overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def _experiments() -> list[str]:
    return [path.relative_to("experiment").as_posix() for path in FILES if path.parts[0] == "experiment"]


@pytest.mark.parametrize("experiment", _experiments())
def test_experiment_composes_and_has_no_problems(experiment: str) -> None:
    """T-D4."""
    composed = _compose(f"+experiment={experiment}", *TOLD.get(experiment, []))
    check(typed(composed))


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] in MOUNTS], ids=str)
def test_group_file_composes_where_it_is_mounted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T-D4."""
    monkeypatch.setenv("SCRATCH", "scratch")
    group, name = path.parts[0], "/".join(path.parts[1:])
    # Optimizers and schedules replace those of a stage that is there.
    base = ["+base@stages=scratch_tiny"] if group in ("optimizer", "schedule") else []
    mount = MOUNTS[group].format(name)
    if name.startswith("source/"):  # one of the sources of data that are there
        base, mount = ["+data@stages.some_data=pretrain_local_docs"], SOURCE.format(path.name)
    composed = _compose(*base, mount)
    # What only an experiment can say (which model, how long) may be missing; everything else must convert.
    assert OmegaConf.to_container(composed, resolve=True)


def test_no_file_is_left_out() -> None:
    """T-D4."""
    tested = [path for path in FILES if path.parts[0] in MOUNTS or path.parts[0] == "experiment"]
    assert set(FILES) - set(tested) == {Path("config")}


def test_no_file_can_run_code() -> None:
    """T-E6."""
    for path in CONF.rglob("*.yaml"):
        assert "_target_" not in path.read_text(encoding="utf-8"), path
