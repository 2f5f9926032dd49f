"""Every SQL statement of the tenancy room, each within a scope."""

from sqlalchemy import delete

from penstock.storage.objects import ObjectStore
from penstock.storage.scope import Scope
from penstock.storage.sessions import WriteSession
from penstock.tenancy.model import Member, Organization, Project, ServiceAccount
from penstock.tenancy.tables import Members, Organizations, Projects, ServiceAccounts

organizations = ObjectStore(Organizations, Organization, "id")
projects = ObjectStore(Projects, Project, "organization_id")
members = ObjectStore(Members, Member, "organization_id")
service_accounts = ObjectStore(ServiceAccounts, ServiceAccount, "organization_id")


async def delete_member(session: WriteSession, scope: Scope, member_id: str) -> None:
    """Remove a membership."""
    await session.change(
        delete(Members).where(Members.id == member_id, scope.where(Members.organization_id))
    )
