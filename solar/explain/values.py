"""Values of another type than the schema's.

OmegaConf raises two of these errors without the key. Its frames on the traceback hold the key; the only other way is to
merge the user's file again, key by key, and to repeat OmegaConf's rules for it.
"""

import re
from collections.abc import Callable
from traceback import walk_tb

from omegaconf import Container, ListConfig
from omegaconf.errors import ValidationError

_A = {"float": "a number", "int": "a whole number", "str": "a word", "bool": "true or false"}
_TYPES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "a word"}


def wrong_value(error: ValidationError) -> str:
    key, text = str(error.full_key), first_line(error)
    if "is not a subclass of StageConfig" in text or re.fullmatch(r"stages\.\w+", key):
        stage = key.removeprefix("stages.")
        return no_schema(stage)
    if text.startswith("Merge error"):  # a message without the key
        merges = [frame.f_locals for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_name == "_map_merge"]
        key = ".".join(str(merge["key"]) for merge in merges if "key" in merge)
    where = f"{key}: " if key else ""
    for pattern, sentence in _SENTENCES.items():
        if (found := re.fullmatch(pattern, text)) is not None:
            return where + sentence(*found.groups())
    return where + text


def unlike(error: Exception) -> str:
    """The line for a list in place of keys with values, or the other way round."""
    merges = [frame.f_locals for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_name == "_merge_with"]
    container = merges[-1].get("self") if merges else None
    key = container._get_full_key(None) if isinstance(container, Container) else ""
    found, expected = "a list", "keys with values, {key: value}"
    if isinstance(container, ListConfig):
        found, expected = "keys with values", "a list such as [a,b]"
    return f"{key}: found {found}, expected {expected}" if key else f"found {found}, expected {expected}"


def no_schema(stage: str) -> str:
    return (
        f"stages.{stage}: a stage starts from a recipe or a schema; "
        f"mount one with `+stage@stages.{stage}=sft` or in an experiment's defaults"
    )


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


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
"""OmegaConf's message about a value -> our words."""
