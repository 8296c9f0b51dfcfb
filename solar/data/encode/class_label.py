"""The class label of a tokenizer, by which transformers may build another tokenizer than `tokenizer.json` describes.

transformers 5 takes only vocabulary and merges from `tokenizer.json` where the label (or the type of the model) names
one of its own classes, and builds the rest anew: a Llama folder labelled `GPT2Tokenizer` splits digits as GPT-2 does.
Here the file is the truth. The label only adds roles (BOS, EOS, ...) that no file names.
"""

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from solar.errors import DataError, library_errors

FILE = "tokenizer.json"
CONFIG = "tokenizer_config.json"
NEUTRAL_LABEL = "PreTrainedTokenizerFast"
"""Every version of transformers reads `tokenizer.json` as it is under this label, except for models of type qwen2."""
_NOT_COMPARED = ("version", "truncation", "padding")


def read_file(folder: Path) -> Any:
    """The tokenizer that `tokenizer.json` describes, with the roles, added tokens and chat template of its other files.

    Warns where plain transformers builds another tokenizer from the same folder. Raises `DataError` for a damaged file.
    """
    with damaged(folder / FILE):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, trust_remote_code=False)
        tokenizer.decode(tokenizer.encode("a"))  # a post-processor may panic at the first text
    labelled = _by_label(folder)
    if labelled is not None:
        for role in missing_roles(tokenizer, labelled):
            setattr(tokenizer, role, getattr(labelled, role))
        if part := difference(tokenizer, labelled):
            warnings.warn(
                f"{folder}: plain transformers does not use its {FILE} as it is, but a {type(labelled).__name__} with "
                f"another {part}; solar uses the file, and so does PreTrainedTokenizerFast.from_pretrained",
                stacklevel=2,
            )
    return tokenizer


def relabel(folder: Path) -> str:
    """Give a tokenizer that plain transformers would build otherwise a label under which `tokenizer.json` is used.

    Returns what was changed, for a stage's line. Nothing is written (and "" returned) where the label does no harm, or
    where no label helps.
    """
    labelled = _by_label(folder) if (folder / FILE).is_file() else None
    if labelled is None:
        return ""
    with damaged(folder / FILE):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, trust_remote_code=False)
    if not difference(tokenizer, labelled):
        return ""
    path = folder / CONFIG
    before = path.read_text(encoding="utf-8") if path.exists() else None
    roles = {role: getattr(labelled, role) for role in missing_roles(tokenizer, labelled)}
    settings = {**json.loads(before or "{}"), **roles, "tokenizer_class": NEUTRAL_LABEL}
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if _by_label(folder) is not None:  # the model's type decides
        path.unlink() if before is None else path.write_text(before, encoding="utf-8")
        return ""
    return f", tokenizer relabelled from {type(labelled).__name__} to {NEUTRAL_LABEL}, so that {FILE} is used as it is"


def missing_roles(tokenizer: Any, labelled: Any) -> list[str]:
    """Roles that only the label's class gives to a token of the vocabulary, such as `eos_token`."""
    vocabulary = tokenizer.get_vocab()
    return [
        role
        for role in tokenizer.SPECIAL_TOKENS_ATTRIBUTES
        if getattr(tokenizer, role) is None and getattr(labelled, role, None) in vocabulary
    ]


def difference(tokenizer: Any, labelled: Any) -> str | None:
    """The first part of two tokenizers that may give other ids or another text; None if all are the same."""
    ours, theirs = (json.loads(each.backend_tokenizer.to_str()) for each in (tokenizer, labelled))
    parts = [part for part in ours if part not in _NOT_COMPARED]
    return next((part for part in parts if _meaning(ours[part], part) != _meaning(theirs[part], part)), None)


def _by_label(folder: Path) -> Any | None:
    """The tokenizer of plain transformers, if its label or the model's type names a class that builds its own."""
    try:
        with damaged(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except DataError:  # a label may name a class that is not installed, or that cannot read this file
        return None
    fast = hasattr(tokenizer, "backend_tokenizer") and type(tokenizer) is not PreTrainedTokenizerFast
    return tokenizer if fast else None


def _meaning(value: Any, part: str) -> Any:
    """A part of a tokenizer without what changes neither ids nor text: offsets, and most options of byte levels."""
    if isinstance(value, list):
        return [_meaning(item, part) for item in value]
    if not isinstance(value, dict):
        return None if value == "" else value
    if value.get("type") == "ByteLevel" and part in ("decoder", "post_processor"):
        return {"type": "ByteLevel"} if part == "decoder" else None
    return {key: _meaning(item, part) for key, item in value.items() if key != "trim_offsets"}


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Around a library that reads a tokenizer: what it raises becomes a `DataError`."""
    with library_errors(path, "fetch the tokenizer again", DataError), _quiet_panics():
        yield


@contextmanager
def _quiet_panics() -> Iterator[None]:
    """Keep what is written on standard error if all goes well: tokenizers also prints a report of a panic there."""
    with TemporaryFile() as kept:
        screen = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.truncate(0)
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)
            kept.seek(0)
            os.write(2, kept.read())
