"""Corrections and runs over HTTP: one for its reference, what each moved, and who may see it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api
from tests.fakes.ledger_rig import find_violations
from tests.fakes.organizations import ALL, NOW_US
from tests.fakes.rating_rig import RatingRig
from tests.unit.metering.usage_events import STARTED_AT_NS, make_event

from penstock.contract.usage import UsageBatch, UsageEvent
from penstock.control.books import UsageBooks
from penstock.ledger.chain import read_chain
from penstock.metering import service as metering
from penstock.storage.database import Database
from penstock.storage.scope import Scope

PATH = "/usage/corrections"
DAY_NS = 86_400 * 10**9
INVALID = "err:control:prices:correction_invalid"
EXISTS = "err:control:prices:correction_exists"
UNKNOWN = "err:control:storage:object_unknown"
DENIED = "err:control:access:operation_denied"
NO_QUANTITIES: list[Any] = [
    {"output": -1},
    {"output": 1.5},
    {"output": "1"},
    {"output": True},
    {"output": None},
    {"output": 10**12 + 1},
    {"output": 2**63},
    {"tokens": 1},
    {"output_tokens": 1},
    {},
    {"output": 4, "input": 12},
    [1],
    "output=1",
]


@dataclass(slots=True)
class World:
    """Two organizations with an event each: 12 input tokens at 1, 7 output tokens at 2."""

    rig: AdminRig
    database: Database
    projects: list[dict[str, Any]]
    events: list[str]

    async def amounts(self) -> list[str]:
        """Return what each organization is charged for the model, in their order."""
        found = (await self.rig.call("GET", "/costs?group_by=organization")).json()["data"]
        by_owner = {
            result["organization"]: result["amount"]
            for bucket in found
            for result in bucket["results"]
        }
        return [by_owner[project["organization_id"]] for project in self.projects]

    async def correct(self, **members: Any) -> dict[str, Any]:
        """Correct the first event and return what is said of it."""
        body = {"event_id": self.events[0], "reference": "ticket-1", **members}
        answer = await self.rig.call("POST", PATH, body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def listed(self, query: str = "", **options: Any) -> list[dict[str, Any]]:
        """Return a listing of corrections."""
        answer = await self.rig.call("GET", f"{PATH}{query}", **options)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]
        return found


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    """The admin API over a database of each kind, with usage that is rated and booked."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        projects = [await rig.create_project(name) for name in ("mine", "foreign")]
        prices = RatingRig(database)
        rates = {"input": {"price": "1"}, "output": {"price": "2"}}
        await prices.add_price(await prices.add_book("list"), "prc_list", "fast", rates=rates)
        cost = {"input": {"price": "0.5"}, "output": {"price": "0"}}
        costs = await prices.add_book("cost")
        await prices.add_price(costs, "prc_cost", "served-fast", rates=cost)
        events = [
            make_event(number, organization=project["organization_id"], project=project["id"])
            for number, project in enumerate(projects)
        ]
        await _take_in(database, 1, *events)
        yield World(rig, database, projects, [event.event_id for event in events])


async def _take_in(database: Database, epoch: int, *events: UsageEvent) -> None:
    delivery = metering.prepare_batch(UsageBatch("node-1/0", epoch, events), NOW_US)
    async with database.write(ALL) as session:
        await metering.record_events(session, ALL, [delivery], settle=UsageBooks("EUR"))


async def test_a_correction_is_booked_once_for_its_reference(world: World) -> None:
    """A rehearsal books nothing; said twice it is one; another body under the reference is 409."""
    before = await world.amounts()
    wanted = {"quantities": {"output": 1, "input": 10}, "reason": "engine"}
    said = await world.correct(**wanted, is_dry_run=True)
    assert said["charge"] == {"currency": "EUR", "amount": "-0.000008"}
    assert said["cost"] == {"currency": "EUR", "amount": "-0.000001"}
    assert (await world.amounts(), await world.listed()) == (before, [])
    made = await world.correct(**wanted)
    assert made == {**said, "is_dry_run": False}
    assert made["deltas"] == {"input": -2, "output": -3}
    after = await world.amounts()
    assert (before, after) == (["0.000026", "0.000026"], ["0.000018", "0.000026"])
    assert await world.correct(**wanted) == made
    for other in (
        {"quantities": {"output": 2, "input": 10}, "reason": "engine"},
        {"quantities": {"output": 1, "input": 10}, "reason": "another"},
        {"reason": "engine"},
    ):
        body = {"event_id": world.events[0], "reference": "ticket-1", **other}
        expect_problem(await world.rig.call("POST", PATH, body), 409, EXISTS)
    assert await world.amounts() == after
    world.rig.clock.advance(1)
    void = await world.correct(reference="ticket-2")
    assert (void["is_void"], void["charge"]["amount"]) == (True, "-0.000018")
    assert await world.correct(reference="ticket-2") == void
    assert await world.correct(**wanted) == made, "though the event counts for nothing by now"
    assert (await world.amounts())[1] == after[1]
    listed = await world.listed()
    assert [one["reference"] for one in listed] == ["ticket-1", "ticket-2"]
    assert listed == [
        {name: value for name, value in one.items() if name != "is_dry_run"} for one in (made, void)
    ]
    assert await find_violations(world.database) == set()


async def test_figures_that_were_corrected_still_agree(world: World) -> None:
    """What corrections and a void change is no difference to the events of the day, or owner."""
    owners = [project["organization_id"] for project in world.projects]
    places = {"organization": owners[0], "project": world.projects[0]["id"]}
    later = make_event(2, **places, started_at_ns=STARTED_AT_NS + DAY_NS)
    await _take_in(world.database, 2, later)
    await world.correct(quantities={"input": 20, "output": 3})
    await world.correct(event_id=later.event_id, quantities={"input": 1, "requests": 0})
    await world.correct(event_id=world.events[1], quantities=None)
    first = STARTED_AT_NS // DAY_NS
    await _expect_no_difference(world, owners, first)
    # As voids were stored at first.
    async with world.database.write(ALL) as session:
        forget = text("UPDATE usage_corrections SET deltas = '{}', reference = '' WHERE is_void")
        assert (await session._connection.execute(forget)).rowcount == 1
    await _expect_no_difference(world, owners, first)


async def _expect_no_difference(world: World, owners: list[str], first: int) -> None:
    for scope in (ALL, *map(Scope.of, owners)):
        for day in (first, first + 1):
            async with world.database.read(scope) as session:
                assert (await read_chain(session, day)).differences == [], (scope, day)


async def test_what_is_no_quantity_changes_nothing(world: World) -> None:
    """Negative, fractional, too large, of no class of tokens, or what is counted already: 400."""
    before = await world.amounts()
    body = {"event_id": world.events[0], "reference": "t"}
    for quantities in NO_QUANTITIES:
        for is_dry_run in (True, False):
            bad = {**body, "quantities": quantities, "is_dry_run": is_dry_run}
            answer = await world.rig.call("POST", PATH, bad)
            assert answer.status_code == 400, (quantities, answer.text)
            assert "quantities" in answer.text
    assert (await world.amounts(), await world.listed()) == (before, [])


async def test_what_names_no_correction_changes_nothing(world: World) -> None:
    """Without a reference that can be said again, or an event, and behind the end of an event."""
    event_id = world.events[0]
    for reference in ({}, {"reference": ""}, {"reference": "two words"}, {"reference": "x" * 129}):
        answer = await world.rig.call("POST", PATH, {"event_id": event_id, **reference})
        assert answer.status_code == 400, answer.text
        assert "reference" in answer.text
    for missing in ("01977f5e-3c00-7000-8000-ffffffffffff", "none"):
        answer = await world.rig.call("POST", PATH, {"event_id": missing, "reference": "t"})
        expect_problem(answer, 404, UNKNOWN)
    assert await world.listed() == []
    await world.correct()
    answer = await world.rig.call("POST", PATH, {"event_id": event_id, "reference": "t"})
    expect_problem(answer, 400, INVALID)
    assert len(await world.listed()) == 1


async def test_an_organization_reads_its_own_and_writes_none(world: World) -> None:
    """What others' usage was corrected by is not there, and no cost is told; nobody corrects."""
    mine, foreign = world.projects
    await world.correct(quantities={"input": 1})
    others = {"event_id": world.events[1], "reference": "ticket-1"}
    answer = await world.rig.call("POST", PATH, others)
    assert answer.status_code == 200, "references of different events are different"
    owner = await world.rig.create_token(mine["id"], "org_owner")
    (seen,) = await world.listed(token=owner)
    assert (seen["event_id"], seen["cost"]) == (world.events[0], None)
    assert seen["charge"] == {"currency": "EUR", "amount": "-0.000011"}
    missing = "01977f5e-3c00-7000-8000-ffffffffffff"
    assert await world.listed(f"?event_id={world.events[1]}", token=owner) == []
    assert await world.listed(f"?event_id={missing}", token=owner) == []
    queries = (foreign["organization_id"], "org_000000000000")
    answers = [
        await world.rig.call("GET", f"{PATH}?organization_id={query}", token=owner)
        for query in queries
    ]
    expect_problem(answers[0], 404, UNKNOWN)
    assert answers[0].content == answers[1].content
    answers = [
        await world.rig.call("POST", PATH, {"event_id": event_id, "reference": "t"}, token=owner)
        for event_id in (*world.events, missing)
    ]
    for answer in answers:
        expect_problem(answer, 403, DENIED)
        assert answer.content == answers[0].content
    developer = await world.rig.create_token(mine["id"], "developer")
    expect_problem(await world.rig.call("GET", PATH, token=developer), 403, DENIED)
    for query, count in (("", 2), (f"?organization_id={foreign['organization_id']}", 1)):
        assert len(await world.listed(query)) == count


async def test_runs_are_listed(world: World) -> None:
    """Oldest first, page by page, and those that looked at an organization's usage."""
    span = {"since": "2025-06-01T00:00:00Z", "until": "2025-07-01T00:00:00Z"}
    owner = world.projects[0]["organization_id"]
    everybody = await world.rig.create("/price_runs", **span)
    world.rig.clock.advance(1)
    one = await world.rig.create("/price_runs", **span, organization=owner)
    first = (await world.rig.call("GET", "/price_runs?limit=1")).json()
    assert first["data"] == [everybody]
    rest = await world.rig.call("GET", f"/price_runs?cursor={first['next_cursor']}")
    assert rest.json() == {"data": [one], "next_cursor": None}
    for project, count in zip(world.projects, (2, 1), strict=True):
        query = f"/price_runs?organization={project['organization_id']}"
        assert len((await world.rig.call("GET", query)).json()["data"]) == count
