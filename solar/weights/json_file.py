"""JSON objects of a model folder, read without trust, and the keys in them that choose code to run."""

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from solar.errors import ArtifactError, one_line

MAX_BYTES = 64 * 2**20
"""The largest tokenizer.json files are some 35 MB."""
MAX_VALUES = 4_000_000
"""The largest tokenizers have 1.6 million: two for each merge, one for each token. A value takes up to 250 bytes of
memory, so that a file of empty lists would take twenty times its size."""
MAX_DEPTH = 100
CODE_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines", "custom_generate", "kernel_config")
"""Keys of a configuration that choose code to run."""
MAX_COUNT = 100_000
"""Of layers, experts, heads or labels; transformers makes a list of as many items when it reads config.json."""
_COUNT = re.compile(r"(?:^|_)(?<!per_)(layers?|experts?|labels|heads|blocks|depths?|stages|codebooks)(_|$)")
"""`vocab_size_per_layer_input` (Gemma 3n and 4) is a size."""


def read_json(path: Path, most_values: int = MAX_VALUES) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        ArtifactError: the file is missing, too large, nested too deep, or no JSON object.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would never end
            raise ArtifactError(f"{path}: not a regular file")
        size = status.st_size
        if size > MAX_BYTES:
            raise ArtifactError(f"{path}: {size:,} bytes found, expected at most {MAX_BYTES:,}")
        text = path.read_bytes()
        if (values := sum(map(text.count, (b",", b"[", b"{")))) > most_values:
            raise ArtifactError(f"{path}: {values:,} values found, expected at most {most_values:,}")
        content = json.loads(text.decode("utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file, expected a Hugging Face model folder") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not valid JSON ({one_line(error)}); fetch it again") from None
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: {type(content).__name__} found, expected a JSON object")
    if _depth(content) > MAX_DEPTH:
        raise ArtifactError(f"{path}: nested more than {MAX_DEPTH} deep, expected a model's configuration")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON as `transformers` does: indented by two spaces, without escapes, with a newline at the end."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def code_keys(value: Any, place: str = "") -> list[str]:
    """Dotted paths of the keys that choose code.

    >>> code_keys({"text_config": {"auto_map": {"a": "b"}}, "auto_map": {"a": "b"}, "attn_implementation": "sdpa"})
    ['text_config.auto_map', 'auto_map']
    """
    if isinstance(value, list):
        return [path for number, item in enumerate(value) for path in code_keys(item, f"{place}{number}.")]
    if not isinstance(value, dict):
        return []
    paths: list[str] = []
    for key, inner in value.items():
        paths += [f"{place}{key}"] if _chooses_code(key, inner) else code_keys(inner, f"{place}{key}.")
    return paths


def huge_counts(value: Any, most: int = MAX_COUNT, place: str = "", key: str = "") -> Iterator[tuple[str, int]]:
    """Dotted paths of the keys that count layers and the like, with counts above `most`.

    >>> list(huge_counts({"text_config": {"num_hidden_layers": 10**9, "vocab_size_per_layer_input": 262144}}))
    [('text_config.num_hidden_layers', 1000000000)]
    """
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            yield from huge_counts(inner, most, f"{place}.{inner_key}" if place else inner_key, inner_key)
    elif isinstance(value, list):
        for item in value:
            yield from huge_counts(item, most, place, key)
    elif isinstance(value, int) and value > most and _COUNT.search(key):
        yield place, value


def _chooses_code(key: str, value: Any) -> bool:
    """`transformers` also fetches and runs the kernel of `attn_implementation: owner/name`, also for a part alone."""
    if key.endswith("_implementation_internal"):
        return True
    if key.endswith("_implementation"):
        parts = value.values() if isinstance(value, dict) else [value]
        return any(isinstance(part, str) and "/" in part for part in parts)
    return key in CODE_KEYS and bool(value)


def _depth(value: Any) -> int:
    """Levels of lists and objects, counted without recursion."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        inner, level = waiting.pop()
        children = inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()
        deepest = max(deepest, level)
        waiting += [(child, level + 1) for child in children if isinstance(child, dict | list)]
    return deepest
