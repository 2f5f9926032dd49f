"""Usage that was rated before is rated again: what changes is a fact of its own.

An event keeps the chain of all that it was rated at: each row has a difference, and names the run
whose row it changes. So an event costs the sum of its rows, by the price of the last one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.contract.usage import METERS, Meter, UsageEvent, quantities
from penstock.metering.bucket_rules import bucket_start
from penstock.rating import rated_store, run_store, store
from penstock.rating.model import Correction, Rated, RatedKind
from penstock.rating.price_rules import read_good
from penstock.rating.rules import MeterKey, ReadPrice, Running, meter_keys, rate_quantities
from penstock.rating.run_store import RatedRow
from penstock.rating.service import PLATFORM, admitted_us
from penstock.storage.sessions import ReadSession, WriteSession


class Post(Protocol):
    """Stores differences with what books them in the ledger, which this room does not know."""

    async def __call__(
        self,
        session: WriteSession,
        rated: Sequence[Rated],
        *,
        key: str,
        recorded_at_us: int,
        run_id: str,
        reverses: str | None = None,
    ) -> None:
        """Book differences, and store them; see `service.record_rated`.

        Args:
            session: Where to.
            rated: Differences.
            key: Names them: repeated, they are booked once.
            recorded_at_us: The time.
            run_id: Of the run or correction that makes them.
            reverses: The transfer that they take back a part of, when it is one.
        """
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """What an event is rated at by now."""

    run_id: str | None
    """Of the last row; None when there is none of this kind."""
    currency: str
    price_id: str
    amount_atto: int
    """All rows together."""
    transfer_id: str | None
    """That booked the first one."""


@dataclass(frozen=True, slots=True)
class Known:
    """A stored event, with what was corrected of it and what it is rated at."""

    event: UsageEvent
    used: Mapping[Meter, int]
    is_void: bool
    heads: Mapping[RatedKind, Head]


@dataclass(frozen=True, slots=True)
class Change:
    """What an event is to be rated at."""

    known: Known
    kind: RatedKind
    price: ReadPrice | None
    """None keeps the one that holds."""
    used: Mapping[Meter, int]
    currency: str | None = None
    """Of the price, when there was no row of this kind before."""


async def read_known(session: ReadSession, events: Sequence[UsageEvent]) -> list[Known]:
    """Return events with all that came after them."""
    ids = [event.event_id for event in events]
    rated = await run_store.list_rated(session, session.scope, ids)
    corrections = await run_store.list_corrections(session, session.scope, ids)
    return [
        Known(
            event,
            corrected(quantities(event), corrections.get(event.event_id, ())),
            any(one.is_void for one in corrections.get(event.event_id, ())),
            _heads(rated.get(event.event_id, ())),
        )
        for event in events
    ]


def corrected(used: Mapping[Meter, int], corrections: Iterable[Correction]) -> dict[Meter, int]:
    """Return what an event counts after its corrections, without meters that stand at 0."""
    left = dict(used)
    for one in corrections:
        if one.is_void:
            return {}
        for meter in METERS:
            if meter in one.deltas:
                left[meter] = left.get(meter, 0) + one.deltas[meter]
    return {meter: amount for meter, amount in left.items() if amount}


def _heads(rows: Iterable[RatedRow]) -> dict[RatedKind, Head]:
    heads: dict[RatedKind, Head] = {}
    kinds: tuple[RatedKind, ...] = ("charge", "cost")
    rows = list(rows)
    for kind in kinds:
        mine = {row.run_id: row for row in rows if row.kind == kind}
        changed = {row.reverses for row in mine.values()}
        last = next((row for row in mine.values() if row.run_id not in changed), None)
        if last is not None:
            first = next((row for row in mine.values() if row.reverses is None), last)
            total = sum(row.amount_atto for row in mine.values())
            heads[kind] = Head(last.run_id, last.currency, last.price_id, total, first.transfer_id)
    return heads


async def rate_again(session: WriteSession, changes: Sequence[Change]) -> list[Rated]:
    """Return the differences that changes make, and count them in their months.

    What an event added to its month is taken out, and what it adds now is put in: so all events of
    a month cost together what their sum costs by the prices that hold for them.

    Args:
        session: One of all organizations, which holds the lock of the configuration: nobody else
            rates these events again.
        changes: One of an event and kind.
    """
    old = await _read_prices(session, changes)
    keys = {key for change in changes for key in _keys(change, old)}
    running = await rated_store.lock_meters(session, session.scope, keys)
    rated = []
    for change in changes:
        known, head = change.known, change.known.heads.get(change.kind)
        before = None if head is None else old.get(head.price_id)
        after = change.price or before
        amount = 0
        if before is not None:
            taken = {meter: -amount for meter, amount in known.used.items()}
            amount += _rate(before, taken, change, running)
        if after is not None:
            amount += _rate(after, change.used, change, running)
        rated.append(
            Rated(
                known.event,
                change.kind,
                change.currency or ("" if head is None else head.currency),
                "" if after is None else after.price.id,
                amount,
                None if head is None else head.run_id,
            )
        )
    await rated_store.write_meters(session, running)
    return rated


async def _read_prices(session: ReadSession, changes: Sequence[Change]) -> dict[str, ReadPrice]:
    ids = {
        head.price_id
        for change in changes
        for kind, head in change.known.heads.items()
        if kind == change.kind and head.price_id
    }
    found = await store.list_prices_by_id(session, session.scope, ids) if ids else []
    # A cost's model has another form of name than a charge's: both are good here.
    return {read.price.id: read for read in read_good(found, is_cost=True)}


def _keys(change: Change, old: Mapping[str, ReadPrice]) -> Iterator[MeterKey]:
    head = change.known.heads.get(change.kind)
    before = None if head is None else old.get(head.price_id)
    after = change.price or before
    organization, period_us = _place(change)
    if before is not None:
        yield from meter_keys(before, change.known.used, organization, period_us)
    if after is not None:
        yield from meter_keys(after, change.used, organization, period_us)


def _rate(
    read: ReadPrice,
    used: Mapping[Meter, int],
    change: Change,
    running: Mapping[MeterKey, Running],
) -> int:
    return rate_quantities(read, used, running, *_place(change))


def _place(change: Change) -> tuple[str, int]:
    event = change.known.event
    organization = PLATFORM if change.kind == "cost" else event.organization
    return organization, bucket_start("month", admitted_us(event))


def of_first_month(events: Sequence[UsageEvent]) -> Sequence[UsageEvent]:
    """Return the events at the beginning of a list that are of one month.

    What is booked together is in one month's statement.
    """
    months = [bucket_start("month", admitted_us(event)) for event in events]
    return [event for event, month in zip(events, months, strict=True) if month == months[0]]
