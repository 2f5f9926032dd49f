"""Use cases of organizations and projects; `people` has those of members and service accounts.

None commits. Each records an entry in the audit log and, where data planes need to know, a change
in the change feed, all in the transaction of its session. The time is the actor's.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.storage.changes import ChangeKind, record_change
from penstock.storage.errors import RowConflictError
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy import store
from penstock.tenancy.errors import NAME_TAKEN
from penstock.tenancy.model import Organization, Owner, OwnerChanges, OwnerKind, Project, Status
from penstock.tenancy.rules import (
    next_status,
    normalize_changes,
    require_active,
    require_not_archived,
)


async def create_organization(
    session: WriteSession,
    actor: Actor,
    name: str,
    *,
    allowed_data_classes: list[str] | None = None,
    allowed_regions: list[str] | None = None,
) -> Organization:
    """Create an organization; only a session of the platform can.

    Raises:
        PenstockError: `NAME_INVALID`, `NAME_TAKEN`, `POLICY_INVALID`.
    """
    given: OwnerChanges = {
        "name": name,
        "allowed_data_classes": allowed_data_classes,
        "allowed_regions": allowed_regions,
    }
    organization = Organization(
        id=create_id("org"),
        status=Status.ACTIVE,
        **normalize_changes(given),
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )
    try:
        await store.organizations.insert(session, session.scope, organization)
    except RowConflictError:
        raise PenstockError(NAME_TAKEN) from None
    await _tell(session, actor, "organization.create", None, organization)
    return organization


async def get_organization(session: ReadSession, organization_id: str) -> Organization:
    """Return an organization.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.organizations.get(session, session.scope, organization_id)


async def list_organizations(
    session: ReadSession, page: PageRequest, *, name: str | None = None, status: str | None = None
) -> Page[Organization]:
    """Return organizations that the session may see, oldest first."""
    return await store.organizations.list(session, session.scope, page, name=name, status=status)


async def find_owners(session: ReadSession, kind: OwnerKind, ids: Sequence[str]) -> Sequence[Owner]:
    """Return organizations, or projects, by id, at most some thousands."""
    return await store.find_owners(session, session.scope, kind, ids)


async def list_restricted(
    session: ReadSession, kind: OwnerKind, *, after_id: str = "", limit: int = 1_000
) -> Sequence[Owner]:
    """Return organizations, or projects, that may not do everything, by id; for whole snapshots."""
    return await store.list_restricted(session, session.scope, kind, after_id=after_id, limit=limit)


async def update_organization(
    session: WriteSession,
    actor: Actor,
    organization_id: str,
    changes: OwnerChanges,
    *,
    expected_version: int | None = None,
) -> Organization:
    """Change the members of an organization that are given; its id, keys and usage stay.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `NAME_INVALID`, `NAME_TAKEN`,
            `POLICY_INVALID`, `STATUS_CONFLICT` when it is archived.
    """
    before = await store.organizations.lock(
        session, session.scope, organization_id, expected_version
    )
    require_not_archived(before.status)
    return await _change_organization(
        session, actor, "organization.update", before, **normalize_changes(changes)
    )


async def suspend_organization(
    session: WriteSession,
    actor: Actor,
    organization_id: str,
    *,
    expected_version: int | None = None,
) -> Organization:
    """Have all keys of an organization refused until it is resumed; again, it changes nothing.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `STATUS_CONFLICT`.
    """
    before = await store.organizations.lock(
        session, session.scope, organization_id, expected_version
    )
    status = next_status("suspend", before.status)
    return await _change_organization(session, actor, "organization.suspend", before, status=status)


async def resume_organization(
    session: WriteSession,
    actor: Actor,
    organization_id: str,
    *,
    expected_version: int | None = None,
) -> Organization:
    """Let the keys of a suspended organization work again; again, it changes nothing.

    Raises:
        PenstockError: As `suspend_organization`.
    """
    before = await store.organizations.lock(
        session, session.scope, organization_id, expected_version
    )
    status = next_status("resume", before.status)
    return await _change_organization(session, actor, "organization.resume", before, status=status)


async def archive_organization(
    session: WriteSession,
    actor: Actor,
    organization_id: str,
    *,
    expected_version: int | None = None,
) -> Organization:
    """Refuse all keys of an organization for ever, and free its name; again, it changes nothing.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`.
    """
    before = await store.organizations.lock(
        session, session.scope, organization_id, expected_version
    )
    return await _change_organization(
        session, actor, "organization.archive", before, status=Status.ARCHIVED
    )


async def create_project(
    session: WriteSession,
    actor: Actor,
    organization_id: str,
    name: str,
    *,
    allowed_data_classes: list[str] | None = None,
    allowed_regions: list[str] | None = None,
) -> Project:
    """Create a project in an organization.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` for the organization, `STATUS_CONFLICT` when it is not
            active, `NAME_INVALID`, `NAME_TAKEN`, `POLICY_INVALID`.
    """
    given: OwnerChanges = {
        "name": name,
        "allowed_data_classes": allowed_data_classes,
        "allowed_regions": allowed_regions,
    }
    organization = await store.organizations.lock(session, session.scope, organization_id)
    require_active(organization.status, "organization")
    project = Project(
        id=create_id("prj"),
        organization_id=organization_id,
        status=Status.ACTIVE,
        **normalize_changes(given),
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )
    try:
        await store.projects.insert(session, session.scope, project)
    except RowConflictError:
        raise PenstockError(NAME_TAKEN) from None
    await _tell(session, actor, "project.create", None, project)
    return project


async def get_project(session: ReadSession, project_id: str) -> Project:
    """Return a project.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.projects.get(session, session.scope, project_id)


async def list_projects(
    session: ReadSession,
    page: PageRequest,
    *,
    organization_id: str | None = None,
    name: str | None = None,
    status: str | None = None,
) -> Page[Project]:
    """Return projects that the session may see, oldest first."""
    return await store.projects.list(
        session, session.scope, page, organization_id=organization_id, name=name, status=status
    )


async def update_project(
    session: WriteSession,
    actor: Actor,
    project_id: str,
    changes: OwnerChanges,
    *,
    expected_version: int | None = None,
) -> Project:
    """Change the members of a project that are given; its id, keys and usage stay.

    Raises:
        PenstockError: As `update_organization`.
    """
    before = await store.projects.lock(session, session.scope, project_id, expected_version)
    require_not_archived(before.status)
    return await _change_project(
        session, actor, "project.update", before, **normalize_changes(changes)
    )


async def archive_project(
    session: WriteSession, actor: Actor, project_id: str, *, expected_version: int | None = None
) -> Project:
    """Refuse all keys of a project for ever, and free its name; again, it changes nothing.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`.
    """
    before = await store.projects.lock(session, session.scope, project_id, expected_version)
    return await _change_project(session, actor, "project.archive", before, status=Status.ARCHIVED)


async def _change_organization(
    session: WriteSession, actor: Actor, action: str, before: Organization, **values: Any
) -> Organization:
    if all(getattr(before, name) == value for name, value in values.items()):
        return before
    try:
        after = await store.organizations.update(
            session, session.scope, before, updated_at_us=actor.at_us, **values
        )
    except RowConflictError:
        raise PenstockError(NAME_TAKEN) from None
    await _tell(session, actor, action, before, after)
    return after


async def _change_project(
    session: WriteSession, actor: Actor, action: str, before: Project, **values: Any
) -> Project:
    if all(getattr(before, name) == value for name, value in values.items()):
        return before
    try:
        after = await store.projects.update(
            session, session.scope, before, updated_at_us=actor.at_us, **values
        )
    except RowConflictError:
        raise PenstockError(NAME_TAKEN) from None
    await _tell(session, actor, action, before, after)
    return after


async def _tell(
    session: WriteSession,
    actor: Actor,
    action: str,
    before: Organization | Project | None,
    after: Organization | Project,
) -> None:
    is_project = isinstance(after, Project)
    kind: ChangeKind = "project" if is_project else "organization"
    await record_change(session, kind, after.id, actor.at_us)
    await record(
        session,
        Entry(
            actor=actor,
            action=action,
            resource_kind=kind,
            resource_id=after.id,
            organization_id=after.organization_id if isinstance(after, Project) else after.id,
            before=None if before is None else _members(before),
            after=_members(after),
        ),
    )


def _members(item: Organization | Project) -> dict[str, Any]:
    return dataclasses.asdict(item)
