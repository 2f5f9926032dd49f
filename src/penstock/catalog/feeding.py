"""The catalog's part of the configuration feed: what changed, and everything in pages."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

from penstock.catalog import feed, store
from penstock.catalog.collection import Kind
from penstock.contract.snapshot_store import grant_name
from penstock.storage.sessions import ReadSession

Records: TypeAlias = dict[bytes, bytes]

_TELL: dict[Kind, tuple[bytes, Callable[[Any, feed.Names], feed.Record | None]]] = {
    "upstream": (b"u", feed.tell_upstream),
    "deployment": (b"d", feed.tell_deployment),
    "route": (b"r", feed.tell_route),
    "alias": (b"a", feed.tell_alias),
}
"""Letter of the records of a kind, and what makes one."""


async def find_changed(
    session: ReadSession, names: Collection[str], *, kind: Kind
) -> tuple[Records, set[bytes]]:
    """Return the records that nodes shall have of changed objects, and names of those to go.

    Args:
        session: Where from.
        names: As the change feed has them.
        kind: Of the objects.
    """
    items = await store.list_by_name(session, session.scope, kind, names)
    puts = await _tell(session, kind, items)
    return puts, {_TELL[kind][0] + name.encode() for name in names} - puts.keys()


async def list_page(
    session: ReadSession, after_id: str, limit: int, *, kind: Kind
) -> tuple[Records, str]:
    """Return the records of objects behind an id, and the id to go on behind; "" at the end."""
    items = await store.list_behind(session, session.scope, kind, after_id, limit)
    return await _tell(session, kind, items), items[-1].id if len(items) == limit else ""


async def find_changed_grants(
    session: ReadSession, names: Collection[str]
) -> tuple[Records, set[bytes]]:
    """Return the records of grants that are there, and names of those to go; see above."""
    owners = [feed.parse_grant(name) for name in names]
    aliases = {alias for alias, _, _ in owners}
    found = await store.find_granted(session, session.scope, aliases)
    granted = {grant_name(*owner) for _, owner in found}
    asked = {grant_name(*owner) for owner in owners}
    return dict.fromkeys(asked & granted, b""), asked - granted


async def list_grant_page(session: ReadSession, after_id: str, limit: int) -> tuple[Records, str]:
    """Return the records of grants behind an id, and the id to go on behind; "" at the end."""
    found = await store.list_granted(session, session.scope, after_id, limit)
    records = {grant_name(*owner): b"" for _, owner in found}
    return records, found[-1][0] if len(found) == limit else ""


async def _tell(session: ReadSession, kind: Kind, items: Sequence[Any]) -> Records:
    ids = [item.id for item in items]
    names = await store.find_named(session, session.scope, kind, ids)
    tell = _TELL[kind][1]
    return dict(record for item in items if (record := tell(item, names)) is not None)
