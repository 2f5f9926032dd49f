"""The admin API over HTTP: organizations, projects, keys, members, accounts and the audit log."""

import logging
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fakes.admin_rig import ADMIN_TOKEN, AdminRig, expect_problem, run_admin_rig

from penstock.access.rules import find_key_id, key_mac

UNKNOWN = "err:control:storage:object_unknown"
INVALID = "err:control:request:invalid"
KEY_MEMBERS = {
    "id", "organization_id", "project_id", "name", "scopes", "role", "allowed_aliases",
    "allowed_cidrs", "labels", "expires_at", "is_disabled", "revoked_at", "last_used_at",
    "version", "created_at", "updated_at",
}  # fmt: skip


@pytest.fixture
async def rig(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """A control plane without any objects."""
    async with run_admin_rig(sqlite_template, tmp_path / "data") as rig:
        yield rig


async def _list_all(rig: AdminRig, path: str, limit: int, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = await rig.call("GET", f"{path}?limit={limit}{query}{cursor}")
        page = answer.json()
        assert len(page["data"]) <= limit
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def test_an_organization_lives(rig: AdminRig) -> None:
    """An organization is created, found, renamed, suspended, resumed and archived."""
    answer = await rig.call("POST", "/organizations", {"name": "acme"})
    created = answer.json()
    assert answer.status_code == 201
    assert answer.headers["etag"] == '"1"'
    assert re.fullmatch("org_[0-9A-Za-z]{12}", created["id"])
    assert created == {
        "id": created["id"],
        "name": "acme",
        "status": "active",
        "allowed_data_classes": None,
        "allowed_regions": None,
        "version": 1,
        "created_at": "2025-06-15T15:06:40.000000Z",
        "updated_at": "2025-06-15T15:06:40.000000Z",
    }
    path = f"/organizations/{created['id']}"
    assert (await rig.call("GET", path)).json() == created
    assert (await rig.call("PATCH", path, {"name": "Acme"})).json()["name"] == "Acme"
    suspended = await rig.call("POST", f"{path}/suspend", {"reason": "unpaid"})
    assert suspended.json()["status"] == "suspended"
    assert (await rig.call("POST", f"{path}/suspend")).json()["version"] == 3
    assert (await rig.call("POST", f"{path}/resume")).json()["status"] == "active"
    archived = await rig.call("DELETE", path)
    assert archived.status_code == 204
    assert archived.content == b""
    assert (await rig.call("GET", path)).json()["status"] == "archived"
    answer = await rig.call("POST", f"{path}/resume")
    expect_problem(answer, 409, "err:control:tenancy:status_conflict")
    await rig.create("/organizations", name="Acme")


async def test_a_project_lives(rig: AdminRig) -> None:
    """A project is created in an organization, found by filters, renamed and archived."""
    project = await rig.create_project("search")
    await rig.create_project("other")
    path = f"/projects/{project['id']}"
    assert (await rig.call("GET", path)).json() == project
    query = f"/projects?organization_id={project['organization_id']}&name=search"
    assert (await rig.call("GET", query)).json() == {"data": [project], "next_cursor": None}
    assert (await rig.call("PATCH", path, {"name": "find"})).json()["name"] == "find"
    assert (await rig.call("DELETE", path)).status_code == 204
    answer = await rig.call("POST", "/keys", {"project_id": project["id"], "name": "late"})
    expect_problem(answer, 409, "err:control:tenancy:status_conflict")


async def test_residency_is_set_and_taken_back(rig: AdminRig) -> None:
    """Where data may go is changed for organization and project alone, and null is anywhere."""
    project = await rig.create_project("search")
    paths = (f"/projects/{project['id']}", f"/organizations/{project['organization_id']}")
    for path in paths:
        before = (await rig.call("GET", path)).json()
        body: dict[str, Any]
        body = {"allowed_regions": ["us", "eu-de", "us"], "allowed_data_classes": []}
        changed = (await rig.call("PATCH", path, body)).json()
        assert changed == before | {
            "allowed_regions": ["eu-de", "us"],
            "allowed_data_classes": [],
            "version": 2,
            "updated_at": changed["updated_at"],
        }
        for wrong in (["EU"], ["eu de"], [""], ["x"] * 101):
            answer = await rig.call("PATCH", path, {"allowed_regions": wrong})
            expect_problem(answer, 400, "err:control:tenancy:policy_invalid")
        for body in ({"name": None}, {"allowed_regions": "eu"}, {"allowed_regions": [1]}):
            expect_problem(await rig.call("PATCH", path, body), 400, INVALID)
        assert (await rig.call("GET", path)).json() == changed
        anywhere = {"allowed_regions": None, "allowed_data_classes": None}
        again = (await rig.call("PATCH", path, anywhere)).json()
        assert (again["allowed_regions"], again["allowed_data_classes"]) == (None, None)


async def test_a_key_is_shown_once(rig: AdminRig) -> None:
    """A new key's text is in the answer to its creation and in no other answer."""
    project = await rig.create_project("search")
    created = await rig.create("/keys", project_id=project["id"], name="shop")
    secret = created.pop("secret")
    assert set(created) >= KEY_MEMBERS
    assert find_key_id(secret) == created["id"]
    assert created["organization_id"] == project["organization_id"]
    assert created["scopes"] == ["inference", "models:read"]
    for path in (f"/keys/{created['id']}", "/keys", f"/keys/{created['id']}/secrets", "/audit"):
        answer = await rig.call("GET", path)
        assert answer.status_code == 200
        assert secret not in answer.text
        assert secret[-38:] not in answer.text
        assert "mac" not in answer.text
    assert (await rig.call("GET", f"/keys/{created['id']}")).json() == created


async def test_a_key_works_on_nodes(rig: AdminRig) -> None:
    """What is stored for a new key is what a node with the same pepper looks it up by."""
    project = await rig.create_project("search")
    created = await rig.create("/keys", project_id=project["id"], name="shop")
    pepper = (rig.data / "secrets" / "pepper").read_bytes().strip()
    connection = sqlite3.connect(rig.data / "usage.db")
    rows = connection.execute("SELECT mac, pepper_id FROM key_secrets").fetchall()
    connection.close()
    assert rows == [(key_mac(pepper, created["secret"].encode()), 1)]


async def test_a_key_is_changed(rig: AdminRig) -> None:
    """Members that are sent change, also to null, and those that are not sent stay."""
    project = await rig.create_project("search")
    created = await rig.create(
        "/keys",
        project_id=project["id"],
        name="shop",
        allowed_aliases=["fast"],
        labels={"stage": "test"},
        expires_at="2026-01-01T00:00:00+01:00",
    )
    assert created["expires_at"] == "2025-12-31T23:00:00.000000Z"
    path = f"/keys/{created['id']}"
    changed = (await rig.call("PATCH", path, {"allowed_aliases": None, "name": "till"})).json()
    expected = created | {"allowed_aliases": None, "name": "till", "version": 2}
    expected.pop("secret")
    assert changed == expected
    assert (await rig.call("PATCH", path, {"expires_at": None})).json()["expires_at"] is None
    assert (await rig.call("PATCH", path, {})).json()["version"] == 3
    for body in ({"name": None}, {"scopes": None}, {"labels": None}, {"role": None}):
        expect_problem(await rig.call("PATCH", path, body), 400, INVALID)


async def test_a_key_is_rotated(rig: AdminRig) -> None:
    """Rotation answers with another secret of the same key and says how long the old one lives."""
    project = await rig.create_project("search")
    created = await rig.create("/keys", project_id=project["id"], name="shop")
    path = f"/keys/{created['id']}"
    answer = await rig.call("POST", f"{path}/rotate", {"grace_s": 60})
    rotated = answer.json()
    assert answer.status_code == 200
    assert rotated["id"] == created["id"]
    assert rotated["secret"] != created["secret"]
    assert rotated["retiring_until"] == "2025-06-15T15:07:40.000000Z"
    answer = await rig.call("POST", f"{path}/rotate", {"grace_s": 60})
    expect_problem(answer, 409, "err:control:access:rotation_conflict")
    secrets = (await rig.call("GET", f"{path}/secrets")).json()["data"]
    assert [set(secret) for secret in secrets] == [
        {"id", "state", "created_at", "not_after", "last_used_at"}
    ] * 2
    (retiring,) = [secret for secret in secrets if secret["state"] == "retiring"]
    ended = await rig.call("DELETE", f"{path}/secrets/{retiring['id']}")
    assert ended.status_code == 204
    again = (await rig.call("POST", f"{path}/rotate")).json()
    assert again["retiring_until"] is None


async def test_a_key_is_stopped(rig: AdminRig) -> None:
    """A key is disabled and enabled again, and revoked for ever."""
    project = await rig.create_project("search")
    token = await rig.create_token(project["id"], "org_admin")
    path = f"/keys/{find_key_id(token)}"
    assert (await rig.call("GET", "/projects", token=token)).status_code == 200
    assert (await rig.call("POST", f"{path}/disable")).json()["is_disabled"] is True
    answer = await rig.call("GET", "/projects", token=token)
    expect_problem(answer, 401, "err:control:access:key_refused")
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert (await rig.call("POST", f"{path}/enable")).json()["is_disabled"] is False
    assert (await rig.call("GET", "/projects", token=token)).status_code == 200
    revoked = (await rig.call("POST", f"{path}/revoke", {"reason": "leaked"})).json()
    assert revoked["revoked_at"] is not None
    assert (await rig.call("GET", "/projects", token=token)).status_code == 401
    expect_problem(await rig.call("POST", f"{path}/enable"), 409, "err:control:access:key_revoked")


async def test_an_organization_sees_why_it_cannot_enable(rig: AdminRig) -> None:
    """A key and a service account say to their organization that the operator disabled them."""
    project = await rig.create_project("search")
    token = await rig.create_token(project["id"], "org_admin")
    key = await rig.create("/keys", project_id=project["id"], name="shop")
    place = {"organization_id": project["organization_id"], "role": "developer"}
    account = await rig.create("/service-accounts", name="nightly", **place)
    for path, disable, enable in (
        (f"/keys/{key['id']}", ("POST", "/disable"), ("POST", "/enable")),
        (
            f"/service-accounts/{account['id']}",
            ("PATCH", "", {"is_disabled": True}),
            ("PATCH", "", {"is_disabled": False}),
        ),
    ):
        for change, of, is_by_operator in (
            (disable, token, False),
            (disable, ADMIN_TOKEN, True),
            (enable, ADMIN_TOKEN, False),
            (disable, ADMIN_TOKEN, True),
        ):
            method, end, *body = change
            answer = await rig.call(method, path + end, *body, token=of)
            assert answer.json()["is_disabled_by_operator"] is is_by_operator
            found = (await rig.call("GET", path, token=token)).json()
            assert found["is_disabled_by_operator"] is is_by_operator
        method, end, *body = enable
        answer = await rig.call(method, path + end, *body, token=token)
        expect_problem(answer, 403, "err:control:access:grant_exceeded")


async def test_a_suspended_organization_is_locked_out(rig: AdminRig) -> None:
    """While an organization is suspended its keys open nothing, and afterwards they do again."""
    project = await rig.create_project("search")
    token = await rig.create_token(project["id"], "org_owner")
    path = f"/organizations/{project['organization_id']}"
    await rig.call("POST", f"{path}/suspend", {"reason": "unpaid"})
    assert (await rig.call("GET", path, token=token)).status_code == 401
    await rig.call("POST", f"{path}/resume")
    assert (await rig.call("GET", path, token=token)).status_code == 200
    entries = (await rig.call("GET", f"/audit?organization_id={path[15:]}")).json()["data"]
    assert "unpaid" in [entry["detail"] for entry in entries]


async def test_a_member_lives(rig: AdminRig) -> None:
    """A member is added, found, given another role and forgotten."""
    project = await rig.create_project("search")
    body = {"organization_id": project["organization_id"], "subject": "u|1", "role": "org_admin"}
    member = await rig.create("/members", **body)
    path = f"/members/{member['id']}"
    assert (await rig.call("GET", path)).json() == member
    page = await rig.call("GET", f"/members?organization_id={project['organization_id']}")
    assert page.json()["data"] == [member]
    answer = await rig.call("POST", "/members", body)
    expect_problem(answer, 409, "err:control:tenancy:member_exists")
    assert (await rig.call("PATCH", path, {"role": "auditor"})).json()["role"] == "auditor"
    assert (await rig.call("DELETE", path)).status_code == 204
    expect_problem(await rig.call("GET", path), 404, UNKNOWN)


async def test_a_service_account_lives(rig: AdminRig) -> None:
    """A service account is created, found and changed, and its keys end with it."""
    project = await rig.create_project("search")
    account = await rig.create(
        "/service-accounts",
        organization_id=project["organization_id"],
        name="nightly",
        role="org_admin",
    )
    token = await rig.create_token(project["id"], "org_admin", service_account_id=account["id"])
    path = f"/service-accounts/{account['id']}"
    assert (await rig.call("GET", path, token=token)).json() == account
    assert (await rig.call("GET", "/service-accounts?name=nightly")).json()["data"] == [account]
    assert (await rig.call("PATCH", path, {"role": "auditor"})).json()["role"] == "auditor"
    answer = await rig.call("POST", "/projects", {}, token=token)
    expect_problem(answer, 403, "err:control:access:operation_denied")
    assert (await rig.call("DELETE", path)).status_code == 204
    assert (await rig.call("GET", path)).json()["is_disabled"] is True
    assert (await rig.call("GET", path, token=token)).status_code == 401


async def test_the_audit_log_tells_and_verifies(rig: AdminRig) -> None:
    """Each change is an entry with actor and place, and an edited one is found by its number."""
    project = await rig.create_project("search")
    organization_id = project["organization_id"]
    await rig.create("/keys", project_id=project["id"], name="shop")
    answer = await rig.call("GET", f"/audit?organization_id={organization_id}")
    entries = answer.json()["data"]
    actions = [entry["action"] for entry in entries]
    assert actions == ["organization.create", "project.create", "key.create"]
    assert [entry["number"] for entry in entries] == [1, 2, 3]
    assert {entry["actor_id"] for entry in entries} == {"admin_token"}
    assert {entry["address"] for entry in entries} == {"192.0.2.7"}
    query = f"/audit?organization_id={organization_id}&resource={project['id']}"
    assert [entry["number"] for entry in (await rig.call("GET", query)).json()["data"]] == [2]
    whole = (await rig.call("POST", "/audit/verify", {})).json()
    assert whole == {"is_intact": True, "entries": 3, "checkpoints": 0, "broken": None}
    connection = sqlite3.connect(rig.data / "usage.db")
    connection.execute("UPDATE audit_entries SET actor_id = 'nobody' WHERE number = 2")
    connection.commit()
    connection.close()
    body = {"organization_id": organization_id}
    broken = (await rig.call("POST", "/audit/verify", body)).json()
    assert broken["is_intact"] is False
    assert broken["broken"]["organization_id"] == organization_id
    assert broken["broken"]["number"] == 2


async def test_a_denial_is_in_the_audit_log(rig: AdminRig) -> None:
    """Who tried what they may not is written down, and nothing was changed."""
    project = await rig.create_project("search")
    organization_id = project["organization_id"]
    token = await rig.create_token(project["id"], "auditor")
    answer = await rig.call("POST", "/projects", {"name": "x"}, token=token)
    expect_problem(answer, 403, "err:control:access:operation_denied")
    query = f"/audit?organization_id={organization_id}&outcome=denied"
    (entry,) = (await rig.call("GET", query)).json()["data"]
    assert entry["action"] == "project.create"
    assert entry["actor_id"] == find_key_id(token)
    assert entry["request_id"]


@pytest.mark.parametrize("path", ["/organizations", "/projects", "/keys", "/members"])
async def test_pages_follow_each_other(rig: AdminRig, path: str) -> None:
    """Following the cursor shows each object once, oldest first."""
    organization = await rig.create("/organizations", name="0")
    project = await rig.create("/projects", organization_id=organization["id"], name="0")
    bodies: list[dict[str, Any]] = {
        "/organizations": [{"name": str(number)} for number in range(1, 7)],
        "/projects": [
            {"organization_id": organization["id"], "name": str(number)} for number in range(1, 7)
        ],
        "/keys": [{"project_id": project["id"], "name": str(number)} for number in range(7)],
        "/members": [
            {"organization_id": organization["id"], "subject": str(number), "role": "auditor"}
            for number in range(7)
        ],
    }[path]
    for body in bodies:
        rig.clock.advance(1)
        await rig.create(path, **body)
    found = await _list_all(rig, path, 3)
    assert [item.get("name") or item["subject"] for item in found] == [str(n) for n in range(7)]
    for query in ("limit=0", "limit=1001", "limit=x", "cursor=made-up", "tenant=x"):
        assert (await rig.call("GET", f"{path}?{query}")).status_code == 400


async def test_pages_of_the_audit_log_follow_each_other(rig: AdminRig) -> None:
    """Following the cursor shows each entry of a chain once, in its order."""
    organization = await rig.create("/organizations", name="0")
    for name in "1234":
        await rig.call("PATCH", f"/organizations/{organization['id']}", {"name": name})
    found = await _list_all(rig, "/audit", 2, f"&organization_id={organization['id']}")
    assert [entry["number"] for entry in found] == [1, 2, 3, 4, 5]


async def test_a_stale_version_is_refused(rig: AdminRig) -> None:
    """A change for another version than the stored one is 412 and changes nothing."""
    organization = await rig.create("/organizations", name="acme")
    path = f"/organizations/{organization['id']}"
    etag = (await rig.call("GET", path)).headers["etag"]
    first = await rig.call("PATCH", path, {"name": "one"}, if_match=etag)
    assert first.status_code == 200
    assert first.headers["etag"] == '"2"'
    for method, place, body in (
        ("PATCH", path, {"name": "two"}),
        ("POST", f"{path}/suspend", {}),
        ("DELETE", path, None),
    ):
        stale = await rig.call(method, place, body, if_match=etag)
        expect_problem(stale, 412, "err:control:storage:version_conflict")
    assert (await rig.call("GET", path)).json()["name"] == "one"
    assert (await rig.call("PATCH", path, {"name": "two"}, if_match="*")).status_code == 200
    for value in ('W/"3"', "3", '"x"', '"1", "3"', '"' + "9" * 19 + '"'):
        answer = await rig.call("PATCH", path, {"name": "three"}, if_match=value)
        expect_problem(answer, 400, "err:control:request:if_match_invalid")


@pytest.mark.parametrize(
    "name", ["Zürich", "データ", "שלום", "a b", "🦀", "x" * 128, "'; DROP TABLE keys; --", "<b>"]
)
async def test_names_of_any_script_are_kept(rig: AdminRig, name: str) -> None:
    """A name of any script comes back as it was sent and is found by itself."""
    organization = await rig.create("/organizations", name=name)
    project = await rig.create("/projects", organization_id=organization["id"], name=name)
    assert organization["name"] == project["name"] == name
    answer = await rig.client.get(
        "/api/v1/projects",
        params={"name": name},
        headers={"authorization": f"Bearer {ADMIN_TOKEN}"},
    )
    assert [found["id"] for found in answer.json()["data"]] == [project["id"]]


INVISIBLE_NAMES = (
    "",
    " ",
    "a\nb",
    "a\0b",
    "\x1b[31m",
    "a\u202eb",
    "a\u200bb",
    "\u2028",
    "x" * 129,
    " a",
    5,
    None,
)


async def test_names_that_cannot_be_seen_are_refused(
    rig: AdminRig, subtests: pytest.Subtests
) -> None:
    """A name with control or invisible characters, or too long, is 400 for every kind of object."""
    project = await rig.create_project("search")
    organization_id = project["organization_id"]
    for name in INVISIBLE_NAMES:
        with subtests.test(name=name):
            for path, body in (
                ("/organizations", {}),
                ("/projects", {"organization_id": organization_id}),
                ("/keys", {"project_id": project["id"]}),
                ("/service-accounts", {"organization_id": organization_id, "role": "developer"}),
            ):
                assert (await rig.call("POST", path, body | {"name": name})).status_code == 400


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        b'{"\\ud800": 1, "name": "a"}',
        b'{"name": ' + b"[" * 100_000,
        b'{"name": ' + b"1" * 10_000 + b"}",
    ],
    ids=lambda content: f"{len(content)} bytes",
)
async def test_a_bad_body_is_refused(rig: AdminRig, content: bytes) -> None:
    """What is not the JSON object that is wanted is 400, as a problem."""
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}", "content-type": "application/json"}
    answer = await rig.client.post("/api/v1/organizations", content=content, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("is_declared", [True, False])
async def test_a_long_body_is_not_read_to_its_end(rig: AdminRig, *, is_declared: bool) -> None:
    """Beyond 1 MiB a body is 413 without being read on, whether its length was declared or not."""
    chunks_read = 0

    async def send() -> AsyncIterator[bytes]:
        nonlocal chunks_read
        for _ in range(100):
            chunks_read += 1
            yield b" " * 100 * 1024

    headers = {"authorization": f"Bearer {ADMIN_TOKEN}", "content-type": "application/json"}
    if is_declared:
        headers["content-length"] = str(100 * 100 * 1024)
    answer = await rig.client.post("/api/v1/organizations", content=send(), headers=headers)
    expect_problem(answer, 413, "err:control:request:body_too_large")
    assert chunks_read <= (0 if is_declared else 11)


async def test_an_id_that_cannot_be_one_is_unknown(rig: AdminRig) -> None:
    """An id of a wrong form is answered as one that was never given out."""
    for value in ("%00", "a%0ab", "x" * 65, "org_", "%F0%9F%A6%80", "org_000000000000"):
        for path in ("/organizations", "/projects", "/keys", "/members", "/service-accounts"):
            expect_problem(await rig.call("GET", f"{path}/{value}"), 404, UNKNOWN)


async def test_a_filter_with_a_null_character_is_refused(rig: AdminRig) -> None:
    """A filter that no database can compare with is 400 and not our failure."""
    for path in ("/organizations?name=%00", "/keys?name=%00", "/audit?actor=%00"):
        expect_problem(await rig.call("GET", path), 400, INVALID)


async def test_a_damaged_key_harms_itself_only(rig: AdminRig) -> None:
    """A row with NULL and nonsense in it is listed, and the others with it."""
    project = await rig.create_project("search")
    for name in ("one", "two"):
        rig.clock.advance(1)
        await rig.create("/keys", project_id=project["id"], name=name)
    connection = sqlite3.connect(rig.data / "usage.db")
    connection.execute(
        "UPDATE api_keys SET scopes = 'nonsense', labels = '[]', role = 'king' WHERE name = 'one'"
    )
    connection.commit()
    connection.close()
    found = (await rig.call("GET", "/keys")).json()["data"]
    assert [(key["name"], key["role"], key["scopes"]) for key in found] == [
        ("one", "king", []),
        ("two", "inference_only", ["inference", "models:read"]),
    ]


async def test_secrets_are_in_no_log(rig: AdminRig, caplog: pytest.LogCaptureFixture) -> None:
    """No log line and no file but the secrets' own has a key's text or the admin token."""
    caplog.set_level(logging.DEBUG)
    project = await rig.create_project("search")
    token = await rig.create_token(project["id"], "org_owner")
    await rig.call("POST", "/projects", {"name": token}, token=token, idempotency_key="once")
    body = {"project_id": project["id"], "name": "kept"}
    kept = (await rig.call("POST", "/keys", body, idempotency_key="kept")).json()["secret"]
    await rig.call("GET", "/projects", token=f"{token}x")
    for secret in (token, kept, ADMIN_TOKEN):
        assert secret not in caplog.text
        assert secret[-38:] not in caplog.text
        for path in rig.data.glob("usage.db*"):
            assert secret.encode() not in path.read_bytes()


async def test_a_database_that_is_away_is_503(rig: AdminRig) -> None:
    """Without its file the API answers 503 with Retry-After, to keys too, and never 401."""
    project = await rig.create_project("search")
    token = await rig.create_token(project["id"], "org_owner")
    (rig.data / "usage.db").rename(rig.data / "away.db")
    answers: list[httpx.Response] = [
        await rig.call("GET", "/projects"),
        await rig.call("GET", "/projects", token=token),
        await rig.call("POST", "/organizations", {"name": "x"}, idempotency_key="k"),
    ]
    for answer in answers:
        expect_problem(answer, 503, "err:control:storage:unavailable")
        assert "retry-after" in answer.headers
    assert (await rig.call("GET", "/projects", token="")).status_code == 401
