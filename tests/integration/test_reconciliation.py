"""The chain of money, looked at link by link: nothing that is missing in it stays unseen."""

from collections.abc import Sequence

from sqlalchemy import text
from tests.fakes.ledger_rig import atto, posting
from tests.fakes.organizations import ALL, NOW_US
from tests.unit.metering.usage_events import STARTED_AT_NS, make_event

from penstock.contract.usage import UsageBatch, UsageEvent
from penstock.ledger.chain import Chain, read_chain
from penstock.ledger.service import post_usage
from penstock.metering.rules import day_of, hash_event
from penstock.metering.service import compare_events, prepare_batch, record_events
from penstock.rating.model import Rated
from penstock.rating.service import record_rated
from penstock.storage.database import Database

PRODUCER = "node-1/0"
CHARGE = atto("0.25")
LABELS = (("cost", "a"), ("cost", "b"), ("cost", "a"), ("team", "a"))
EVENTS = [make_event(number, organization="acme", labels=LABELS) for number in range(5)]
DAY = day_of(EVENTS[0].event_id)
STARTED = STARTED_AT_NS // (86_400 * 10**9)
"""The day that they count in: clocks of those who make ids and times need not agree."""


async def _store(database: Database, events: Sequence[UsageEvent]) -> None:
    batch = UsageBatch(PRODUCER, 1, tuple(events))
    async with database.write(ALL) as session:
        await record_events(session, ALL, [prepare_batch(batch, NOW_US)])


async def _rate(
    database: Database, events: Sequence[UsageEvent], *, key: str, is_booked: bool = True
) -> None:
    rated = [Rated(event, "charge", "EUR", "prc_1", CHARGE) for event in events]
    async with database.write(ALL) as session:
        transfers: dict[tuple[str, str, str], str] = {}
        if is_booked:
            total = posting(str(len(events) * 0.25))
            posted = await post_usage(session, [total], key=key, recorded_at_us=NOW_US)
            transfers = dict(posted.transfers)
        await record_rated(session, rated, transfers, recorded_at_us=NOW_US)


async def _chain(database: Database, day: int = DAY) -> Chain:
    async with database.read(ALL) as session:
        return await read_chain(session, day)


async def test_a_whole_chain_has_no_difference(database: Database) -> None:
    """Events that are all rated and booked are a whole link, with what they were charged."""
    await _store(database, EVENTS)
    await _rate(database, EVENTS, key="k")
    chain = await _chain(database)
    (link,) = chain.links
    assert (link.producer, link.events, link.rated, link.unbooked) == (PRODUCER, 5, 5, 0)
    assert link.charges_atto == {"EUR": 5 * CHARGE}
    assert link.is_whole
    assert chain.differences == (await _chain(database, STARTED)).differences == []
    assert (await _chain(database, DAY + 1)).links == []


async def test_what_is_not_rated_or_not_booked_is_seen(database: Database) -> None:
    """An event without a charge, and a charge without a transfer, break the link."""
    await _store(database, EVENTS)
    await _rate(database, EVENTS[:2], key="k")
    await _rate(database, EVENTS[2:4], key="other", is_booked=False)
    (link,) = (await _chain(database)).links
    assert (link.events, link.rated, link.unbooked) == (5, 4, 2)
    assert not link.is_whole


async def test_figures_that_are_wrong_are_seen(database: Database) -> None:
    """What somebody changes in the figures of hours or days is told with what it should be."""
    await _store(database, EVENTS)
    await _rate(database, EVENTS, key="k")
    assert not (await _chain(database, STARTED)).differences
    async with database.write(ALL) as session:
        connection = session._connection
        await connection.execute(text("UPDATE usage_days SET output = output + 1"))
        await connection.execute(text("DELETE FROM usage_quarters"))
    chain = await _chain(database, STARTED)
    found = {one.figure: (one.expected, one.found) for one in chain.differences}
    outputs = sum(event.output_tokens for event in EVENTS)
    assert found["usage_days.output_tokens"][0] == outputs
    assert found["usage_days.output_tokens"][1] > outputs
    assert found["usage_quarters.requests"] == (5, 0)
    assert "usage_days.requests" not in found


async def test_what_is_moved_to_another_is_seen(database: Database) -> None:
    """Figures that add up, but are another key's, project's or label's, are told of both."""
    await _store(database, EVENTS)
    await _rate(database, EVENTS, key="k")
    moves = {
        "key_id": (
            "usage_quarters",
            "usage_eighths",
            "usage_days",
            "charge_quarters",
            "charge_eighths",
            "charge_days",
            "charge_months",
            "usage_months",
        ),
        "project": ("usage_project_quarters", "usage_project_eighths", "usage_project_days"),
        "value": ("usage_label_days", "charge_label_days"),
    }
    for name, tables in moves.items():
        async with (
            database.write(ALL) as session,
            session._connection.begin_nested() as done,
        ):
            for table in tables:
                moved = text(f"UPDATE {table} SET {name} = 'x' WHERE {name} <> 'b'")  # noqa: S608 - a test's own
                assert (await session._connection.execute(moved)).rowcount
            chain = await read_chain(session, STARTED)
            await done.rollback()
        seen = {one.figure.partition(".")[0] for one in chain.differences}
        others = {"charge_quarters", "charge_eighths", "charge_months", "usage_months"}
        assert seen == {*tables} - others, name
        assert sum(one.found - one.expected for one in chain.differences) == 0
        assert {one.found == 0 for one in chain.differences if one.of[name] != "x"} == {True}
        assert {one.expected == 0 for one in chain.differences if one.of[name] == "x"} == {True}
    assert (await _chain(database, STARTED)).differences == []


async def test_only_labels_can_be_without_a_project(database: Database) -> None:
    """Other figures that lost their project are told of, though their sums are right."""
    await _store(database, EVENTS)
    await _rate(database, EVENTS, key="k")
    async with database.write(ALL) as session:
        await session._connection.execute(text("UPDATE usage_days SET project = ''"))
    found = {one.figure for one in (await _chain(database, STARTED)).differences}
    assert "usage_days.requests" in found


async def test_labels_of_before_have_no_project_to_compare(database: Database) -> None:
    """Figures of labels under no project are compared without it, and their values still are."""
    await _store(database, EVENTS)
    await _rate(database, EVENTS, key="k")
    async with database.write(ALL) as session:
        for table in ("usage_label_days", "charge_label_days"):
            forgotten = text(f"UPDATE {table} SET project = ''")  # noqa: S608 - a test's own
            assert (await session._connection.execute(forgotten)).rowcount
    assert (await _chain(database, STARTED)).differences == []
    async with database.write(ALL) as session:
        await session._connection.execute(text("UPDATE usage_label_days SET value = value || 'x'"))
    assert (await _chain(database, STARTED)).differences


async def test_events_are_compared_by_id_and_content(database: Database) -> None:
    """Ids that are not stored are missing, and those with another content different."""
    await _store(database, EVENTS[:4])
    hashes = {event.event_id: hash_event(event).content_hash for event in EVENTS}
    hashes[EVENTS[1].event_id] = bytes(32)
    hashes["no-time-in-it"] = bytes(32)
    async with database.read(ALL) as session:
        found = await compare_events(session, ALL, hashes)
    assert found.missing == [EVENTS[4].event_id, "no-time-in-it"]
    assert found.different == [EVENTS[1].event_id]


async def test_a_cell_of_a_month_or_of_embeddings_is_compared(database: Database) -> None:
    """A figure of a month is that of its days, and one of embeddings that of their events."""
    embedding = [make_event(9, organization="acme", operation="embeddings", output_tokens=0)]
    await _store(database, [*EVENTS, *embedding])
    await _rate(database, [*EVENTS, *embedding], key="k")
    assert (await _chain(database, STARTED)).differences == []
    for table in ("usage_months", "usage_embedding_hours", "usage_model_eighths"):
        async with database.write(ALL) as session, session._connection.begin_nested() as done:
            changed = text(f"UPDATE {table} SET requests = requests + 1")  # noqa: S608 - a test's own
            assert (await session._connection.execute(changed)).rowcount == 1
            (found,) = (await read_chain(session, STARTED)).differences
            await done.rollback()
        assert (found.figure, found.found - found.expected) == (f"{table}.requests", 1)
        assert (found.of["organization"], found.of["model"]) == ("acme", embedding[0].model)
