"""Whose usage a key sees, over HTTP: its organization's or its project's, and nobody else's."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.admin_rig import ADMIN_TOKEN, AdminRig, expect_problem, run_admin_rig
from tests.unit.metering.usage_events import make_body, make_event

UNKNOWN = "err:control:storage:object_unknown"
DENIED = "err:control:access:operation_denied"
MISSING = {"organization": "org_000000000000", "project": "prj_000000000000", "key_id": "0" * 12}
READERS = ("org_owner", "org_admin", "billing_admin", "auditor")


@dataclass(frozen=True)
class Place:
    """A project with a key and one event of it."""

    organization: str
    project: str
    key_id: str

    @property
    def ids(self) -> dict[str, str]:
        """The filters that mean this place."""
        return {
            "organization": self.organization,
            "project": self.project,
            "key_id": self.key_id,
        }


@pytest.fixture
async def rig(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """A control plane without any objects."""
    async with run_admin_rig(sqlite_template, tmp_path / "data") as rig:
        yield rig


async def _ship(rig: AdminRig, number: int, **members: Any) -> None:
    token = (rig.data / "secrets" / "node_token").read_text()
    answer = await rig.client.post(
        "/node/v1/usage",
        content=make_body(make_event(number, **members)),
        headers={"authorization": f"Bearer {token}"},
    )
    assert answer.json()["stored"] == 1


async def _create_place(rig: AdminRig, number: int, organization: str | None = None) -> Place:
    if organization is None:
        created = await rig.create("/organizations", name=f"organization {number}")
        organization = str(created["id"])
    project = await rig.create("/projects", organization_id=organization, name=f"project {number}")
    key = await rig.create("/keys", project_id=project["id"], name=f"key {number}")
    place = Place(organization, project["id"], key["id"])
    await _ship(rig, number, **place.ids)
    return place


async def _rows(rig: AdminRig, token: str = ADMIN_TOKEN, **query: str) -> list[dict[str, Any]]:
    parameters = "&".join(f"{name}={value}" for name, value in query.items())
    answer = await rig.call("GET", f"/usage?{parameters}", token=token)
    assert answer.status_code == 200, answer.text
    rows: list[dict[str, Any]] = answer.json()["data"]
    return rows


async def _requests(rig: AdminRig, token: str = ADMIN_TOKEN, **query: str) -> int:
    parameters = "&".join(f"{name}={value}" for name, value in query.items())
    answer = await rig.call("GET", f"/usage/totals?by=key_id&{parameters}", token=token)
    assert answer.status_code == 200, answer.text
    return sum(total["requests"] for total in answer.json()["data"])


async def test_anonymous_is_refused(rig: AdminRig) -> None:
    """Without a token nobody sees usage."""
    await _create_place(rig, 1)
    for path in ("/usage", "/usage/totals?by=model"):
        expect_problem(await rig.call("GET", path, token=""), 401, "err:control:auth:token_missing")
        expect_problem(
            await rig.call("GET", path, token="wrong"), 401, "err:control:auth:token_wrong"
        )


@pytest.mark.parametrize("scope", ["usage:read", "admin"])
@pytest.mark.parametrize("role", READERS)
async def test_other_organizations_are_not_there(rig: AdminRig, role: str, scope: str) -> None:
    """A key sees its organization's usage, and what is another's byte for byte as if missing."""
    mine, other = await _create_place(rig, 1), await _create_place(rig, 2)
    token = await rig.create_token(mine.project, role, [scope])
    assert [row["key_id"] for row in await _rows(rig, token)] == [mine.key_id]
    assert await _requests(rig, token) == 1
    for name, foreign in other.ids.items():
        assert len(await _rows(rig, token, **{name: mine.ids[name]})) == 1
        assert await _requests(rig, token, **{name: mine.ids[name]}) == 1
        for path in ("/usage?", "/usage/totals?by=model&"):
            answers = [
                await rig.call("GET", f"{path}{name}={value}", token=token)
                for value in (foreign, MISSING[name])
            ]
            expect_problem(answers[0], 404, UNKNOWN)
            assert answers[0].content == answers[1].content


@pytest.mark.parametrize("role", ["project_admin", "developer"])
async def test_other_projects_are_not_there(rig: AdminRig, role: str) -> None:
    """A key with a role in one project sees the usage of that project alone."""
    mine = await _create_place(rig, 1)
    sibling, other = await _create_place(rig, 2, mine.organization), await _create_place(rig, 3)
    token = await rig.create_token(mine.project, role, ["usage:read"])
    assert [row["key_id"] for row in await _rows(rig, token)] == [mine.key_id]
    assert await _requests(rig, token) == 1
    assert len(await _rows(rig, token, **mine.ids)) == 1
    for name in ("project", "key_id"):
        answers = [
            await rig.call("GET", f"/usage?{name}={value}", token=token)
            for value in (sibling.ids[name], other.ids[name], MISSING[name])
        ]
        expect_problem(answers[0], 404, UNKNOWN)
        assert {answer.content for answer in answers} == {answers[0].content}


async def test_a_role_that_reads_no_usage_is_denied(rig: AdminRig) -> None:
    """A scope gives no more than the role does: a key for inference sees no usage."""
    mine = await _create_place(rig, 1)
    token = await rig.create_token(mine.project, "inference_only", ["inference", "usage:read"])
    expect_problem(await rig.call("GET", "/usage", token=token), 403, DENIED)


async def test_the_operator_sees_all(rig: AdminRig) -> None:
    """The admin token sees every organization's usage and that which is booked under names."""
    places = [await _create_place(rig, 1), await _create_place(rig, 2)]
    await _ship(rig, 3)
    assert len(await _rows(rig)) == await _requests(rig) == 3
    for place in places:
        (row,) = await _rows(rig, **place.ids)
        assert row["key_id"] == place.key_id
    assert len(await _rows(rig, organization="acme", project="search", key_id="key-1")) == 1
    assert await _rows(rig, **MISSING) == []


async def test_names_stand_beside_ids(rig: AdminRig) -> None:
    """Rows and totals have the names that objects have now, and null for what is none."""
    mine = await _create_place(rig, 1)
    await _ship(rig, 2)
    await rig.call("PATCH", f"/projects/{mine.project}", {"name": "renamed"})
    await rig.call("POST", f"/keys/{mine.key_id}/revoke")
    managed, booked = await _rows(rig)
    names = {"organization": "organization 1", "project": "renamed", "key": "key 1"}
    for kind, name in names.items():
        assert managed[f"{kind}_name"] == name
        assert booked[f"{kind}_name"] is None
        by = "key_id" if kind == "key" else kind
        answer = await rig.call("GET", f"/usage/totals?by={by}")
        found = {total[by]: total[f"{kind}_name"] for total in answer.json()["data"]}
        assert found == {managed[by]: name, booked[by]: None}
    owner = await rig.create_token(mine.project, "org_owner", ["usage:read"])
    assert await _rows(rig, owner) == [managed]


async def test_a_name_of_another_organization_is_not_told(rig: AdminRig) -> None:
    """An event that names another organization's project does not tell that project's name."""
    mine, other = await _create_place(rig, 1), await _create_place(rig, 2)
    members = mine.ids | {"project": other.project, "key_id": other.key_id}
    await _ship(rig, 3, **members)
    owner = await rig.create_token(mine.project, "org_owner", ["usage:read"])
    rows = await _rows(rig, owner)
    assert [row["project_name"] for row in rows] == ["project 1", None]
    assert [row["key_name"] for row in rows] == ["key 1", None]
    assert await _requests(rig, owner) == 2
