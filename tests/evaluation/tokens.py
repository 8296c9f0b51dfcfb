"""Tokens artifacts of any documents, written without text or a tokenizer."""

from pathlib import Path

import numpy as np

from solar.data.store.header import Mixture, SourceRows, Split, TokensHeader
from solar.data.store.tokens import PIECE, DocumentAppender, RowAppender


def write_rows(folder: Path, rows: list[list[list[int]]], vocab_size: int) -> Path:
    """A `valid` split with these rows of documents; all tokens but the first of each document are trained."""
    documents, packed = DocumentAppender(folder / "valid", "uint16", masked=False), RowAppender(folder / "valid")
    for row in rows:
        first = documents.documents
        for ids in row:
            documents.append(ids)
        pieces = np.array([(first + number, 0, len(ids)) for number, ids in enumerate(row)], PIECE)
        packed.append(pieces, sum(len(ids) - 1 for ids in row))
    documents.close()
    packed.close()
    split = Split(
        samples=documents.documents,
        documents=documents.documents,
        pieces=packed.pieces,
        rows=packed.rows,
        tokens=packed.tokens,
        trained_tokens=packed.trained_tokens,
        answer_tokens=packed.trained_tokens,
        text_bytes=packed.tokens,
        shard_starts=documents.shard_starts,
        sources={"all": SourceRows(0, packed.rows, packed.tokens)},
    )
    longest = max(sum(map(len, row)) for row in rows)
    shape = {"task": "pretrain", "vocab_size": vocab_size, "sequence_length": longest, "packing": "best_fit"}
    special = {"template": None, "bos_id": None, "eos_id": 2, "pad_id": 0}
    TokensHeader(**shape, **special, dtype="uint16", mixture=Mixture({"all": 1.0}), splits={"valid": split}).write(
        folder
    )
    return folder
