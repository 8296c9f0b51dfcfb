"""What Hydra and OmegaConf found wrong, in one line: where, what was found, what was expected, a way out."""

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from traceback import walk_tb

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import Container, DictConfig, ListConfig, OmegaConf
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
from yaml import MarkedYAMLError
from yaml.reader import ReaderError

from solar.config.base import StageConfig
from solar.config.root import SolarConfig
from solar.config.store import ENTRIES
from solar.errors import ConfigError, SolarError
from solar.plan.graph import hint

KNOWN = (SolarError, HydraException, OmegaConfBaseException)
"""Exceptions that speak of what the user wrote."""

_A = {"float": "a number", "int": "a whole number", "str": "a word", "bool": "true or false"}
_TYPES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "a word"}


def explain(error: Exception, arguments: Sequence[str], conf: Path) -> str:
    """The line (or, where there are several problems, lines) to print."""
    cause = error.__cause__ or (error.__context__ if isinstance(error, HydraException) else None)
    if not isinstance(cause, OmegaConfBaseException):
        return _explain(error, arguments, conf)
    override = re.match(r"Error merging override \++([^=]+)=", str(error))
    new = re.match(r"Invalid type assigned: dict is not a subclass of (\w+)", str(cause))
    if new and override and new[1] in {entry.__name__ for entry in ENTRIES.values()}:
        return _no_entry(override[1], str(cause.key), new[1])
    in_file = re.match(r"In '(.+?)': ", str(error))  # Hydra names the file and leaves out the rest
    if in_file and in_file[1].startswith("experiment/") and str(getattr(cause, "full_key", "")) == "experiment":
        return f"{in_file[1]}.yaml: its first line must be `# @package _global_`, and keys with values must follow"
    return (f"{in_file[1]}.yaml: " if in_file else "") + _explain(cause, arguments, conf)


def _explain(cause: Exception, arguments: Sequence[str], conf: Path) -> str:
    match cause:
        case SolarError():
            return str(cause)
        case MissingConfigException():
            return _missing_choice(str(cause))
        case OverrideParseException():
            return f"{cause.override}: {_first_line(cause)}; quote values with special characters, as key='\"value\"'"
        case ConfigKeyError() if "." not in str(cause.full_key) and cause.object_type not in (None, dict, SolarConfig):
            return _unknown_in_list(str(cause.key), cause.object_type, arguments)
        case ConfigKeyError() | ConfigAttributeError() if cause.object_type is StageConfig:
            return _no_schema(str(cause.full_key).split(".")[1])
        case ConfigKeyError() | ConfigAttributeError():
            return _unknown_key(str(cause.full_key), cause.object_type, arguments, conf)
        case InterpolationKeyError() | InterpolationResolutionError():
            return f"{cause.full_key}: {_first_line(cause)}"
        case KeyValidationError():
            return f"{cause.full_key}: found the key {cause.key}, expected a word; quote it, as '{cause.key}'"
        case ValidationError():
            return _wrong_value(cause)
        case ConfigTypeError() if "does not support deletion" in str(cause):
            return f"~{cause.full_key}: a setting of a schema cannot be taken away; give it another value"
        case ConfigTypeError() if "Cannot merge" in str(cause):
            return _unlike(cause)
        case GrammarParseError():
            return f"{_first_line(cause)}: no interpolation such as ${{paths.root}}; write \\${{ for the characters"
        case _:
            no_group = re.match(r"Could not override '(.*?)'", str(cause))
            if no_group is not None:
                return _no_such_group(no_group[1], str(cause))
            if str(cause).startswith("list index out of range"):
                return _beyond_a_list(arguments)
            ambiguous = re.match(r"Ambiguous value for argument '(.*?)=", str(cause))
            if ambiguous is not None:
                return f"{ambiguous[1]}: several values; add --multirun to run each, or write a list as [a,b]"
            return _first_line(cause)


def _unlike(error: Exception) -> str:
    """OmegaConf does not say where a list met keys with values; its own frames know."""
    merges = [frame.f_locals for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_name == "_merge_with"]
    there = merges[-1].get("self") if merges else None
    key = there._get_full_key(None) if isinstance(there, Container) else ""
    found, expected = "a list", "keys with values, {key: value}"
    if isinstance(there, ListConfig):
        found, expected = "keys with values", "a list such as [a,b]"
    return f"{key}: found {found}, expected {expected}" if key else f"found {found}, expected {expected}"


def word_below_a_list(error: Exception, arguments: Sequence[str]) -> str | None:
    """The line for `some_list.word=value`, where OmegaConf takes the word for a number and raises what `int` raises."""
    literal = re.search(r"invalid literal for int\(\) with base 10: '(.+)'", str(error))
    for argument in arguments if literal else ():
        key = argument.lstrip("+~").partition("=")[0]
        if literal and literal[1] in key.split("."):
            return f"{key}: found '{literal[1]}' below a list, expected the number of an entry"
    return None


def _beyond_a_list(arguments: Sequence[str]) -> str:
    """OmegaConf does not say which list has no such entry; the command line may."""
    keys = (argument.lstrip("+~").partition("=")[0] for argument in arguments)
    key = next((key for key in keys if re.search(r"\.\d+(\.|$)", key)), "a key with a number")
    return f"{key}: the list has no such entry; write the whole list as key=[a,b]"


def unreadable(error: Exception, arguments: Sequence[str]) -> str | None:
    """The line for a file that is no YAML, or does not say what Hydra needs; None if this is another kind of error."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        place = error.problem_mark
        return f"{place.name}:{place.line + 1}: {error.problem or error.context}"
    if isinstance(error, UnicodeDecodeError | ReaderError):
        own = _own_folder(arguments)
        files = sorted(own.rglob("*.yaml"), key=lambda file: f"={file.stem}" not in " ".join(arguments)) if own else []
        return next((f"{file}: this is not UTF-8 text" for file in files if _is_no_text(file)), None)
    found = re.match(r"Invalid defaults list in '(.+?)', (.+)", str(error))
    return f"{found[1]}.yaml: {found[2]}" if found else None


def _is_no_text(file: Path) -> bool:
    try:
        file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return True
    return False


def refuse_null_groups(arguments: Sequence[str], conf: Path) -> None:
    """Raises `ConfigError` for `trainer=null` and the like, which make Hydra crash."""
    for argument in arguments:
        group, said, value = argument.lstrip("+").partition("=")
        if said and not group:
            raise ConfigError(f"'{argument}': no key, expected key=value")
        if said and value in ("null", "") and is_group(argument, conf):
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


def _unknown_key(key: str, entry: type | None, arguments: Sequence[str], conf: Path) -> str:
    parent, _, name = key.rpartition(".")
    known = [item.name for item in fields(entry)] if is_dataclass(entry) else _keys(parent, arguments, conf)
    whose = f"stages.{parent.split('.')[1]}" if parent.startswith("stages.") else parent or "the configuration"
    if known == [] and not any(argument.startswith("+") and key in argument for argument in arguments):
        return f"{key}: {parent or whose} is empty; a plus adds to it, as in '+{key}=...'"
    return f"{key}: no such key in {parent or whose}{hint(name, known or [])}"


def _unknown_in_list(name: str, entry: type, arguments: Sequence[str]) -> str:
    """OmegaConf does not know in which list an entry with an unknown key stands; the command line may."""
    written = (argument.lstrip("+~").partition("=") for argument in arguments)
    place = next((f"{key}: " for key, _, value in written if re.search(rf"\b{re.escape(name)}\b", value)), "")
    return f"{place}no such key '{name}' in an entry of the list{hint(name, [item.name for item in fields(entry)])}"


def _keys(parent: str, arguments: Sequence[str], conf: Path) -> list[str] | None:
    """Keys that would have been legal: those of the same composition without the values from the command line.

    None where nobody can say.
    """
    own = _own_folder(arguments)
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


def _own_folder(arguments: Sequence[str]) -> Path | None:
    """What `--config-dir` names."""
    for place, argument in enumerate(arguments):
        if argument in ("--config-dir", "-cd"):
            return Path(*arguments[place + 1 : place + 2]).absolute()
        if argument.startswith("--config-dir="):
            return Path(argument.partition("=")[2]).absolute()
    return None


def is_group(argument: str, conf: Path) -> bool:
    """Whether an argument chooses one of the YAML files of a folder, as `trainer=gpu` does."""
    return (conf / argument.lstrip("+~").split("=")[0].split("@")[0]).is_dir()


def _wrong_value(error: ValidationError) -> str:
    key, text = str(error.full_key), _first_line(error)
    if "is not a subclass of StageConfig" in text or re.fullmatch(r"stages\.\w+", key):
        stage = key.removeprefix("stages.")
        return _no_schema(stage)
    if text.startswith("Merge error"):  # said without the key
        merges = [frame.f_locals for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_name == "_map_merge"]
        key = ".".join(str(merge["key"]) for merge in merges if "key" in merge)
    where = f"{key}: " if key else ""
    for pattern, sentence in _SENTENCES.items():
        if (found := re.fullmatch(pattern, text)) is not None:
            return where + sentence(*found.groups())
    return where + text


def _no_schema(stage: str) -> str:
    return (
        f"stages.{stage}: a stage starts from a recipe or a schema; "
        f"mount one with `+stage@stages.{stage}=sft` or in an experiment's defaults"
    )


_SENTENCES: dict[str, Callable[..., str]] = {
    r"Value '(.*)' of type '\w+' could not be converted to (\w+)": (
        lambda value, wanted: f"found '{value}', expected {_TYPES.get(wanted, wanted)}"
    ),
    r"Invalid value '(.*)', expected one of \[(.*)\]": lambda value, names: f"found '{value}', expected {names}",
    r"Invalid value assigned: (\w+) is not a ListConfig.*": (
        lambda kind: f"found {_A.get(kind, kind)}, expected a list such as [a,b]"
    ),
    r"Cannot assign (\w+) to Dict.*|Invalid type assigned: (\w+) is not a subclass of .*": (
        lambda *kinds: (
            f"found {_A.get(kinds[0] or kinds[1], 'something else')}, expected keys with values, {{key: value}}"
        )
    ),
    r"Merge error: \w+ is not a subclass of (\w+)\. value: (.*)": (
        lambda wanted, value: f"found '{value}', expected the keys of {wanted}, {{key: value}}"
    ),
    r"field '.*' is not Optional": lambda: "found null, expected a value; leave the key out for what the recipe says",
}
"""What OmegaConf says of a value -> the same in our words."""


def _no_entry(key: str, name: str, wanted: str) -> str:
    """For `+stages.data.sources.mine={...}`: Hydra gives a new entry no schema by itself."""
    place = re.sub(rf"(\.{re.escape(name)})\..*", r"\1", key)
    schema = next(schema for schema, entry in ENTRIES.items() if entry.__name__ == wanted)
    return f"{place}: a new entry starts from its schema: `+schema@{place}={schema}`, then its keys without a plus"


def _no_such_group(group: str, told: str) -> str:
    """For `optimizer=x`, where the choice stands at one or several places of the experiment."""
    places = re.search(r"override (?:one of )?(.+?)\?$", told, flags=re.MULTILINE)
    if places is not None:
        return f"{group}: choose it where it stands, such as {places[1].split(', ')[0]}=... (it stands at {places[1]})"
    if group == "hydra":
        return "hydra: holds Hydra's own settings, expected one of their keys, such as hydra.run.dir=..."
    return f"{group}: nothing to override; to add it write +{group}=..., and docs/configuration.md says what there is"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
