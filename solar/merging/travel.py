"""The files beside the weights: those of the first model, without the keys that choose code to run."""

import json
import shutil
from pathlib import Path
from typing import Any

from solar.merging.checkpoint import INDEX

TRAVELS = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    INDEX,
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Files of the first model that the merged one has too."""
CODE_KEYS = ("auto_map", "_attn_implementation", "_attn_implementation_internal", "trust_remote_code")
"""Keys of a configuration that choose code to run, at any depth; they do not travel."""


def copy_beside_weights(source: Path, target: Path) -> None:
    """Copy what travels, byte for byte unless a configuration chooses code."""
    for path in sorted({path for pattern in TRAVELS for path in source.glob(pattern) if path.is_file()}):
        shutil.copyfile(path, target / path.name)
        if path.name.endswith("config.json"):
            said = json.loads(path.read_text(encoding="utf-8"))
            kept = without_code(said)
            if kept != said:
                text = json.dumps(kept, indent=2, ensure_ascii=False)
                (target / path.name).write_text(text + "\n", encoding="utf-8")


def without_code(value: Any) -> Any:
    """The same JSON without the keys that choose code.

    >>> without_code({"model_type": "x", "auto_map": {}, "text_config": {"auto_map": {}, "n": 1}})
    {'model_type': 'x', 'text_config': {'n': 1}}
    """
    if isinstance(value, list):
        return [without_code(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: without_code(inner) for key, inner in value.items() if key not in CODE_KEYS}
