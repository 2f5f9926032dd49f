"""Rating: usage events become charges and costs, in the transaction that stores them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from penstock.contract.usage import Meter, UsageEvent, quantities
from penstock.limits.prices import split_amount
from penstock.metering.bucket_rules import bucket_start, quarter_start
from penstock.metering.rules import day_of
from penstock.rating import rated_store, store
from penstock.rating.model import PriceBook, Rated, RatedBatch
from penstock.rating.price_rules import read_good
from penstock.rating.rules import (
    MeterKey,
    ReadPrice,
    Running,
    Shelf,
    is_absurd,
    meter_keys,
    rate_flat,
    rate_quantities,
)
from penstock.storage.bulk import Values
from penstock.storage.sessions import ReadSession, WriteSession

PLATFORM = ""
"""Whose steps costs are counted in."""


class Books:
    """What events of some organizations are rated by.

    Args:
        shelf: Their prices.
        used: The books.
    """

    def __init__(self, shelf: Shelf, used: Sequence[PriceBook]) -> None:
        """See the class."""
        self._shelf = shelf
        self._lists = {book.currency: [book.id] for book in used if book.kind == "list"}
        self._contracts: dict[str, dict[str, list[str]]] = {}
        """By organization, then currency: the contract, then the list."""
        for book in used:
            if book.organization_id is not None:
                mine = self._contracts.setdefault(book.organization_id, dict(self._lists))
                mine[book.currency] = [book.id, *self._lists.get(book.currency, ())]
        self._costs = sorted((book.currency, book.id) for book in used if book.kind == "cost")

    def charges(self, event: UsageEvent) -> Iterator[tuple[str, ReadPrice]]:
        """Yield the price of each currency that an event has one in, its contract's first."""
        at_us = admitted_us(event)
        books = self._contracts.get(event.organization, self._lists)
        for currency, book_ids in books.items():
            found = self._shelf.find(book_ids, event.model, at_us, service_tier=event.service_tier)
            if found is not None:
                yield currency, found

    def cost(self, event: UsageEvent, currency: str) -> tuple[str, ReadPrice] | None:
        """Return the price that we pay for an event, in the currency if there is one."""
        at_us = admitted_us(event)
        first: tuple[str, ReadPrice] | None = None
        for paid_in, book_id in self._costs:
            found = self._shelf.find(
                [book_id],
                event.served_model,
                at_us,
                upstream=event.upstream,
                service_tier=event.service_tier,
            )
            if found is not None and paid_in == currency:
                return paid_in, found
            if found is not None and first is None:
                first = paid_in, found
        return first


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
    # Names of upstreams' own models have more forms than those of aliases.
    return Books(Shelf(read_good(prices, is_cost=True)), used)


@dataclass(slots=True)
class _Job:
    """One price that an event is rated at."""

    event: UsageEvent
    currency: str
    read: ReadPrice
    organization: str
    used: Mapping[Meter, int]
    is_absurd: bool

    @property
    def period_us(self) -> int:
        return bucket_start("month", admitted_us(self.event))

    @property
    def keys(self) -> Iterator[MeterKey]:
        return meter_keys(self.read, self.used, self.organization, self.period_us)

    def rate(self, running: Mapping[MeterKey, Running]) -> int:
        if self.is_absurd:  # nobody's usage may fill a month, or a budget, that is real
            return 0
        if self.read.flat is not None:
            return rate_flat(self.read.flat, self.used)
        return rate_quantities(self.read, self.used, running, self.organization, self.period_us)


class _Plan(NamedTuple):
    """All prices that an event is rated at."""

    event: UsageEvent
    used: Mapping[Meter, int]
    charges: Sequence[_Job]
    cost: _Job | None


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
    running = await rated_store.lock_meters(session, session.scope, _keys(plans))
    rated: list[Rated] = []
    budget_charges: list[dict[str, int]] = []
    faults: Counter[str] = Counter()
    for plan in plans:
        amounts = {job.currency: job.rate(running) for job in plan.charges}
        # Budgets are not paid back what a cheaper step gives back of a whole month.
        budget_charges.append({name: max(0, amount) for name, amount in amounts.items()})
        currency = currencies.get(plan.event.organization)
        if currency is not None:
            rated.append(_charge(plan, currency, amounts, faults))
        if plan.cost is not None and not plan.cost.is_absurd:
            cost = plan.cost
            paid = (cost.currency, cost.read.price.id, cost.rate(running))
            rated.append(Rated(plan.event, "cost", *paid))
    await rated_store.write_meters(session, running)
    return RatedBatch(rated, budget_charges, faults["unpriced"], faults["absurd"])


async def list_unrated(session: WriteSession, events: Sequence[UsageEvent]) -> Sequence[UsageEvent]:
    """Return those of new events that were never rated.

    The others were stored, forgotten with all of their day, and came again: what they cost stands.
    """
    rated = await rated_store.find_rated(session, (event.event_id for event in events))
    return [event for event in events if event.event_id not in rated] if rated else events


async def record_rated(
    session: WriteSession,
    rated: Sequence[Rated],
    transfers: Mapping[tuple[str, str, str], str],
    *,
    recorded_at_us: int,
    run_id: str = "",
) -> None:
    """Store what events were rated at, and add it to the figures of their time.

    Args:
        session: Where to.
        rated: One of an event and kind.
        transfers: By organization, currency and kind: what books it in the ledger.
        recorded_at_us: The time.
        run_id: Of a later run; "" when the events are stored for the first time.
    """
    rows: list[Values] = []
    quarters: Counter[tuple[Any, ...]] = Counter()
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
                *split_amount(one.amount_atto),
                transfers.get((event.organization, one.currency, one.kind)),
                one.reverses,
                recorded_at_us,
            )
        )
        if one.amount_atto:
            at_us = admitted_us(event)
            who = (event.organization, event.project, event.key_id, event.model, event.data_class)
            quarters[*who, one.currency, one.kind, quarter_start(at_us)] += one.amount_atto
            day_us = bucket_start("day", at_us)
            for name, value in {*event.labels}:
                label = (event.organization, name, value, event.project)
                labels[*label, one.currency, one.kind, day_us] += one.amount_atto
    await rated_store.insert_rated(session, session.scope, rows)
    await rated_store.add_charged(session, session.scope, quarters, labels)


def _plan(books: Books, event: UsageEvent, currency: str) -> _Plan:
    used = quantities(event)
    charges = [
        _Job(event, each, read, event.organization, used, is_absurd(read, used))
        for each, read in books.charges(event)
    ]
    cost = books.cost(event, currency)
    paid = None if cost is None else _Job(event, *cost, PLATFORM, used, is_absurd(cost[1], used))
    return _Plan(event, used, charges, paid)


def _keys(plans: Iterable[_Plan]) -> Iterator[MeterKey]:
    for plan in plans:
        for job in (*plan.charges, plan.cost):
            if job is not None and job.read.flat is None and not job.is_absurd:
                yield from job.keys


def _charge(plan: _Plan, currency: str, amounts: Mapping[str, int], faults: Counter[str]) -> Rated:
    job = next((each for each in plan.charges if each.currency == currency), None)
    if job is None:
        faults["unpriced"] += bool(plan.used)
    elif job.is_absurd:
        faults["absurd"] += 1
    else:
        return Rated(plan.event, "charge", currency, job.read.price.id, amounts[currency])
    return Rated(plan.event, "charge", currency, "", 0)
