"""Every SQL statement of the tenancy room, each within a scope."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, bindparam, delete, or_, select

from penstock.storage.objects import ObjectStore
from penstock.storage.scope import Scope, within_scope
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy.model import (
    Member,
    Organization,
    Owner,
    OwnerKind,
    Project,
    ServiceAccount,
    Status,
)
from penstock.tenancy.tables import Members, Organizations, Projects, ServiceAccounts

organizations = ObjectStore(Organizations, Organization, "id")
projects = ObjectStore(Projects, Project, "organization_id")
members = ObjectStore(Members, Member, "organization_id")
service_accounts = ObjectStore(ServiceAccounts, ServiceAccount, "organization_id")

_PLACE = (
    select(Projects.organization_id, Projects.status, Organizations.status)
    .join(Organizations, Organizations.id == Projects.organization_id)
    .where(Projects.id == bindparam("project_id"), within_scope(Projects.organization_id))
)


async def lock_place(
    session: WriteSession, scope: Scope, project_id: str
) -> tuple[str, str, str] | None:
    """Return a project's organization, its own status and that of the organization.

    Neither changes before the transaction ends. None when there is no such project.
    """
    await session.lock_configuration()
    row = await session.first(_PLACE, {"project_id": project_id, **scope.parameters})
    return None if row is None else (row[0], row[1], row[2])


async def find_owners(
    session: ReadSession, scope: Scope, kind: OwnerKind, ids: Sequence[str]
) -> Sequence[Owner]:
    """Return organizations, or projects, of these ids; unknown ones are left out."""
    if kind == "project":
        return await projects.list_by_id(session, scope, Projects.id.in_(ids))
    return await organizations.list_by_id(session, scope, Organizations.id.in_(ids))


async def list_restricted(
    session: ReadSession, scope: Scope, kind: OwnerKind, *, after_id: str, limit: int
) -> Sequence[Owner]:
    """Return organizations, or projects, that may not work or whose data may not go anywhere."""
    if kind == "project":
        return await projects.list_by_id(
            session, scope, _is_restricted(Projects), after=after_id, limit=limit
        )
    return await organizations.list_by_id(
        session, scope, _is_restricted(Organizations), after=after_id, limit=limit
    )


def _is_restricted(table: type[Organizations | Projects]) -> ColumnElement[bool]:
    return or_(
        table.status != Status.ACTIVE,
        table.allowed_data_classes.is_not(None),
        table.allowed_regions.is_not(None),
    )


async def delete_member(session: WriteSession, scope: Scope, member_id: str) -> None:
    """Remove a membership."""
    await session.change(
        delete(Members).where(Members.id == member_id, scope.where(Members.organization_id))
    )
