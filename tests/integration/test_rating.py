"""Rated usage in both databases: exact, whoever rates at the same time, and only ever added."""

import asyncio
import random
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DatabaseError
from tests.fakes.organizations import ALL
from tests.fakes.rate_forms import DAY_NS, START_NS
from tests.fakes.rating_oracle import Priced, total_of
from tests.fakes.rating_rig import RatingRig
from tests.unit.metering.usage_events import make_event

from penstock.contract.usage import UsageEvent
from penstock.limits.prices import ATTO
from penstock.rating import store
from penstock.rating.price_rules import find_overlap
from penstock.rating.tables import (
    ChargeDays,
    ChargeLabelDays,
    Prices,
    RatedMeters,
    RatedUsage,
)
from penstock.storage.database import Database
from penstock.storage.errors import RowConflictError
from penstock.storage.scope import Scope

LIST: dict[str, Any] = {
    "input": {
        "scheme": "graduated",
        "tiers": [{"price": "1.000000000003", "up_to": 700_000}, {"price": "0.4"}],
    },
    "output": {"scheme": "volume", "tiers": [{"price": "3", "up_to": 9_000}, {"price": "2.5"}]},
    "reasoning_output": {"price": "7.25"},
    "requests": {"price": "0.000000000001"},
}
CONTRACT: dict[str, Any] = {
    "input": {"scheme": "package", "price": "0.03", "per": 1_000},
    "output": {"price": "0.7"},
}
COST: dict[str, Any] = {"input": {"price": "0.1"}, "output": {"price": "0.2"}}


@pytest.fixture
async def rig(database: Database) -> RatingRig:
    """A list, acme's contract and costs, over a database of each kind."""
    rig = RatingRig(database)
    books = (
        await rig.add_book("list"),
        await rig.add_book("contract", id="pbk_acme", organization_id="acme"),
        await rig.add_book("cost", "USD"),
    )
    for book, name, model, rates in zip(
        books,
        ("prc_list", "prc_acme", "prc_cost"),
        ("fast", "fast", "served-fast"),
        (LIST, CONTRACT, COST),
        strict=True,
    ):
        await rig.add_price(book, name, model, rates=rates)
    return rig


def _events(count: int, seed: int = 1) -> list[UsageEvent]:
    pick = random.Random(seed)
    return [
        make_event(
            number,
            organization=pick.choice(["acme", "other", "third"]),
            key_id=pick.choice(["key-1", "key-2"]),
            input_tokens=pick.randrange(40_000),
            output_tokens=pick.randrange(2_000),
            reasoning_output_tokens=pick.choice([None, pick.randrange(3_000)]),
            cached_input_tokens=pick.choice([None, pick.randrange(50_000)]),
            started_at_ns=START_NS + pick.randrange(40) * DAY_NS,
            labels=(("team", pick.choice(["a", "b"])),),
        )
        for number in range(count)
    ]


def _priced(events: list[UsageEvent]) -> list[Priced]:
    return [
        (event, CONTRACT, "acme") if event.organization == "acme" else (event, LIST, "list")
        for event in events
    ]


async def test_batches_that_come_together_cost_what_the_oracle_says(rig: RatingRig) -> None:
    """In whatever parts and order, at the same time: rows, days, labels and months agree (I13)."""
    events = _events(240)
    expected = total_of(_priced(events))
    random.Random(2).shuffle(events)
    batches = [events[begin : begin + 12] for begin in range(0, len(events), 12)]
    for begin in range(0, len(batches), 5):
        await asyncio.gather(*(rig.deliver(batch) for batch in batches[begin : begin + 5]))
    charged = await rig.total()
    assert Fraction(charged, ATTO) == expected
    cost = await rig.total("cost")
    assert Fraction(cost, ATTO) == total_of((event, COST, "cost") for event in events)
    by = ("organization", "currency", "kind")
    rated = await rig.sums(RatedUsage, *by)
    assert await rig.sums(ChargeDays, *by) == rated
    assert await rig.sums(ChargeLabelDays, *by) == rated
    assert {key[1:] for key in rated} == {("EUR", "charge"), ("USD", "cost")}
    months = await rig.sums(RatedMeters, "price_id")
    contract = total_of(each for each in _priced(events) if each[2] == "acme")
    flat = sum(
        (Fraction("0.7") * event.output_tokens for event in events if event.organization == "acme"),
        Fraction(0),
    )
    assert Fraction(months["prc_acme",], ATTO) == contract - flat / 10**6


async def test_a_later_event_counts_in_its_own_month(rig: RatingRig) -> None:
    """What comes after the next month has begun costs what it adds to its own."""
    early = make_event(1, organization="other", input_tokens=690_000, started_at_ns=START_NS)
    later = make_event(
        2, organization="other", input_tokens=5, started_at_ns=START_NS + 31 * DAY_NS
    )
    late = make_event(3, organization="other", input_tokens=20_000, started_at_ns=START_NS)
    amounts = []
    for event in (early, later, late):
        (charge,) = [each for each in (await rig.deliver([event])).rated if each.kind == "charge"]
        amounts.append(charge.amount_atto)
    assert Fraction(sum(amounts), ATTO) == total_of(_priced([early, later, late]))
    assert await rig.total() == sum(amounts)


async def test_usage_without_a_price_is_told(rig: RatingRig) -> None:
    """It is stored at nothing, in the currency of its organization, and counted."""
    events = [
        make_event(1, model="nameless"),
        make_event(2, model="nameless", first_byte_at_ns=None, input_tokens=0, output_tokens=0),
        make_event(3, input_tokens=10**13),
    ]
    batch = await rig.deliver(events)
    assert (batch.unpriced, batch.absurd) == (1, 1)
    charges = [each for each in batch.rated if each.kind == "charge"]
    assert [(each.price_id, each.amount_atto) for each in charges] == [("", 0)] * 3
    assert batch.budget_charges[0] == {}
    assert await rig.sums(ChargeDays, "kind") == {("cost",): await rig.total("cost")}
    in_dollars = await rig.deliver([make_event(4)], "USD")
    assert (in_dollars.unpriced, list(in_dollars.budget_charges[0])) == (1, ["EUR"])


async def test_tiers_and_upstreams_have_prices_of_their_own(rig: RatingRig) -> None:
    """The closest one holds; when it has ended, the one for all."""
    listed = await rig.add_book("list")
    costs = await rig.add_book("cost", "USD")
    simple = {"input": {"price": "5"}, "output": {"price": "5"}}
    end_us = START_NS // 1_000 + 1_000_000
    end_us -= end_us % 1_000_000
    await rig.add_price(
        listed, "prc_flex", "fast", service_tier="flex", rates=simple, valid_to_us=end_us
    )
    await rig.add_price(costs, "prc_there", "served-fast", upstream="there", rates=simple)
    base: dict[str, Any] = {"organization": "other", "started_at_ns": START_NS}
    found = []
    cases: list[dict[str, Any]] = [
        {"service_tier": "flex", "upstream": "there"},
        {"service_tier": "default"},
        {"service_tier": "flex", "started_at_ns": end_us * 1_000},
    ]
    for number, members in enumerate(cases):
        batch = await rig.deliver([make_event(number, **(base | members))])
        found.append([each.price_id for each in batch.rated])
    assert found == [["prc_flex", "prc_there"], ["prc_list", "prc_cost"], ["prc_list", "prc_cost"]]


async def test_rated_rows_are_only_added(rig: RatingRig, database: Database) -> None:
    """The database refuses to change or delete one, and takes none twice."""
    await rig.deliver([make_event(1)])
    for statement in (update(RatedUsage).values(amount=0), delete(RatedUsage)):
        with pytest.raises((DatabaseError, RowConflictError), match="only added"):
            async with database.write(ALL) as session:
                await session.change(statement)
    with pytest.raises(RowConflictError):
        await rig.deliver([make_event(1)])
    async with database.read(ALL) as session:
        assert len(await session.rows(select(RatedUsage.event_id))) == 2


async def test_a_database_takes_no_two_prices_of_one_moment(
    rig: RatingRig, database: Database
) -> None:
    """Of one book, model, upstream and tier (I16); what overlaps by its end is found before."""
    book = await rig.add_book("list")
    with pytest.raises(RowConflictError):
        await rig.add_price(book, "prc_again", "fast")
    with pytest.raises(RowConflictError):
        await rig.add_price(book, "prc_back", "new", valid_from_us=10**6, valid_to_us=10**6)
    first = await rig.add_price(book, "prc_1", "new", valid_from_us=10**6, valid_to_us=10**7)
    inside = await rig.add_price(book, "prc_2", "newer", valid_from_us=2 * 10**6)
    assert find_overlap(first, [inside]) == inside
    async with database.read(ALL) as session:
        assert await store.list_same(session, ALL, first) == [first]


async def test_contracts_and_costs_stay_between_those_they_are_of(
    rig: RatingRig, database: Database, request: pytest.FixtureRequest
) -> None:
    """Whatever is asked for: another organization's session gets what everybody gets."""
    await rig.deliver([make_event(1)])
    for name, ids in (("acme", {"prc_list", "prc_acme"}), ("other", {"prc_list"})):
        async with database.read(Scope.of(name)) as session:
            if "postgresql" in request.node.name:
                rows = await session.rows(select(Prices.id))
                assert {row[0] for row in rows} == ids
                assert bool(await session.rows(select(RatedUsage.event_id))) == (name == "acme")
            priced = await store.list_priced(
                session, Scope.of(name), {"fast", "served-fast"}, "EUR"
            )
            assert priced == {"fast"}
