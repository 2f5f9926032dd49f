"""Every SQL statement of the rating room. Prices are the platform's."""

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement

from penstock.rating.model import Price
from penstock.rating.tables import Prices
from penstock.storage.objects import ObjectStore
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

prices = ObjectStore(Prices, Price, None)


async def list_prices_of(
    session: ReadSession, scope: Scope, aliases: Collection[str], currency: str | None = None
) -> Sequence[Price]:
    """Return all prices of aliases, or those in one currency."""
    conditions: list[ColumnElement[bool]] = [Prices.alias.in_(aliases)]
    if currency is not None:
        conditions.append(Prices.currency == currency)
    return await prices.list_by_id(session, scope, *conditions)
