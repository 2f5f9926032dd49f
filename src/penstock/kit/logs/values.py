"""What a log line may hold: simple values of bounded size, without secrets."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import PurePath
from typing import cast

from penstock.kit.logs.redaction import REDACTED, redact

Value = (
    str | int | float | bool | PurePath | BaseException | Sequence["Value"] | Mapping[str, "Value"]
) | None
"""What a field may be. Anything else shows as its type's name: who can print an object that holds
a credential, prints it one day."""

Plain = str | int | float | bool | list["Plain"] | dict[str, "Plain"] | None
"""A value as JSON knows it."""

MAX_CHARS = 4_096
"""Of a field, however many values it is made of; what is longer is cut."""
MAX_ITEMS = 32
_MAX_DEPTH = 3
_MAX_INT = 2**63
_OVERLAP = 1_024
"""Looked at behind a cut, so that no part of a secret is left that was cut in two."""

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:password|passphrase|secret|token|authorization|cookie|api_key|private_key)$"
)
_NO_CHARACTER = re.compile("[\ud800-\udfff]")


def plain(name: str, value: object) -> Plain:
    """Return a field's value as it is logged.

    >>> plain("why", ValueError("no"))
    'no'
    >>> plain("password", "hunter2")
    '[redacted]'
    >>> plain("kafka", {"password": "hunter2"})
    {'password': '[redacted]'}
    >>> plain("where", object())
    '<object>'
    """
    return _member(name, value, MAX_CHARS, _MAX_DEPTH)


def is_secret_name(name: str) -> bool:
    """Return whether what is called so is a secret, whatever it looks like."""
    return _SECRET_NAME.search(name) is not None


def text(value: str, max_chars: int = MAX_CHARS) -> str:
    """Return a text without secrets and of at most this length, but for a note of what was cut."""
    value = _NO_CHARACTER.sub("\ufffd", value[: max_chars + _OVERLAP + 1])
    if len(value) <= max_chars:
        return redact(value)
    whole = redact(value)
    kept = max(0, min(max_chars, len(whole) - _OVERLAP))
    return f"{whole[:kept]}[cut]"


def _member(name: str, value: object, max_chars: int, depth: int) -> Plain:
    if value is not None and is_secret_name(name):
        return REDACTED
    return _plain(value, max_chars, depth)


def _plain(value: object, max_chars: int, depth: int) -> Plain:
    if isinstance(value, str | PurePath | BaseException):
        return text(str(value) or _no_words(value), max_chars)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and -_MAX_INT <= value < _MAX_INT:
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth and isinstance(value, Mapping):
        share = max_chars // max(1, min(len(value), MAX_ITEMS))
        return {
            text(str(name), share): _member(str(name), each, share, depth - 1)
            for name, each in islice(value.items(), MAX_ITEMS)
        }
    # And not what derives from them: a named tuple may have a field that nobody is to see.
    if depth and type(value) in {list, tuple}:
        items = cast("Sequence[object]", value)[:MAX_ITEMS]
        return [_plain(each, max_chars // len(items), depth - 1) for each in items]
    return f"<{type(value).__name__}>"


def _no_words(value: object) -> str:
    return type(value).__name__ if isinstance(value, BaseException) else ""
