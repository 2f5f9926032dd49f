"""Nodes that ship usage in any order, twice, late, at once, into crashes; beside a model of it."""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.fakes.database_machine import DatabaseMachine
from tests.fakes.organizations import ALL, NOW_US
from tests.unit.metering.usage_events import make_event

from penstock.contract.usage import METERS, UsageBatch, UsageEvent, UsageReceipt
from penstock.control.books import UsageBooks
from penstock.ledger.tables import Entries, LedgerAccounts, Transfers
from penstock.limits.prices import ATTO, ATTO_IN_NANO
from penstock.metering import service
from penstock.metering.model import BEGINNING, Place
from penstock.metering.rules import day_of
from penstock.metering.tables import (
    UsageDays,
    UsageEventConflicts,
    UsageEvents,
    UsageLabelDays,
    UsageProducers,
    UsageQuarters,
)
from penstock.rating.tables import ChargeDays, ChargeLabelDays, RatedUsage
from penstock.storage.sessions import WriteSession

Value = TypeVar("Value")

PRICE_IN = Fraction(1_000_000_000_003, 10**18)
PRICE_CACHED = Fraction(1, 10) / 10**6
PRICE_OUT = Fraction(5, 2) / 10**6
NODES = ("node-1/0", "node-1/1", "copy-of-1/0")


class CrashError(Exception):
    """The control plane is killed between two statements."""


class CrashingConnection:
    """A connection that runs a number of statements and then no more.

    Args:
        connection: The one that runs them.
        count: How many.
    """

    def __init__(self, connection: AsyncConnection, count: int) -> None:
        """See the class."""
        self._connection = connection
        self.left = count

    @property
    def dialect(self) -> Any:
        """That of the database."""
        return self._connection.dialect

    async def execute(self, *arguments: Any) -> Any:
        """Run a statement, unless it is one too many."""
        self._count()
        return await self._connection.execute(*arguments)

    async def exec_driver_sql(self, *arguments: Any) -> Any:
        """The same."""
        self._count()
        return await self._connection.exec_driver_sql(*arguments)

    def _count(self) -> None:
        if self.left == 0:
            raise CrashError
        self.left -= 1


@dataclass
class Journal:
    """What a worker wrote. Two may be of the same life: a machine and a copy of it."""

    producer: str
    events: list[UsageEvent] = field(default_factory=list)
    shipped: int = 0
    """Events that it knows as stored."""


class IngestMachine(DatabaseMachine):
    """A control plane that gets usage of three lives of workers, two with events in common."""

    examples = 0

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        type(self).examples += 1
        self.own = f"{self.examples:x}-"
        self.books = UsageBooks("EUR")
        self.journals = [Journal(self.own + name) for name in NODES]
        self.number = 0
        self.stored: dict[str, UsageEvent] = {}
        """The first content that came of each id."""
        self.liars: set[tuple[str, bytes]] = set()
        self.firsts: Counter[str] = Counter()
        """Events that each producer was the first to deliver."""
        self.places: dict[str, int] = {}

    # What happens

    @initialize(owners=st.integers(1, 2))
    def begin(self, owners: int) -> None:
        """Usage is of one or of two organizations."""
        self.owners = [f"{self.own}org-{number}" for number in range(owners)]

    @rule(
        where=st.integers(0, len(NODES) - 1),
        count=st.integers(1, 12),
        draw=st.randoms(use_true_random=False),
    )
    def serve(self, where: int, count: int, draw: Any) -> None:
        """A worker writes usage, as odd as engines are; the copy has what the first one writes."""
        for _ in range(count):
            self.number += 1
            day = draw.choice((20_257, 20_257, 20_258, 19_000))
            time = f"{day * 86_400_000 + self.number:012x}"
            uuid = f"{time[:8]}-{time[8:]}-7000-8000-{self.examples:04x}{self.number:08x}"
            event = make_event(
                event_id=uuid if draw.random() < 0.8 else f"{self.own}{self.number}",
                organization=draw.choice(self.owners),
                project=draw.choice(("search", "mail")),
                key_id=draw.choice(("key-1", "key-2")),
                model=draw.choice(("small", "small", "unpriced")),
                started_at_ns=(NOW_US - draw.randrange(10**11)) * 1_000,
                first_byte_at_ns=draw.choice((None, NOW_US * 1_000)),
                input_tokens=draw.choice((0, 1, 1_000, 999_999)),
                output_tokens=draw.randrange(5_000),
                cached_input_tokens=draw.choice((None, 0, 3, 10**9)),
                reasoning_output_tokens=draw.choice((None, 0, 7)),
                region=draw.choice(("", "eu")),
                labels=draw.choice(((), (("team", "a"),), (("team", "b"), ("x", "'\"{}")))),
            )
            self.journals[where].events.append(event)
            if where == 0:
                self.journals[2].events.append(event)

    @rule(where=st.integers(0, len(NODES) - 1), most=st.integers(1, 20))
    def ship(self, where: int, most: int) -> None:
        """A node ships on, and is acknowledged."""
        journal = self.journals[where]
        batch = self._batch(journal, journal.shipped, most)
        if batch is not None:
            self._take(batch, self.run(self._deliver(batch)))
            journal.shipped = batch.offset

    @rule(where=st.integers(0, len(NODES) - 1), most=st.integers(1, 20), data=st.data())
    def ship_again(self, where: int, most: int, data: st.DataObject) -> None:
        """Any part of a journal comes once more, or early: beyond what was acknowledged."""
        journal = self.journals[where]
        start = data.draw(st.integers(0, len(journal.events)))
        batch = self._batch(journal, start, most)
        if batch is not None:
            self._take(batch, self.run(self._deliver(batch)))

    @rule(where=st.integers(0, len(NODES) - 1), steps=st.integers(0, 30))
    def crash(self, where: int, steps: int) -> None:
        """The control plane dies between two statements: nothing of the batch has happened."""
        journal = self.journals[where]
        batch = self._batch(journal, journal.shipped, 20)
        if batch is not None:
            receipt = self.run(self._deliver(batch, steps))
            if receipt is not None:
                self._take(batch, receipt)

    @rule(most=st.integers(1, 20), copies=st.integers(2, 3))
    def ship_at_once(self, most: int, copies: int) -> None:
        """All nodes ship at the same time, each its batch several times over."""
        batches = [self._batch(journal, journal.shipped, most) for journal in self.journals]
        wanted = [batch for batch in batches if batch is not None] * copies
        receipts = self.run(_gather([self._deliver(batch) for batch in wanted]))
        new = {event.event_id for batch in wanted for event in batch.events} - self.stored.keys()
        assert sum(receipt.stored for receipt in receipts) == len(new)
        assert not any(receipt.conflicts for receipt in receipts)
        for batch, receipt in zip(wanted, receipts, strict=True):
            self.firsts[batch.producer] += receipt.stored
            self._follow(batch)
            for event in batch.events:
                self.stored.setdefault(event.event_id, event)

    @rule(where=st.integers(0, len(NODES) - 1), data=st.data())
    def lie(self, where: int, data: st.DataObject) -> None:
        """A node says of an id that is stored something else: it changes no total."""
        if not self.stored:
            return
        event = self.stored[data.draw(st.sampled_from(sorted(self.stored)))]
        liar = msgspec.structs.replace(event, output_tokens=event.output_tokens + 1)
        batch = UsageBatch(self.journals[where].producer, 1, (liar, event))
        receipt = self.run(self._deliver(batch))
        assert (receipt.stored, receipt.duplicates, receipt.conflicts) == (0, 1, 1)
        self.liars.add((event.event_id, b""))

    # What must hold

    @invariant()
    def everything_agrees(self) -> None:
        """Every table says of this example's usage what the model says."""
        found = self.run(self._read())
        events = list(self.stored.values())
        assert found["events"] == {(day_of(one.event_id), one.event_id) for one in events}
        assert found["conflicts"] == {event_id for event_id, _ in self.liars}
        figures = [sum(column) for column in zip(*map(_figures, events), strict=True)] or [0] * len(
            METERS
        )
        assert found["hours"] == found["days"] == figures
        labelled = [_figures(one) for one in events for _ in one.labels]
        assert found["labels"] == (
            [sum(column) for column in zip(*labelled, strict=True)] or [0] * len(METERS)
        )
        charged = sum((_charge(event) for event in events), Fraction())
        assert found["rated"] == found["charge_days"] == found["revenue"] == charged
        assert found["charge_labels"] == sum(
            (_charge(event) for event in events for _ in event.labels), Fraction()
        )
        assert found["entries"] == 0
        assert found["unbooked"] == 0
        assert found["producers"] == {
            producer: (self.places.get(producer, 0), self.firsts[producer])
            for producer in found["producers"]
        }

    def teardown(self) -> None:
        """In the end each node ships all that it has, and what is stored is what was served."""
        if not hasattr(self, "owners"):
            return
        for journal in self.journals:
            batch = self._batch(journal, 0, len(journal.events))
            if batch is not None:
                self._take(batch, self.run(self._deliver(batch)))
        served = {event.event_id for journal in self.journals for event in journal.events}
        assert self.stored.keys() == served
        self.everything_agrees()

    # How

    def _batch(self, journal: Journal, start: int, most: int) -> UsageBatch | None:
        events = tuple(journal.events[start : start + most])
        if not events:
            return None
        # Of a copy's two lives only the events are the same: each says places of its own.
        return UsageBatch(
            journal.producer,
            1,
            events,
            segment=1,
            offset=start + len(events),
            from_segment=1 if start else 0,
            from_offset=start,
        )

    async def _deliver(self, batch: UsageBatch, steps: int | None = None) -> Any:
        delivery = service.prepare_batch(batch, NOW_US)
        try:
            async with self.database.write(ALL) as session:
                if steps is not None:
                    connection: Any = CrashingConnection(session._connection, steps)
                    session = WriteSession(connection, ALL)  # noqa: PLW2901 - the same, crashing
                (receipt,) = await service.record_events(session, ALL, [delivery], self.books)
                return receipt
        except CrashError:
            return None

    def _take(self, batch: UsageBatch, receipt: UsageReceipt) -> None:
        known = Place(1, self.places[batch.producer]) if self.places.get(batch.producer) else None
        assert Place(receipt.segment, receipt.offset) == (known or BEGINNING)
        new = {event.event_id: event for event in batch.events}.keys() - self.stored.keys()
        assert receipt.stored == len(new)
        assert receipt.duplicates == len(batch.events) - len(new)
        self.firsts[batch.producer] += len(new)
        self._follow(batch)
        for event in batch.events:
            self.stored.setdefault(event.event_id, event)

    def _follow(self, batch: UsageBatch) -> None:
        """Note the place that the control plane must know of a journal: no gap is before it."""
        there = self.places.get(batch.producer, 0)
        if batch.from_offset <= there:
            self.places[batch.producer] = max(there, batch.offset)

    async def _read(self) -> dict[str, Any]:
        async with self.database.read(ALL) as session:

            async def sums(table: Any, *conditions: Any) -> Fraction:
                columns = (func.sum(table.amount), func.sum(table.amount_rest))
                owner = getattr(table, "organization", None)
                mine = (owner if owner is not None else table.organization_id).in_(self.owners)
                row = (await session.rows(select(*columns).where(mine, *conditions)))[0]
                return Fraction(int(row[0] or 0) * ATTO_IN_NANO + int(row[1] or 0), ATTO)

            async def meters(table: Any) -> list[int]:
                columns = [func.sum(getattr(table, meter)) for meter in METERS]
                mine = table.organization.in_(self.owners)
                return [
                    int(one or 0) for one in (await session.rows(select(*columns).where(mine)))[0]
                ]

            events = await session.rows(
                select(UsageEvents.day, UsageEvents.event_id).where(
                    UsageEvents.organization.in_(self.owners)
                )
            )
            conflicts = await session.rows(
                select(UsageEventConflicts.event_id).where(
                    UsageEventConflicts.organization.in_(self.owners)
                )
            )
            producers = await session.rows(
                select(
                    UsageProducers.producer,
                    UsageProducers.position_offset,
                    UsageProducers.event_count,
                ).where(UsageProducers.producer.startswith(self.own))
            )
            is_revenue = Entries.account_id.in_(
                select(LedgerAccounts.id).where(LedgerAccounts.kind == "revenue")
            )
            unbooked = select(func.count()).where(
                RatedUsage.organization.in_(self.owners),
                (RatedUsage.amount != 0) | (RatedUsage.amount_rest != 0),
                RatedUsage.transfer_id.is_(None)
                | RatedUsage.transfer_id.not_in(select(Transfers.id)),
            )
            return {
                "events": {tuple(row) for row in events},
                "conflicts": {row[0] for row in conflicts},
                "hours": await meters(UsageQuarters),
                "days": await meters(UsageDays),
                "labels": await meters(UsageLabelDays),
                "rated": await sums(RatedUsage),
                "charge_days": await sums(ChargeDays),
                "charge_labels": await sums(ChargeLabelDays),
                "revenue": -(await sums(Entries, is_revenue)),
                "entries": await sums(Entries),
                "unbooked": (await session.rows(unbooked))[0][0],
                "producers": {row[0]: (row[1], row[2]) for row in producers},
            }


async def _gather(work: Sequence[Coroutine[Any, Any, Value]]) -> list[Value]:
    return await asyncio.gather(*work)


def _figures(event: UsageEvent) -> list[int]:
    """Return what an event counts on each meter, said again in other words."""
    cached = min(event.cached_input_tokens or 0, event.input_tokens)
    reasoning = min(event.reasoning_output_tokens or 0, event.output_tokens)
    counts = {
        "requests": 0 if event.first_byte_at_ns is None else 1,
        "cached_input": cached,
        "input": event.input_tokens - cached,
        "reasoning_output": reasoning,
        "output": event.output_tokens - reasoning,
    }
    return [counts.get(meter, 0) for meter in METERS]


def _charge(event: UsageEvent) -> Fraction:
    if event.model != "small":
        return Fraction()
    cached = min(event.cached_input_tokens or 0, event.input_tokens)
    uncached = (event.input_tokens - cached) * PRICE_IN
    return uncached + cached * PRICE_CACHED + event.output_tokens * PRICE_OUT
