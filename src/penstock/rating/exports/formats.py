"""How rows become CSV, JSON lines or Parquet, piece by piece: no file is ever held as a whole."""

import csv
import io
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from penstock.kit.errors import PenstockError
from penstock.kit.moments import format_time
from penstock.rating.exports.errors import FORMAT_UNAVAILABLE

Format = Literal["csv", "jsonl", "parquet"]
Kind = Literal["text", "whole", "decimal", "flag", "moment", "json"]
Row: TypeAlias = Sequence[Any]
"""Values in the order of the columns: None for nothing, decimals as texts, moments in
microseconds."""

_STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_DECIMAL_DIGITS = 38
_DECIMAL_PLACES = 18


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an export."""

    name: str
    kind: Kind = "text"


class Encoder(Protocol):
    """Writes rows in one format."""

    media_type: str

    def head(self) -> bytes:
        """Return what a file begins with."""
        ...

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return some rows as they stand in the file; "" while they are kept for later."""
        ...

    def tail(self) -> bytes:
        """Return what a file ends with."""
        ...


class CsvEncoder:
    r"""Writes CSV (RFC 4180) in UTF-8.

    A text that a spreadsheet would run as a formula has an apostrophe in front of it: anybody may
    have chosen it. Numbers are numbers, negative ones included.

    >>> encoder = CsvEncoder([Column("name"), Column("amount", "decimal")])
    >>> (encoder.head() + encoder.encode([("=1+1", "-0.5"), (None, "2")])).decode()
    "name,amount\r\n'=1+1,-0.5\r\n,2\r\n"
    """

    media_type = "text/csv; charset=utf-8"

    def __init__(self, columns: Sequence[Column]) -> None:
        """Write these columns."""
        self._columns = columns
        self._cells = [_CSV_CELLS[column.kind] for column in columns]

    def head(self) -> bytes:
        """Return the line of names."""
        return self._lines([[column.name for column in self._columns]])

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return a line for each row."""
        return self._lines(
            [
                [
                    "" if value is None else cell(value)
                    for cell, value in zip(self._cells, row, strict=True)
                ]
                for row in rows
            ]
        )

    def tail(self) -> bytes:
        """Return nothing."""
        return b""

    def _lines(self, rows: Sequence[Sequence[str]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\r\n").writerows(rows)
        return text.getvalue().encode()


class JsonLinesEncoder:
    """Writes one JSON object a line; decimals are texts, so that no reader rounds them."""

    media_type = "application/jsonl"

    def __init__(self, columns: Sequence[Column]) -> None:
        """Write these columns."""
        self._columns = [(column.name, _JSON_CELLS.get(column.kind)) for column in columns]

    def head(self) -> bytes:
        """Return nothing."""
        return b""

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return a line for each row."""
        return b"".join(msgspec.json.encode(self._object(row)) + b"\n" for row in rows)

    def tail(self) -> bytes:
        """Return nothing."""
        return b""

    def _object(self, row: Row) -> dict[str, Any]:
        return {
            name: value if cell is None or value is None else cell(value)
            for (name, cell), value in zip(self._columns, row, strict=True)
        }


class ParquetEncoder:
    """Writes Parquet; decimals have 38 digits, 18 of them behind the point.

    Args:
        columns: What is written.

    Raises:
        PenstockError: `FORMAT_UNAVAILABLE`: the optional packages are not there.
    """

    media_type = "application/vnd.apache.parquet"

    def __init__(self, columns: Sequence[Column]) -> None:
        """See the class."""
        try:
            import pyarrow as pa  # noqa: PLC0415  # optional, and slow to load
            from pyarrow import parquet  # noqa: PLC0415  # as above
        except ImportError:
            raise PenstockError(FORMAT_UNAVAILABLE) from None
        types = {
            "text": pa.string(),
            "json": pa.string(),
            "whole": pa.int64(),
            "flag": pa.bool_(),
            "moment": pa.timestamp("us", tz="UTC"),
            "decimal": pa.decimal128(_DECIMAL_DIGITS, _DECIMAL_PLACES),
        }
        self._columns = columns
        self._schema = pa.schema([(column.name, types[column.kind]) for column in columns])
        self._record_batch = pa.RecordBatch
        self._array = pa.array
        self._sink = _Sink()
        self._writer = parquet.ParquetWriter(self._sink, self._schema, compression="zstd")

    def head(self) -> bytes:
        """Return the magic word."""
        return self._sink.take()

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Return the rows as a group of their own."""
        if not rows:
            return b""
        values = zip(*rows, strict=True)
        arrays = [
            self._array([_PARQUET_CELLS[column.kind](cell) for cell in cells], field.type)
            for column, field, cells in zip(self._columns, self._schema, values, strict=True)
        ]
        batch = self._record_batch.from_arrays(arrays, schema=self._schema)
        self._writer.write_batch(batch)
        return self._sink.take()

    def tail(self) -> bytes:
        """Return the footer, which says where everything is."""
        self._writer.close()
        return self._sink.take()


class _Sink(io.RawIOBase):
    """A file that is only written to, and emptied by whoever sends it on."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._place = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        part = bytes(content)
        self._parts.append(part)
        self._place += len(part)
        return len(part)

    def tell(self) -> int:
        return self._place

    def take(self) -> bytes:
        content = b"".join(self._parts)
        self._parts.clear()
        return content


def create_encoder(name: Format, columns: Sequence[Column]) -> Encoder:
    """Return what writes a format.

    Raises:
        PenstockError: `FORMAT_UNAVAILABLE`.
    """
    match name:
        case "csv":
            return CsvEncoder(columns)
        case "jsonl":
            return JsonLinesEncoder(columns)
        case "parquet":
            return ParquetEncoder(columns)


async def write(
    encoder: Encoder, pages: AsyncIterator[Sequence[Row]], group_rows: int
) -> AsyncIterator[bytes]:
    """Yield a file, a piece for about as many rows as `group_rows` says."""
    yield encoder.head()
    kept: list[Row] = []
    async for page in pages:
        kept += page
        if len(kept) >= group_rows:
            yield encoder.encode(kept)
            kept = []
    if kept:
        yield encoder.encode(kept)
    yield encoder.tail()


def _text(value: Any) -> str:
    text = str(value)
    return f"'{text}" if text.startswith(_STARTS_FORMULA) else text


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _moment(time_us: int) -> str:
    return f"{format_time(time_us)[:19]}Z"


_JSON_CELLS: dict[Kind, Callable[[Any], Any]] = {"moment": _moment}
_CSV_CELLS: dict[Kind, Callable[[Any], str]] = {
    "text": _text,
    "json": lambda value: _text(_json(value)),
    "whole": str,
    "decimal": str,
    "flag": lambda value: "true" if value else "false",
    "moment": _moment,
}
_PARQUET_CELLS: dict[Kind, Callable[[Any], Any]] = {
    "text": lambda value: value,
    "json": lambda value: None if value is None else _json(value),
    "whole": lambda value: value,
    "decimal": lambda value: None if value is None else Decimal(value),
    "flag": lambda value: value,
    "moment": lambda value: value,
}
