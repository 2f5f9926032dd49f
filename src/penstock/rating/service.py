"""Use cases of the rating room. None commits; changes are told to the audit log and data planes."""

import dataclasses
from collections.abc import Collection, Iterable, Sequence

from penstock.audit.model import Actor
from penstock.audit.service import record
from penstock.catalog.aliases import get_alias
from penstock.catalog.collection import entry_of
from penstock.contract import money
from penstock.contract.usage import UsageEvent
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.kit.moments import format_time
from penstock.limits.prices import exact_charge, price_at
from penstock.rating import store
from penstock.rating.errors import PRICE_EXISTS, PRICE_INVALID, PRICE_TOO_SOON, PRICE_USED
from penstock.rating.model import NewPrice, Price
from penstock.rating.price_rules import MAX_AHEAD_US, earliest_start, find_price_fault, is_fixed
from penstock.storage.changes import record_change
from penstock.storage.errors import RowConflictError
from penstock.storage.paging import Page, PageRequest
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession


async def create_price(session: WriteSession, actor: Actor, new: NewPrice) -> Price:
    """Set what an alias costs from a moment on. It stays once it has begun.

    Raises:
        PenstockError: `PRICE_INVALID`, `PRICE_TOO_SOON`, `PRICE_EXISTS`, `OBJECT_UNKNOWN` for the
            alias.
    """
    await session.lock_configuration()
    alias = await get_alias(session, new.alias_id)
    price = Price(
        id=create_id("prc"),
        alias=alias.name,
        currency=new.currency,
        valid_from_us=new.valid_from_us or 0,
        input=new.input,
        cached_input=new.input if new.cached_input is None else new.cached_input,
        output=new.output,
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )
    fault = find_price_fault(price)
    if fault is not None:
        raise PenstockError(PRICE_INVALID, fault)
    others = await store.list_prices_of(session, session.scope, [price.alias], price.currency)
    earliest_us = earliest_start(price, others, actor.at_us)
    if new.valid_from_us is None:
        price = dataclasses.replace(price, valid_from_us=earliest_us)
    elif not earliest_us <= price.valid_from_us <= actor.at_us + MAX_AHEAD_US:
        message = f"It can begin at {format_time(earliest_us)} or within ten years from then."
        raise PenstockError(PRICE_TOO_SOON, message)
    try:
        await store.prices.insert(session, session.scope, price)
    except RowConflictError:
        raise PenstockError(PRICE_EXISTS) from None
    await _tell(session, actor, "price.create", price, after=price)
    return price


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
) -> Page[Price]:
    """Return prices, oldest first."""
    return await store.prices.list(session, session.scope, page, alias=alias, currency=currency)


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
    await store.prices.delete(session, session.scope, price)
    await _tell(session, actor, "price.delete", price, before=price)


async def list_unpriced(session: ReadSession, aliases: Iterable[str], currency: str) -> list[str]:
    """Return those of some aliases that never have a price in a currency.

    Whoever may use an alias may know that: so it is asked for in anybody's session.
    """
    aliases = set(aliases)
    everybody = Scope.all_organizations()
    found = await store.list_prices_of(session, everybody, aliases, currency)
    return sorted(aliases - {price.alias for price in found})


async def rate(session: ReadSession, events: Sequence[UsageEvent]) -> list[dict[str, int]]:
    """Return what each event cost, exactly, by currency; its time of admission decides.

    Currencies without a price are left out.
    """
    prices = await _told(session, {event.model for event in events})
    return [_charges(event, prices.get(event.model, [])) for event in events]


def _charges(event: UsageEvent, prices: list[money.Price]) -> dict[str, int]:
    charges = {}
    for currency in {price.currency for price in prices}:
        price = price_at(prices, currency, event.started_at_ns // 1_000_000_000)
        if price is not None:
            cached = event.cached_input_tokens or 0
            charges[currency] = exact_charge(price, event.input_tokens, cached, event.output_tokens)
    return charges


async def _told(session: ReadSession, aliases: Collection[str]) -> dict[str, list[money.Price]]:
    told: dict[str, list[money.Price]] = {}
    for price in await store.list_prices_of(session, session.scope, aliases):
        if find_price_fault(price) is None:
            told.setdefault(price.alias, []).append(price.told())
    return told


async def _tell(
    session: WriteSession, actor: Actor, action: str, price: Price, **states: Price
) -> None:
    await record_change(session, "price", price.alias, actor.at_us)
    await record(session, entry_of(actor, action, price, **states))
