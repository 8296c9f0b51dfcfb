"""Rows of Parquet and Arrow files."""

import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from solar.config.source_files import compression, kind
from solar.data.read.lines import MAX_LINE_BYTES
from solar.data.read.messages import BadRow, Located, Row
from solar.data.read.unpack import ALWAYS_ALLOWED_BYTES, MAX_RATIO, open_unpacked
from solar.errors import DataError

_PARQUET_ROWS = 32
_BATCH_BYTES = 128 * 2**20


def table_rows(file: Path) -> Iterator[Located]:
    """The rows of a Parquet or Arrow file."""
    batches = _parquet if kind(file) == ".parquet" else _arrow
    number = 0
    try:
        with _seekable(file) as stream:
            for batch in batches(stream):
                for row in _batch_rows(batch):
                    number += 1
                    yield f"{file} row {number}", row
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    except (pyarrow.ArrowException, OSError, EOFError, zlib.error) as error:
        yield f"{file} row {number + 1}", BadRow("damaged_file", f"not a readable file of tables ({error})")


def _batch_rows(batch: pyarrow.RecordBatch) -> Iterable[Row | BadRow]:
    """The rows of a batch; one by one if they are huge or hold values that Python cannot represent (far dates)."""
    huge = batch.nbytes > MAX_LINE_BYTES
    if huge and batch.num_rows == 1:
        return [BadRow("too_long", f"a row of more than {MAX_LINE_BYTES // 2**20} MiB")]
    try:
        if not huge:
            return cast(list[Row | BadRow], batch.to_pylist())
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            return [BadRow("unreadable_value", f"a value cannot be read ({error})")]
    return (row for place in range(batch.num_rows) for row in _batch_rows(batch.slice(place, 1)))


def _seekable(file: Path) -> BinaryIO:
    """The file, or an unpacked copy that is deleted on closing: readers of tables seek."""
    if compression(file) is None:
        return file.open("rb")
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (`table_rows` closes it)
    with open_unpacked(file) as packed:
        shutil.copyfileobj(packed, copy)
    copy.seek(0)
    return cast(BinaryIO, copy)


def _parquet(stream: BinaryIO) -> Iterator[pyarrow.RecordBatch]:
    with pyarrow.parquet.ParquetFile(stream) as table:
        for number in range(table.num_row_groups):
            rows = _rows_at_once(table.metadata.row_group(number))
            yield from table.iter_batches(batch_size=rows, row_groups=[number])


def _rows_at_once(group: pyarrow.parquet.RowGroupMetaData) -> int:
    """Rows whose values fit into memory, even if every row repeats the largest value that its column can hold.

    A value that is stored once may occur in every row, and no size in the file shows this. Raises `DataError` for a
    column that unpacks to far more than is stored.
    """
    columns = [group.column(place) for place in range(group.num_columns)]
    for column in columns:
        if column.total_uncompressed_size > max(ALWAYS_ALLOWED_BYTES, MAX_RATIO * column.total_compressed_size):
            raise DataError(
                f"column {column.path_in_schema} unpacks to {column.total_uncompressed_size:,} bytes, over {MAX_RATIO} "
                "times its size; unpack it yourself if you trust it"
            )
    largest = min(MAX_LINE_BYTES, sum(int(column.total_uncompressed_size) for column in columns))
    return min(_PARQUET_ROWS, _BATCH_BYTES // max(largest, 1))


def _arrow(stream: BinaryIO) -> Iterator[pyarrow.RecordBatch]:
    """A stream of batches, which `datasets` saves, or a file of batches, also called Feather."""
    beginning = stream.read(6)
    stream.seek(0)
    if beginning == b"ARROW1":
        with pyarrow.ipc.open_file(stream) as file:
            yield from map(file.get_batch, range(file.num_record_batches))
        return
    if beginning[:4] == b"FEA1":
        raise pyarrow.ArrowInvalid("Feather of version 1, which pyarrow.feather.write_feather replaces by version 2")
    with pyarrow.ipc.open_stream(stream) as table:
        yield from table
