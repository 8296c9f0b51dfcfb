"""The documents of a split into rows, source by source."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from solar.config.data import Packing, Task
from solar.data.order.order import Permutation
from solar.data.pack import pack
from solar.data.store.header import SourceRows, Split, TokensHeader
from solar.data.store.tokens import Documents, RowAppender, open_documents


def write_rows(
    folder: Path, header: TokensHeader, split: Split, spans: Mapping[str, tuple[int, int]], seed: int
) -> None:
    """Pack what is in `folder` and say in `split` where the rows of each source lie.

    `spans`: source -> its first document and the one after its last.
    """
    documents = open_documents(folder, header.dtype, split)
    writer = RowAppender(folder)
    for name, (first, last) in spans.items():
        start, tokens = writer.rows, writer.tokens
        for pieces in _packed(documents, first, last, header, f"{seed} {name}"):
            writer.append(pieces, _labels(documents, pieces))
        split.sources[name] = SourceRows(start, writer.rows, writer.tokens - tokens)
    writer.close()
    split.rows, split.pieces = writer.rows, writer.pieces
    split.tokens, split.trained_tokens = writer.tokens, writer.trained_tokens


def _packed(documents: Documents, first: int, last: int, header: TokensHeader, key: str) -> Iterator[npt.NDArray[Any]]:
    lengths = np.diff(documents.offsets[first : last + 1])
    order = Permutation(last - first, key, "documents")
    if header.packing == Packing.concatenate:
        packed = pack.concatenate(lengths, order, header.sequence_length)
    elif header.packing == Packing.best_fit:
        packed = pack.best_fit(lengths, order, header.sequence_length)
    else:
        packed = pack.one_each(lengths, 2 if header.task == Task.preference else 1)
    for pieces in packed:
        pieces["document"] += first
        yield pieces


def _labels(documents: Documents, pieces: npt.NDArray[Any]) -> int:
    """Tokens of a row that are predicted: trained ones, but never the first of a piece."""
    count = 0
    for document, start, length in pieces.tolist():
        trained = documents.trained(document, start, length)
        count += length - 1 if trained is None else int(trained[1:].sum())
    return count
