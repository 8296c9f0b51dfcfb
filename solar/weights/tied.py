"""Output embeddings (the head) that are tied to the input embeddings, but may be stored a second time."""

from typing import Any

from solar.errors import ArtifactError
from solar.weights.folder import ModelFolder
from solar.weights.header import StoredTensor

HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
"""Names of the output embeddings."""
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight", "tok_embeddings.weight")
"""How names of the input embeddings end."""
_PIECE_BYTES = 1 << 20


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
