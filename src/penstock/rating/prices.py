"""Use cases of prices. None commits; changes are told to the audit log and data planes."""

import dataclasses
from collections.abc import Iterable

from penstock.audit.model import Actor
from penstock.audit.service import record
from penstock.catalog.aliases import get_alias
from penstock.catalog.collection import entry_of
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.kit.moments import format_time
from penstock.limits.budget_rules import find_currency_fault
from penstock.rating import store
from penstock.rating.errors import PRICE_EXISTS, PRICE_INVALID, PRICE_TOO_SOON, PRICE_USED
from penstock.rating.feeding import change_name
from penstock.rating.model import BookKind, NewPrice, Price, PriceBook, PutPrice
from penstock.rating.price_rules import (
    MAX_AHEAD_US,
    NOTICE_S,
    SECOND_US,
    earliest_start,
    fill,
    find_overlap,
    find_price_fault,
    is_fixed,
)
from penstock.rating.rules import find_holding
from penstock.storage.changes import record_change
from penstock.storage.errors import RowConflictError
from penstock.storage.paging import Page, PageRequest
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

_GIVEN_BY_US = ("id", "valid_from_us", "version", "created_at_us", "updated_at_us")
"""Members of a price that do not say what it is."""


async def create_price(session: WriteSession, actor: Actor, new: NewPrice) -> Price:
    """Set what a model costs from a moment on. It stays once it has begun.

    Raises:
        PenstockError: `PRICE_INVALID`, `PRICE_TOO_SOON`, `PRICE_EXISTS`, `OBJECT_UNKNOWN` for the
            alias or the book.
    """
    await session.lock_configuration()
    book = await _book_of(session, actor, new)
    price = await _make(session, actor, new, book)
    _check(price, book)
    earliest_us = await _earliest(session, price, book, actor.at_us)
    if new.valid_from_us is None:
        begin_us = earliest_us or actor.at_us - actor.at_us % SECOND_US
        price = dataclasses.replace(price, valid_from_us=begin_us)
        _check(price, book)
    elif not earliest_us <= price.valid_from_us <= actor.at_us + MAX_AHEAD_US:
        message = f"It can begin at {format_time(earliest_us)} or within ten years from then."
        raise PenstockError(PRICE_TOO_SOON, message)
    # Others of the same wait for the lock of the configuration, so none comes in between.
    overlapping = find_overlap(price, await store.list_same(session, session.scope, price))
    if overlapping is not None:
        raise PenstockError(PRICE_EXISTS, f"It would hold at the same time as {overlapping.id}.")
    try:
        await store.prices.insert(session, session.scope, price)
    except RowConflictError:
        raise PenstockError(PRICE_EXISTS) from None
    await _tell(session, actor, "price.create", price, book, after=price)
    return price


async def put_price(session: WriteSession, actor: Actor, new: NewPrice) -> PutPrice:
    """Have a model cost something from a moment on; done again, it changes nothing.

    One that begins at the same time and has not begun gives way. Without a start, nothing is new
    where the same holds already, or is about to.

    Raises:
        PenstockError: As `create_price`; `PRICE_USED` for another one that began at that time.
    """
    await session.lock_configuration()
    book = await _book_of(session, actor, new)
    wanted = await _make(session, actor, new, book)
    # One that was set a moment ago may wait for its notice.
    soon_us = actor.at_us + NOTICE_S * SECOND_US
    at_us = soon_us if new.valid_from_us is None else new.valid_from_us
    there = find_holding(await store.list_same(session, session.scope, wanted), at_us)
    if there is None:
        return PutPrice("create", await create_price(session, actor, new), None)
    is_there = new.valid_from_us in {None, there.valid_from_us}
    if (
        is_there
        and dataclasses.replace(wanted, **{name: getattr(there, name) for name in _GIVEN_BY_US})
        == there
    ):
        return PutPrice("none", there, there)
    if there.valid_from_us != new.valid_from_us:
        return PutPrice("create", await create_price(session, actor, new), there)
    await delete_price(session, actor, there.id)
    return PutPrice("replace", await create_price(session, actor, new), there)


async def get_price(session: ReadSession, price_id: str) -> Price:
    """Return a price.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.prices.get(session, session.scope, price_id)


async def list_prices(
    session: ReadSession,
    page: PageRequest,
    *,
    alias: str | None = None,
    currency: str | None = None,
    book_id: str | None = None,
) -> Page[Price]:
    """Return prices, oldest first."""
    return await store.prices.list(
        session, session.scope, page, alias=alias, currency=currency, book_id=book_id
    )


async def delete_price(
    session: WriteSession, actor: Actor, price_id: str, *, expected_version: int | None = None
) -> None:
    """Take back a price that does not begin soon.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `PRICE_USED`.
    """
    price = await store.prices.lock(session, session.scope, price_id, expected_version)
    if is_fixed(price, actor.at_us):
        raise PenstockError(PRICE_USED)
    book = await store.books.get(session, session.scope, price.book_id)
    await store.prices.delete(session, session.scope, price)
    await _tell(session, actor, "price.delete", price, book, before=price)


async def list_unpriced(
    session: ReadSession, aliases: Iterable[str], currency: str, organization_id: str
) -> list[str]:
    """Return those of some aliases that never have a price in a currency for an organization."""
    aliases = set(aliases)
    whose = Scope.of(organization_id)
    priced = await store.list_priced(session, whose, aliases, currency)
    return sorted(aliases - priced)


async def _book_of(session: WriteSession, actor: Actor, new: NewPrice) -> PriceBook:
    if new.book_id is None:
        kind: BookKind = "list" if new.model is None else "cost"
        fault = find_currency_fault(new.currency)
        if fault is not None:
            raise PenstockError(PRICE_INVALID, f"`currency`: {fault}.")
        return await store.make_default_book(
            session, session.scope, kind, new.currency, actor.at_us
        )
    book = await store.books.get(session, session.scope, new.book_id)
    if book.currency != new.currency:
        raise PenstockError(PRICE_INVALID, f"`currency`: the book is in {book.currency}.")
    return book


async def _make(session: WriteSession, actor: Actor, new: NewPrice, book: PriceBook) -> Price:
    if book.kind == "cost":
        if new.model is None or new.alias_id is not None:
            raise PenstockError(PRICE_INVALID, "`model`: names what a cost book has prices of.")
        name = new.model
    else:
        if new.alias_id is None or new.model is not None or new.upstream:
            message = "`alias_id`: names what this book has prices of, not a model or an upstream."
            raise PenstockError(PRICE_INVALID, message)
        name = (await get_alias(session, new.alias_id)).name
    try:
        figures, rates = fill(new)
    except ValueError as error:
        raise PenstockError(PRICE_INVALID, str(error)) from None
    return Price(
        id=create_id("prc"),
        book_id=book.id,
        organization_id=book.organization_id,
        alias=name,
        upstream=new.upstream,
        service_tier=new.service_tier,
        currency=book.currency,
        valid_from_us=new.valid_from_us or 0,
        valid_to_us=new.valid_to_us,
        **figures,
        rates=rates,
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )


def _check(price: Price, book: PriceBook) -> None:
    fault = find_price_fault(price, is_cost=book.kind == "cost")
    if fault is not None:
        raise PenstockError(PRICE_INVALID, fault)


async def _earliest(session: WriteSession, price: Price, book: PriceBook, now_us: int) -> int:
    if book.kind == "cost" or not book.is_used:
        # Nobody is let in by it, and no usage is rated by it that comes in before it is set.
        return 0
    others = await store.list_told_prices(session, session.scope, [price.alias])
    return earliest_start(price, others, now_us)


async def _tell(
    session: WriteSession,
    actor: Actor,
    action: str,
    price: Price,
    book: PriceBook,
    **states: Price,
) -> None:
    if book.is_used and book.kind != "cost":
        await record_change(session, "price", change_name(price), actor.at_us)
    await record(session, entry_of(actor, action, price, **states))
