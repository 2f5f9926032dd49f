"""Idempotency keys of the admin API: what is sent twice is done once."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_rig


@pytest.fixture
async def rig(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """A control plane without any objects."""
    async with run_admin_rig(sqlite_template, tmp_path / "data") as rig:
        yield rig


def _count(rig: AdminRig, table: str) -> int:
    connection = sqlite3.connect(rig.data / "usage.db")
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - ours
    connection.close()
    return int(count)


async def test_a_repeated_request_gets_the_same_answer(rig: AdminRig) -> None:
    """With its idempotency key a creation is done once and answered alike, secret included."""
    project = await rig.create_project("search")
    body = {"project_id": project["id"], "name": "shop"}
    first = await rig.call("POST", "/keys", body, idempotency_key="k1")
    again = await rig.call("POST", "/keys", body, idempotency_key="k1")
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert first.headers["etag"] == again.headers["etag"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert _count(rig, "api_keys") == 1


async def test_an_idempotency_key_is_for_one_request(rig: AdminRig) -> None:
    """The same key with another body or path is 422, and of another caller another key."""
    project = await rig.create_project("search")
    body = {"organization_id": project["organization_id"], "name": "a"}
    assert (await rig.call("POST", "/projects", body, idempotency_key="k")).status_code == 201
    code = "err:control:access:idempotency_mismatch"
    other = body | {"name": "b"}
    expect_problem(await rig.call("POST", "/projects", other, idempotency_key="k"), 422, code)
    path = f"/projects/{project['id']}"
    expect_problem(await rig.call("DELETE", path, idempotency_key="k"), 422, code)
    token = await rig.create_token(project["id"], "org_owner")
    answer = await rig.call("POST", "/projects", other, token=token, idempotency_key="k")
    assert answer.status_code == 201
    answer = await rig.call("POST", "/projects", other, idempotency_key="\x7f")
    expect_problem(answer, 400, "err:control:access:idempotency_key_invalid")


async def test_a_request_in_flight_is_not_done_twice(rig: AdminRig) -> None:
    """While the first is worked on the second is 409, and after a minute it may take over."""
    body = {"name": "acme"}
    await rig.call("POST", "/organizations", body, idempotency_key="k")
    connection = sqlite3.connect(rig.data / "usage.db")
    connection.execute("UPDATE idempotency_keys SET answer = NULL")
    connection.commit()
    connection.close()
    answer = await rig.call("POST", "/organizations", body, idempotency_key="k")
    expect_problem(answer, 409, "err:control:access:idempotency_in_flight")
    rig.clock.advance(61)
    answer = await rig.call("POST", "/organizations", body, idempotency_key="k")
    expect_problem(answer, 409, "err:control:tenancy:name_taken")


async def test_a_refusal_is_not_kept(rig: AdminRig) -> None:
    """After a refusal the same idempotency key is a new try."""
    await rig.create("/organizations", name="acme")
    body = {"name": "acme"}
    answer = await rig.call("POST", "/organizations", body, idempotency_key="k")
    expect_problem(answer, 409, "err:control:tenancy:name_taken")
    (first,) = (await rig.call("GET", "/organizations")).json()["data"]
    await rig.call("DELETE", f"/organizations/{first['id']}")
    answer = await rig.call("POST", "/organizations", body, idempotency_key="k")
    assert answer.status_code == 201
