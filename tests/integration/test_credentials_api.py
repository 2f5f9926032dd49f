"""Credentials over HTTP: for whom they are there, and that no secret ever comes out."""

import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_rig

from penstock.kit.kek.file import add_key_version

UNKNOWN = "err:control:storage:object_unknown"
INVALID = "err:control:credential:invalid"
CANARY = "sk-canary-7c1f9e"
MEMBERS = {
    "id", "organization_id", "name", "provider", "upstream_id", "state", "created_by", "version",
    "created_at", "updated_at",
}  # fmt: skip


@pytest.fixture
async def rig(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """A control plane without any objects."""
    async with run_admin_rig(sqlite_template, tmp_path / "data") as rig:
        yield rig


async def _create(rig: AdminRig, name: str = "engines", **members: Any) -> dict[str, Any]:
    body = {"name": name, "provider": "vllm", "secret": CANARY} | members
    return await rig.create("/credentials", **body)


async def test_anonymous_is_refused(rig: AdminRig) -> None:
    """Without a token there are no credentials, to read or to make."""
    made = await _create(rig)
    for method, path in (
        ("GET", "/credentials"),
        ("GET", f"/credentials/{made['id']}"),
        ("POST", "/credentials/rewrap"),
        ("POST", "/credentials/rotate"),
    ):
        assert (await rig.call(method, path, token="")).status_code == 401


async def test_organizations_reach_their_own(rig: AdminRig) -> None:
    """An organization's admin sees, uses and changes neither the platform's nor another's."""
    mine, other = [await rig.create_project(name) for name in ("mine", "other")]
    token = await rig.create_token(mine["id"], "org_admin")
    own = await _create(rig, organization_id=mine["organization_id"])
    foreign = [await _create(rig), await _create(rig, organization_id=other["organization_id"])]
    listed = (await rig.call("GET", "/credentials", token=token)).json()["data"]
    assert [one["id"] for one in listed] == [own["id"]]
    for credential in foreign:
        path = f"/credentials/{credential['id']}"
        for method, body in (("GET", None), ("PATCH", {"secret": "sk-mine"}), ("DELETE", None)):
            expect_problem(await rig.call(method, path, body, token=token), 404, UNKNOWN)
    body = {"organization_id": other["organization_id"]}
    answer = await rig.call("POST", "/credentials/rotate", body, token=token)
    expect_problem(answer, 404, UNKNOWN)
    denied = "err:control:access:operation_denied"
    expect_problem(await rig.call("POST", "/credentials/rewrap", token=token), 403, denied)
    # What an organization's admin leaves out is their own, never the platform's.
    body = {"name": "new", "provider": "vllm", "secret": "sk-new"}
    made = (await rig.call("POST", "/credentials", body, token=token)).json()
    assert made["organization_id"] == mine["organization_id"]
    report = (await rig.call("POST", "/credentials/rotate", token=token)).json()
    assert report == {"renewed": 2, "unreadable": 0, "outdated": 0, "is_complete": True}


async def test_a_credential_lives(rig: AdminRig) -> None:
    """A credential is created, found, renamed, set and deleted, and its secret never shown."""
    made = await _create(rig)
    assert set(made) == MEMBERS
    assert made["state"] == "active"
    path = f"/credentials/{made['id']}"
    found = await rig.call("GET", path)
    assert found.json() == made
    query = "/credentials?name=engines&provider=vllm"
    assert (await rig.call("GET", query)).json()["data"] == [made]
    assert (await rig.call("GET", "/credentials?name=other")).json()["data"] == []
    renamed = await rig.call("PATCH", path, {"name": "new"}, if_match=found.headers["etag"])
    assert (renamed.json()["name"], renamed.json()["version"]) == ("new", 2)
    again = await rig.call("PATCH", path, {"name": "new"})
    assert again.json()["version"] == 2
    updated = await rig.call("PATCH", path, {"secret": "sk-other"})
    assert (updated.json()["version"], updated.json()["name"]) == (3, "new")
    stale = await rig.call("PATCH", path, {"secret": "x"}, if_match=found.headers["etag"])
    expect_problem(stale, 412, "err:control:storage:version_conflict")
    assert (await rig.call("DELETE", path)).status_code == 204
    expect_problem(await rig.call("GET", path), 404, UNKNOWN)


@pytest.mark.parametrize("secret", ["", "two words", f"{CANARY}\n", "schlüssel", CANARY * 2_000])
async def test_bad_secrets_are_not_repeated(rig: AdminRig, secret: str) -> None:
    """What no header carries, or is too long, is 400 without being repeated, also for a change."""
    made = await _create(rig, secret="sk-good")
    body = {"name": "new", "provider": "vllm", "secret": secret}
    for answer in (
        await rig.call("POST", "/credentials", body),
        await rig.call("PATCH", f"/credentials/{made['id']}", {"secret": secret}),
    ):
        expect_problem(answer, 400, INVALID)
        assert not secret or secret.strip() not in answer.text
    answer = await rig.call("POST", "/credentials", body | {"secret": [CANARY]})
    expect_problem(answer, 400, "err:control:request:invalid")
    assert CANARY not in answer.text


async def test_no_secret_is_anywhere(rig: AdminRig, caplog: pytest.LogCaptureFixture) -> None:
    """A secret is in no answer, no log line, no audit entry and no file, whatever is done."""
    caplog.set_level(logging.DEBUG)
    project = await rig.create_project("mine")
    made = await _create(rig, organization_id=project["organization_id"])
    path = f"/credentials/{made['id']}"
    organization = {"organization_id": project["organization_id"]}
    answers = [
        await rig.call(
            "POST",
            "/credentials",
            {"name": "kept", "provider": "vllm", "secret": CANARY},
            idempotency_key="kept",
        ),
        await rig.call("PATCH", path, {"secret": CANARY + "2"}, idempotency_key="set"),
        await rig.call("GET", path),
        await rig.call("GET", "/credentials"),
        await rig.call("POST", "/credentials/rotate", organization),
        await rig.call("POST", "/credentials/rewrap"),
        await rig.call("POST", "/credentials", {"secret": CANARY, "name": "x", "extra": CANARY}),
        await rig.call("DELETE", path),
        await rig.call("GET", f"/audit?organization_id={project['organization_id']}"),
        await rig.call("GET", "/audit"),
    ]
    assert sum(answer.is_success for answer in answers) == len(answers) - 1
    for answer in answers:
        assert CANARY not in answer.text
    assert CANARY not in caplog.text
    files = [path for path in rig.data.rglob("*") if path.is_file()]
    assert any(path.name == "usage.db" for path in files)
    for file in files:
        assert CANARY.encode() not in file.read_bytes()


async def test_the_audit_log_tells_what_was_done(rig: AdminRig) -> None:
    """Each change and each rotation is an entry of the owner's chain, with who did it."""
    project = await rig.create_project("mine")
    owner = {"organization_id": project["organization_id"]}
    made = await _create(rig, **owner)
    await rig.call("PATCH", f"/credentials/{made['id']}", {"name": "new"})
    await rig.call("PATCH", f"/credentials/{made['id']}", {"secret": "sk-2"})
    await rig.call("POST", "/credentials/rotate", owner)
    await rig.call("DELETE", f"/credentials/{made['id']}")
    query = f"/audit?organization_id={project['organization_id']}"
    entries = (await rig.call("GET", query)).json()["data"]
    actions = [entry["action"] for entry in entries if entry["resource_kind"] != "project"]
    assert actions[1:] == [
        "credential.create",
        "credential.update",
        "credential.set",
        "data_key.rotate",
        "credential.delete",
    ]
    assert {entry["actor_id"] for entry in entries} == {"admin_token"}


async def test_a_kek_that_is_away_is_503(rig: AdminRig) -> None:
    """Without its key file nothing is stored and the answer is 503 with Retry-After."""
    key_file = rig.data / "secrets" / "kek.json"
    add_key_version(key_file)
    key_file.rename(key_file.with_name("away"))
    body = {"name": "new", "provider": "vllm", "secret": "sk-new"}
    for path, content in (("/credentials", body), ("/credentials/rewrap", None)):
        answer = await rig.call("POST", path, content, idempotency_key=path)
        expect_problem(answer, 503, "err:control:credential:kek_unavailable")
        assert "retry-after" in answer.headers
    key_file.with_name("away").rename(key_file)
    answer = await rig.call("POST", "/credentials", body, idempotency_key="/credentials")
    assert answer.status_code == 201


async def test_a_poisoned_row_harms_itself_only(rig: AdminRig) -> None:
    """A row with nonsense in every column is shown as it is, and the others can be rotated."""
    bad, good = await _create(rig, "bad"), await _create(rig, "good")
    connection = sqlite3.connect(rig.data / "usage.db")
    connection.execute(
        "UPDATE credentials SET state = 'odd', provider = 'odd', nonce = 7, ciphertext = 'text', "
        "aad_version = 'x' WHERE id = ?",
        (bad["id"],),
    )
    connection.commit()
    connection.close()
    assert (await rig.call("GET", f"/credentials/{bad['id']}")).json()["state"] == "odd"
    report = (await rig.call("POST", "/credentials/rotate")).json()
    assert report == {"renewed": 1, "unreadable": 1, "outdated": 1, "is_complete": False}
    state = (await rig.call("GET", f"/credentials/{bad['id']}")).json()["state"]
    assert state == "needs_reconfiguration"
    assert (await rig.call("GET", f"/credentials/{good['id']}")).json()["state"] == "active"
