"""Keys that no schema has, and list entries that do not exist."""

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from traceback import walk_tb

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from solar.config.store import ENTRIES
from solar.errors import SolarError, hint
from solar.explain.files import own_folder
from solar.explain.groups import is_group

KNOWN = (SolarError, HydraException, OmegaConfBaseException)
"""Exceptions about the user's configuration."""


def unknown_key(key: str, entry: type | None, arguments: Sequence[str], conf: Path) -> str:
    parent, _, name = key.rpartition(".")
    known = [item.name for item in fields(entry)] if is_dataclass(entry) else _keys(parent, arguments, conf)
    whose = f"stages.{parent.split('.')[1]}" if parent.startswith("stages.") else parent or "the configuration"
    if known == [] and not any(argument.startswith("+") and key in argument for argument in arguments):
        return f"{key}: {parent or whose} is empty; a plus adds to it, as in '+{key}=...'"
    return f"{key}: no such key in {parent or whose}{hint(name, known or [])}"


def unknown_in_list(name: str, entry: type, arguments: Sequence[str]) -> str:
    """OmegaConf does not say which list holds the entry with an unknown key; the command line may."""
    written = (argument.lstrip("+~").partition("=") for argument in arguments)
    place = next((f"{key}: " for key, _, value in written if re.search(rf"\b{re.escape(name)}\b", value)), "")
    return f"{place}no such key '{name}' in an entry of the list{hint(name, [item.name for item in fields(entry)])}"


def no_entry(key: str, name: str, wanted: str) -> str:
    """The line for `+stages.data.sources.mine={...}`: Hydra gives a new entry no schema."""
    place = re.sub(rf"(\.{re.escape(name)})\..*", r"\1", key)
    schema = next(schema for schema, entry in ENTRIES.items() if entry.__name__ == wanted)
    return f"{place}: a new entry starts from its schema: `+schema@{place}={schema}`, then its keys without a plus"


def beyond_a_list(arguments: Sequence[str]) -> str:
    """OmegaConf does not say which list has no such entry; the command line may."""
    keys = (argument.lstrip("+~").partition("=")[0] for argument in arguments)
    key = next((key for key in keys if re.search(r"\.\d+(\.|$)", key)), "a key with a number")
    return f"{key}: the list has no such entry; write the whole list as key=[a,b]"


def word_below_a_list(error: Exception, arguments: Sequence[str]) -> str | None:
    """The line for `some_list.word=value`, where OmegaConf passes the word to `int`."""
    literal = re.search(r"invalid literal for int\(\) with base 10: '(.+)'", str(error))
    for argument in arguments if literal else ():
        key = argument.lstrip("+~").partition("=")[0]
        if literal and literal[1] in key.split("."):
            return f"{key}: found '{literal[1]}' below a list, expected the number of an entry"
    return None


def below_null(error: Exception) -> str | None:
    """The line for `decontaminate.ngram=13` where `decontaminate` is null, which OmegaConf refuses by an assertion."""
    if not str(error).startswith(("Unexpected type for root: NoneType", "Unexpected type: None")):
        return None
    frames = [frame for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_name in ("update", "select_value")]
    key = next(str(frame.f_locals["key"]) for frame in frames if "key" in frame.f_locals)
    parent, _, name = key.rpartition(".")
    return f"{key}: {parent} is null, expected keys with values; give all of them, as {parent}={{{name}: ...}}"


def _keys(parent: str, arguments: Sequence[str], conf: Path) -> list[str] | None:
    """The valid keys below `parent`: those of the same composition without the values from the command line.

    None where the composition fails.
    """
    own = own_folder(arguments)
    folders = [conf] if own is None else [conf, own]
    groups = [
        argument
        for argument in arguments
        if re.match(r"[+~]*[\w/@.]+=", argument) and any(is_group(argument, folder) for folder in folders)
    ]
    searched = [] if own is None else [f"hydra.searchpath=['file://{own}']"]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            node = compose("config", overrides=[*groups, *searched])
    except KNOWN:
        return None
    node = OmegaConf.select(node, parent) if parent else node
    return [str(key) for key in node] if isinstance(node, DictConfig) else None
