"""Data in which every token is another number: whatever reads the data shows what it read, skipped and repeated."""

from pathlib import Path

import numpy as np

from solar.config.data import Packing
from solar.data.pack.rows import write_rows
from solar.data.store.header import Mixture, Split, TokensHeader
from solar.data.store.tokens import DocumentAppender


def traced_tokens(folder: Path, lengths: list[int], packing: Packing, sequence_length: int) -> Path:
    """A tokens folder with documents of these lengths, whose tokens are 0, 1, 2, ... through all documents."""
    place = folder / "train"
    appender = DocumentAppender(place, "<u4", masked=False)
    stops = np.cumsum(lengths)
    for start, stop in zip([0, *stops[:-1]], stops, strict=True):
        appender.append(range(start, stop))
    appender.close()
    total = int(stops[-1])
    split = Split(len(lengths), len(lengths), answer_tokens=total, text_bytes=total, shard_starts=appender.shard_starts)
    header = TokensHeader(
        *("pretrain", total, sequence_length, packing.value, None, None, 0, 0, "<u4"),
        mixture=Mixture({"all": 1.0}),
        splits={"train": split},
    )
    write_rows(place, header, split, {"all": (0, len(lengths))}, seed=0)
    header.write(folder)
    return folder
