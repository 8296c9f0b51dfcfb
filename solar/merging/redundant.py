"""Stored tensors that say nothing: a model without them is the same model."""

import re

from solar.weights.agreement import check_tied_head, embeddings_of, head_of, is_tied
from solar.weights.folder import ModelFolder

BUFFERS = re.compile(r"rotary_emb\.inv_freq$|\.(attn|attention)\.masked_bias$")
"""Buffers that old checkpoints store and every network computes from its configuration."""


def tied_head(model: ModelFolder) -> tuple[str, str] | None:
    """Names of a head and of the embeddings whose bytes the head repeats, where config.json ties them.

    Raises `ArtifactError` if their bytes differ.
    """
    head, embeddings = head_of(model), embeddings_of(model)
    if head is None or embeddings is None or not is_tied(model.config):
        return None
    check_tied_head(model)
    return head.name, embeddings.name


def redundant(model: ModelFolder) -> set[str]:
    """Names of the tensors that say nothing."""
    pair = tied_head(model)
    return {name for name in model.tensors if BUFFERS.search(name)} | (set() if pair is None else {pair[0]})
