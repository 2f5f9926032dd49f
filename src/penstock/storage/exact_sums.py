"""Sums of whole numbers that are exact at any size, the same in both kinds of databases."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, func
from sqlalchemy.exc import OperationalError

from penstock.storage.bulk import HIGH

_HALF = 2**32
_HIGH_HALVES = divmod(HIGH, _HALF)
_TOO_LARGE = "integer overflow"
"""What SQLite says when a sum passes 63 bits."""

Place = TypeVar("Place")


def exact_sum(column: Any, high: Any = None) -> tuple[ColumnElement[int], ColumnElement[int]]:
    """Return a sum as two: of high and of low halves.

    SQLite fails when a sum passes 63 bits. In halves, no two thousand million rows get there, so
    a few absurd figures cannot take the totals away.

    Args:
        column: What is added up.
        high: The column of how often `bulk.HIGH` is to be added besides, if there is one.
    """
    if high is None:
        return func.sum(column // _HALF), func.sum(column % _HALF)
    upper, lower = _HIGH_HALVES
    return func.sum(column // _HALF + high * upper), func.sum(column % _HALF + high * lower)


def join_halves(sums: Iterable[Any]) -> list[int]:
    """Return the sums that pairs of `exact_sum` came to; 0 of no rows."""
    figures = [int(part or 0) for part in sums]
    return [high * _HALF + low for high, low in zip(figures[::2], figures[1::2], strict=True)]


async def read_sums(
    read: Callable[
        [Sequence[ColumnElement[Any]]], Awaitable[Iterable[tuple[Place, Sequence[Any]]]]
    ],
    columns: Sequence[Any],
) -> list[tuple[Place, list[int]]]:
    """Return sums of columns, by whatever they are grouped by.

    Sums of halves take twice as long as plain ones, and hardly any needs them: so they are taken
    only when SQLite says that one does.

    Args:
        read: Runs a query for these sums; called again when a sum is too large.
        columns: What is added up.
    """
    try:
        rows = await read([func.sum(column) for column in columns])
    except OperationalError as error:
        if _TOO_LARGE not in str(error.orig):
            raise
    else:
        return [(place, [int(one or 0) for one in figures]) for place, figures in rows]
    rows = await read([half for column in columns for half in exact_sum(column)])
    return [(place, join_halves(figures)) for place, figures in rows]
