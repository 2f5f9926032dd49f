"""Tells what became of a request: its usage, what that cost, and where it is booked.

It is here because this is the only room above all those that know a part of it.
"""

from collections.abc import Iterable, Sequence

from penstock.billing import story_store as store
from penstock.billing.story_model import MAX_STORIES, Rating, Story
from penstock.metering.model import UsageRow
from penstock.metering.store import find_request
from penstock.rating.model import Price, PriceBook
from penstock.rating.run_store import list_corrections
from penstock.rating.store import books, list_prices_by_id
from penstock.storage.sessions import ReadSession


async def tell(
    session: ReadSession,
    name: str,
    *,
    project: str | None,
    sees_charges: bool,
    sees_costs: bool,
    sees_books: bool,
) -> list[Story]:
    """Return what is known of requests that are called so, oldest first, `MAX_STORIES` at most.

    Args:
        session: One state of the database; its scope says whose requests are told of.
        name: The id that the caller gave or was answered, or the id of the usage event.
        project: Only of this one.
        sees_charges: Whether what it is charged may be seen.
        sees_costs: Whether what the platform pays and its prices may be seen.
        sees_books: Whether transfers, corrections and invoices may be seen, which are of the whole
            organization.
    """
    scope = session.scope
    rows = await find_request(session, scope, name, project=project, limit=MAX_STORIES)
    if not rows:
        return []
    ids = [row.event_id for row in rows]
    arrivals = await store.list_arrivals(session, scope, ids)
    kinds = [*(["charge"] if sees_charges else []), *(["cost"] if sees_costs else [])]
    ratings = await store.list_ratings(session, scope, ids, kinds)
    prices = await _find_prices(session, ratings) if sees_costs else {}
    budgets = [
        use
        for organization in sorted({row.organization for row in rows} if sees_charges else ())
        for use in await store.list_budget_uses(session, scope, organization, ids)
    ]
    transfers = {one.transfer_id for one in ratings if one.transfer_id} if sees_books else set()
    corrections = await list_corrections(session, scope, ids) if sees_books else {}
    bookings = await store.list_bookings(session, scope, transfers)
    bills = await store.list_bills(session, scope, transfers)

    def tell_one(row: UsageRow) -> Story:
        own = [one for one in ratings if one.event_id == row.event_id]
        booked = _in_order(one.transfer_id for one in own)
        return Story(
            usage=row,
            arrival=arrivals[row.event_id],
            ratings=own,
            prices=[prices[one] for one in _in_order(one.price_id for one in own) if one in prices],
            corrections=corrections.get(row.event_id, ()),
            budgets=[use for use in budgets if use.event_id == row.event_id],
            bookings=[bookings[one] for one in booked if one in bookings],
            bills=[bills[one] for one in booked if one in bills],
        )

    return [tell_one(row) for row in rows]


def _in_order(names: Iterable[str | None]) -> list[str]:
    """Return names that are some, each once."""
    return list(dict.fromkeys(name for name in names if name))


async def _find_prices(
    session: ReadSession, ratings: Sequence[Rating]
) -> dict[str, tuple[Price, PriceBook]]:
    """Return prices by their ids, each with its book."""
    scope = session.scope
    prices = await list_prices_by_id(session, scope, _in_order(one.price_id for one in ratings))
    found = {}
    for price in prices:
        book = await books.find(session, scope, price.book_id)
        if book is not None:
            found[price.id] = (price, book)
    return found
