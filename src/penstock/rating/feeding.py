"""What nodes are told of prices: past ones and those to come; workers look at the time.

A record is named by the alias, and what an organization with a contract is told by both: it takes
the place of the other one.
"""

from collections.abc import Collection, Iterable
from typing import TypeAlias

from penstock.contract.snapshot_store import prices_name, prices_record
from penstock.rating import store
from penstock.rating.model import Price
from penstock.rating.price_rules import read_good
from penstock.rating.rules import ReadPrice
from penstock.rating.telling import tell
from penstock.storage.sessions import ReadSession

Records: TypeAlias = dict[bytes, bytes]


def change_name(price: Price) -> str:
    """Return the name that a change of a price is recorded under."""
    return price.alias if price.organization_id is None else _join(price)


async def find_changed(session: ReadSession, names: Collection[str]) -> tuple[Records, set[bytes]]:
    """Return the records that nodes shall have of aliases' prices, and names of those to go."""
    aliases = {name.partition(" ")[0] for name in names}
    puts = _tell(await store.list_told_prices(session, session.scope, aliases))
    return puts, {_name(name) for name in names} - puts.keys()


async def list_page(session: ReadSession, after_id: str, limit: int) -> tuple[Records, str]:
    """Return the records of aliases of prices behind an id, and the id to go on behind."""
    aliases, last = await store.list_aliases_behind(session, session.scope, after_id, limit)
    puts = _tell(await store.list_told_prices(session, session.scope, aliases)) if aliases else {}
    return puts, last


def _tell(prices: Iterable[Price]) -> Records:
    listed: dict[str, list[ReadPrice]] = {}
    contracts: dict[tuple[str, str], list[ReadPrice]] = {}
    for each in read_good(prices):
        price = each.price
        if price.organization_id is None:
            listed.setdefault(price.alias, []).append(each)
        else:
            contracts.setdefault((price.alias, price.organization_id), []).append(each)
    records = [prices_record(alias, tuple(tell(mine))) for alias, mine in listed.items()]
    records += [
        prices_record(alias, tuple(tell([*listed.get(alias, []), *mine])), organization)
        for (alias, organization), mine in contracts.items()
    ]
    return dict(records)


def _join(price: Price) -> str:
    return f"{price.alias} {price.organization_id}"


def _name(change: str) -> bytes:
    alias, _, organization = change.partition(" ")
    return prices_name(alias, organization)
