"""Token arrays on disk: appended once, then memory-mapped. Raw little-endian numbers, no pickle.

A split is a folder:

    tokens-00000.bin ...   ids, uint16 or uint32; a document lies in one shard
    trained-00000.bin ...  uint8, 1 where a token is trained; absent if all tokens are trained
    documents.bin          int64 [documents + 1], the first token of each document, counted over all shards
    pieces.bin             PIECE [pieces], parts of documents
    rows.bin               int64 [rows + 1], the first piece of each row
    row_tokens.bin         uint32 [rows], tokens of each row
    row_trained.bin        uint32 [rows], targets of each row
"""

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from solar.data.store.header import Split
from solar.errors import DataError

PIECE = np.dtype([("document", "<i8"), ("start", "<u4"), ("length", "<u4")])
"""Tokens `start` to `start + length` of a document."""
SHARD_TOKENS = 2**28


class DocumentAppender:
    """Appends documents to the files of a split; memory does not grow with their number."""

    def __init__(self, folder: Path, dtype: str, masked: bool, shard_tokens: int = SHARD_TOKENS) -> None:
        """`masked`: each document comes with flags that say which of its tokens are trained."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.documents = 0
        self.tokens = 0
        self.shard_starts: list[int] = []
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._masked = masked
        self._shard_tokens = shard_tokens
        self._tokens_file: BinaryIO | None = None
        self._trained_file: BinaryIO | None = None
        self._offsets = (folder / "documents.bin").open("wb")
        self._offsets.write(np.int64(0).tobytes())

    def append(self, ids: Sequence[int], trained: Sequence[bool] | None = None) -> None:
        """Append one document. `trained`: a flag for each token in a masked split, None otherwise."""
        if self._tokens_file is None or self.tokens + len(ids) - self.shard_starts[-1] > self._shard_tokens:
            self._next_shard()
        assert self._tokens_file is not None and (trained is not None) == self._masked
        self._tokens_file.write(np.asarray(ids, self._dtype).tobytes())
        if self._trained_file is not None:
            self._trained_file.write(np.asarray(trained, np.uint8).tobytes())
        self.documents += 1
        self.tokens += len(ids)
        self._offsets.write(np.int64(self.tokens).tobytes())

    def close(self) -> None:
        """Close the files."""
        for file in (self._tokens_file, self._trained_file, self._offsets):
            if file is not None:
                file.close()

    def _next_shard(self) -> None:
        for file in (self._tokens_file, self._trained_file):
            if file is not None:
                file.close()
        number = len(self.shard_starts)
        self.shard_starts.append(self.tokens)
        self._tokens_file = (self.folder / f"tokens-{number:05}.bin").open("wb")
        self._trained_file = (self.folder / f"trained-{number:05}.bin").open("wb") if self._masked else None


class Documents:
    """The documents of a split, memory-mapped."""

    def __init__(self, folder: Path, dtype: str, shard_starts: Sequence[int], count: int) -> None:
        """Raises `DataError` if a file is missing or has another size than `count` and `shard_starts` imply."""
        self.offsets = mapped(folder / "documents.bin", "<i8", count + 1)
        self._starts = list(shard_starts)
        stops = [*self._starts[1:], int(self.offsets[-1])][: len(self._starts)]
        sizes = [stop - start for start, stop in zip(self._starts, stops, strict=True)]
        masked = (folder / "trained-00000.bin").exists()
        names = [f"-{number:05}.bin" for number in range(len(sizes))]
        self._tokens = [mapped(folder / f"tokens{name}", dtype, size) for name, size in zip(names, sizes, strict=True)]
        self._trained = [
            mapped(folder / f"trained{name}", "u1", size) for name, size in zip(names, sizes, strict=True) if masked
        ]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def read(self, document: int, start: int = 0, length: int | None = None) -> npt.NDArray[Any]:
        """The ids of a document, or `length` of its ids from `start` on, as a view of the file."""
        return self._view(self._tokens, document, start, length)

    def trained(self, document: int, start: int = 0, length: int | None = None) -> npt.NDArray[Any] | None:
        """The flags of the same tokens: 1 where a token is trained. None if all tokens of the split are trained."""
        return self._view(self._trained, document, start, length) if self._trained else None

    def _view(self, shards: list[npt.NDArray[Any]], document: int, start: int, length: int | None) -> npt.NDArray[Any]:
        begin, end = int(self.offsets[document]), int(self.offsets[document + 1])
        shard = bisect_right(self._starts, begin) - 1 if begin < end else 0
        first = begin - self._starts[shard] + start
        return shards[shard][first : end - self._starts[shard] if length is None else first + length]


class RowAppender:
    """Appends rows, each a list of pieces, to the files of a split."""

    def __init__(self, folder: Path) -> None:
        self.rows = 0
        self.pieces = 0
        self.tokens = 0
        self.trained_tokens = 0
        names = ("pieces.bin", "rows.bin", "row_tokens.bin", "row_trained.bin")
        self._pieces, self._rows, self._tokens, self._trained = ((folder / name).open("wb") for name in names)
        self._rows.write(np.int64(0).tobytes())

    def append(self, pieces: npt.NDArray[Any], trained_tokens: int) -> None:
        """Append one row. `pieces`: of dtype `PIECE`; `trained_tokens`: the number of targets in the row."""
        tokens = int(pieces["length"].sum())
        self.rows += 1
        self.pieces += len(pieces)
        self.tokens += tokens
        self.trained_tokens += trained_tokens
        self._pieces.write(pieces.tobytes())
        self._rows.write(np.int64(self.pieces).tobytes())
        self._tokens.write(np.uint32(tokens).tobytes())
        self._trained.write(np.uint32(trained_tokens).tobytes())

    def close(self) -> None:
        """Close the files."""
        for file in (self._pieces, self._rows, self._tokens, self._trained):
            file.close()


def mapped(path: Path, dtype: Any, count: int) -> npt.NDArray[Any]:
    """`count` numbers of a file, memory-mapped. Raises `DataError` if the file is missing or has another size."""
    size = path.stat().st_size if path.exists() else -1
    if size != count * np.dtype(dtype).itemsize:
        actual = "missing" if size < 0 else f"{size} bytes"
        expected = count * np.dtype(dtype).itemsize
        raise DataError(f"{path}: {actual}, expected {expected} bytes; the artifact is damaged, prepare the data again")
    return np.memmap(path, dtype, "r") if count else np.empty(0, dtype)


def open_documents(folder: Path, dtype: str, split: Split) -> Documents:
    """The documents that `split` describes."""
    return Documents(folder, np.dtype(dtype).newbyteorder("<").str, split.shard_starts, split.documents)
