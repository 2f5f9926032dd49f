"""Mass assignment: no body sets a column that is ours. Made of the tables and of the document.

A new column or operation is in these tests without a word here.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.admin_objects import AdminDocument, create_objects
from tests.fakes.admin_rig import ADMIN_TOKEN, AdminRig, Operation, expect_problem, run_admin_rig

from penstock.storage.base import Base

INVALID = "err:control:request:invalid"
OURS = {
    "id", "version", "created_at", "updated_at", "status", "state", "created_by", "last_used_at",
    "revoked_at", "revoked_reason", "mac", "pepper_id", "retiring_at", "not_after",
}  # fmt: skip
"""Columns that no body sets, of whatever table."""
OWNERS = {"organization_id", "project_id"}
"""Columns that no update sets: an object stays where it was created."""
WORDS = {"is_admin", "tenant_id", "balance", "organizationId", "__class__", ""}
"""What is a column nowhere."""


@pytest.fixture
async def rig(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """A control plane without any objects."""
    async with run_admin_rig(sqlite_template, tmp_path / "data") as rig:
        yield rig


@pytest.fixture
def document(openapi: dict[str, Any]) -> AdminDocument:
    """What the control plane says that it can do."""
    return AdminDocument(openapi)


def _columns(operation: Operation) -> set[str]:
    """Return the columns of the table that an operation's path is about."""
    noun = operation.path.split("/")[3].replace("-", "_")
    tables = Base.metadata.tables
    table = next((tables[name] for name in (noun, f"api_{noun}") if name in tables), None)
    return set() if table is None else set(table.columns.keys())


async def test_columns_cannot_be_assigned(rig: AdminRig, document: AdminDocument) -> None:
    """A member that a body has not is refused by name, each column's too, and nothing is stored."""
    objects = await create_objects(rig, document)
    before = rig.dump()
    tried = set()
    for operation in document.operations:
        schema = document.body_schema(operation)
        if schema is None:
            continue
        columns = _columns(operation)
        tried |= columns
        for name in sorted((columns | WORDS) - schema["properties"].keys()):
            for value in ("x", None, 1):
                body = document.body(operation, objects.ids) | {name: value}
                place = document.place(operation, objects.ids)
                answer = await rig.call(operation.method, place, body)
                expect_problem(answer, 400, INVALID)
                faults = [fault["parameter"] for fault in answer.json()["errors"]]
                assert faults == [name], operation
    assert tried >= {"id", "version", "created_by", "organization_id"}
    assert rig.dump() == before


async def test_bodies_have_no_member_that_is_ours(document: AdminDocument) -> None:
    """No body names what we keep account of, and no update moves an object to another owner."""
    for operation in document.operations:
        schema = document.body_schema(operation) or {"properties": {}}
        never = OURS | (OWNERS if operation.method == "patch" else set())
        assert not never & schema["properties"].keys(), operation


def _objects_in(document: AdminDocument, schema: Any, seen: list[Any]) -> list[dict[str, Any]]:
    """Return the schemas of objects within a schema, at any depth."""
    if isinstance(schema, list):
        return [found for one in schema for found in _objects_in(document, one, seen)]
    if not isinstance(schema, dict) or schema in seen:
        return []
    seen.append(schema)
    inner = document.resolve(schema) if "$ref" in schema else None
    parts = [value for name, value in schema.items() if name != "examples"]
    found = _objects_in(document, [inner, *parts], seen)
    return [schema, *found] if "properties" in schema else found


async def test_bodies_are_closed_at_every_depth(document: AdminDocument) -> None:
    """Every object within a body has the members that its schema names and no other ones."""
    for operation in document.operations:
        content = document.entry(operation).get("requestBody", {}).get("content", {})
        for schema in _objects_in(document, content, []):
            assert schema["additionalProperties"] is False, (operation, schema["title"])


async def test_ten_megabytes_are_never_parsed(rig: AdminRig, document: AdminDocument) -> None:
    """A body of 10 MB is 413 for every operation that has a body, whether it is JSON or not."""
    content = json.dumps({"name": "x" * 10_000_000}).encode()
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}", "content-type": "application/json"}
    objects = await create_objects(rig, document)
    before = rig.dump()
    for operation in document.operations:
        if "requestBody" in document.entry(operation):
            for body in (content, content[:-1]):
                place = f"/api/v1{document.place(operation, objects.ids)}"
                answer = await rig.client.request(
                    operation.method, place, content=body, headers=headers
                )
                expect_problem(answer, 413, "err:control:request:body_too_large")
    assert rig.dump() == before


@pytest.mark.parametrize("member", ["name", "subject", "reason"])
async def test_control_characters_are_refused(
    rig: AdminRig, document: AdminDocument, member: str
) -> None:
    """A name, a subject or a reason with a control character is refused by every operation."""
    objects = await create_objects(rig, document)
    before = rig.dump()
    tried = 0
    for operation in document.operations:
        schema = document.body_schema(operation)
        if schema is None or member not in schema["properties"]:
            continue
        for character in ("\x00", "\x1b", "\n", "\x7f", "\u0085", "\u2028"):
            body = document.body(operation, objects.ids) | {member: f"a{character}b"}
            place = document.place(operation, objects.ids)
            answer = await rig.call(operation.method, place, body)
            assert answer.status_code == 400, (operation, character, answer.text)
            tried += 1
    assert tried
    assert rig.dump() == before
