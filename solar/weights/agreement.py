"""Where config.json and the files must agree: the head that is tied to the embeddings, and the number of layers."""

import re
from typing import Any

from solar.errors import ArtifactError
from solar.weights.folder import CONFIG_FILE, ModelFolder
from solar.weights.header import StoredTensor

HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
"""Names of the output embeddings."""
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight")
"""How names of the input embeddings end."""
_PIECE_BYTES = 1 << 20

_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_EXTRA = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_layers")
"""Layers for multi-token prediction are numbered after the decoder's."""
_LAYER = re.compile(r"^(.*?(?:^|\.)(?:layers|h|blocks))\.([0-9]{1,9})\.")
_OTHER_STACKS = re.compile("vision|visual|image|audio|speech|encoder|mtp")


def is_tied(config: dict[str, Any]) -> bool:
    """Whether a config.json ties head and embeddings; where it has several parts, the language model's part decides."""
    for key in ("text_config", "llm_config", "language_config"):
        if isinstance(inner := config.get(key), dict) and "tie_word_embeddings" in inner:
            return bool(inner["tie_word_embeddings"])
    return bool(config.get("tie_word_embeddings", False))


def head_of(folder: ModelFolder) -> StoredTensor | None:
    """The stored output embeddings, if any."""
    return next((tensor for name, tensor in folder.tensors.items() if name.endswith(HEADS)), None)


def embeddings_of(folder: ModelFolder) -> StoredTensor | None:
    """The stored input embeddings, if any."""
    return next((tensor for name, tensor in folder.tensors.items() if name.endswith(EMBEDDINGS)), None)


def check_tied_head(folder: ModelFolder) -> None:
    """Refuse a head that the configuration ties to the embeddings and the files hold with other numbers.

    Programs differ in which of the two they use. Raises `ArtifactError`.
    """
    head, embeddings = head_of(folder), embeddings_of(folder)
    if head is None or embeddings is None or not is_tied(folder.config):
        return
    if not _same_bytes(head, embeddings):
        raise ArtifactError(
            f"{folder.folder}: config.json ties {head.name} to {embeddings.name}, but the files hold different numbers "
            f"for them; set tie_word_embeddings to false to use {head.name}, or remove that tensor"
        )


def _same_bytes(first: StoredTensor, second: StoredTensor) -> bool:
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    with first.path.open("rb") as left, second.path.open("rb") as right:
        left.seek(first.start)
        right.seek(second.start)
        for done in range(0, first.nbytes, _PIECE_BYTES):
            count = min(_PIECE_BYTES, first.nbytes - done)
            if left.read(count) != right.read(count):
                return False
    return True


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
