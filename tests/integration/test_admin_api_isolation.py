"""The admin API's walls: nobody, other organizations, other projects, and roles, over HTTP.

Every test walks over the operations of the OpenAPI document, so that a new one is in it.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect
from tests.fakes.admin_rig import (
    AdminRig,
    Operation,
    expect_problem,
    list_operations,
    run_admin_rig,
)

from penstock.access.matrix import MATRIX
from penstock.access.rules import find_key_id
from penstock.access.tables import ApiKeys
from penstock.storage.base import Base
from penstock.tenancy.model import Role
from penstock.tenancy.tables import Members, Organizations, Projects, ServiceAccounts

UNKNOWN = "err:control:storage:object_unknown"
DENIED = "err:control:access:operation_denied"
INVALID = "err:control:request:invalid"
EXCEEDED = "err:control:access:grant_exceeded"


@pytest.fixture
async def rig(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """A control plane without any objects."""
    async with run_admin_rig(sqlite_template, tmp_path / "data") as rig:
        yield rig


def _admin_operations(rig: AdminRig) -> list[Operation]:
    found = list_operations(rig.app.openapi())
    operations = [one for one in found if one.name]
    assert len(operations) > 30
    return operations


async def _create_objects(rig: AdminRig) -> dict[str, str]:
    """Create one object of each kind and return ids by the parameters of paths."""
    project = await rig.create_project("other")
    organization_id = project["organization_id"]
    owned = {"organization_id": organization_id, "role": "auditor"}
    key = await rig.create("/keys", project_id=project["id"], name="key")
    secrets = (await rig.call("GET", f"/keys/{key['id']}/secrets")).json()["data"]
    return {
        "organization_id": organization_id,
        "project_id": project["id"],
        "member_id": (await rig.create("/members", **owned, subject="somebody"))["id"],
        "account_id": (await rig.create("/service-accounts", **owned, name="account"))["id"],
        "key_id": key["id"],
        "secret_id": secrets[0]["id"],
    }


def _body_of(operation: Operation, ids: dict[str, str]) -> dict[str, Any] | None:
    """Return a body that is right, as far as its form goes."""
    path = operation.path.removeprefix("/api/v1")
    organization = {"organization_id": ids["organization_id"]}
    bodies: dict[tuple[str, str], dict[str, Any]] = {
        ("post", "/organizations"): {"name": "new"},
        ("post", "/projects"): organization | {"name": "new"},
        ("post", "/members"): organization | {"subject": "new", "role": "auditor"},
        ("post", "/service-accounts"): organization | {"name": "new", "role": "auditor"},
        ("post", "/keys"): {"project_id": ids["project_id"], "name": "new"},
        ("post", "/audit/verify"): organization,
        ("patch", "/organizations/{organization_id}"): {"name": "changed"},
        ("patch", "/projects/{project_id}"): {"name": "changed"},
        ("patch", "/members/{member_id}"): {"role": "auditor"},
        ("patch", "/service-accounts/{account_id}"): {"is_disabled": True},
        ("patch", "/keys/{key_id}"): {"name": "changed"},
    }
    return bodies.get((operation.method, path))


def _place(operation: Operation, ids: dict[str, str]) -> str:
    return operation.path.removeprefix("/api/v1").format(**ids)


async def _dump(rig: AdminRig, ids: dict[str, str]) -> list[Any]:
    query = f"?organization_id={ids['organization_id']}"
    paths = [f"/organizations/{ids['organization_id']}", f"/keys/{ids['key_id']}/secrets"]
    paths += [f"/{kind}{query}" for kind in ("projects", "members", "service-accounts", "keys")]
    return [(await rig.call("GET", path)).json() for path in paths]


async def test_anonymous_is_refused(rig: AdminRig) -> None:
    """Without a good token every operation is 401, whatever is asked for and before it is read."""
    ids = await _create_objects(rig)
    for operation in _admin_operations(rig):
        place = _place(operation, ids)
        body = _body_of(operation, ids)
        answer = await rig.call(operation.method, place, body, token="")
        expect_problem(answer, 401, "err:control:auth:token_missing")
        assert answer.headers["www-authenticate"] == 'Bearer realm="penstock"'
        answer = await rig.call(operation.method, place, body, token="wrong")
        expect_problem(answer, 401, "err:control:auth:token_wrong")
        answer = await rig.client.request(
            operation.method,
            f"/api/v1{place}?token=admin-token-of-these-tests",
            content=b"{" * 2_000_000,
        )
        assert answer.status_code == 401


async def test_other_organizations_are_not_there(rig: AdminRig) -> None:
    """To an owner every object of another organization is 404 like a missing one, or 403 always."""
    ids = await _create_objects(rig)
    missing = {name: f"{value[:-12]}000000000000" for name, value in ids.items()}
    mine = await rig.create_project("mine")
    owner = await rig.create_token(mine["id"], "org_owner")
    before = await _dump(rig, ids)
    for operation in _admin_operations(rig):
        body = _body_of(operation, ids)
        named = {"organization_id", "project_id"}.intersection(body or {})
        names_another = "{" in operation.path or named
        answer = await rig.call(operation.method, _place(operation, ids), body, token=owner)
        if Role.ORG_OWNER not in MATRIX[operation.name]:
            expect_problem(answer, 403, DENIED)
        elif names_another:
            expect_problem(answer, 404, UNKNOWN)
            place, body = _place(operation, missing), _body_of(operation, missing)
            other = await rig.call(operation.method, place, body, token=owner)
            assert (other.status_code, other.content) == (404, answer.content), operation
    assert await _dump(rig, ids) == before


async def test_listings_show_what_is_ones_own(rig: AdminRig) -> None:
    """A listing of an owner has nothing of another organization, and cannot be asked for it."""
    ids = await _create_objects(rig)
    mine = await rig.create_project("mine")
    owner = await rig.create_token(mine["id"], "org_owner")
    for path in ("organizations", "projects", "members", "service-accounts", "keys"):
        found = (await rig.call("GET", f"/{path}", token=owner)).json()["data"]
        owners = {item.get("organization_id", item["id"]) for item in found}
        assert owners <= {mine["organization_id"]}
        foreign = f"?organization_id={ids['organization_id']}"
        if path != "organizations":
            expect_problem(await rig.call("GET", f"/{path}{foreign}", token=owner), 404, UNKNOWN)
    entries = (await rig.call("GET", "/audit", token=owner)).json()["data"]
    assert {entry["organization_id"] for entry in entries} == {mine["organization_id"]}


async def test_other_projects_are_not_there(rig: AdminRig) -> None:
    """Whoever has a role in one project sees nothing of another of the same organization."""
    ids = await _create_objects(rig)
    own = await rig.create("/projects", organization_id=ids["organization_id"], name="own")
    token = await rig.create_token(own["id"], "project_admin")
    body = {"project_id": ids["project_id"], "name": "new"}
    for method, path, content in (
        ("GET", f"/projects/{ids['project_id']}", None),
        ("PATCH", f"/projects/{ids['project_id']}", {"name": "x"}),
        ("GET", f"/keys/{ids['key_id']}", None),
        ("POST", f"/keys/{ids['key_id']}/rotate", {}),
        ("DELETE", f"/keys/{ids['key_id']}/secrets/{ids['secret_id']}", None),
        ("GET", f"/keys?project_id={ids['project_id']}", None),
        ("POST", "/keys", body),
    ):
        expect_problem(await rig.call(method, path, content, token=token), 404, UNKNOWN)
    keys = (await rig.call("GET", "/keys", token=token)).json()["data"]
    assert [key["id"] for key in keys] == [find_key_id(token)]
    projects = (await rig.call("GET", "/projects", token=token)).json()["data"]
    assert [project["id"] for project in projects] == [own["id"]]
    members = (await rig.call("GET", "/members", token=token)).json()["data"]
    assert members == []


@pytest.mark.parametrize("role", Role)
async def test_roles_do_what_the_matrix_says(rig: AdminRig, role: Role) -> None:
    """Each role is refused exactly the operations that the matrix does not give it."""
    project = await rig.create_project("mine")
    token = await rig.create_token(project["id"], role)
    missing = dict.fromkeys(
        ("organization_id", "project_id", "member_id", "account_id", "key_id", "secret_id"), "none"
    )
    for operation in _admin_operations(rig):
        body: dict[str, str] | None = {} if operation.method in {"post", "patch"} else None
        answer = await rig.call(operation.method, _place(operation, missing), body, token=token)
        if role in MATRIX[operation.name]:
            assert answer.status_code in {200, 400, 404}, (operation, answer.text)
        else:
            expect_problem(answer, 403, DENIED)


async def test_a_key_without_the_scope_is_nobody(rig: AdminRig) -> None:
    """A key without scope `admin` or `usage:read` opens nothing, whatever its role is."""
    project = await rig.create_project("mine")
    scopes = ["inference", "models:read"]
    token = await rig.create_token(project["id"], "platform_admin", scopes)
    for operation in _admin_operations(rig):
        path = operation.path.removeprefix("/api/v1")
        answer = await rig.call(operation.method, path, {}, token=token)
        expect_problem(answer, 401, "err:control:access:key_refused")


async def test_scope_usage_opens_usage_only(rig: AdminRig) -> None:
    """A key with scope `usage:read` reads usage, and does nothing else whatever its role is."""
    project = await rig.create_project("mine")
    token = await rig.create_token(project["id"], "platform_admin", ["usage:read"])
    for operation in _admin_operations(rig):
        path = operation.path.removeprefix("/api/v1")
        answer = await rig.call(operation.method, path, {}, token=token)
        if operation.name == "usage:read":
            assert answer.status_code in {200, 400}
        else:
            expect_problem(answer, 403, DENIED)


async def test_a_key_opens_from_its_addresses_only(rig: AdminRig) -> None:
    """A key with allowed networks is refused elsewhere with the same words as a wrong one."""
    project = await rig.create_project("mine")
    here = await rig.create_token(project["id"], "org_owner", allowed_cidrs=["192.0.2.0/24"])
    there = await rig.create_token(project["id"], "org_owner", allowed_cidrs=["198.51.100.0/24"])
    assert (await rig.call("GET", "/projects", token=here)).status_code == 200
    refused = await rig.call("GET", "/projects", token=there)
    other = here[:9] + there[9:21] + here[21:]
    assert refused.status_code == 401
    assert (await rig.call("GET", "/projects", token=other)).status_code == 401


async def test_nobody_gives_more_than_they_have(rig: AdminRig) -> None:
    """An administrator makes no owner, by a key, a member or an account, and touches none."""
    project = await rig.create_project("mine")
    organization_id = project["organization_id"]
    token = await rig.create_token(project["id"], "org_admin")
    owner = await rig.create_token(project["id"], "org_owner")
    owned = {"organization_id": organization_id, "role": "org_owner"}
    member = await rig.create("/members", **owned, subject="owner")
    account = await rig.create("/service-accounts", **owned, name="owner")
    mine = await rig.create(
        "/members", organization_id=organization_id, subject="me", role="org_admin"
    )
    for method, path, body in (
        ("POST", "/keys", {"project_id": project["id"], "name": "x", "role": "org_owner"}),
        ("POST", "/keys", {"project_id": project["id"], "name": "x", "role": "platform_admin"}),
        ("POST", "/members", owned | {"subject": "x"}),
        ("POST", "/service-accounts", owned | {"name": "x"}),
        ("PATCH", f"/members/{mine['id']}", {"role": "org_owner"}),
        ("PATCH", f"/members/{member['id']}", {"role": "auditor"}),
        ("DELETE", f"/members/{member['id']}", None),
        ("PATCH", f"/service-accounts/{account['id']}", {"role": "auditor"}),
        ("DELETE", f"/service-accounts/{account['id']}", None),
        ("PATCH", f"/keys/{find_key_id(token)}", {"role": "org_owner"}),
        ("PATCH", f"/keys/{find_key_id(owner)}", {"name": "x"}),
        ("POST", f"/keys/{find_key_id(owner)}/rotate", {}),
    ):
        expect_problem(await rig.call(method, path, body, token=token), 403, EXCEEDED)
    query = f"/audit?organization_id={organization_id}&outcome=denied"
    assert len((await rig.call("GET", query)).json()["data"]) == 12


def _members_of(rig: AdminRig, method: str, path: str) -> set[str]:
    document = rig.app.openapi()
    entry = document["paths"][f"/api/v1{path}"][method]
    reference = entry["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    assert schema["additionalProperties"] is False
    return set(schema["properties"])


RESIDENCY = {"allowed_data_classes", "allowed_regions"}

SETTABLE: dict[type[Base], tuple[set[str], set[str]]] = {
    Organizations: ({"name"}, {"name", *RESIDENCY}),
    Projects: ({"organization_id", "name"}, {"name", *RESIDENCY}),
    Members: ({"organization_id", "subject", "role", "email", "project_id"}, {"role"}),
    ServiceAccounts: (
        {"organization_id", "name", "role", "project_id"},
        {"role", "is_disabled"},
    ),
    ApiKeys: (
        {
            "project_id", "name", "role", "scopes", "is_live", "service_account_id", "member_id",
            "allowed_aliases", "allowed_cidrs", "labels", "expires_at", "rotation_interval_s",
            "rotation_grace_s",
        },
        {
            "name", "role", "scopes", "allowed_aliases", "allowed_cidrs", "labels", "expires_at",
            "rotation_interval_s", "rotation_grace_s",
        },
    ),
}  # fmt: skip
"""Columns that callers may set when they create, and change, an object; all others are ours."""

PLACES: dict[type[Base], tuple[str, str]] = {
    Organizations: ("/organizations", "organization_id"),
    Projects: ("/projects", "project_id"),
    Members: ("/members", "member_id"),
    ServiceAccounts: ("/service-accounts", "account_id"),
    ApiKeys: ("/keys", "key_id"),
}


@pytest.mark.parametrize("table", SETTABLE, ids=lambda table: table.__tablename__)
async def test_columns_cannot_be_assigned(rig: AdminRig, table: type[Base]) -> None:
    """Of a table's columns a body sets those that are meant, and any other one is refused."""
    ids = await _create_objects(rig)
    path, parameter = PLACES[table]
    columns = {column.key for column in inspect(table).columns}
    settable, changeable = SETTABLE[table]
    one = f"{path}/{{{parameter}}}"
    assert _members_of(rig, "post", path) == settable <= columns
    assert _members_of(rig, "patch", one) == changeable <= columns
    before = await _dump(rig, ids)
    create = Operation("", "post", f"/api/v1{path}")
    change = Operation("", "patch", f"/api/v1{one}")
    for operation, allowed in ((create, settable), (change, changeable)):
        for name in [*sorted(columns - allowed), "organizationId", "__class__", ""]:
            body = (_body_of(operation, ids) or {}) | {name: "x"}
            answer = await rig.call(operation.method, _place(operation, ids), body)
            expect_problem(answer, 400, INVALID)
            assert [fault["parameter"] for fault in answer.json()["errors"]] == [name]
    assert await _dump(rig, ids) == before


async def test_mutations_take_idempotency_keys(rig: AdminRig) -> None:
    """Each operation that changes something says so in the document, and does it only once."""
    document = rig.app.openapi()
    for operation in _admin_operations(rig):
        entry = document["paths"][operation.path][operation.method]
        names = {parameter["name"] for parameter in entry.get("parameters", [])}
        assert ("Idempotency-Key" in names) == operation.is_change, operation
        is_of_object = operation.is_change and "{" in operation.path
        assert ("If-Match" in names) == is_of_object, operation


async def test_repeating_any_mutation_changes_nothing_more(rig: AdminRig) -> None:
    """The second of two equal requests of one idempotency key is answered like the first."""
    for operation in _admin_operations(rig):
        if not operation.is_change:
            continue
        rig.clock.advance(1)
        ids = await _create_objects(rig)
        if operation.path.endswith("/resume"):
            await rig.call("POST", f"/organizations/{ids['organization_id']}/suspend")
        body = _body_of(operation, ids)
        place = _place(operation, ids)
        key = str(operation).replace(" ", "-")
        answers = [
            await rig.call(operation.method, place, body, idempotency_key=key) for _ in range(2)
        ]
        first, second = answers
        assert first.status_code in {200, 201, 204}, (operation, first.text)
        assert (first.status_code, first.content) == (second.status_code, second.content)
        assert second.headers["idempotency-replayed"] == "true"
        await rig.call("DELETE", f"/organizations/{ids['organization_id']}")
        for organization in (await rig.call("GET", "/organizations?status=active")).json()["data"]:
            await rig.call("DELETE", f"/organizations/{organization['id']}")
