"""Whether the files hold as many layers as config.json says."""

import re

from solar.errors import ArtifactError
from solar.weights.folder import CONFIG_FILE, ModelFolder

_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_EXTRA = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_layers")
"""Layers for multi-token prediction are numbered after the decoder's."""
_LAYER = re.compile(r"^(.*?(?:^|\.)(?:layers|h|blocks))\.(\d+)\.")
_OTHER_STACKS = re.compile("vision|visual|image|audio|speech|encoder|mtp")


def check_layer_count(model: ModelFolder) -> None:
    """Raises `ArtifactError` where the only stack of layers in the files is not as deep as config.json says."""
    inner = model.config.get("text_config")
    config = inner if isinstance(inner, dict) else model.config
    count = next((config[key] for key in _COUNTS if isinstance(config.get(key), int)), None)
    stacks: dict[str, set[int]] = {}
    for name in model.tensors:
        if (match := _LAYER.match(name)) is not None and not _OTHER_STACKS.search(match.group(1)):
            stacks.setdefault(match.group(1), set()).add(int(match.group(2)))
    if count is None or len(stacks) != 1:
        return
    ((stack, numbers),) = stacks.items()
    extra = sum(config[key] for key in _EXTRA if isinstance(config.get(key), int))
    deepest = max(numbers)
    if not count <= deepest + 1 <= count + max(extra, 0):
        raise ArtifactError(
            f"{model.folder}: {stack}.{deepest} is the last layer in the files, but {CONFIG_FILE} says {count} layers; "
            "correct the number or the files"
        )
