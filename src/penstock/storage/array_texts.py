"""Arrays as PostgreSQL reads them from text: `{1,2,NULL}`.

Its driver looks at each element of an array several times. A text it sends as it is, and texts of
whole columns are put together without a step of ours for each element.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import JSON, Boolean, Integer, LargeBinary
from sqlalchemy.types import TypeEngine

from penstock.storage.base import Json, Timestamp

_BETWEEN = "\0"
"""What no text of PostgreSQL has."""


def writer_of(kind: TypeEngine[Any]) -> Callable[[Sequence[Any]], str]:
    """Return what writes values of a column's type; moments are the numbers that they are here."""
    if isinstance(kind, Integer | Boolean | Timestamp):
        return write_numbers
    if isinstance(kind, LargeBinary):
        return _write_bytes
    if isinstance(kind, JSON | Json):
        return _write_jsons
    return write_texts


def write_numbers(values: Sequence[int | None]) -> str:
    """Return whole numbers, or what is true and false, as an array.

    >>> write_numbers([1, -2, None])
    '{1, -2, NULL}'
    """
    listed = str([*values])
    return "{" + listed[1:-1].replace("None", "NULL") + "}"


def write_texts(values: Sequence[str | None]) -> str:
    r"""Return texts as an array.

    >>> print(write_texts(["a", 'b"\\', "NULL", ""]), write_texts([None, "c"]))
    {"a","b\"\\","NULL",""} {NULL,"c"}

    Raises:
        ValueError: One has a NUL, which PostgreSQL keeps in no text.
    """
    joined = _BETWEEN.join(["" if value is None else value for value in values])
    if joined.count(_BETWEEN) >= max(len(values), 1):
        message = "a text has a NUL"
        raise ValueError(message)
    joined = joined.replace("\\", "\\\\").replace('"', '\\"')
    if None in values:
        texts = zip(values, joined.split(_BETWEEN), strict=True)
        return "{" + ",".join("NULL" if one is None else f'"{text}"' for one, text in texts) + "}"
    return '{"' + joined.replace(_BETWEEN, '","') + '"}'


def _write_bytes(values: Sequence[bytes | None]) -> str:
    return write_texts([None if value is None else "\\x" + value.hex() for value in values])


def _write_jsons(values: Sequence[Any]) -> str:
    return write_texts([None if value is None else write_json(value) for value in values])


def write_json(value: Any) -> str:
    """Return a value as the text that columns of JSON have."""
    return msgspec.json.encode(value).decode()
