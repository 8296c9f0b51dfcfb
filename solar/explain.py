"""What Hydra and OmegaConf found wrong, in one line: where, what was found, what was expected, a way out."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
    ValidationError,
)

from solar.errors import ConfigError, SolarError
from solar.plan.graph import hint

KNOWN = (SolarError, HydraException, OmegaConfBaseException)
"""Exceptions that speak of what the user wrote."""

_TYPES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "a word"}


def explain(error: Exception, arguments: Sequence[str], conf: Path) -> str:
    """The line (or, where there are several problems, lines) to print."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    match cause:
        case SolarError():
            return str(cause)
        case MissingConfigException():
            return _missing_choice(str(cause))
        case OverrideParseException():
            return f"{cause.override}: {_first_line(cause)}; quote values with special characters, as key='\"value\"'"
        case ConfigKeyError() | ConfigAttributeError():
            return _unknown_key(str(cause.full_key), arguments, conf)
        case InterpolationKeyError() | InterpolationResolutionError():
            return f"{cause.full_key}: {_first_line(cause)}"
        case ValidationError():
            return _wrong_value(cause)
        case _:
            ambiguous = re.match(r"Ambiguous value for argument '(.*?)=", str(cause))
            if ambiguous is not None:
                return f"{ambiguous[1]}: several values; add --multirun to run each, or write a list as [a,b]"
            return _first_line(cause)


def refuse_null_groups(arguments: Sequence[str], conf: Path) -> None:
    """Raises `ConfigError` for `trainer=null` and the like, which make Hydra crash."""
    for argument in arguments:
        group, _, value = argument.lstrip("+").partition("=")
        if value in ("null", "") and _is_group(argument, conf):
            files = sorted(path.stem for path in (conf / group.split("@")[0]).glob("*.yaml"))
            raise ConfigError(f"{group}: found '{value}', expected one of {', '.join(files)}")


def _missing_choice(text: str) -> str:
    found = re.search(r"Could not find '(.+?)'", text)
    options = re.findall(r"^\t(?!provider=)(\S+)$", text, flags=re.MULTILINE)
    if found is None:
        return text.splitlines()[0]
    group, _, name = found.group(1).rpartition("/")
    close = hint(name, options)
    listed = f" ({', '.join(options)})" if "did you mean" in close else ""
    return f"{group}: there is no '{name}'{close}{listed}"


def _unknown_key(key: str, arguments: Sequence[str], conf: Path) -> str:
    parent, _, name = key.rpartition(".")
    known = _keys(parent, arguments, conf)
    whose = f"stages.{parent.split('.')[1]}" if parent.startswith("stages.") else parent or "the configuration"
    return f"{key}: no such key in {parent or whose}{hint(name, known)}"


def _keys(parent: str, arguments: Sequence[str], conf: Path) -> Iterable[str]:
    """Keys that would have been legal: those of the same composition without the values from the command line."""
    groups = [argument for argument in arguments if re.match(r"[+~]*[\w/@.]+=", argument) and _is_group(argument, conf)]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            node = compose("config", overrides=groups)
    except KNOWN:
        return []
    node = OmegaConf.select(node, parent) if parent else node
    return [str(key) for key in node] if isinstance(node, DictConfig) else []


def _is_group(argument: str, conf: Path) -> bool:
    return (conf / argument.lstrip("+~").split("=")[0].split("@")[0]).is_dir()


def _wrong_value(error: ValidationError) -> str:
    text = _first_line(error)
    wrong_type = re.fullmatch(r"Value '(.*)' of type '(\w+)' could not be converted to (\w+)", text)
    if wrong_type is not None:
        value, _, wanted = wrong_type.groups()
        return f"{error.full_key}: found '{value}', expected {_TYPES.get(wanted, wanted)}"
    choice = re.fullmatch(r"Invalid value '(.*)', expected one of \[(.*)\]", text)
    if choice is not None:
        return f"{error.full_key}: found '{choice.group(1)}', expected {choice.group(2)}"
    if "is not a subclass of StageConfig" in text:
        return (
            f"stages.{error.full_key}: a stage starts from a recipe or a schema; "
            f"mount one with `+stage@stages.{error.full_key}=sft` or in an experiment's defaults"
        )
    return f"{error.full_key}: {text}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
