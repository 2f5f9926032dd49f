"""Whom limits and budgets are for: finding them, and who may limit them."""

from collections.abc import Mapping

from penstock.access import store as access_store
from penstock.access.errors import OPERATION_DENIED
from penstock.audit.door import Call
from penstock.kit.errors import PenstockError
from penstock.limits.errors import LIMITS_INVALID
from penstock.limits.model import Owner
from penstock.storage.sessions import ReadSession
from penstock.tenancy import store as tenancy_store
from penstock.tenancy.rules import require_not_archived

OWNER_IDS = ("organization_id", "project_id", "key_id", "member_id", "service_account_id")


async def find_owner(session: ReadSession, named: Mapping[str, str | None]) -> Owner:
    """Return whom a request names, who must be there.

    Args:
        session: Whose organization they are of.
        named: Of `OWNER_IDS` exactly one.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`; `LIMITS_INVALID` when it names nobody, or several.
    """
    given = [(name, named[name]) for name in OWNER_IDS if named.get(name) is not None]
    if len(given) != 1:
        listed = ", ".join(f"`{name}`" for name in OWNER_IDS)
        raise PenstockError(LIMITS_INVALID, f"Name exactly one of {listed}.")
    name, owner_id = given[0]
    scope = session.scope
    match name:
        case "organization_id":
            organization = await tenancy_store.organizations.get(session, scope, str(owner_id))
            return Owner(owner_kind="organization", organization_id=organization.id)
        case "project_id":
            project = await tenancy_store.projects.get(session, scope, str(owner_id))
            return Owner(
                owner_kind="project",
                organization_id=project.organization_id,
                project_id=project.id,
            )
        case "key_id":
            key = await access_store.keys.get(session, scope, str(owner_id))
            return Owner(
                owner_kind="key",
                organization_id=key.organization_id,
                project_id=key.project_id,
                key_id=key.id,
            )
        case "member_id":
            member = await tenancy_store.members.get(session, scope, str(owner_id))
            return Owner(
                owner_kind="member",
                organization_id=member.organization_id,
                project_id=member.project_id,
                member_id=member.id,
            )
    account = await tenancy_store.service_accounts.get(session, scope, str(owner_id))
    return Owner(
        owner_kind="member",
        organization_id=account.organization_id,
        project_id=account.project_id,
        service_account_id=account.id,
    )


async def require_changeable(session: ReadSession, owner: Owner) -> None:
    """Check that neither the organization of an owner nor its project is archived.

    Raises:
        PenstockError: `STATUS_CONFLICT`, `OBJECT_UNKNOWN`.
    """
    scope = session.scope
    organization = await tenancy_store.organizations.get(session, scope, owner.organization_id)
    require_not_archived(organization.status)
    if owner.project_id is not None:
        project = await tenancy_store.projects.get(session, scope, owner.project_id)
        require_not_archived(project.status)


def require_above(call: Call, owner: Owner) -> None:
    """Check that a caller may limit somebody: what is inside of where the caller is, never that.

    So an organization divides what it has among its projects, keys and members, and the platform
    says what it has.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` for what is another's, `OPERATION_DENIED`.
    """
    call.check(organization_id=owner.organization_id, project_id=owner.project_id)
    own = {"organization": call.organization_id, "project": call.project_id}
    if own.get(owner.owner_kind) is not None:
        raise PenstockError(OPERATION_DENIED, f"It limits the {owner.owner_kind} that you are in.")
