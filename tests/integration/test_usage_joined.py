"""Batches that wait for one another are stored in one transaction, and each has its receipt."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tests.fakes.budget_rig import BudgetRig
from tests.fakes.databases import sqlite_database
from tests.fakes.organizations import ALL, NOW_US, create_place
from tests.unit.metering.usage_events import make_event

from penstock.contract.money import HoldUse
from penstock.contract.usage import UsageBatch, UsageEvent, UsageReceipt
from penstock.kit.clock import SystemClock
from penstock.limits.budget_model import Life
from penstock.metering import service
from penstock.metering.intake import Intake
from penstock.metering.model import MAX_JOINED_EVENTS, Arrival
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.sessions import WriteSession

SOME = [5, 3, 2]


class Gate:
    """What happens with new events: the first transaction waits until it is told to go on."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = []
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.poison = ""
        self.error: Exception = ValueError("what one event is")

    async def __call__(self, _: WriteSession, arrivals: Sequence[Arrival]) -> None:
        """Take note of a transaction."""
        ids = [one.event.event_id for one in arrivals]
        self.reached.set()
        self.transactions.append(ids)
        await self.opened.wait()
        if self.poison in ids:
            raise self.error


class Nodes:
    """Some nodes that ship at the same time, each from a worker of its own."""

    def __init__(self, database: Database) -> None:
        self.gate = Gate()
        self._take = Intake(database, SystemClock(), self.gate)
        self._count = 0

    async def ship(self, *events: UsageEvent) -> asyncio.Task[UsageReceipt]:
        """Send a batch; the task ends with its receipt."""
        self._count += 1
        batch = UsageBatch(f"node-{self._count}/0", 1, events)
        task = asyncio.create_task(self._take(batch, ALL))
        await asyncio.sleep(0)
        return task


@pytest.fixture
async def nodes(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Nodes]:
    """Nodes of a control plane on SQLite, of which the first one's batch is being written."""
    async with sqlite_database(sqlite_template, tmp_path) as database:
        yield Nodes(database)


def _make(first: int, count: int) -> list[UsageEvent]:
    return [make_event(number) for number in range(first, first + count)]


async def test_what_waits_is_stored_together(nodes: Nodes) -> None:
    """Three batches that come while one is written are one transaction, with three receipts."""
    tasks = [await nodes.ship(make_event(0))]
    for place, count in enumerate(SOME):
        tasks.append(await nodes.ship(make_event(0), *_make(1 + 10 * place, count)))
    nodes.gate.opened.set()
    receipts = await asyncio.gather(*tasks)
    assert [len(ids) for ids in nodes.gate.transactions] == [1, sum(SOME)]
    assert [(one.stored, one.duplicates) for one in receipts] == [
        (1, 0), *((count, 1) for count in SOME)
    ]  # fmt: skip


async def test_an_event_in_two_of_them_counts_for_the_first(nodes: Nodes) -> None:
    """The other one is told that it is a duplicate, or a conflict when its content differs."""
    events = [make_event(0), make_event(1), make_event(1), make_event(1, status=500)]
    tasks = [await nodes.ship(event) for event in events]
    nodes.gate.opened.set()
    receipts = await asyncio.gather(*tasks)
    found = [(one.stored, one.duplicates, one.conflicts) for one in receipts]
    assert found == [(1, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]


async def test_no_more_is_joined_than_the_bound(nodes: Nodes) -> None:
    """What goes beyond it is the next transaction; nothing is left out."""
    tasks = [await nodes.ship(make_event(0))]
    tasks += [await nodes.ship(*_make(1 + place * 500, 500)) for place in range(6)]
    nodes.gate.opened.set()
    await asyncio.gather(*tasks)
    assert [len(ids) for ids in nodes.gate.transactions] == [1, MAX_JOINED_EVENTS, 1_000]


async def test_what_is_wrong_with_one_strands_no_other(nodes: Nodes) -> None:
    """When a joined transaction fails each batch is tried alone, and only the wrong one fails."""
    nodes.gate.poison = make_event(2).event_id
    tasks = [await nodes.ship(make_event(number)) for number in range(4)]
    nodes.gate.opened.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in outcomes] == [UsageReceipt, UsageReceipt, ValueError, UsageReceipt]
    assert [len(ids) for ids in nodes.gate.transactions] == [1, 3, 1, 1, 1]


async def test_who_waits_for_a_database_that_is_away_is_told_at_once(nodes: Nodes) -> None:
    """Nobody waits for it one after the other; what comes later is tried again."""
    nodes.gate.poison = make_event(0).event_id
    nodes.gate.error = DatabaseUnavailableError()
    tasks = [await nodes.ship(make_event(number)) for number in range(4)]
    nodes.gate.opened.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in outcomes] == [DatabaseUnavailableError] * 4
    assert len(nodes.gate.transactions) == 1
    later = await (await nodes.ship(*_make(1, 3)))
    assert later.stored == 3


async def test_who_gives_up_takes_nobody_along(nodes: Nodes) -> None:
    """When the one that writes for others is cancelled, the next one does it."""
    first = await nodes.ship(make_event(0))
    tasks = [await nodes.ship(make_event(number)) for number in (1, 2)]
    await nodes.gate.reached.wait()
    first.cancel()
    tasks[0].cancel()
    nodes.gate.opened.set()
    assert (await tasks[1]).stored == 1
    assert first.cancelled()
    assert tasks[0].cancelled()
    assert nodes.gate.transactions[-1] == [make_event(2).event_id]


async def test_what_was_rolled_back_counts_for_nothing(database: Database) -> None:
    """Graphs count what is stored for good once, whatever is delivered again meanwhile."""
    gate, counted = Gate(), 0
    gate.opened.set()

    def committed() -> None:
        nonlocal counted
        counted += len(gate.transactions[-1])

    take = Intake(database, SystemClock(), gate, committed)
    first, second = (UsageBatch(f"node-{number}/0", 1, (make_event(number),)) for number in (1, 2))
    await take(first, ALL)
    gate.poison, gate.error = make_event(2).event_id, DatabaseUnavailableError("away")
    with pytest.raises(DatabaseUnavailableError):
        await take(second, ALL)
    assert (await take(first, ALL)).duplicates == 1
    assert counted == 1
    gate.poison = ""
    await take(second, ALL)
    assert counted == 2


@pytest.fixture
async def rig(database: Database) -> BudgetRig:
    """An organization with a price."""
    rig = BudgetRig(database, *await create_place(database))
    await rig.add_price("small")
    return rig


async def test_lives_are_settled_together(rig: BudgetRig) -> None:
    """In one transaction each event frees the holds of its own life, and no other's."""
    budget = await rig.add_budget()
    lives = [Life("node-1/0", 1), Life("node-2/0", 1)]
    holds = [await rig.hold(budget, 100, life=life) for life in lives]
    used = [
        rig.event(1, HoldUse(holds[0].id, 40)),
        rig.event(2, HoldUse(holds[1].id, 30), HoldUse(holds[0].id, 7)),
    ]
    deliveries = [
        service.prepare_batch(UsageBatch(life.producer, life.epoch, (event,)), NOW_US)
        for life, event in zip(lives, used, strict=True)
    ]
    async with rig.database.write(ALL) as session:
        receipts = await service.record_events(session, ALL, deliveries, rig.settlement)
    rig.settlement.committed()
    assert [one.stored for one in receipts] == [1, 1]
    window = await rig.window(budget)
    assert window.held == 200 - 40 - 30
    assert rig.settlement.faults == {"hold_unknown": 1}
    assert await rig.differences() == []
