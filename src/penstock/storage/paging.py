"""Listings in pages: objects in order of creation, and the word that says where to go on."""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from sqlalchemy import ColumnElement, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from penstock.kit.errors import PenstockError
from penstock.storage.errors import PAGE_CURSOR_INVALID

MAX_PAGE_ROWS = 1_000
DEFAULT_PAGE_ROWS = 100

_POSITION = re.compile(r"(?P<created_at>[0-9]{1,16}),(?P<id>[0-9A-Za-z_]{1,64})")


class Listed(Protocol):
    """What has a place in a listing."""

    @property
    def id(self) -> str:
        """The object's id."""
        ...

    @property
    def created_at_us(self) -> int:
        """When it was created, in microseconds since the Unix epoch."""
        ...


Item = TypeVar("Item", bound=Listed)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a listing is wanted."""

    after: tuple[int, str] | None = None
    """Behind which object: the time of its creation and its id; from the first when None."""
    limit: int = DEFAULT_PAGE_ROWS
    """Most objects, 1..1000."""

    @classmethod
    def of(cls, cursor: str | None = None, limit: int = DEFAULT_PAGE_ROWS) -> Self:
        """Return the request for the page behind a cursor.

        Raises:
            PenstockError: `PAGE_CURSOR_INVALID`.
        """
        return cls(None if cursor is None else _parse_cursor(cursor), limit)

    def condition(
        self, created_at: InstrumentedAttribute[int], object_id: InstrumentedAttribute[str]
    ) -> list[ColumnElement[bool]]:
        """Return the conditions that leave what is behind the cursor."""
        if self.after is None:
            return []
        types = (created_at.type, object_id.type)
        return [tuple_(created_at, object_id) > tuple_(*self.after, types=types)]

    def page(self, found: Sequence[Item]) -> "Page[Item]":
        """Return the page of what a query with one row more than `limit` found."""
        items = list(found[: self.limit])
        if len(found) <= self.limit:
            return Page(items, None)
        return Page(items, _format_cursor(items[-1]))


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A part of a listing, oldest first."""

    items: list[Item]
    next_cursor: str | None
    """Where to go on; None when there is nothing more."""


def _format_cursor(item: Listed) -> str:
    content = f"{item.created_at_us},{item.id}".encode()
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _parse_cursor(cursor: str) -> tuple[int, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        content = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        content = ""
    match = _POSITION.fullmatch(content)
    if match is None:
        raise PenstockError(PAGE_CURSOR_INVALID)
    return int(match["created_at"]), match["id"]
