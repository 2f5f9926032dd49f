"""What nodes are fed: for each kind of object, the records of what changed, and of all there is."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, TypeAlias

from penstock.access import feed as access_feed
from penstock.access import service as access
from penstock.catalog import feeding
from penstock.catalog.credentials import feed as credentials_feed
from penstock.ledger import feeding as terms_feed
from penstock.limits import budget_feed, rule_feed
from penstock.rating import feeding as price_feed
from penstock.storage.changes import ChangeKind
from penstock.storage.sessions import ReadSession
from penstock.tenancy import service as tenancy
from penstock.tenancy.model import OwnerKind

Records: TypeAlias = dict[bytes, bytes]


class Source(NamedTuple):
    """Where the records of a kind come from."""

    find: Callable[[ReadSession, list[str]], Awaitable[tuple[Records, set[bytes]]]]
    """Takes names of the change feed; returns records, and names of those that shall go."""
    list_page: Callable[[ReadSession, str, int], Awaitable[tuple[Records, str]]]
    """Takes a place and how many objects; returns records and the next place, "" at the end."""


async def _find_owners(
    session: ReadSession, ids: list[str], *, kind: OwnerKind
) -> tuple[Records, set[bytes]]:
    puts: Records = {}
    deletes: set[bytes] = set()
    for owner in await tenancy.find_owners(session, kind, ids):
        found, gone = access_feed.owner_records(owner)
        puts |= found
        deletes |= gone
    return puts, deletes


async def _list_owners(
    session: ReadSession, after_id: str, limit: int, *, kind: OwnerKind
) -> tuple[Records, str]:
    owners = await tenancy.list_restricted(session, kind, after_id=after_id, limit=limit)
    puts: Records = {}
    for owner in owners:
        puts |= access_feed.owner_records(owner)[0]
    return puts, owners[-1].id if len(owners) == limit else ""


async def _find_keys(session: ReadSession, ids: list[str]) -> tuple[Records, set[bytes]]:
    puts: Records = {}
    deletes: set[bytes] = set()
    for record in (await access.find_records(session, ids)).values():
        found, gone = access_feed.key_records(record)
        puts |= found
        deletes |= gone
    return puts, deletes


async def _list_keys(session: ReadSession, after_id: str, limit: int) -> tuple[Records, str]:
    records = await access.list_records(session, after_id=after_id, limit=limit)
    puts: Records = {}
    for record in records:
        puts |= access_feed.key_records(record)[0]
    return puts, records[-1].key.id if len(records) == limit else ""


async def _find_hashes(_: ReadSession, names: list[str]) -> tuple[Records, set[bytes]]:
    return {}, set(map(access_feed.hash_record_name, names))


async def _list_nothing(_: ReadSession, __: str, ___: int) -> tuple[Records, str]:
    return {}, ""


SOURCES: dict[ChangeKind, Source] = {
    "upstream": Source(
        partial(feeding.find_changed, kind="upstream"),
        partial(feeding.list_page, kind="upstream"),
    ),
    "deployment": Source(
        partial(feeding.find_changed, kind="deployment"),
        partial(feeding.list_page, kind="deployment"),
    ),
    "route": Source(
        partial(feeding.find_changed, kind="route"), partial(feeding.list_page, kind="route")
    ),
    "alias": Source(
        partial(feeding.find_changed, kind="alias"), partial(feeding.list_page, kind="alias")
    ),
    "grant": Source(feeding.find_changed_grants, feeding.list_grant_page),
    "credential": Source(credentials_feed.list_changed, credentials_feed.list_page),
    "plan": Source(rule_feed.find_changed_plans, rule_feed.list_plans_page),
    "limits": Source(rule_feed.find_changed_limits, rule_feed.list_limits_page),
    "budget": Source(budget_feed.find_changed, budget_feed.list_page),
    "price": Source(price_feed.find_changed, price_feed.list_page),
    # Behind prices: nothing is refused for want of one that is on its way.
    "terms": Source(terms_feed.find_changed, terms_feed.list_page),
    "organization": Source(
        partial(_find_owners, kind="organization"), partial(_list_owners, kind="organization")
    ),
    "project": Source(partial(_find_owners, kind="project"), partial(_list_owners, kind="project")),
    "key": Source(_find_keys, _list_keys),
    "key_hash": Source(_find_hashes, _list_nothing),
}
"""In the order of a full answer."""
