"""Usage from a node's batch to the ledger, in one transaction, on both kinds of database."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.fakes.database_machine import add_price, try_machine
from tests.fakes.ingest_machine import IngestMachine
from tests.fakes.organizations import ALL, NOW_US
from tests.integration.conftest import OpenDatabase
from tests.unit.metering.usage_events import make_event

from penstock.contract.money import HoldUse
from penstock.contract.usage import Attempt, UsageBatch
from penstock.control.books import UsageBooks
from penstock.control.quarantine import Quarantine
from penstock.kit.clock import SystemClock
from penstock.ledger.tables import Entries
from penstock.limits.prices import ATTO_IN_NANO
from penstock.metering import service
from penstock.metering.intake import Intake
from penstock.metering.model import Arrival
from penstock.metering.tables import UsageQuarters
from penstock.rating.tables import RatedUsage
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.sessions import WriteSession


async def test_a_batch_of_all_that_is_odd_is_taken(database: Database) -> None:
    """500 events of which each has something absurd are stored, rated and counted, each once."""
    await add_price(database)
    most = 2**63 - 1
    odd: list[dict[str, Any]] = [
        {"input_tokens": most, "output_tokens": most},
        {"cached_input_tokens": most, "reasoning_output_tokens": most},
        {"started_at_ns": 0},
        {"started_at_ns": most - 10**9},
        {"labels": tuple((f"label-{number:02}", "'\"{},NULL\\") for number in range(16))},
        {"organization": "", "project": "", "key_id": "", "model": ""},
        {"organization": "o" * 1_024, "model": "\U0001f9ee"},
        {"earlier_attempts": (Attempt("", "", 0, most),) * 50, "flags": ("usage_absurd",) * 50},
        {"holds": (HoldUse("no-such-hold", most), HoldUse("", -1))},
        {"event_id": "Z" * 64},
    ]
    events = [make_event(number, **odd[number % len(odd)]) for number in range(500)]
    delivery = service.prepare_batch(UsageBatch("node-1/0", 1, tuple(events)), NOW_US)
    books = UsageBooks("EUR")
    ids = {event.event_id for event in events}
    for stored in (len(ids), 0):
        async with database.write(ALL) as session:
            (receipt,) = await service.record_events(session, ALL, [delivery], books)
        assert receipt.stored == stored
        assert receipt.stored + receipt.duplicates + receipt.conflicts == 500
    async with database.read(ALL) as reading:
        rated = select(func.count()).where(RatedUsage.kind == "charge")
        assert (await reading.rows(rated))[0][0] == len(ids)
        largest = select(func.max(UsageQuarters.output))
        assert (await reading.rows(largest))[0][0] == most
        off = select(func.sum(Entries.amount), func.sum(Entries.amount_rest))
        whole, rest = (await reading.rows(off))[0]
        assert int(whole or 0) * ATTO_IN_NANO + int(rest or 0) == 0


async def test_what_is_shown_is_counted_once_it_is_stored(database: Database) -> None:
    """Graphs and alerts have what is committed, each event once, also after a failed try."""
    await add_price(database)
    books = UsageBooks("EUR")
    events = [make_event(number, model="small") for number in range(5)]
    events.append(make_event(5, model="nameless", holds=(HoldUse("no-such-hold", 1),)))
    batch = UsageBatch("node-1/0", 1, tuple(events))

    async def fail(session: WriteSession, arrivals: Sequence[Arrival]) -> None:
        await books(session, arrivals)
        raise DatabaseUnavailableError

    with pytest.raises(DatabaseUnavailableError):
        await Intake(database, SystemClock(), fail, books.committed)(batch, ALL)
    assert (books.amounts.charges, books.faults, books.unrated.total()) == ({}, {}, 0)
    take = Intake(database, SystemClock(), books, books.committed)
    for _ in range(2):
        await take(batch, ALL)
    async with database.read(ALL) as session:
        charged = select(func.sum(RatedUsage.amount)).where(RatedUsage.kind == "charge")
        nano = (await session.rows(charged))[0][0]
    assert nano > 0
    assert sum(books.amounts.charges.values()) == pytest.approx(int(nano) / 10**9)
    assert {currency for _, currency in books.amounts.charges} == {"EUR"}
    assert (books.faults, books.unrated["unpriced"]) == ({"hold_unknown": 1}, 1)


async def test_quarantine_is_alarmed(database: Database) -> None:
    """An id that comes with another content is counted for the alarm, once."""
    quarantine = Quarantine(database)
    for changes in ({}, {"status": 500}, {"status": 500}):
        batch = UsageBatch("n/0", 1, (make_event(1, **changes),))
        async with database.write(ALL) as session:
            await service.record_events(session, ALL, [service.prepare_batch(batch, NOW_US)])
    assert quarantine.size == 0
    await quarantine.count()
    assert quarantine.size == 1


def test_usage_counts_once_whatever_happens(open_database: OpenDatabase) -> None:
    """Repeated, reordered, late, at once, from a copied node and into crashes: all books agree."""
    try_machine(IngestMachine, open_database, examples=25, steps=20)
