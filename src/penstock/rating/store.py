"""Every SQL statement of the rating room about prices. Their sessions see all organizations."""

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, and_, or_, select, tuple_

from penstock.rating.model import BookKind, Price, PriceBook, default_book_id
from penstock.rating.tables import PriceBooks, Prices
from penstock.storage.objects import ObjectStore
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

prices = ObjectStore(Prices, Price, None)
books = ObjectStore(PriceBooks, PriceBook, None)

_IS_DEFAULT_LIST = PriceBooks.id == "pbk_list_" + PriceBooks.currency
_IS_DEFAULT_COST = PriceBooks.id == "pbk_cost_" + PriceBooks.currency


async def make_default_book(
    session: WriteSession, scope: Scope, kind: BookKind, currency: str, now_us: int
) -> PriceBook:
    """Return the list or the cost book of a currency, which is there from its first price on."""
    book_id = default_book_id(kind, currency)
    found = await books.find(session, scope, book_id)
    if found is not None:
        return found
    book = PriceBook(
        id=book_id,
        name=f"{kind}-{currency}",
        kind=kind,
        currency=currency,
        organization_id=None,
        version=1,
        created_at_us=now_us,
        updated_at_us=now_us,
    )
    await books.insert(session, scope, book)
    return book


async def list_used_books(
    session: ReadSession, scope: Scope, organizations: Collection[str]
) -> Sequence[PriceBook]:
    """Return the books that usage of organizations is rated by: lists, costs, their contracts."""
    return await books.list_by_id(
        session,
        scope,
        or_(
            _IS_DEFAULT_LIST,
            _IS_DEFAULT_COST,
            and_(PriceBooks.kind == "contract", PriceBooks.organization_id.in_(organizations)),
        ),
    )


async def list_book_prices(
    session: ReadSession, scope: Scope, book_ids: Collection[str], models: Collection[str]
) -> Sequence[Price]:
    """Return all prices of models in books."""
    return await prices.list_by_id(
        session, scope, Prices.book_id.in_(book_ids), Prices.alias.in_(models)
    )


async def list_prices_by_id(
    session: ReadSession, scope: Scope, price_ids: Collection[str]
) -> Sequence[Price]:
    """Return prices by their ids."""
    return await prices.list_by_id(session, scope, Prices.id.in_(price_ids))


async def list_told_prices(
    session: ReadSession, scope: Scope, aliases: Collection[str]
) -> Sequence[Price]:
    """Return all prices of aliases that usage is charged by: those of lists and contracts."""
    return await prices.list_by_id(session, scope, Prices.alias.in_(aliases), _is_charged_by())


async def list_aliases_behind(
    session: ReadSession, scope: Scope, after_id: str, limit: int
) -> tuple[set[str], str]:
    """Return aliases of a page of prices that usage is charged by, and the id to go on behind."""
    page = await prices.list_by_id(session, scope, _is_charged_by(), after=after_id, limit=limit)
    return {price.alias for price in page}, page[-1].id if len(page) == limit else ""


async def list_priced(
    session: ReadSession, scope: Scope, aliases: Collection[str], currency: str
) -> set[str]:
    """Return those of some aliases that have a price in a currency, for everybody or for a scope's.

    Whoever may use an alias may know that: so it is asked for in anybody's session.
    """
    statement = select(Prices.alias).where(
        Prices.alias.in_(aliases),
        or_(
            Prices.book_id == default_book_id("list", currency),
            and_(Prices.organization_id == scope.organization, Prices.currency == currency),
        ),
    )
    return {row[0] for row in await session.rows(statement.distinct())}


async def list_same(session: ReadSession, scope: Scope, price: Price) -> Sequence[Price]:
    """Return the prices of a price's book, model, upstream and tier."""
    same = tuple_(Prices.book_id, Prices.alias, Prices.upstream, Prices.service_tier)
    return await prices.list_by_id(
        session,
        scope,
        same == tuple_(price.book_id, price.alias, price.upstream, price.service_tier),
    )


def _is_charged_by() -> ColumnElement[bool]:
    is_list = Prices.book_id == "pbk_list_" + Prices.currency
    return or_(is_list, Prices.organization_id.is_not(None))
