"""Rating: usage events become charges and costs, in the transaction that stores them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.contract.usage import Meter, UsageEvent, quantities
from penstock.limits.prices import ATTO_IN_NANO
from penstock.rating import rated_store, store
from penstock.rating.model import PriceBook, Rated, RatedBatch
from penstock.rating.periods import day_of, day_start_us, month_start_us
from penstock.rating.price_rules import read_good
from penstock.rating.rules import (
    MeterKey,
    ReadPrice,
    Running,
    Shelf,
    is_absurd,
    meter_keys,
    rate_quantities,
)
from penstock.storage.bulk import Values
from penstock.storage.sessions import ReadSession, WriteSession

PLATFORM = ""
"""Whose steps costs are counted in."""


@dataclass(frozen=True, slots=True)
class Books:
    """What events of some organizations are rated by."""

    shelf: Shelf
    used: Sequence[PriceBook]

    def charges(self, event: UsageEvent) -> Iterator[tuple[str, ReadPrice]]:
        """Yield the price of each currency that an event has one in, its contract's first."""
        by_currency: dict[str, list[str]] = {}
        for book in sorted(self.used, key=lambda book: book.kind):  # a contract, then the list
            if book.kind == "list" or (
                book.kind == "contract" and book.organization_id == event.organization
            ):
                by_currency.setdefault(book.currency, []).append(book.id)
        for currency, book_ids in sorted(by_currency.items()):
            found = self.shelf.find(
                book_ids, event.model, admitted_us(event), service_tier=event.service_tier
            )
            if found is not None:
                yield currency, found

    def cost(self, event: UsageEvent, currency: str) -> tuple[str, ReadPrice] | None:
        """Return the price that we pay for an event, in the currency if there is one."""
        costs = [book for book in self.used if book.kind == "cost"]
        for book in sorted(costs, key=lambda book: (book.currency != currency, book.currency)):
            found = self.shelf.find(
                [book.id],
                event.served_model,
                admitted_us(event),
                upstream=event.upstream,
                service_tier=event.service_tier,
            )
            if found is not None:
                return book.currency, found
        return None


def admitted_us(event: UsageEvent) -> int:
    """Return when the request was let in: which price holds, and in which month it counts."""
    return event.started_at_ns // 1_000


async def read_books(session: ReadSession, events: Sequence[UsageEvent]) -> Books:
    """Return what events are rated by as they come in."""
    organizations = {event.organization for event in events}
    used = await store.list_used_books(session, session.scope, organizations)
    models = {event.model for event in events} | {event.served_model for event in events}
    prices = await store.list_book_prices(
        session, session.scope, [book.id for book in used], models
    )
    return Books(Shelf(read_good(prices)), used)


@dataclass(frozen=True, slots=True)
class _Job:
    """One price that an event is rated at."""

    event: UsageEvent
    used: Mapping[Meter, int]
    currency: str
    read: ReadPrice
    organization: str
    is_absurd: bool
    is_stepped: bool
    """Whether it matters what was used of the month before."""

    @property
    def period_us(self) -> int:
        return month_start_us(admitted_us(self.event))

    @property
    def keys(self) -> Iterable[MeterKey]:
        if not self.is_stepped:
            return ()
        return meter_keys(self.read, self.used, self.organization, self.period_us)

    def rate(self, running: Mapping[MeterKey, Running]) -> int:
        if not self.is_stepped:
            return rate_quantities(self.read, self.used, running, self.organization, 0)
        # Nobody's usage may fill a month that is real.
        months = {key: Running() for key in self.keys} if self.is_absurd else running
        return rate_quantities(self.read, self.used, months, self.organization, self.period_us)


@dataclass(frozen=True, slots=True)
class _Plan:
    """All prices that an event is rated at."""

    event: UsageEvent
    used: Mapping[Meter, int]
    charges: Sequence[_Job]
    cost: _Job | None

    @property
    def jobs(self) -> Iterator[_Job]:
        yield from self.charges
        if self.cost is not None:
            yield self.cost


async def rate_events(
    session: WriteSession, events: Sequence[UsageEvent], currencies: Mapping[str, str]
) -> RatedBatch:
    """Return what events cost that are stored for the first time, and count them in their months.

    Whatever an event says, it is rated: without a price at 0, which is told.

    Args:
        session: One of all organizations, in which the events are stored.
        events: Each id once.
        currencies: What organizations are charged in; one that is not named is not charged.
    """
    books = await read_books(session, events)
    plans = [_plan(books, event, currencies.get(event.organization, "")) for event in events]
    jobs = [job for plan in plans for job in plan.jobs if not job.is_absurd]
    running = await rated_store.lock_meters(
        session, session.scope, (key for job in jobs for key in job.keys)
    )
    rated: list[Rated] = []
    budget_charges: list[dict[str, int]] = []
    faults: Counter[str] = Counter()
    for plan in plans:
        amounts = [job.rate(running) for job in plan.charges]
        budget_charges.append(
            # Budgets are not paid back what a cheaper step gives back of a whole month.
            {
                job.currency: max(0, amount)
                for job, amount in zip(plan.charges, amounts, strict=True)
            }
        )
        currency = currencies.get(plan.event.organization)
        if currency is not None:
            found = {
                job.currency: (job, amount)
                for job, amount in zip(plan.charges, amounts, strict=True)
            }
            rated.append(_charge(plan, currency, found.get(currency), faults))
        if plan.cost is not None:
            rated += _cost(plan.cost, plan.cost.rate(running))
    await rated_store.write_meters(session, running)
    return RatedBatch(rated, budget_charges, faults["unpriced"], faults["absurd"])


async def list_unrated(session: WriteSession, events: Sequence[UsageEvent]) -> Sequence[UsageEvent]:
    """Return those of new events that were never rated.

    The others were stored, forgotten with all of their day, and came again: what they cost stands.
    """
    rated = await rated_store.find_rated(session, (event.event_id for event in events))
    return [event for event in events if event.event_id not in rated] if rated else events


async def rate(session: WriteSession, events: Sequence[UsageEvent]) -> Sequence[Mapping[str, int]]:
    """Return what each event costs a budget, by currency; see `rate_events`."""
    return (await rate_events(session, events, {})).budget_charges


async def record_rated(
    session: WriteSession,
    rated: Sequence[Rated],
    transfers: Mapping[tuple[str, str, str], str],
    *,
    recorded_at_us: int,
    run_id: str = "",
) -> None:
    """Store what events were rated at, and add it to the figures of their days.

    Args:
        session: Where to.
        rated: One of an event and kind.
        transfers: By organization, currency and kind: what books it in the ledger.
        recorded_at_us: The time.
        run_id: Of a later run; "" when the events are stored for the first time.
    """
    rows: list[Values] = []
    days: Counter[tuple[Any, ...]] = Counter()
    labels: Counter[tuple[Any, ...]] = Counter()
    for one in rated:
        event = one.event
        rows.append(
            (
                day_of(event.event_id),
                event.event_id,
                one.kind,
                run_id,
                event.organization,
                one.currency,
                one.price_id,
                *divmod(one.amount_atto, ATTO_IN_NANO),
                transfers.get((event.organization, one.currency, one.kind)),
                one.reverses,
                recorded_at_us,
            )
        )
        if one.amount_atto:
            at_us = day_start_us(admitted_us(event))
            who = (event.organization, event.project, event.key_id, event.model, event.data_class)
            days[*who, one.currency, one.kind, at_us] += one.amount_atto
            for name, value in dict(event.labels).items():
                label = (event.organization, name, value, one.currency, one.kind, at_us)
                labels[label] += one.amount_atto
    await rated_store.insert_rated(session, session.scope, rows)
    await rated_store.add_to_days(session, session.scope, days, labels)


def _plan(books: Books, event: UsageEvent, currency: str) -> _Plan:
    used = quantities(event)
    charges = [
        _job(event, used, each, read, event.organization) for each, read in books.charges(event)
    ]
    cost = books.cost(event, currency)
    return _Plan(event, used, charges, None if cost is None else _job(event, used, *cost, PLATFORM))


def _job(
    event: UsageEvent,
    used: Mapping[Meter, int],
    currency: str,
    read: ReadPrice,
    organization: str,
) -> _Job:
    is_stepped = any(rate.is_stepped for rate in read.rates.values())
    return _Job(event, used, currency, read, organization, is_absurd(read, used), is_stepped)


def _charge(
    plan: _Plan, currency: str, found: tuple[_Job, int] | None, faults: Counter[str]
) -> Rated:
    if found is None:
        faults["unpriced"] += bool(plan.used)
        return Rated(plan.event, "charge", currency, "", 0)
    job, amount = found
    if job.is_absurd:
        faults["absurd"] += 1
        return Rated(plan.event, "charge", currency, "", 0)
    return Rated(plan.event, "charge", currency, job.read.price.id, amount)


def _cost(job: _Job, amount: int) -> list[Rated]:
    if job.is_absurd:
        return []
    return [Rated(job.event, "cost", job.currency, job.read.price.id, amount)]
