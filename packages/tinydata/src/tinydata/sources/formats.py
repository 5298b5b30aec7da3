"""Readers of the file formats a text collection comes in, each a stream of records in bounded memory.

A record is a value (a text, once it is checked) or a `Skipped` reason. A damaged file gives the records before the
damage and then one `UNREADABLE`. Nothing here holds more than one document and one read buffer: text with a separator
and JSONL go line by line, Parquet page by page through the row groups.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from tinydata.sources.counted import (
    BAD_JSON,
    MAX_DOCUMENT_BYTES,
    MISSING_COLUMN,
    NOT_TEXT,
    TOO_LONG,
    UNREADABLE,
    Skipped,
    decoded,
)

if TYPE_CHECKING:
    import pyarrow

TEXT_SUFFIXES = (".txt", ".md")
SUFFIXES = (*TEXT_SUFFIXES, ".jsonl", ".jsonl.gz", ".parquet")

# Reports the columns that a row has, for the error that says which one was meant.
SeenColumns = Callable[[list[str]], None]

_PARQUET_BATCH_ROWS = 64
_READ_BUFFER_BYTES = 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def records(path: Path, column: str, separator: str | None, seen_columns: SeenColumns) -> Iterator[object]:
    """Every record of the file at `path`, whose suffix must be one of `SUFFIXES`."""
    name = path.name.lower()
    try:
        if name.endswith(".parquet"):
            yield from _parquet(path, column, seen_columns)
        elif name.endswith(".jsonl"):
            with path.open("rb") as handle:
                yield from _jsonl(handle, column, seen_columns)
        elif name.endswith(".jsonl.gz"):
            with gzip.open(path, "rb") as stream:
                yield from _jsonl(cast(BinaryIO, stream), column, seen_columns)
        elif separator is None:
            yield _whole(path)
        else:
            with path.open("rb") as handle:
                yield from _separated(handle, separator.encode())
    except (OSError, EOFError, zlib.error):
        yield UNREADABLE


def _whole(path: Path) -> str | Skipped:
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        return TOO_LONG
    return decoded(path.read_bytes().removeprefix(_BYTE_ORDER_MARK))


def lines(handle: BinaryIO, limit: int, too_long: Skipped) -> Iterator[bytes | Skipped]:
    """Lines with their line ends; one of more than `limit` bytes is passed over without being held, as `too_long`."""
    first = True
    while line := handle.readline(limit + 1):
        if len(line) > limit:
            while line and not line.endswith(b"\n"):
                line = handle.readline(_READ_BUFFER_BYTES)
            yield too_long
        else:
            yield line.removeprefix(_BYTE_ORDER_MARK) if first else line
        first = False


def _separated(handle: BinaryIO, separator: bytes) -> Iterator[str | Skipped]:
    document, too_long = bytearray(), False
    for line in lines(handle, MAX_DOCUMENT_BYTES, TOO_LONG):
        if not isinstance(line, Skipped) and line.rstrip(b"\r\n") == separator:
            if document or too_long:
                yield TOO_LONG if too_long else decoded(bytes(document))
            document, too_long = bytearray(), False
        elif isinstance(line, Skipped) or len(document) + len(line) > MAX_DOCUMENT_BYTES:
            document, too_long = bytearray(), True
        elif not too_long:
            document += line
    if document or too_long:
        yield TOO_LONG if too_long else decoded(bytes(document))


def _jsonl(handle: BinaryIO, column: str, seen_columns: SeenColumns) -> Iterator[object]:
    for line in lines(handle, MAX_DOCUMENT_BYTES, TOO_LONG):
        if isinstance(line, Skipped):
            yield line
        elif not line.isspace():
            yield _json_field(line, column, seen_columns)
        del line  # a generator's local would keep the longest line alive while its document is used


def json_object(line: bytes) -> dict[str, Any] | Skipped:
    """The object that a line of JSON is, or why it is none."""
    text = decoded(line)
    if isinstance(text, Skipped):
        return text
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return BAD_JSON
    return row if isinstance(row, dict) else BAD_JSON


def _json_field(line: bytes, column: str, seen_columns: SeenColumns) -> object:
    row = json_object(line)
    if isinstance(row, Skipped):
        return row
    if column not in row:
        seen_columns(list(row))
        return MISSING_COLUMN
    return row[column]


def _parquet(path: Path, column: str, seen_columns: SeenColumns) -> Iterator[object]:
    import pyarrow
    import pyarrow.parquet  # half a second, and not needed for the other formats

    try:
        # buffer_size streams the pages of a column chunk; without it each row group's column is read whole.
        with pyarrow.parquet.ParquetFile(path, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False) as table:
            names = table.schema_arrow.names
            if column not in names:
                seen_columns(names)
                for _ in range(table.metadata.num_rows):
                    yield MISSING_COLUMN
                return
            for batch in table.iter_batches(_PARQUET_BATCH_ROWS, columns=[column], use_threads=False):
                yield from arrow_records(batch.column(0))
    except pyarrow.ArrowException:
        yield UNREADABLE


def arrow_records(values: pyarrow.Array) -> Iterator[str | Skipped]:
    """One record for each value of an Arrow array: its text, if it is of a string or binary type."""
    import pyarrow

    if pyarrow.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not _holds_text(values.type):
        yield from (NOT_TEXT for _ in range(len(values)))
        return
    # As bytes: pyarrow does not validate UTF-8, and one bad value must not lose its batch.
    for data in values.cast(pyarrow.large_binary()):
        value = data.as_py()
        yield NOT_TEXT if value is None else decoded(value)


def _holds_text(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    tests = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_binary,
        types.is_large_binary,
    )
    return any(test(kind) for test in tests)
