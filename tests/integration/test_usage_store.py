"""Usage events, stored once each, on real databases."""

import asyncio
import itertools
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries
from tests.fakes.organizations import create_key, create_place
from tests.unit.metering.usage_events import STARTED_AT_NS, make_event

from penstock.contract.money import HoldUse
from penstock.contract.usage import Attempt, UsageBatch, UsageEvent, UsageReceipt
from penstock.kit.errors import PenstockError
from penstock.metering import service, store
from penstock.metering.errors import BATCH_INVALID, BATCH_TOO_LARGE, CURSOR_INVALID
from penstock.metering.model import TotalsBy, UsageFilter, UsagePage, UsageTotal
from penstock.metering.rules import hash_event
from penstock.storage.database import Database
from penstock.storage.scope import Scope

ALL = Scope.all_organizations()
ANY = UsageFilter()


async def _deliver(
    database: Database, events: Sequence[UsageEvent], scope: Scope = ALL
) -> UsageReceipt:
    batch = UsageBatch(producer="node-1/0", epoch=3, events=tuple(events))
    delivery = service.prepare_batch(batch, 1)
    async with database.write(scope) as session:
        (receipt,) = await service.record_events(session, scope, [delivery])
        return receipt


def _receipt(*, stored: int, duplicates: int, conflicts: int = 0) -> UsageReceipt:
    """Return the receipt of a delivery that said no place."""
    return UsageReceipt(stored, duplicates, conflicts, segment=0)


async def _totals(
    database: Database,
    by: TotalsBy = "model",
    usage_filter: UsageFilter = ANY,
    scope: Scope = ALL,
) -> list[UsageTotal]:
    async with database.read(scope) as session:
        return await service.total_usage(session, scope, usage_filter, by)


async def _page(
    database: Database,
    usage_filter: UsageFilter = ANY,
    *,
    scope: Scope = ALL,
    cursor: str | None = None,
    limit: int = 1_000,
) -> UsagePage:
    async with database.read(scope) as session:
        return await service.list_usage(session, scope, usage_filter, cursor=cursor, limit=limit)


async def _conflicts(database: Database, scope: Scope = ALL) -> int:
    async with database.read(scope) as session:
        return await store.count_conflicts(session, scope)


def _expected(events: Sequence[UsageEvent], by: TotalsBy) -> list[UsageTotal]:
    requests: Counter[str] = Counter()
    input_tokens: Counter[str] = Counter()
    output_tokens: Counter[str] = Counter()
    for event in events:
        group = getattr(event, by)
        requests[group] += 1
        input_tokens[group] += event.input_tokens
        output_tokens[group] += event.output_tokens
    return [
        UsageTotal(group, None, requests[group], input_tokens[group], output_tokens[group])
        for group in sorted(requests)
    ]


async def test_an_event_comes_back_as_it_was_delivered(database: Database) -> None:
    """Members that are kept with the event are in its row, times to the microsecond."""
    event = make_event(
        1,
        flags=("usage_absurd", "usage_missing"),
        cached_input_tokens=4,
        holds=(HoldUse("hld_1", 7),),
        labels=(("team", "search"), ("ticket", "4711")),
        data_class="internal",
        region="eu",
        service_tier="flex",
        upstream_request_id="chatcmpl-1",
        cache_write_input_tokens=3,
        audio_input_tokens=2,
        audio_output_tokens=1,
        image_count=5,
        earlier_attempts=(Attempt("engine-0", "connect_failed", 7, 8),),
    )
    assert await _deliver(database, [event]) == _receipt(stored=1, duplicates=0)
    (row,) = (await _page(database)).rows
    for field in msgspec.structs.fields(event):
        value = getattr(event, field.name)
        if field.name in {"key_secret_id", "holds"}:
            continue
        if field.name.endswith("_ns"):
            assert getattr(row, field.name[:-3] + "_us") == value // 1_000
        elif field.name in {"flags", "labels", "earlier_attempts"}:
            assert getattr(row, field.name) == msgspec.json.decode(msgspec.json.encode(value))
        else:
            assert getattr(row, field.name) == value


async def test_names_are_those_of_objects(database: Database) -> None:
    """Rows and totals have the names of objects in their scope, and None for what is none."""
    organization, project = await create_place(database)
    created = await create_key(database, project)
    ids = {"organization": organization.id, "project": project.id, "key_id": created.key.id}
    await _deliver(database, [make_event(1, **ids), make_event(2)])
    names = {"organization": "acme", "project": "playground", "key_id": "key"}
    for scope, count in ((ALL, 2), (Scope.of(organization.id), 1)):
        rows = (await _page(database, scope=scope)).rows
        found = [(row.organization_name, row.project_name, row.key_name) for row in rows]
        assert found == [tuple(names.values()), (None, None, None)][:count]
        by: TotalsBy
        for by in ("organization", "project", "key_id"):
            totals = await _totals(database, by, scope=scope)
            assert {one.group: one.name for one in totals}[ids[by]] == names[by]
            assert len([one for one in totals if one.name is not None]) == 1
    assert [one.name for one in await _totals(database, "model")] == [None]


async def test_an_event_with_nothing_optional_comes_back(database: Database) -> None:
    """What an event may leave open stays open."""
    event = make_event(
        1, first_byte_at_ns=None, reasoning_output_tokens=None, error_code="err:a:b:c"
    )
    await _deliver(database, [event])
    (row,) = (await _page(database)).rows
    assert row.first_byte_at_us is None
    assert row.reasoning_output_tokens is None
    assert row.cached_input_tokens is None
    assert row.error_code == "err:a:b:c"


async def test_a_batch_delivered_again_counts_once(database: Database) -> None:
    """The second receipt calls everything a duplicate, and totals stay."""
    events = [make_event(number) for number in range(500)]
    assert await _deliver(database, events) == _receipt(stored=500, duplicates=0)
    before = await _totals(database)
    assert await _deliver(database, events) == _receipt(stored=0, duplicates=500)
    assert await _totals(database) == before == _expected(events, "model")


async def test_repeats_within_a_batch_count_once(database: Database) -> None:
    """An event that is in a batch three times is stored once and a duplicate twice."""
    event = make_event(1)
    receipt = await _deliver(database, [event, make_event(2), event, event])
    assert receipt == _receipt(stored=2, duplicates=2)


async def test_one_batch_from_many_sides_at_once_counts_once(database: Database) -> None:
    """Deliveries of the same batch at the same time store each event exactly once."""
    events = [make_event(number) for number in range(100)]
    orders = [events, events[::-1], events[50:] + events[:50]] * 4
    receipts = await asyncio.gather(*(_deliver(database, order) for order in orders))
    assert sum(receipt.stored for receipt in receipts) == 100
    assert sum(receipt.duplicates for receipt in receipts) == 1_100
    assert await _totals(database) == _expected(events, "model")


async def test_two_processes_deliver_at_once(database: Database) -> None:
    """Control planes that share a database count an event once between them."""
    other = Database(database.location)
    await other.open()
    batches = [[make_event(number) for number in range(i, i + 20)] for i in range(0, 200, 10)]
    receipts = await asyncio.gather(
        *(_deliver(one, batch) for batch in batches for one in (database, other))
    )
    await other.close()
    assert sum(receipt.stored for receipt in receipts) == 210
    assert [total.requests for total in await _totals(database)] == [210]


async def test_another_content_is_quarantined(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """An id with another content changes nothing, is kept once, counted and logged."""
    event = make_event(1)
    liar = make_event(1, output_tokens=1_000_000, holds=(HoldUse("hld_1", 7),))
    await _deliver(database, [event])
    with caplog.at_level(logging.WARNING, "penstock.metering"):
        for _ in range(2):
            receipt = await _deliver(database, [liar, make_event(2), event])
            assert receipt.conflicts == 1
    assert await _totals(database) == _expected([event, make_event(2)], "model")
    assert await _conflicts(database) == 1
    assert event.event_id in caplog.text
    assert "1000000" not in caplog.text


async def test_two_contents_in_one_batch(database: Database) -> None:
    """Within a batch the first content of an id is stored and the second quarantined."""
    receipt = await _deliver(database, [make_event(1), make_event(1, status=500), make_event(1)])
    assert receipt == _receipt(stored=1, duplicates=1, conflicts=1)
    (row,) = (await _page(database)).rows
    assert row.status == 200


async def test_an_id_of_another_organization_is_a_conflict(database: Database) -> None:
    """Nobody overwrites or learns another organization's event by using its id."""
    await _deliver(database, [make_event(1)])
    theirs = make_event(1, organization="other")
    for scope in (ALL, Scope.of("other")):
        receipt = await _deliver(database, [theirs], scope)
        assert receipt == _receipt(stored=0, duplicates=0, conflicts=1)
    assert await _totals(database, "organization") == _expected([make_event(1)], "organization")
    assert await _conflicts(database, Scope.of("other")) == 1
    assert await _conflicts(database, Scope.of("acme")) == 0


async def test_a_scope_is_a_wall(database: Database) -> None:
    """With the scope of one organization nothing of another is listed, added up or written."""
    ours, theirs = make_event(1), make_event(2, organization="other", project="theirs")
    await _deliver(database, [ours, theirs])
    scope = Scope.of("acme")
    assert [row.event_id for row in (await _page(database, scope=scope)).rows] == [ours.event_id]
    async with database.read(scope) as session:
        latest = await service.list_latest_usage(session, scope, 10)
        hashes = await store.list_hashes(session, scope, [ours.event_id, theirs.event_id])
    assert [row.event_id for row in latest] == [ours.event_id]
    assert hashes == {ours.event_id: hash_event(ours).content_hash}
    for by in ("organization", "project", "key_id", "model"):
        assert await _totals(database, by, scope=scope) == _expected([ours], by)
    asked = UsageFilter(organization="other")
    assert await _totals(database, "model", asked, scope) == []
    assert (await _page(database, asked, scope=scope)).rows == []
    with pytest.raises(PermissionError):
        await _deliver(database, [make_event(3, organization="other")], scope)


@pytest.mark.parametrize(
    ("usage_filter", "numbers"),
    [
        (ANY, [0, 1, 2, 3]),
        (UsageFilter(organization="acme"), [0, 1, 2]),
        (UsageFilter(project="mail"), [1]),
        (UsageFilter(key_id="key-2"), [2]),
        (UsageFilter(model="slow"), [1, 2]),
        (UsageFilter(model="served-fast"), []),
        (UsageFilter(request_id="request-3"), [3]),
        (UsageFilter(event_id=make_event(2).event_id), [2]),
        (UsageFilter(outcome="timeout"), [0]),
        (UsageFilter(since_us=STARTED_AT_NS // 1_000 + 1_000_000), [1, 2, 3]),
        (UsageFilter(until_us=STARTED_AT_NS // 1_000 + 1_000_000), [0]),
        (UsageFilter(organization="acme", model="fast", outcome="ok"), []),
        (UsageFilter(organization="' OR 1=1 --"), []),
    ],
)
async def test_filters_narrow_rows_and_totals_alike(
    database: Database, usage_filter: UsageFilter, numbers: list[int]
) -> None:
    """A filter leaves the same events in the listing and in the totals."""
    events = [
        make_event(0, outcome="timeout"),
        make_event(1, project="mail", model="slow"),
        make_event(2, key_id="key-2", model="slow"),
        make_event(3, organization="other"),
    ]
    await _deliver(database, events)
    chosen = [events[number] for number in numbers]
    rows = (await _page(database, usage_filter)).rows
    assert [row.event_id for row in rows] == [event.event_id for event in chosen]
    assert await _totals(database, "model", usage_filter) == _expected(chosen, "model")


async def test_absurd_figures_do_not_break_the_totals(database: Database) -> None:
    """Totals are exact beyond 64 bits."""
    events = [make_event(number, input_tokens=2**63 - 1, output_tokens=1) for number in range(9)]
    await _deliver(database, events)
    (total,) = await _totals(database)
    assert total.input_tokens == 9 * (2**63 - 1)
    assert total.output_tokens == 9


async def test_a_walk_sees_each_event_once(database: Database) -> None:
    """Pages in a row hold every event once and in order, whatever is stored meanwhile."""
    # Groups of seven start in the same microsecond: ties are where pages are cut.
    events = [
        make_event(number, started_at_ns=STARTED_AT_NS + number // 7 * 1_000)
        for number in range(100)
    ]
    await _deliver(database, events)
    seen: list[str] = []
    cursor = None
    for turn in itertools.count():
        page = await _page(database, cursor=cursor, limit=9)
        seen += [row.event_id for row in page.rows]
        late = make_event(1_000 + turn, started_at_ns=STARTED_AT_NS - turn)
        new = make_event(2_000 + turn, started_at_ns=STARTED_AT_NS + 10**9 + turn * 1_000)
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
        if turn < 5:
            await _deliver(database, [late, new])
    expected = [event.event_id for event in events]
    assert seen[: len(expected)] == expected
    assert len(seen) == len(set(seen)) == 105


@pytest.mark.parametrize(("count", "pages"), [(0, 1), (1, 1), (10, 1), (11, 2), (20, 2)])
async def test_the_last_page_says_that_it_is_the_last(
    database: Database, count: int, pages: int
) -> None:
    """A cursor is given exactly when there is more, so no walk ends with an empty page."""
    if count:
        await _deliver(database, [make_event(number) for number in range(count)])
    cursor, turns = None, 0
    while turns == 0 or cursor is not None:
        page = await _page(database, cursor=cursor, limit=10)
        cursor = page.next_cursor
        turns += 1
    assert turns == pages


async def test_a_made_up_cursor_is_refused(database: Database) -> None:
    """A cursor that no listing gave out has its own error."""
    with pytest.raises(PenstockError) as caught:
        await _page(database, cursor="made-up")
    assert caught.value.error is CURSOR_INVALID


async def test_the_latest_come_newest_first(database: Database) -> None:
    """The latest events are those that started last, however late they were delivered."""
    await _deliver(database, [make_event(number) for number in (5, 1, 9, 3)])
    async with database.read(ALL) as session:
        latest = await service.list_latest_usage(session, ALL, 3)
    assert [row.request_id for row in latest] == ["request-9", "request-5", "request-3"]


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        (UsageBatch("node-1/0", 1, ()), BATCH_INVALID),
        (UsageBatch("", 1, (make_event(1),)), BATCH_INVALID),
        (UsageBatch("node-1/0", -1, (make_event(1),)), BATCH_INVALID),
        (UsageBatch("node-1/0", 1, (make_event(1),), format=2), BATCH_INVALID),
        (UsageBatch("node-1/0", 1, (make_event(1), make_event(2, status=-1))), BATCH_INVALID),
        (UsageBatch("node-1/0", 1, (make_event(1),) * 501), BATCH_TOO_LARGE),
    ],
    ids=["no events", "no producer", "epoch", "format", "event", "501 events"],
)
def test_an_impossible_batch_is_refused(batch: UsageBatch, error: object) -> None:
    """A batch that breaks the contract is refused before a transaction is begun."""
    with pytest.raises(PenstockError) as caught:
        service.prepare_batch(batch, 1)
    assert caught.value.error is error


EVENTS = [
    make_event(
        number,
        organization=f"organization-{number % 2}",
        project=f"project-{number % 3}",
        key_id=f"key-{number % 4}",
        model=f"model-{number % 5}",
        input_tokens=number**7,
        output_tokens=2**number,
    )
    for number in range(12)
]
DELIVERIES = st.lists(
    st.lists(
        st.lists(st.sampled_from(EVENTS), min_size=1, max_size=12),
        min_size=1,
        max_size=3,
    ),
    max_size=6,
)
"""Groups, one after the other, of batches that are delivered at the same time."""


@settings(max_examples=tries(60))
@given(groups=DELIVERIES)
async def test_totals_are_those_of_the_distinct_events(
    tmp_path_factory: pytest.TempPathFactory,
    sqlite_template: Path,
    groups: list[list[list[UsageEvent]]],
) -> None:
    """However events are split, repeated, reordered and interleaved, each counts once."""
    database = Database(Path(shutil.copy(sqlite_template, tmp_path_factory.mktemp("any"))))
    await database.open()
    try:
        delivered: dict[str, UsageEvent] = {}
        for group in groups:
            receipts = await asyncio.gather(*(_deliver(database, batch) for batch in group))
            events = [event for batch in group for event in batch]
            new = {event.event_id: event for event in events}.keys() - delivered.keys()
            delivered |= {event.event_id: event for event in events}
            assert sum(receipt.stored for receipt in receipts) == len(new)
            assert sum(receipt.duplicates for receipt in receipts) == len(events) - len(new)
            assert sum(receipt.conflicts for receipt in receipts) == 0
        for by in ("organization", "project", "key_id", "model"):
            assert await _totals(database, by) == _expected(list(delivered.values()), by)
        assert len((await _page(database)).rows) == len(delivered)
    finally:
        await database.close()


@settings(max_examples=tries(40))
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=10),
        max_size=6,
    )
)
async def test_the_first_content_of_an_id_stays(
    tmp_path_factory: pytest.TempPathFactory,
    sqlite_template: Path,
    batches: list[list[tuple[int, int]]],
) -> None:
    """Whatever else comes under an id later, totals are those of the contents that came first."""
    database = Database(Path(shutil.copy(sqlite_template, tmp_path_factory.mktemp("any"))))
    await database.open()
    try:
        first: dict[int, int] = {}
        liars: set[tuple[int, int]] = set()
        for batch in batches:
            before = len(first)
            conflicts = 0
            for number, content in batch:
                if first.setdefault(number, content) != content:
                    conflicts += 1
                    liars.add((number, content))
            events = [make_event(number, input_tokens=content) for number, content in batch]
            stored = len(first) - before
            assert await _deliver(database, events) == _receipt(
                stored=stored, duplicates=len(batch) - stored - conflicts, conflicts=conflicts
            )
        expected = [make_event(number, input_tokens=first[number]) for number in first]
        assert await _totals(database) == _expected(expected, "model")
        assert await _conflicts(database) == len(liars)
    finally:
        await database.close()
