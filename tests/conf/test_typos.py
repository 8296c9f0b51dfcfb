"""T-D1. Each key of each kind of stage, and of all else, with a letter missing: refused with the key that was meant."""

from collections.abc import Iterator
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solar.config.document import keys
from solar.config.kinds import STAGES
from solar.config.root import LoggerConfig, PathsConfig, SolarConfig, TrainerConfig
from solar.config.store import ENTRIES, register
from solar.explain import explain
from solar.run import conf_folder

ELSEWHERE = {"": SolarConfig, "trainer.": TrainerConfig, "logger.": LoggerConfig, "paths.": PathsConfig}
TABLES = {f"stages.{kind}.": row.config for kind, row in STAGES.items()} | ELSEWHERE
"""Where the keys of a dataclass stand -> the dataclass."""


@pytest.fixture(scope="module")
def composed() -> DictConfig:
    """A configuration with a stage of each kind, called as its kind."""
    register()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return compose("config", overrides=["name=x", *(f"+schema@stages.{kind}={kind}" for kind in STAGES)])


def _paths(prefix: str) -> list[str]:
    return [path for path, *_ in keys(TABLES[prefix])]


def _misspelt(path: str, paths: list[str]) -> str:
    """The path with a letter of its last name missing (a name of one letter: doubled); no other key is so called."""
    parent, dot, name = path.rpartition(".")
    drops = [name[:at] + name[at + 1 :] for at in range(len(name) - 1, -1, -1)] if len(name) > 1 else [name * 2]
    return next(parent + dot + drop for drop in drops if parent + dot + drop not in paths)


def _lines(error: Exception, words: list[str]) -> Iterator[str]:
    """What `solar.run` prints of an error that Hydra found in a word of the command line or in a file."""
    found = ConfigCompositionException("Could not compose")
    found.__cause__ = error
    yield from explain(found, words, conf_folder()).splitlines()


@pytest.mark.parametrize("prefix", TABLES)
def test_a_letter_that_is_missing_on_the_command_line_is_found(prefix: str, composed: DictConfig) -> None:
    paths = _paths(prefix)
    for path in paths:
        wrong = f"{prefix}{_misspelt(path, paths)}"
        if "<name>" in path or "[]" in path or OmegaConf.select(composed, wrong.rpartition(".")[0]) is None:
            continue  # below a list, a mapping or a null, the command line gives all of it
        with pytest.raises(OmegaConfBaseException) as refusal:
            OmegaConf.update(composed, wrong, 1, merge=True)  # as Hydra does
        (line,) = _lines(refusal.value, [f"{wrong}=1"])
        assert line.startswith(f"{wrong}: no such key in ") and line.endswith(f"did you mean '{path.split('.')[-1]}'?")


def _nested(path: str) -> Any:
    """What a file says that sets this key alone."""
    head, _, rest = path.partition(".")
    value = _nested(rest) if rest else 1
    return {head.removesuffix("[]"): [value]} if head.endswith("[]") else {head: value}


@pytest.mark.parametrize("prefix", TABLES)
def test_a_letter_that_is_missing_in_a_file_is_found(prefix: str, composed: DictConfig) -> None:
    """Also in entries of lists and of mappings."""
    paths, alone = _paths(prefix), composed.copy()
    OmegaConf.set_struct(alone, False)
    for kind in STAGES:
        if prefix != f"stages.{kind}.":
            del alone.stages[kind]
    OmegaConf.set_struct(alone, not prefix)  # Hydra closes a configuration once all files are read
    for path in paths:
        wrong = f"{prefix}{_misspelt(path, paths).replace('<name>', 'mine')}"
        with pytest.raises(OmegaConfBaseException) as refusal:
            alone.copy().merge_with(OmegaConf.create(_nested(wrong)))  # as Hydra does
        (line,) = _lines(refusal.value, [])
        name, meant = wrong.split(".")[-1], path.split(".")[-1]
        assert "no such key" in line and name in line and line.endswith(f"did you mean '{meant}'?"), (wrong, line)


def test_every_entry_that_a_user_names_is_one_of_the_tables() -> None:
    """Else a schema could have keys that nobody misspells here."""
    nested = {str(annotation) for prefix in TABLES for _, _, annotation, _ in keys(TABLES[prefix])}
    assert all(any(entry.__name__ in text for text in nested) for entry in ENTRIES.values())
