"""The admin API's walls: nobody, other organizations, other projects, and roles, over HTTP.

Every test walks over the operations of the OpenAPI document, so that a new one is in it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tests.fakes.admin_objects import (
    AdminDocument,
    Objects,
    create_object,
    create_objects,
    renew_references,
)
from tests.fakes.admin_rig import (
    ADMIN_TOKEN,
    AdminRig,
    Operation,
    expect_problem,
    list_operations,
    place_of,
    run_admin_rig,
)

from penstock.access.matrix import MATRIX
from penstock.access.rules import find_key_id
from penstock.tenancy.model import Role

UNKNOWN = "err:control:storage:object_unknown"
DENIED = "err:control:access:operation_denied"
OURS = "the test's own"
EXCEEDED = "err:control:access:grant_exceeded"
_OF_USAGE = {
    "usage_corrections:create",
    *("invoices:finalize", "invoices:void", "invoices:pay"),
}
"""Need usage, which no operation makes: see `test_rerating.py` and `test_invoices_api.py`."""


@pytest.fixture
async def rig(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """A control plane without any objects."""
    async with run_admin_rig(sqlite_template, tmp_path / "data") as rig:
        yield rig


@pytest.fixture
def document(openapi: dict[str, Any]) -> AdminDocument:
    """What the control plane says that it can do."""
    return AdminDocument(openapi)


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Every statement that a test's own requests send to a database, without its parameters."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        # The application is called in the task of the test; its chores have one of their own.
        task = asyncio.current_task()
        if task is not None and task.get_name() == OURS:
            found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


async def test_anonymous_is_refused(rig: AdminRig, document: AdminDocument) -> None:
    """Without a good token every operation is 401, whatever is asked for and before it is read."""
    objects = await create_objects(rig, document)
    before = rig.dump()
    for operation in document.operations:
        place = document.place(operation, objects.ids)
        body = document.body(operation, objects.ids)
        answer = await rig.call(operation.method, place, body, token="")
        expect_problem(answer, 401, "err:control:auth:token_missing")
        assert answer.headers["www-authenticate"] == 'Bearer realm="penstock"'
        answer = await rig.call(operation.method, place, body, token="wrong")
        expect_problem(answer, 401, "err:control:auth:token_wrong")
        answer = await rig.client.request(
            operation.method, f"{place_of(place)}?token={ADMIN_TOKEN}", content=b"{" * 2_000_000
        )
        assert answer.status_code == 401
    assert rig.dump() == before


async def test_every_other_operation_needs_the_nodes_token(
    rig: AdminRig, openapi: dict[str, Any]
) -> None:
    """What is not of the admin API is health or a schema, or opens to the node's token alone."""
    others = [one for one in list_operations(openapi) if not one.name]
    protected = [one for one in others if not one.path.startswith(("/health/", "/schemas/"))]
    assert protected
    project = await rig.create_project("mine")
    token = await rig.create_token(project["id"], "platform_admin")
    for operation in protected:
        for given in ("", "wrong", ADMIN_TOKEN, token):
            headers = {"authorization": f"Bearer {given}"} if given else {}
            answer = await rig.client.request(operation.method, operation.path, headers=headers)
            assert answer.status_code == 401, operation


async def test_other_organizations_are_not_there(
    rig: AdminRig, document: AdminDocument, statements: list[str]
) -> None:
    """To an owner what is another organization's is like what is missing, in bytes and in time."""
    objects = await create_objects(rig, document)
    mine = await rig.create_project("mine")
    owner = await rig.create_token(mine["id"], "org_owner")

    # In time: the same statements run, and each finds rows by their keys.
    async def ask(operation: Operation, place: str, body: Any) -> tuple[int, bytes, list[str]]:
        statements.clear()
        cast("asyncio.Task[Any]", asyncio.current_task()).set_name(OURS)
        answer = await rig.call(operation.method, place, body, token=owner)
        assert statements
        return answer.status_code, answer.content, list(statements)

    before = rig.dump()
    for operation in document.operations:
        asked = [
            (document.place(operation, ids), document.body(operation, ids))
            for ids in (objects.ids, objects.missing)
        ]
        foreign, missing = [await ask(operation, *one) for one in asked]
        names_another = document.parameters(operation) or document.references(operation)
        if Role.ORG_OWNER not in MATRIX[operation.name]:
            assert (foreign[0], json.loads(foreign[1])["code"]) == (403, DENIED), operation
        elif names_another:
            assert (foreign[0], json.loads(foreign[1])["code"]) == (404, UNKNOWN), operation
            assert foreign == missing, operation
        if operation.is_change:
            continue
        queries = [document.query(operation, ids) for ids in (objects.ids, objects.missing)]
        for queried in zip(*queries, strict=True):
            foreign, missing = [
                await ask(operation, f"{asked[0][0]}{query}", None) for query in queried
            ]
            assert foreign == missing, queried
    assert rig.dump() == before


async def test_listings_show_what_is_ones_own(rig: AdminRig, document: AdminDocument) -> None:
    """A listing of an owner has nothing that is another organization's."""
    objects = await create_objects(rig, document)
    foreign = objects.owned_by("organization_id", objects.ids["organization_id"])
    assert foreign >= {"organization_id", "project_id", "member_id", "account_id", "key_id"}
    mine = await rig.create_project("mine")
    owner = await rig.create_token(mine["id"], "org_owner")
    for operation in document.operations:
        if operation.is_change or document.parameters(operation):
            continue
        answer = await rig.call(operation.method, document.place(operation, {}), token=owner)
        for parameter in foreign:
            assert objects.ids[parameter] not in answer.text, operation
    entries = (await rig.call("GET", "/audit", token=owner)).json()["data"]
    assert {entry["organization_id"] for entry in entries} == {mine["organization_id"]}


async def test_other_projects_are_not_there(rig: AdminRig, document: AdminDocument) -> None:
    """To who has a role in one project another one's objects are like missing ones."""
    own = await rig.create_project("own")
    ids = {"organization_id": own["organization_id"]}
    objects = await create_objects(rig, document, ids)
    bound = objects.owned_by("project_id", objects.ids["project_id"])
    assert bound >= {"project_id", "member_id", "account_id", "key_id"}
    token = await rig.create_token(own["id"], "project_admin")
    missing = objects.missing | ids
    before = rig.dump()
    for operation in document.operations:
        parameters = document.parameters(operation)
        named = parameters[:1] or document.references(operation) & bound
        if Role.PROJECT_ADMIN not in MATRIX[operation.name]:
            continue
        if bound.intersection(named):
            answers = [
                await rig.call(
                    operation.method,
                    document.place(operation, names),
                    document.body(operation, names),
                    token=token,
                )
                for names in (objects.ids, missing)
            ]
            expect_problem(answers[0], 404, UNKNOWN)
            assert answers[0].content == answers[1].content
        elif not operation.is_change and not parameters:
            for query in ("", *document.query(operation, objects.ids)):
                answer = await rig.call(
                    "GET", f"{document.place(operation, {})}{query}", token=token
                )
                for parameter in bound:
                    assert objects.ids[parameter] not in answer.text, (operation, query)
    assert rig.dump() == before
    keys = (await rig.call("GET", "/keys", token=token)).json()["data"]
    assert [key["id"] for key in keys] == [find_key_id(token)]
    projects = (await rig.call("GET", "/projects", token=token)).json()["data"]
    assert [project["id"] for project in projects] == [own["id"]]


@pytest.mark.parametrize("role", Role)
async def test_roles_do_what_the_matrix_says(
    rig: AdminRig, document: AdminDocument, role: Role
) -> None:
    """Each role is refused exactly the operations that the matrix does not give it."""
    project = await rig.create_project("mine")
    token = await rig.create_token(project["id"], role)
    for operation in document.operations:
        body: dict[str, str] | None = {} if operation.method in {"post", "patch"} else None
        answer = await rig.call(operation.method, document.place(operation, {}), body, token=token)
        if role in MATRIX[operation.name]:
            assert answer.status_code in {200, 400, 404}, (operation, answer.text)
        else:
            expect_problem(answer, 403, DENIED)


async def test_a_key_without_the_scope_is_nobody(rig: AdminRig, document: AdminDocument) -> None:
    """A key with scopes of the data plane alone opens nothing, whatever its role is."""
    project = await rig.create_project("mine")
    scopes = ["inference", "models:read"]
    token = await rig.create_token(project["id"], "platform_admin", scopes)
    for operation in document.operations:
        path = operation.path.removeprefix("/api/v1")
        answer = await rig.call(operation.method, path, {}, token=token)
        expect_problem(answer, 401, "err:control:access:key_refused")


@pytest.mark.parametrize("scope", ["usage:read", "costs:read"])
async def test_scopes_of_reading_open_that_only(
    rig: AdminRig, document: AdminDocument, scope: str
) -> None:
    """A key that reads usage or costs reads that and exports it, and does nothing else."""
    project = await rig.create_project("mine")
    token = await rig.create_token(project["id"], "platform_admin", [scope])
    opened = {"usage:read", "requests:read"} if scope == "usage:read" else {scope}
    for operation in document.operations:
        path = operation.path.removeprefix("/api/v1")
        answer = await rig.call(operation.method, path, {}, token=token)
        if operation.name in opened:
            assert answer.status_code in {200, 400}
        elif operation.name != "usage:export":
            expect_problem(answer, 403, DENIED)
    span = "since=2026-01-01T00:00:00Z&until=2026-02-01T00:00:00Z"
    for rows in ("events", "costs", "focus"):
        answer = await rig.call("GET", f"/usage/export?{span}&rows={rows}", token=token)
        is_open = scope == ("usage:read" if rows == "events" else "costs:read")
        assert answer.status_code == (200 if is_open else 403), answer.text


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


async def test_mutations_take_idempotency_keys(document: AdminDocument) -> None:
    """Each operation that changes something says in the document that it can be repeated."""
    for operation in document.operations:
        parameters = document.entry(operation).get("parameters", [])
        names = {parameter["name"] for parameter in parameters}
        assert ("Idempotency-Key" in names) == operation.is_change, operation
        is_of_object = operation.is_change and "{" in operation.path
        assert ("If-Match" in names) == is_of_object, operation


async def test_repeating_any_mutation_changes_nothing_more(
    rig: AdminRig, document: AdminDocument
) -> None:
    """The second of two equal requests of one idempotency key is answered like the first."""
    objects = await create_objects(rig, document)
    for operation in document.operations:
        if not operation.is_change or operation.name in _OF_USAGE:
            continue
        rig.clock.advance(1)
        # One that nothing uses: it may be about to go.
        fresh = Objects(dict(objects.ids))
        for parameter in document.parameters(operation)[:1]:
            await create_object(rig, document, parameter, fresh)
        await renew_references(rig, document, operation, fresh)
        place = document.place(operation, fresh.ids)
        if operation.path.endswith("/resume"):
            await rig.call("POST", f"{place.removesuffix('resume')}suspend")
        body = document.body(operation, fresh.ids)
        key = str(operation).replace(" ", "-")
        first = await rig.call(operation.method, place, body, idempotency_key=key)
        assert first.status_code in {200, 201, 204}, (operation, first.text)
        before = rig.dump()
        second = await rig.call(operation.method, place, body, idempotency_key=key)
        assert (first.status_code, first.content) == (second.status_code, second.content)
        assert second.headers["idempotency-replayed"] == "true"
        assert rig.dump() == before
