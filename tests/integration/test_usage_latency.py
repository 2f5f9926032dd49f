"""How long requests took: stored with the events, and shown to whoever sees their usage."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from tests.fakes.admin_rig import ADMIN_TOKEN, AdminRig, expect_problem, run_admin_rig
from tests.fakes.databases import until_somebody_waits
from tests.fakes.organizations import ALL, NOW_US
from tests.unit.metering.usage_events import make_body, make_event

from penstock.contract.usage import UsageBatch, UsageEvent
from penstock.ledger.chain import read_chain
from penstock.metering.bucket_model import BucketQuery, LatencyResult
from penstock.metering.bucket_rules import find_page
from penstock.metering.latency_rules import Counts, bucket_of
from penstock.metering.latency_service import list_latency
from penstock.metering.latency_store import add_counts
from penstock.metering.model import LatencyCell
from penstock.metering.service import prepare_batch, record_events
from penstock.metering.tables import UsageLatencyHours
from penstock.storage.database import Database
from penstock.storage.scope import Scope

UNKNOWN = "err:control:storage:object_unknown"
HOUR_NS = 3_600 * 10**9
FIRST_NS = 486_120 * HOUR_NS
"""A day of UTC begins."""


def _event(number: int, hour: int, first_ms: int, **members: Any) -> UsageEvent:
    start_ns = FIRST_NS + hour * HOUR_NS + number
    made = {
        "started_at_ns": start_ns,
        "first_byte_at_ns": start_ns + first_ms * 10**6,
        "finished_at_ns": start_ns + first_ms * 3 * 10**6,
        "is_stream": True,
        "output_tokens": 11,
    }
    return make_event(number, **(made | members))


async def _record(database: Database, events: list[UsageEvent]) -> None:
    async with database.write(ALL) as session:
        await record_events(
            session, ALL, [prepare_batch(UsageBatch("node-1/0", 1, tuple(events)), NOW_US)]
        )


async def _list(database: Database, scope: Scope = ALL, **members: Any) -> list[LatencyResult]:
    results: list[LatencyResult] = []
    query = {"width": "day", "filters": {}} | members
    while True:
        async with database.read(scope) as session:
            page = await list_latency(session, scope, BucketQuery(**query))
        results += page.results
        if page.next_page is None:
            return results
        query["after"] = find_page(page.next_page, len(query.get("group_by", ())))


async def test_who_waits_for_a_row_has_no_other(pg_database: Database) -> None:
    """Control planes that make rows of one hour never wait for each other in a circle."""
    cells = [LatencyCell("acme", FIRST_NS // 1_000, "p", model) for model in ("old", "new")]
    counts: Counts = {"outcomes": {"ok": 1}}

    async def add(*some: LatencyCell) -> None:
        async with pg_database.write(ALL) as session:
            await add_counts(session, ALL, dict.fromkeys(some, counts))

    await add(cells[0])
    async with pg_database.write(ALL) as first:
        await add_counts(first, ALL, {cells[1]: counts})
        second = asyncio.create_task(add(*cells))
        await until_somebody_waits(first._connection)
        async with pg_database.write(ALL) as third:
            free = select(UsageLatencyHours.model).with_for_update(nowait=True)
            assert await third.rows(free) == [("old",)]
    await second
    assert [one.counts for one in await _list(pg_database)] == [{"outcomes": {"ok": 4}}]


async def test_times_of_events_are_counted_once(database: Database) -> None:
    """Each event counts once in the histograms of its hour, also when it is delivered again."""
    events = [
        _event(1, 0, 100, organization="a"),
        _event(2, 0, 200, organization="a", model="other"),
        _event(3, 25, 100, organization="a", outcome="timeout"),
        _event(4, 1, 50, organization="b", is_stream=False),
    ]
    await _record(database, events[:2])
    await _record(database, events)
    hours = await _list(database, width="hour", limit=1)
    assert [one.start_us for one in hours] == [
        (FIRST_NS + hour * HOUR_NS) // 1_000 for hour in (0, 1, 25)
    ]
    (first, second) = await _list(database, Scope.of("a"))
    assert first.counts == {
        "outcomes": {"ok": 2},
        "time_to_first_token": {str(bucket_of(ms * 1_000)): 1 for ms in (100, 200)},
        "time_per_output_token": {str(bucket_of(ms * 200)): 1 for ms in (100, 200)},
        "request_duration": {str(bucket_of(ms * 3_000)): 1 for ms in (100, 200)},
    }
    assert second.counts["outcomes"] == {"timeout": 1}
    assert "request_duration" not in second.counts
    groups = await _list(database, group_by=("model",), filters={"organization": "a"}, limit=2)
    assert len(groups) == 3
    (other,) = await _list(database, Scope.of("b"))
    assert [*other.counts] == ["outcomes", "request_duration"]


async def test_a_damaged_histogram_is_found(database: Database) -> None:
    """What histograms say of how requests ended is compared with the events, cell by cell."""
    await _record(database, [_event(1, 0, 100, organization="a"), _event(2, 0, 9)])
    day = FIRST_NS // (24 * HOUR_NS)
    async with database.write(ALL) as session:
        assert not [
            one
            for one in (await read_chain(session, day)).differences
            if one.figure.startswith("usage_latency_hours")
        ]
        lost = text("DELETE FROM usage_latency_hours WHERE organization = 'a'")
        await session._connection.execute(lost)
        (found,) = [
            one
            for one in (await read_chain(session, day)).differences
            if one.figure.startswith("usage_latency_hours")
        ]
    assert (found.figure, found.expected, found.found) == ("usage_latency_hours.ok", 1, 0)
    assert found.of["organization"] == "a"


@pytest.fixture
async def rig(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """A control plane without any objects."""
    async with run_admin_rig(sqlite_template, tmp_path / "data") as rig:
        yield rig


async def _ship(rig: AdminRig, event: UsageEvent) -> None:
    token = (rig.data / "secrets" / "node_token").read_text()
    headers = {"authorization": f"Bearer {token}"}
    answer = await rig.client.post("/node/v1/usage", content=make_body(event), headers=headers)
    assert answer.json()["stored"] == 1


async def _create(rig: AdminRig, number: int) -> dict[str, str]:
    organization = await rig.create("/organizations", name=f"organization {number}")
    project = await rig.create("/projects", organization_id=organization["id"], name="project")
    place = {"organization": organization["id"], "project": project["id"]}
    await _ship(rig, _event(number, 0, 100 * number, **place))
    return place


SINCE = "since=2025-06-15T00:00:00Z&until=2025-06-20T00:00:00Z"


async def _get(rig: AdminRig, query: str, token: str = ADMIN_TOKEN) -> list[dict[str, Any]]:
    answer = await rig.call("GET", f"/usage/latency?{SINCE}&{query}", token=token)
    assert answer.status_code == 200, answer.text
    return [result for bucket in answer.json()["data"] for result in bucket["results"]]


async def test_times_are_answered_within_a_sixteenth(rig: AdminRig) -> None:
    """Percentiles are those of the requests, in milliseconds, with who failed of how many."""
    place = await _create(rig, 1)
    await _ship(rig, _event(5, 0, 300, outcome="upstream_error", status=502, **place))
    (result,) = await _get(rig, "group_by=project,model")
    assert (result["project"], result["project_name"]) == (place["project"], "project")
    assert (result["requests"], result["failed_requests"]) == (2, 1)
    assert result["outcomes"] == {"ok": 1, "upstream_error": 1}
    first = result["time_to_first_token"]
    assert first["count"] == 2
    for part, exact in (("p50_ms", 100), ("p90_ms", 300), ("p99_ms", 300)):
        assert abs(first[part] - exact) <= exact / 16
    assert abs(result["request_duration"]["p99_ms"] - 300) <= 300 / 16
    for query in ("group_by=key_id", "bucket=month", "key_id=x", "limit=0"):
        answer = await rig.call("GET", f"/usage/latency?{query}")
        expect_problem(answer, 400, "err:control:request:invalid")
    answer = await rig.call("GET", "/usage/latency?since=2025-01-01T00:00:00Z")
    expect_problem(answer, 400, "err:control:metering:span_too_long")


async def test_anonymous_is_refused(rig: AdminRig) -> None:
    """Without a token nobody sees times."""
    answer = await rig.call("GET", "/usage/latency", token="")
    expect_problem(answer, 401, "err:control:auth:token_missing")


async def test_others_are_not_there(rig: AdminRig) -> None:
    """A key sees its organization's or project's times; another's is as if it were missing."""
    mine, other = await _create(rig, 1), await _create(rig, 2)
    for role in ("org_owner", "developer"):
        token = await rig.create_token(mine["project"], role, ["usage:read"])
        (result,) = await _get(rig, "group_by=organization", token)
        assert (result["organization"], result["requests"]) == (mine["organization"], 1)
        missing = {"organization": "org_000000000000", "project": "prj_000000000000"}
        for name in ("organization", "project") if role == "org_owner" else ("project",):
            answers = [
                await rig.call("GET", f"/usage/latency?{name}={ids[name]}", token=token)
                for ids in (other, missing)
            ]
            expect_problem(answers[0], 404, UNKNOWN)
            assert answers[0].content == answers[1].content
    assert len(await _get(rig, "group_by=organization")) == 2
    token = await rig.create_token(mine["project"], "inference_only", ["inference", "usage:read"])
    answer = await rig.call("GET", "/usage/latency", token=token)
    expect_problem(answer, 403, "err:control:access:operation_denied")
