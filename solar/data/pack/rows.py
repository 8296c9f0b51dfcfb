"""Pack the documents of a split into rows, source by source."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from solar.config.data import Packing, Task
from solar.data.order.permutation import Permutation
from solar.data.pack import pack
from solar.data.store.header import SourceRows, Split, TokensHeader
from solar.data.store.tokens import Documents, RowAppender, open_documents


def write_rows(
    folder: Path, header: TokensHeader, split: Split, spans: Mapping[str, tuple[int, int]], seed: int
) -> None:
    """Pack the documents in `folder`, and record in `split` the rows of each source.

    `spans`: source -> (its first document, its last document + 1).
    """
    documents = open_documents(folder, header.dtype, split)
    rows = RowAppender(folder)
    for name, (first, last) in spans.items():
        start, tokens = rows.rows, rows.tokens
        for pieces in _packed(documents, first, last, header, f"{seed} {name}"):
            rows.append(pieces, _targets(documents, pieces))
        split.sources[name] = SourceRows(start, rows.rows, rows.tokens - tokens)
    rows.close()
    split.rows, split.pieces = rows.rows, rows.pieces
    split.tokens, split.trained_tokens = rows.tokens, rows.trained_tokens


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


def _targets(documents: Documents, pieces: npt.NDArray[Any]) -> int:
    """Targets of a row: its trained tokens, except the first token of each piece."""
    count = 0
    for document, start, length in pieces.tolist():
        trained = documents.trained(document, start, length)
        count += length - 1 if trained is None else int(trained[1:].sum())
    return count
