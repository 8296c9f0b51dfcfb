"""JSON objects of a model folder, read without trust, and the keys in them that choose code to run."""

import json
import stat
from pathlib import Path
from typing import Any

from solar.errors import ArtifactError, one_line

MAX_BYTES = 200_000_000
"""The largest tokenizer.json files are some 35 MB."""
MAX_DEPTH = 100
CODE_KEYS = ("auto_map", "_attn_implementation_internal", "trust_remote_code")
"""Keys of a configuration that choose code to run. They never travel, at any depth; neither do hub kernels."""


def read_json(path: Path) -> dict[str, Any]:
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
        content = json.loads(path.read_text(encoding="utf-8"))
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


def without_code(value: Any) -> Any:
    """The same JSON without the keys that choose code.

    >>> without_code({"model_type": "x", "auto_map": {}, "text_config": {"auto_map": {}, "n": 1}})
    {'model_type': 'x', 'text_config': {'n': 1}}
    """
    if isinstance(value, list):
        return [without_code(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: without_code(inner) for key, inner in value.items() if not _chooses_code(key, inner)}


def code_keys(value: Any, place: str = "") -> list[str]:
    """Dotted paths of the keys that choose code.

    >>> code_keys({"text_config": {"auto_map": {}}, "auto_map": {}})
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


def _chooses_code(key: str, value: Any) -> bool:
    """`transformers` also fetches and runs the kernel of `attn_implementation: owner/name`."""
    return key in CODE_KEYS or (key.endswith("_implementation") and isinstance(value, str) and "/" in value)


def _depth(value: Any) -> int:
    """Levels of lists and objects, counted without recursion."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        inner, level = waiting.pop()
        children = inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()
        deepest = max(deepest, level)
        waiting += [(child, level + 1) for child in children if isinstance(child, dict | list)]
    return deepest
