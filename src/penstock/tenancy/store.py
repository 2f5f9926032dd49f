"""Every SQL statement of the tenancy room, each within a scope."""

from sqlalchemy import bindparam, delete, select

from penstock.storage.objects import ObjectStore
from penstock.storage.scope import Scope, within_scope
from penstock.storage.sessions import WriteSession
from penstock.tenancy.model import Member, Organization, Project, ServiceAccount
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


async def delete_member(session: WriteSession, scope: Scope, member_id: str) -> None:
    """Remove a membership."""
    await session.change(
        delete(Members).where(Members.id == member_id, scope.where(Members.organization_id))
    )
