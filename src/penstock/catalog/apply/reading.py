"""Reads objects of the database as a document would have them: many at once, by name or by id."""

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement

from penstock.catalog.apply.kind import Kind, Mention, Names
from penstock.catalog.apply.kinds_catalog import ALIASES, DEPLOYMENTS, GRANTS, ROUTES, UPSTREAMS
from penstock.catalog.apply.kinds_secrets import CREDENTIALS, KEYS
from penstock.catalog.apply.kinds_tenancy import (
    MEMBERS,
    ORGANIZATIONS,
    PROJECTS,
    SERVICE_ACCOUNTS,
)
from penstock.catalog.apply.model import ORDER, Members, Ref
from penstock.storage.paging import MAX_PAGE_ROWS, PageRequest
from penstock.storage.sessions import ReadSession

KINDS = (
    ORGANIZATIONS,
    PROJECTS,
    MEMBERS,
    SERVICE_ACCOUNTS,
    CREDENTIALS,
    UPSTREAMS,
    DEPLOYMENTS,
    ROUTES,
    ALIASES,
    GRANTS,
    KEYS,
)
"""Of this room and those below it."""
_CHUNK = 400
"""Values of one statement: databases bound them."""


class Reader:
    """Reads objects, and remembers what their names and ids are.

    Args:
        session: Where from; of the platform.
        kinds: What there is of each section.
    """

    def __init__(self, session: ReadSession, kinds: Iterable[Kind]) -> None:
        """See the class."""
        self._session = session
        self.kinds = {kind.section: kind for kind in kinds}
        self.names = Names()
        self.members: dict[Ref, Members] = {}
        """What was read, of objects that are in use."""

    async def read_named(self, refs: Iterable[Ref]) -> None:
        """Read the objects of these names, those that there are."""
        wanted: dict[str, set[Ref]] = {section: set() for section in ORDER}
        for ref in refs:
            wanted[ref.section].add(ref)
        for section in ORDER:
            kind = self.kinds[section]
            places = [
                place
                for ref in wanted[section]
                if (place := kind.place(self.names, ref.identity)) is not None
            ]
            for chunk in _chunks(places):
                columns = {name for place in chunk for name in place}
                conditions = [
                    getattr(kind.table, name).in_({place[name] for place in chunk})
                    for name in columns
                ]
                await self._read(kind, conditions, wanted[section])

    async def read_ids(self, mentions: Collection[Mention]) -> None:
        """Read the objects with these ids, those that are in use."""
        for section in ORDER:
            kind = self.kinds[section]
            ids = sorted({object_id for found, object_id in mentions if found == section})
            for chunk in _chunks(ids):
                await self._read(kind, [kind.table.id.in_(chunk)], None)

    async def read_all(self, max_objects: int) -> bool:
        """Read everything that is in use; return False when there is more than `max_objects`."""
        for section in ORDER:
            async for found in self._pages(self.kinds[section], []):
                await self._learn(self.kinds[section], found, None)
                if len(self.members) > max_objects:
                    return False
        return True

    def find_in_use(self, mention: Mention) -> Ref | None:
        """Return the object with an id, if it was read and is in use."""
        if not self.names.has_identity(mention):
            return None
        ref = Ref(mention[0], self.names.identity(*mention))
        return ref if self._is_in_use(mention) else None

    async def _read(
        self, kind: Kind, conditions: Sequence[ColumnElement[bool]], wanted: Collection[Ref] | None
    ) -> None:
        async for found in self._pages(kind, conditions):
            await self._learn(kind, found, wanted)

    async def _pages(
        self, kind: Kind, conditions: Sequence[ColumnElement[bool]]
    ) -> AsyncIterator[list[Any]]:
        cursor: str | None = ""
        while cursor is not None:
            page = await kind.objects.list(
                self._session,
                self._session.scope,
                PageRequest.of(cursor or None, MAX_PAGE_ROWS),
                *kind.in_use,
                *conditions,
            )
            yield list(page.items)
            cursor = page.next_cursor

    async def _learn(self, kind: Kind, items: list[Any], wanted: Collection[Ref] | None) -> None:
        """Take note of objects that are in use, as far as their owners are, and are wanted."""
        await self._name(kind, items, are_in_use=True)
        kept = []
        for item in items:
            ref = Ref(kind.section, self.names.identity(kind.section, item.id))
            if self.names.find_id(ref.section, *ref.identity) == item.id and (
                wanted is None or ref in wanted
            ):
                kept.append((ref, item))
        await self._identify(mention for _, item in kept for mention in kind.mentions(item))
        for ref, item in kept:
            self.members[ref] = kind.members(self.names, item)

    async def _name(self, kind: Kind, items: list[Any], *, are_in_use: bool) -> None:
        """Find out what objects are called; what belongs to something archived is not in use."""
        await self._identify(mention for item in items for mention in kind.owners(item))
        for item in items:
            identity = kind.identify(self.names, item)
            if are_in_use and all(map(self._is_in_use, kind.owners(item))):
                self.names.learn(kind.section, identity, item.id)
            else:
                self.names.learn_id(kind.section, item.id, identity)

    def _is_in_use(self, mention: Mention) -> bool:
        section, object_id = mention
        return self.names.find_id(section, *self.names.identity(section, object_id)) == object_id

    async def _identify(self, mentions: Iterable[Mention]) -> None:
        """Find out what ids stand for, also those of what is archived or revoked."""
        unknown: dict[str, set[str]] = {}
        for mention in mentions:
            if not self.names.has_identity(mention):
                unknown.setdefault(mention[0], set()).add(mention[1])
        for section, ids in unknown.items():
            kind = self.kinds[section]
            for chunk in _chunks(sorted(ids)):
                async for found in self._pages(kind, [kind.table.id.in_(chunk)]):
                    await self._name(kind, found, are_in_use=True)
                rest = [one for one in chunk if not self.names.has_identity((section, one))]
                if not rest or not kind.in_use:
                    continue
                page = PageRequest.of(None, MAX_PAGE_ROWS)
                gone = await kind.objects.list(
                    self._session, self._session.scope, page, kind.table.id.in_(rest)
                )
                await self._name(kind, list(gone.items), are_in_use=False)


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _CHUNK):
        yield values[start : start + _CHUNK]
