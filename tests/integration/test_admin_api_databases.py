"""The admin API on each kind of database."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api

from penstock.access.rules import find_key_id
from penstock.storage.database import Database

UNKNOWN = "err:control:storage:object_unknown"


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API without any objects."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        yield rig


async def test_an_owner_works_within_the_walls(rig: AdminRig) -> None:
    """An owner manages everything of the organization under the database's own policies."""
    other = await rig.create_project("other")
    project = await rig.create_project("mine")
    organization_id = project["organization_id"]
    token = await rig.create_token(project["id"], "org_owner")
    steps = [
        ("PATCH", f"/organizations/{organization_id}", {"name": "ours"}),
        ("POST", "/projects", {"organization_id": organization_id, "name": "new"}),
        ("PATCH", f"/projects/{project['id']}", {"name": "renamed"}),
        ("POST", "/keys", {"project_id": project["id"], "name": "key"}),
        ("POST", f"/keys/{find_key_id(token)}/rotate", {"grace_s": 60}),
        ("GET", f"/keys/{find_key_id(token)}/secrets", None),
        ("GET", "/audit?limit=2", None),
        ("POST", "/audit/verify", {}),
    ]
    for number, (method, path, body) in enumerate(steps):
        answer = await rig.call(method, path, body, token=token, idempotency_key=str(number))
        assert answer.status_code in {200, 201}, answer.text
        again = await rig.call(method, path, body, token=token, idempotency_key=str(number))
        if "idempotency-replayed" in again.headers:
            assert again.content == answer.content
    assert (await rig.call("POST", "/audit/verify", {}, token=token)).json()["is_intact"] is True
    assert (await rig.call("POST", "/audit/verify", {})).json()["is_intact"] is True
    for path in (f"/projects/{other['id']}", f"/organizations/{other['organization_id']}"):
        expect_problem(await rig.call("GET", path, token=token), 404, UNKNOWN)
        expect_problem(
            await rig.call("PATCH", path, {"name": "x"}, token=token, idempotency_key="x"),
            404,
            UNKNOWN,
        )
    projects = (await rig.call("GET", "/projects", token=token)).json()["data"]
    assert {found["organization_id"] for found in projects} == {organization_id}


async def test_equal_requests_at_once_are_done_once(rig: AdminRig) -> None:
    """Of many equal requests of one idempotency key one is done, and the others wait or repeat."""
    project = await rig.create_project("mine")
    body = {"project_id": project["id"], "name": "key"}
    answers = await asyncio.gather(
        *(rig.call("POST", "/keys", body, idempotency_key="once") for _ in range(8))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    created = {answer.json()["secret"] for answer in answers if answer.status_code == 201}
    assert len(created) == 1
    for answer in answers:
        if answer.status_code == 409:
            expect_problem(answer, 409, "err:control:access:idempotency_in_flight")
    assert len((await rig.call("GET", "/keys")).json()["data"]) == 1


async def test_a_denial_is_written_down(rig: AdminRig) -> None:
    """What an auditor tried is in the chain of its organization."""
    project = await rig.create_project("mine")
    token = await rig.create_token(project["id"], "auditor")
    answer = await rig.call("POST", "/projects", {}, token=token)
    expect_problem(answer, 403, "err:control:access:operation_denied")
    entries = (await rig.call("GET", "/audit?outcome=denied", token=token)).json()["data"]
    assert [entry["action"] for entry in entries] == ["project.create"]


async def test_texts_of_any_kind_are_answered(rig: AdminRig) -> None:
    """No name, id or filter of a caller makes the database fail."""
    project = await rig.create_project("mine")
    for text in ("\0", "a\0b", "\ud7ff", "'", "\\", "%", "x" * 5_000, "🦀" * 128):
        body = {"project_id": project["id"], "name": text, "labels": {text: text}}
        answers = [
            await rig.call("POST", "/keys", body),
            await rig.call("POST", "/organizations", {"name": text}, idempotency_key="x" * 300),
            await rig.call("GET", "/keys?cursor=" + "AAAA"),
            await rig.call("GET", f"/keys?project_id={quote(text)}"),
        ]
        assert {answer.status_code for answer in answers} == {400}
        found = await rig.call("GET", f"/keys?name={quote(text)}")
        assert found.status_code in {200, 400}
