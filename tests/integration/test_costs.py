"""Costs by day and month: whatever they are grouped by, they are what the events were rated at."""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from tests.fakes.databases import create_template
from tests.fakes.rated_usage import RatedUsage
from tests.unit.metering.usage_events import make_event

from penstock.contract.usage import UsageEvent
from penstock.limits.prices import ATTO
from penstock.metering.bucket_model import LABEL, BucketQuery
from penstock.metering.bucket_rules import bucket_start, find_page
from penstock.rating.cost_model import CostResult
from penstock.rating.cost_service import list_costs, month_charges
from penstock.rating.model import Rated
from penstock.rating.service import record_rated
from penstock.rating.tables import (
    ChargeDays,
    ChargeEighths,
    ChargeLabelDays,
    ChargeModelEighths,
    ChargeModelQuarters,
    ChargeMonths,
    ChargeProjectDays,
    ChargeProjectEighths,
    ChargeProjectQuarters,
    ChargeQuarters,
)
from penstock.rating.tables import RatedUsage as RatedRows
from penstock.storage.database import Database
from penstock.storage.scope import Scope

ALL = Scope.all_organizations()
FIRST = datetime(2025, 12, 30, 22, tzinfo=UTC)
KEPT = (HealthCheck.function_scoped_fixture,)
"""One database for all examples: each empties the figures."""
FIGURES = (
    ChargeDays,
    ChargeEighths,
    ChargeQuarters,
    ChargeMonths,
    ChargeProjectDays,
    ChargeProjectEighths,
    ChargeProjectQuarters,
    ChargeModelEighths,
    ChargeModelQuarters,
    ChargeLabelDays,
)
ZONES = (None, *map(ZoneInfo, ("Europe/Berlin", "Asia/Kathmandu", "Pacific/Auckland")))
DIMENSIONS = ("organization", "project", "key_id", "model", "data_class")
LARGEST = (2**63 - 1) * 10**9
"""What one event can be rated at: a cell has many of them."""
WIDTHS: tuple[Literal["day", "month"], ...] = ("day", "month")

_texts = st.sampled_from(["a", "b", "ä"])
_numbers = iter(range(10**9))


@st.composite
def _rated(draw: st.DrawFn) -> list[Rated]:
    rated = []
    for _ in range(draw(st.integers(1, 10))):
        start = FIRST + timedelta(minutes=5 * draw(st.integers(0, 900)))
        labels = draw(st.dictionaries(st.sampled_from(["cost", "use"]), _texts, max_size=2))
        event = make_event(
            next(_numbers),
            started_at_ns=int(start.timestamp()) * 10**9,
            organization=draw(_texts),
            project=draw(_texts),
            key_id=draw(_texts),
            model=draw(_texts),
            data_class=draw(st.sampled_from(["", "eu"])),
            labels=tuple(sorted(labels.items())),
        )
        amounts = (
            st.integers(-(3 * ATTO), 10**6 * ATTO)
            | st.integers(-3, 3)
            | st.integers(-LARGEST, LARGEST)
            | st.sampled_from([LARGEST, -LARGEST])
        )
        currency = draw(st.sampled_from(["EUR", "USD"]))
        rated.append(Rated(event, "charge", currency, "prc_1", draw(amounts)))
        if draw(st.booleans()):
            currency = draw(st.sampled_from(["EUR", "USD"]))
            rated.append(Rated(event, "cost", currency, "prc_2", draw(amounts)))
    return rated


async def _fill(database: Database, rated: Iterable[Rated]) -> None:
    """Have these amounts, and no others."""
    async with database.write(ALL) as session:
        for table in FIGURES:
            await session.change(delete(table))
        await record_rated(session, list(rated), {}, recorded_at_us=1)


def _values(event: UsageEvent, query: BucketQuery) -> list[tuple[str, ...]]:
    names = [value for name, value in event.labels if name == query.label]
    return [
        tuple(value if name == LABEL else getattr(event, name) for name in query.group_by)
        for value in (names if query.label is not None else [""])
    ]


def _expect(rated: Iterable[Rated], query: BucketQuery, kind: str) -> dict[Any, int]:
    found: Counter[Any] = Counter()
    for one in rated:
        is_meant = all(getattr(one.event, name) == value for name, value in query.filters.items())
        if is_meant and one.kind == kind:
            start_us = bucket_start(query.width, one.event.started_at_ns // 1_000, query.zone)
            for group in _values(one.event, query):
                found[start_us, (*group, one.currency)] += one.amount_atto
    return {place: amount for place, amount in found.items() if amount}


async def _walk(
    database: Database, query: BucketQuery, scope: Scope, *, has_costs: bool
) -> list[CostResult]:
    results: list[CostResult] = []
    while True:
        async with database.read(scope) as session:
            page = await list_costs(session, scope, query, has_costs=has_costs)
        results += page.results
        if page.next_page is None:
            return results
        after = find_page(page.next_page, len(query.group_by) + 1)
        assert after is not None
        members = {name: getattr(query, name) for name in BucketQuery.__dataclass_fields__}
        query = BucketQuery(**(members | {"after": after}))


def _found(results: Iterable[CostResult], member: str) -> dict[Any, int]:
    places = {(one.start_us, one.group): getattr(one, member) for one in results}
    return {place: amount for place, amount in places.items() if amount}


@settings(max_examples=6, suppress_health_check=KEPT)
@given(data=st.data(), rated=_rated())
async def test_costs_add_up_to_what_was_rated(
    database: Database, data: st.DataObject, rated: list[Rated]
) -> None:
    """Costs of any width, zone, grouping, filter and page size are what the events came to."""
    await _fill(database, rated)
    for width in WIDTHS:
        group_by = tuple(data.draw(st.lists(st.sampled_from(DIMENSIONS), unique=True)))
        names = data.draw(st.lists(st.sampled_from(DIMENSIONS), unique=True, max_size=2))
        limit = data.draw(st.sampled_from([1, 3, 1_000]))
        query = BucketQuery(
            width=width,
            group_by=group_by,
            filters={name: data.draw(_texts) for name in names},
            limit=limit,
            zone=data.draw(st.sampled_from(ZONES)),
        )
        results = await _walk(database, query, ALL, has_costs=True)
        assert _found(results, "amount_atto") == _expect(rated, query, "charge")
        assert _found(results, "cost_atto") == _expect(rated, query, "cost")
        own = [one for one in rated if one.event.organization == "a"]
        scope = Scope.of("a")
        results = await _walk(database, query, scope, has_costs=False)
        assert _found(results, "amount_atto") == _expect(own, query, "charge")
        assert {one.cost_atto for one in results} <= {None}


@settings(max_examples=6, suppress_health_check=KEPT)
@given(rated=_rated(), limit=st.sampled_from([1, 1_000]))
async def test_labels_add_up_to_what_was_rated(
    database: Database, rated: list[Rated], limit: int
) -> None:
    """Days and months by a label's values are exactly what the events that have it came to."""
    await _fill(database, rated)
    for width in WIDTHS:
        for group_by, filters in (
            (("organization", LABEL), {}),
            (("project", LABEL), {}),
            ((LABEL,), {"project": rated[0].event.project}),
        ):
            query = BucketQuery(
                width=width, group_by=group_by, label="cost", filters=filters, limit=limit
            )
            results = await _walk(database, query, ALL, has_costs=True)
            assert _found(results, "amount_atto") == _expect(rated, query, "charge")
            assert _found(results, "cost_atto") == _expect(rated, query, "cost")


async def test_huge_amounts_are_added_up(database: Database) -> None:
    """Amounts of days whose sum passes what a column holds are added up all the same."""
    huge = (2**63 - 1) * 10**9 - 1
    start_ns = int(FIRST.timestamp()) * 10**9
    await _fill(
        database,
        [
            Rated(
                make_event(next(_numbers), started_at_ns=start_ns + 3 * day * 86_400 * 10**9),
                "charge",
                "EUR",
                "prc_1",
                huge,
            )
            for day in range(2)
        ],
    )
    query = BucketQuery(width="day", group_by=(), filters={"key_id": "key-1"})
    results = await _walk(database, query, ALL, has_costs=False)
    assert sum(one.amount_atto for one in results) == 2 * huge


@pytest.mark.parametrize(
    ("charges", "costs", "expected"),
    [
        ({"EUR": 5}, {"EUR": 2}, [("EUR", 5, 2, 3)]),
        ({"EUR": 5}, {}, [("EUR", 5, None, None)]),
        ({"EUR": 5}, {"USD": 2}, [("EUR", 5, None, None), ("USD", 0, 2, -2)]),
    ],
)
async def test_a_margin_is_of_one_currency(
    database: Database,
    charges: dict[str, int],
    costs: dict[str, int],
    expected: list[tuple[str, int, int | None, int | None]],
) -> None:
    """A margin is told where costs are known, in their own currency and no other."""
    rated = [
        Rated(make_event(next(_numbers)), "charge", currency, "prc_1", amount)
        for currency, amount in charges.items()
    ] + [
        Rated(make_event(next(_numbers)), "cost", currency, "prc_2", amount)
        for currency, amount in costs.items()
    ]
    await _fill(database, rated)
    results = await _walk(database, BucketQuery(width="month", filters={}), ALL, has_costs=True)
    found = [(one.currency, one.amount_atto, one.cost_atto, one.margin_atto) for one in results]
    assert found == expected


def test_charges_of_one_key_are_found_by_it(tmp_path: Path) -> None:
    """In a file, one key's charges are read by the key's index: an organization has many keys."""
    database = sqlite3.connect(create_template(tmp_path))
    for table in ("charge_days", "charge_eighths", "charge_quarters"):
        plan = database.execute(
            f"EXPLAIN QUERY PLAN SELECT sum(amount) FROM {table} WHERE organization = 'x' "  # noqa: S608 - a test's own
            "AND at >= 1 AND at < 2 AND project = 'x' AND key_id = 'x' AND kind = 'charge'"
        )
        (step,) = (row[3] for row in plan)
        assert f"USING INDEX ix_{table}_key_id_at (key_id=? AND at>? AND at<?)" in step
    database.close()


async def test_a_months_charges_by_model(database: Database) -> None:
    """A month's charges are those of one organization's models, each exact, without costs."""
    usage = RatedUsage(database)
    await usage.set_price("fast", unit=1)
    await usage.set_price("slow", unit=3)
    await usage.set_price("served-fast", kind="cost", unit=1)
    start_ns = int(FIRST.timestamp()) * 10**9
    models = ("fast", "slow", "fast", "unpriced")
    events = [
        make_event(next(_numbers), model=model, started_at_ns=start_ns + number)
        for number, model in enumerate(models)
    ]
    other = make_event(next(_numbers), organization="other", started_at_ns=start_ns)
    later = make_event(next(_numbers), started_at_ns=start_ns + 3 * 86_400 * 10**9)
    await usage.add([*events, other, later])
    async with database.read(Scope.of("acme")) as session:
        charges = await month_charges(session, "acme", start_ns // 1_000)
    one = 12 * 10**12 + 7 * 2 * 10**12
    assert {(each.model, each.currency): each.amount_atto for each in charges} == {
        ("fast", "EUR"): 2 * one,
        ("slow", "EUR"): 3 * one,
    }
    async with database.read(ALL) as session:
        found = await session.rows(RatedRows.__table__.select())
    assert len(found) == len(usage.rated)
