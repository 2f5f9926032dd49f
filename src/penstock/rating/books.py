"""Use cases of price books. None commits."""

import re

from penstock.audit.model import Actor
from penstock.audit.service import record
from penstock.catalog.collection import entry_of
from penstock.catalog.rules import check_name
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.limits.budget_rules import find_currency_fault
from penstock.rating import store
from penstock.rating.errors import BOOK_EXISTS, BOOK_INVALID
from penstock.rating.model import BookKind, NewBook, PriceBook
from penstock.storage.errors import RowConflictError
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy.service import get_organization

_OURS = re.compile(r"(?:list|cost)-[A-Z]{3}")
"""Names of the books that come with the first price of a currency."""


async def create_book(session: WriteSession, actor: Actor, new: NewBook) -> PriceBook:
    """Create a book. It stays: usage may have been rated by it.

    Raises:
        PenstockError: `BOOK_INVALID`, `BOOK_EXISTS`, `OBJECT_UNKNOWN` for the organization.
    """
    await session.lock_configuration()
    fault = _find_fault(new)
    if fault is not None:
        raise PenstockError(BOOK_INVALID, fault)
    if new.organization_id is not None:
        await get_organization(session, new.organization_id)
    book = PriceBook(
        id=create_id("pbk"),
        name=new.name,
        kind=new.kind,
        currency=new.currency,
        organization_id=new.organization_id,
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )
    try:
        await store.books.insert(session, session.scope, book)
    except RowConflictError:
        raise PenstockError(BOOK_EXISTS) from None
    await record(session, entry_of(actor, "price_book.create", book, after=book))
    return book


async def get_book(session: ReadSession, book_id: str) -> PriceBook:
    """Return a book.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.books.get(session, session.scope, book_id)


async def list_books(
    session: ReadSession,
    page: PageRequest,
    *,
    kind: BookKind | None = None,
    currency: str | None = None,
    organization_id: str | None = None,
    name: str | None = None,
) -> Page[PriceBook]:
    """Return books, oldest first."""
    return await store.books.list(
        session,
        session.scope,
        page,
        kind=kind,
        currency=currency,
        organization_id=organization_id,
        name=name,
    )


def _find_fault(new: NewBook) -> str | None:
    try:
        check_name(new.name)
    except ValueError as error:
        return f"`name`: {error}."
    if _OURS.fullmatch(new.name):
        return "`name`: is that of a book which comes with the first price of its currency."
    fault = find_currency_fault(new.currency)
    if fault is not None:
        return f"`currency`: {fault}."
    if (new.kind == "contract") != (new.organization_id is not None):
        return "`organization_id`: a contract is with one organization, other books with nobody."
    return None
