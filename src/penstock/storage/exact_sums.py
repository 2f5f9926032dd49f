"""Sums of whole numbers that are exact at any size, the same in both kinds of databases."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, func

_HALF = 2**32


def exact_sum(column: Any) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Return a sum as two: of high and of low halves.

    SQLite fails when a sum passes 63 bits. In halves, no two thousand million rows get there, so
    a few absurd figures cannot take the totals away.
    """
    return func.sum(column // _HALF), func.sum(column % _HALF)


def join_halves(sums: Iterable[Any]) -> list[int]:
    """Return the sums that pairs of `exact_sum` came to; 0 of no rows."""
    figures = [int(part or 0) for part in sums]
    return [high * _HALF + low for high, low in zip(figures[::2], figures[1::2], strict=True)]
