"""Every SQL statement about which objects `apply` made, each within a scope."""

from collections.abc import Collection

from sqlalchemy import delete, select

from penstock.catalog.tables import AppliedObjects
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

_CHUNK = 500
"""Values of one statement: databases bound them."""


async def list_made(session: ReadSession, scope: Scope, set_name: str) -> list[tuple[str, str]]:
    """Return section and id of what a set of files has made, or has in common with others."""
    _require_platform(scope)
    statement = select(AppliedObjects.kind, AppliedObjects.object_id).where(
        AppliedObjects.set_name == set_name
    )
    return [(section, object_id) for section, object_id in await session.rows(statement)]


async def list_sets(
    session: ReadSession, scope: Scope, ids: Collection[str]
) -> dict[tuple[str, str], set[str]]:
    """Return the sets that have made objects, by section and id; others are left out."""
    _require_platform(scope)
    found: dict[tuple[str, str], set[str]] = {}
    ordered = sorted(ids)
    for start in range(0, len(ordered), _CHUNK):
        statement = select(
            AppliedObjects.kind, AppliedObjects.object_id, AppliedObjects.set_name
        ).where(AppliedObjects.object_id.in_(ordered[start : start + _CHUNK]))
        for section, object_id, set_name in await session.rows(statement):
            found.setdefault((section, object_id), set()).add(set_name)
    return found


async def add_made(
    session: WriteSession, scope: Scope, set_name: str, made: Collection[tuple[str, str]]
) -> None:
    """Take note of what a set has made."""
    _require_platform(scope)
    rows = [
        {"set_name": set_name, "kind": section, "object_id": object_id}
        for section, object_id in sorted(made)
    ]
    await session.insert_new(AppliedObjects, rows, AppliedObjects.object_id)


async def forget_made(
    session: WriteSession, scope: Scope, set_name: str, gone: Collection[tuple[str, str]]
) -> None:
    """Take note of what a set has no more."""
    _require_platform(scope)
    for section, object_id in sorted(gone):
        await session.change(
            delete(AppliedObjects).where(
                AppliedObjects.set_name == set_name,
                AppliedObjects.kind == section,
                AppliedObjects.object_id == object_id,
            )
        )


def _require_platform(scope: Scope) -> None:
    if scope.organization is not None:
        message = "what was applied was asked for in the scope of an organization"
        raise PermissionError(message)
