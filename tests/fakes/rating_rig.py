"""Price books, prices and rated usage in a database, to test with."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from tests.fakes.budget_rig import make_price
from tests.fakes.organizations import ALL, NOW_US

from penstock.contract.usage import UsageEvent
from penstock.limits.prices import ATTO_IN_NANO
from penstock.rating import store
from penstock.rating.model import BookKind, Price, PriceBook, RatedBatch
from penstock.rating.service import rate_events, record_rated
from penstock.rating.tables import RatedUsage
from penstock.storage.database import Database


class RatingRig:
    """What usage is rated by, and what it was rated at.

    Args:
        database: Where everything is.
    """

    def __init__(self, database: Database) -> None:
        """See the class."""
        self.database = database

    async def add_book(self, kind: BookKind, currency: str = "EUR", **members: Any) -> PriceBook:
        """Return the book of a currency that is used, or one with members of its own."""
        async with self.database.write(ALL) as session:
            if not members:
                return await store.make_default_book(session, ALL, kind, currency, NOW_US)
            values = {"organization_id": None, "name": members["id"], **members}
            book = PriceBook(
                kind=kind,
                currency=currency,
                version=1,
                created_at_us=NOW_US,
                updated_at_us=NOW_US,
                **values,
            )
            await store.books.insert(session, ALL, book)
            return book

    async def add_price(self, book: PriceBook, name: str, model: str, **members: Any) -> Price:
        """Have a model cost something by a book."""
        price = make_price(
            model,
            book.currency,
            id=name,
            book_id=book.id,
            organization_id=book.organization_id,
            **members,
        )
        async with self.database.write(ALL) as session:
            await store.prices.insert(session, ALL, price)
        return price

    async def deliver(
        self, events: Sequence[UsageEvent], currency: str = "EUR", **options: Any
    ) -> RatedBatch:
        """Rate events and store what they were rated at."""
        currencies = {event.organization: currency for event in events}
        async with self.database.write(ALL) as session:
            batch = await rate_events(session, events, currencies)
            transfers: Mapping[tuple[str, str, str], str] = options.pop("transfers", {})
            await record_rated(session, batch.rated, transfers, recorded_at_us=NOW_US, **options)
        return batch

    async def sums(self, table: Any, *names: str) -> dict[tuple[Any, ...], int]:
        """Return a table's amounts, in atto-units, by columns."""
        columns = [getattr(table, name) for name in names]
        statement = select(*columns, func.sum(table.amount), func.sum(table.amount_rest)).group_by(
            *columns
        )
        async with self.database.read(ALL) as session:
            rows = await session.rows(statement)
        return {tuple(row[:-2]): int(row[-2]) * ATTO_IN_NANO + int(row[-1]) for row in rows}

    async def total(self, kind: str = "charge") -> int:
        """Return all that was rated, in atto-units."""
        return (await self.sums(RatedUsage, "kind")).get((kind,), 0)
