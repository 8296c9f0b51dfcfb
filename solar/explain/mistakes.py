"""Errors of Hydra and OmegaConf in one line: where, what was found, what was expected, a way out."""

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    ConfigTypeError,
    GrammarParseError,
    InterpolationKeyError,
    InterpolationResolutionError,
    KeyValidationError,
    OmegaConfBaseException,
    ValidationError,
)

from solar.config.base import StageConfig
from solar.config.root import SolarConfig
from solar.config.store import ENTRIES
from solar.errors import SolarError
from solar.explain.groups import missing_choice, no_such_group
from solar.explain.keys import beyond_a_list, no_entry, unknown_in_list, unknown_key
from solar.explain.values import first_line, no_schema, unlike, wrong_value


def explain(error: Exception, arguments: Sequence[str], conf: Path) -> str:
    """The line to print; several lines where there are several problems."""
    cause = error.__cause__ or (error.__context__ if isinstance(error, HydraException) else None)
    if not isinstance(cause, OmegaConfBaseException):
        return _explain(error, arguments, conf)
    override = re.match(r"Error merging override \++([^=]+)=", str(error))
    new = re.match(r"Invalid type assigned: dict is not a subclass of (\w+)", str(cause))
    if new and override and new[1] in {entry.__name__ for entry in ENTRIES.values()}:
        return no_entry(override[1], str(cause.key), new[1])
    in_file = re.match(r"In '(.+?)': ", str(error))  # Hydra names the file and leaves out the rest
    if in_file and in_file[1].startswith("experiment/") and str(getattr(cause, "full_key", "")) == "experiment":
        return f"{in_file[1]}.yaml: its first line must be `# @package _global_`, and keys with values must follow"
    return (f"{in_file[1]}.yaml: " if in_file else "") + _explain(cause, arguments, conf)


def _explain(cause: Exception, arguments: Sequence[str], conf: Path) -> str:
    match cause:
        case SolarError():
            return str(cause)
        case MissingConfigException():
            return missing_choice(str(cause))
        case OverrideParseException():
            return f"{cause.override}: {first_line(cause)}; quote values with special characters, as key='\"value\"'"
        case ConfigKeyError() if "." not in str(cause.full_key) and cause.object_type not in (None, dict, SolarConfig):
            return unknown_in_list(str(cause.key), cause.object_type, arguments)
        case ConfigKeyError() | ConfigAttributeError() if cause.object_type is StageConfig:
            return no_schema(str(cause.full_key).split(".")[1])
        case ConfigKeyError() | ConfigAttributeError():
            return unknown_key(str(cause.full_key), cause.object_type, arguments, conf)
        case InterpolationKeyError() | InterpolationResolutionError():
            return f"{cause.full_key}: {first_line(cause)}"
        case KeyValidationError():
            return f"{cause.full_key}: found the key {cause.key}, expected a word; quote it, as '{cause.key}'"
        case ValidationError():
            return wrong_value(cause)
        case ConfigTypeError() if "does not support deletion" in str(cause):
            return f"~{cause.full_key}: a setting of a schema cannot be taken away; give it another value"
        case ConfigTypeError() if "Cannot merge" in str(cause):
            return unlike(cause)
        case GrammarParseError():
            return f"{first_line(cause)}: no interpolation such as ${{paths.root}}; write \\${{ for the characters"
        case _:
            no_group = re.match(r"Could not override '(.*?)'", str(cause))
            if no_group is not None:
                return no_such_group(no_group[1], str(cause))
            if str(cause).startswith("list index out of range"):
                return beyond_a_list(arguments)
            ambiguous = re.match(r"Ambiguous value for argument '(.*?)=", str(cause))
            if ambiguous is not None:
                return f"{ambiguous[1]}: several values; add --multirun to run each, or write a list as [a,b]"
            return first_line(cause)
