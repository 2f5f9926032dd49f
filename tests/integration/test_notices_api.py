"""Notices over HTTP: an organization reads its own, each once, and nobody else's."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_rig
from tests.fakes.catalogs import create_path
from tests.unit.metering.usage_events import make_body, make_event

from penstock.contract.usage import UsageEvent
from penstock.storage.database import Database

MODEL = "small"


@pytest.fixture
async def rig(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """A control plane where a million input tokens of `small` cost 1 EUR."""
    async with run_admin_rig(sqlite_template, tmp_path / "data") as rig:
        database = Database(rig.data / "usage.db")
        await database.open()
        alias = (await create_path(database, MODEL)).alias
        await database.close()
        await rig.create("/prices", alias_id=alias.id, currency="EUR", input="1", output="0")
        yield rig


async def _spend(rig: AdminRig, number: int, project: dict[str, Any], cents: int) -> None:
    event: UsageEvent = make_event(
        number,
        organization=project["organization_id"],
        project=project["id"],
        model=MODEL,
        input_tokens=cents * 10_000,
        output_tokens=0,
        cached_input_tokens=None,
        reasoning_output_tokens=None,
        started_at_ns=rig.clock.wall_ns(),
    )
    token = (rig.data / "secrets" / "node_token").read_text()
    headers = {"authorization": f"Bearer {token}"}
    answer = await rig.client.post("/node/v1/usage", content=make_body(event), headers=headers)
    assert answer.json()["stored"] == 1


async def _create(rig: AdminRig, number: int) -> dict[str, Any]:
    """Make an organization that is told at a half and at four fifths of 1 EUR."""
    organization = await rig.create("/organizations", name=f"organization {number}")
    project = await rig.create("/projects", organization_id=organization["id"], name="project")
    await rig.create(
        "/budgets",
        organization_id=organization["id"],
        amount="1.00",
        currency="EUR",
        period="month",
        alert_percentages=[50, 80],
    )
    return project


async def _read(rig: AdminRig, token: str, query: str = "") -> list[dict[str, Any]]:
    answer = await rig.call("GET", f"/notices{query}", token=token)
    assert answer.status_code == 200, answer.text
    notices: list[dict[str, Any]] = answer.json()["data"]
    return notices


async def test_an_organization_reads_its_own_notices(rig: AdminRig) -> None:
    """Each part of a budget is told once, to the organization that it is of and to no other."""
    mine, other = await _create(rig, 1), await _create(rig, 2)
    token = await rig.create_token(mine["id"], "billing_admin", ["admin"])
    foreign = await rig.create_token(other["id"], "org_owner", ["admin"])
    for number, cents in enumerate((40, 15, 10, 20)):
        await _spend(rig, number, mine, cents)
    found = await _read(rig, token)
    assert [(one["topic"], one["payload"]["percentage"]) for one in found] == [
        ("budget.alert", 50),
        ("budget.alert", 80),
    ]
    assert {one["organization_id"] for one in found} == {mine["organization_id"]}
    assert await _read(rig, token, f"?after={found[0]['cursor']}") == found[1:]
    assert await _read(rig, token, f"?after={found[1]['cursor']}") == []
    assert await _read(rig, foreign) == []
    answers = [
        await rig.call("GET", f"/notices?organization_id={owner}", token=foreign)
        for owner in (mine["organization_id"], "org_000000000000")
    ]
    expect_problem(answers[0], 404, "err:control:storage:object_unknown")
    assert answers[0].content == answers[1].content


async def test_others_read_no_notices(rig: AdminRig) -> None:
    """Nobody without a token, in a single project or with another scope reads notices."""
    mine = await _create(rig, 1)
    answer = await rig.call("GET", "/notices", token="")
    expect_problem(answer, 401, "err:control:auth:token_missing")
    for role, scope in (
        ("developer", "admin"),
        ("project_admin", "admin"),
        ("org_owner", "usage:read"),
    ):
        token = await rig.create_token(mine["id"], role, [scope])
        answer = await rig.call("GET", "/notices", token=token)
        expect_problem(answer, 403, "err:control:access:operation_denied")
