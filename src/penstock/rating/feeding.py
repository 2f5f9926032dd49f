"""What nodes are told of prices: all of an alias, past and to come; workers look at the time."""

from collections.abc import Collection, Iterable
from typing import TypeAlias

from penstock.contract import money
from penstock.contract.snapshot_store import prices_record
from penstock.rating import store
from penstock.rating.model import Price
from penstock.rating.price_rules import find_price_fault
from penstock.storage.sessions import ReadSession

Records: TypeAlias = dict[bytes, bytes]


async def find_changed(session: ReadSession, names: Collection[str]) -> tuple[Records, set[bytes]]:
    """Return the records that nodes shall have of aliases' prices, and names of those to go."""
    puts = _tell(await store.list_prices_of(session, session.scope, names))
    return puts, {b"c" + name.encode() for name in names} - puts.keys()


async def list_page(session: ReadSession, after_id: str, limit: int) -> tuple[Records, str]:
    """Return the records of aliases of prices behind an id, and the id to go on behind."""
    page = await store.prices.list_by_id(session, session.scope, after=after_id, limit=limit)
    aliases = {price.alias for price in page}
    puts = _tell(await store.list_prices_of(session, session.scope, aliases)) if aliases else {}
    return puts, page[-1].id if len(page) == limit else ""


def _tell(prices: Iterable[Price]) -> Records:
    by_alias: dict[str, list[money.Price]] = {}
    for price in prices:
        if find_price_fault(price) is None:
            by_alias.setdefault(price.alias, []).append(price.told())
    return dict(
        prices_record(alias, tuple(sorted(told, key=lambda one: (one.currency, one.valid_from_s))))
        for alias, told in by_alias.items()
    )
