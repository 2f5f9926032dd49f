"""Figures by hour, day and month: whatever they are grouped by, they are those of the events."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from tests.unit.metering.usage_events import make_event

from penstock.contract.usage import METERS, UsageEvent, quantities
from penstock.metering.bucket_model import (
    DIMENSIONS,
    LABEL,
    BucketQuery,
    UsageResult,
    Width,
)
from penstock.metering.bucket_rules import DAY_US, HOUR_US, bucket_start, find_page
from penstock.metering.bucket_service import list_usage_buckets
from penstock.metering.figure_rules import add_up
from penstock.metering.figure_store import add_figures
from penstock.metering.tables import (
    UsageDays,
    UsageEighths,
    UsageEmbeddingHours,
    UsageLabelDays,
    UsageModelEighths,
    UsageModelQuarters,
    UsageMonths,
    UsageProjectDays,
    UsageProjectEighths,
    UsageProjectQuarters,
    UsageQuarters,
)
from penstock.storage.database import Database
from penstock.storage.scope import Scope

KEPT = (HealthCheck.function_scoped_fixture,)
"""One database for all examples: each empties it."""
TABLES = (
    UsageEmbeddingHours,
    UsageQuarters,
    UsageDays,
    UsageEighths,
    UsageMonths,
    UsageProjectDays,
    UsageProjectEighths,
    UsageProjectQuarters,
    UsageModelEighths,
    UsageModelQuarters,
    UsageLabelDays,
)
ZONES = sorted(available_timezones() - {"localtime"})
FINE_ZONES = ("Pacific/Auckland", "Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns")
ALL = Scope.all_organizations()
FIRST = datetime(2025, 12, 30, 22, tzinfo=UTC)
WIDTHS: tuple[Width, ...] = ("hour", "day", "month")

_texts = st.sampled_from(["a", "b", "ä\"'"])
_tokens = st.one_of(st.integers(0, 9), st.integers(0, 2**40))


@st.composite
def _events(draw: st.DrawFn, first: datetime = FIRST) -> list[UsageEvent]:
    events = []
    for number in range(draw(st.integers(1, 12))):
        # Across the ends of days, of a month and of a year.
        start = first + timedelta(minutes=5 * draw(st.integers(0, 900)))
        labels = draw(st.sets(st.tuples(st.sampled_from(["cost", "use"]), _texts), max_size=3))
        event = make_event(
            number,
            started_at_ns=int(start.timestamp()) * 10**9 + number,
            organization=draw(_texts),
            project=draw(_texts),
            key_id=draw(_texts),
            model=draw(_texts),
            data_class=draw(st.sampled_from(["", "eu"])),
            region=draw(st.sampled_from(["", "de"])),
            input_tokens=draw(_tokens),
            output_tokens=draw(_tokens),
            cached_input_tokens=draw(st.none() | _tokens),
            image_count=draw(st.integers(0, 2)),
            labels=tuple(sorted(labels)),
        )
        events.append(event)
    return events


async def _fill(database: Database, events: Iterable[UsageEvent]) -> None:
    """Have the figures of these events, and no others."""
    async with database.write(ALL) as session:
        for table in TABLES:
            await session.change(delete(table))
        await add_figures(session, ALL, add_up(events))


def _values(event: UsageEvent, query: BucketQuery) -> list[tuple[str, ...]]:
    """Return the groups that an event is in."""
    names = [value for name, value in event.labels if name == query.label]
    return [
        tuple(value if name == LABEL else getattr(event, name) for name in query.group_by)
        for value in (names if query.label is not None else [""])
    ]


def _start_us(query: BucketQuery, at_us: int) -> int:
    """Return when the bucket begins that a moment is in, as its zone's calendar says."""
    if query.zone is None:
        return bucket_start(query.width, at_us)
    local = datetime.fromtimestamp(at_us // 10**6, query.zone)
    day = 1 if query.width == "month" else local.day
    return int(datetime(local.year, local.month, day, tzinfo=query.zone).timestamp()) * 10**6


def _expect(events: Iterable[UsageEvent], query: BucketQuery) -> dict[Any, Counter[str]]:
    found: dict[Any, Counter[str]] = {}
    for event in events:
        if all(getattr(event, name) == value for name, value in query.filters.items()):
            start_us = _start_us(query, event.started_at_ns // 1_000)
            for group in _values(event, query):
                place = found.setdefault((start_us, group), Counter())
                place.update(quantities(event))
    return found


async def _walk(database: Database, query: BucketQuery, scope: Scope = ALL) -> list[UsageResult]:
    results: list[UsageResult] = []
    while True:
        async with database.read(scope) as session:
            page = await list_usage_buckets(session, scope, query)
        assert len(page.results) <= query.limit
        results += page.results
        if page.next_page is None:
            return results
        after = find_page(page.next_page, len(query.group_by))
        assert after is not None
        query = _replace(query, after=after)


def _replace(query: BucketQuery, **changes: Any) -> BucketQuery:
    members = {name: getattr(query, name) for name in BucketQuery.__dataclass_fields__}
    return BucketQuery(**(members | changes))


def _figures(results: Sequence[UsageResult]) -> dict[Any, Counter[str]]:
    found: dict[Any, Counter[str]] = {
        (one.start_us, one.group): Counter(
            {str(meter): figure for meter, figure in one.figures.items()}
        )
        for one in results
    }
    assert len(found) == len(results)
    assert list(found) == sorted(found, key=lambda place: place[0])
    return found


def _same(found: dict[Any, Counter[str]], expected: dict[Any, Counter[str]]) -> bool:
    return found.keys() == expected.keys() and all(
        found[place][meter] == expected[place][meter] for place in found for meter in METERS
    )


@settings(max_examples=6, suppress_health_check=KEPT)
@given(data=st.data(), events=_events())
async def test_buckets_add_up_to_the_events(
    database: Database, data: st.DataObject, events: list[UsageEvent]
) -> None:
    """Buckets of any width, grouping, filter and page size have the exact figures of the events."""
    await _fill(database, events)
    for width in WIDTHS:
        group_by = tuple(data.draw(st.lists(st.sampled_from(DIMENSIONS), unique=True)))
        names = data.draw(st.lists(st.sampled_from(DIMENSIONS), unique=True, max_size=2))
        filters = {str(name): data.draw(_texts | st.just("")) for name in names}
        limit = data.draw(st.sampled_from([1, 3, 1_000]))
        query = BucketQuery(width=width, group_by=group_by, filters=filters, limit=limit)
        found = _figures(await _walk(database, query))
        assert _same(found, _expect(events, query))
        scope = Scope.of("a")
        own = [event for event in events if event.organization == "a"]
        assert _same(_figures(await _walk(database, query, scope)), _expect(own, query))


@settings(max_examples=8, suppress_health_check=KEPT)
@given(data=st.data(), zone=(st.sampled_from(ZONES) | st.sampled_from(FINE_ZONES)).map(ZoneInfo))
async def test_buckets_of_a_zone_add_up_to_the_events(
    database: Database, data: st.DataObject, zone: ZoneInfo
) -> None:
    """Days and months of any time zone, however grouped and paged, have what its clocks say."""
    days = data.draw(st.sampled_from([0, 88, 97]) | st.integers(-5_000, 5_000))
    events = data.draw(_events(FIRST + timedelta(days=days)))
    await _fill(database, events)
    width: Width
    for width in ("day", "month"):
        group_by = tuple(data.draw(st.lists(st.sampled_from(DIMENSIONS), unique=True)))
        names = data.draw(st.lists(st.sampled_from(DIMENSIONS), unique=True, max_size=1))
        query = BucketQuery(
            width=width,
            zone=zone,
            group_by=group_by,
            filters={str(name): data.draw(_texts | st.just("")) for name in names},
            limit=data.draw(st.sampled_from([1, 3, 1_000])),
        )
        expected = _expect(events, query)
        # Whose figures are all 0 cannot be told from what is in another day of the zone.
        some = {place: one for place, one in expected.items() if any(one.values())}
        assert _same(_figures(await _walk(database, query)), some)


@pytest.mark.parametrize(
    ("day", "hours"),
    [(datetime(2026, 3, 29, tzinfo=UTC), 23), (datetime(2026, 10, 25, tzinfo=UTC), 25)],
)
async def test_a_day_is_as_long_as_its_clocks_say(
    database: Database, day: datetime, hours: int
) -> None:
    """The day on which clocks are changed has 23 or 25 hours, and its neighbours have 24."""
    first_ns = int((day - timedelta(days=2)).timestamp()) * 10**9
    await _fill(
        database,
        [make_event(hour, started_at_ns=first_ns + hour * 3_600 * 10**9) for hour in range(120)],
    )
    query = BucketQuery(width="day", zone=ZoneInfo("Europe/Berlin"), filters={})
    days = {one.start_us: one.figures["requests"] for one in await _walk(database, query)}
    start_us = bucket_start("day", int(day.timestamp()) * 10**6 + 12 * HOUR_US, query.zone)
    place = list(days).index(start_us)
    assert list(days.values())[place - 1 : place + 2] == [24, hours, 24]
    assert sum(days.values()) == 120


@settings(max_examples=6, suppress_health_check=KEPT)
@given(data=st.data(), events=_events())
async def test_labels_add_up_to_the_events(
    database: Database, data: st.DataObject, events: list[UsageEvent]
) -> None:
    """Days and months by a label's values have the exact figures of the events that have it."""
    await _fill(database, events)
    groups = data.draw(st.permutations([LABEL, "model", "organization", "project"]))
    group_by = tuple(groups[: groups.index(LABEL) + 1])
    width: Width
    for width in ("day", "month"):
        limit = data.draw(st.sampled_from([1, 1_000]))
        only = {"project": data.draw(st.sampled_from([one.project for one in events]))}
        filters = data.draw(st.sampled_from([{}, only]))
        query = BucketQuery(
            width=width, group_by=group_by, label="cost", filters=filters, limit=limit
        )
        assert _same(_figures(await _walk(database, query)), _expect(events, query))


@pytest.fixture
def events() -> list[UsageEvent]:
    """An event in each hour of two days."""
    start_ns = int(FIRST.timestamp()) * 10**9
    return [make_event(hour, started_at_ns=start_ns + hour * 3_600 * 10**9) for hour in range(48)]


@pytest.mark.parametrize(
    ("width", "since", "until", "hours"),
    [
        ("hour", 0, 1, 1),
        ("hour", HOUR_US - 1, HOUR_US, 1),
        ("hour", HOUR_US, HOUR_US + 1, 1),
        ("hour", 10 * HOUR_US, 12 * HOUR_US, 2),
        ("day", 3 * HOUR_US, 4 * HOUR_US, 24),
        ("day", -50 * DAY_US, 2 * HOUR_US, 2),
        ("day", 26 * HOUR_US, 900 * DAY_US, 22),
        ("day", 900 * DAY_US, 901 * DAY_US, 0),
        ("month", 0, 1, 26),
        ("month", 26 * HOUR_US, None, 22),
        ("month", None, None, 48),
    ],
)
async def test_whole_buckets_are_meant(
    database: Database,
    events: list[UsageEvent],
    *,
    width: Width,
    since: int | None,
    until: int | None,
    hours: int,
) -> None:
    """A bucket that the times touch is meant as a whole, and one behind its end is not."""
    await _fill(database, events)
    start_us = int(FIRST.timestamp()) * 10**6
    query = BucketQuery(
        width=width,
        since_us=None if since is None else start_us + since,
        until_us=None if until is None else start_us + until,
        filters={},
    )
    results = await _walk(database, query)
    assert sum(result.figures["requests"] for result in results) == hours


async def test_absurd_figures_are_added_up(database: Database) -> None:
    """Figures of days whose sum passes 63 bits are added up all the same."""
    huge = 2**63 - 1
    start_ns = int(FIRST.timestamp()) * 10**9
    await _fill(
        database,
        [
            make_event(day, started_at_ns=start_ns + day * 86_400 * 10**9, input_tokens=huge)
            for day in range(3)
        ],
    )
    query = BucketQuery(width="day", filters={"key_id": "key-1"}, limit=1_000)
    results = await _walk(database, query)
    assert sum(result.figures["input"] for result in results) == 3 * huge


async def test_nothing_has_no_buckets(database: Database) -> None:
    """Without usage there is no bucket of any width."""
    for width in WIDTHS:
        assert await _walk(database, BucketQuery(width=width, filters={})) == []
