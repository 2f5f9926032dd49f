"""Whether a principal may do an operation on something; the answer is a value, not an exception."""

from penstock.access.errors import OPERATION_DENIED
from penstock.access.matrix import is_allowed
from penstock.access.model import KeyScope, Principal
from penstock.kit.errors import Refusal
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.scope import Scope

_ORGANIZATION_READS = frozenset(
    {"organizations:get", "organizations:list", "providers:list", "aliases:list", "aliases:get"}
)
"""What somebody of a single project may see beyond it."""
_ALSO_OPENED_BY = {
    "usage:read": frozenset({KeyScope.USAGE_READ}),
    "requests:read": frozenset({KeyScope.USAGE_READ}),
    "costs:read": frozenset({KeyScope.COSTS_READ}),
    "usage:export": frozenset({KeyScope.USAGE_READ, KeyScope.COSTS_READ}),
}
"""Scopes besides `admin`, of which any will do; which rows are exported is asked for by itself."""
ADMIN_API_SCOPES = frozenset({KeyScope.ADMIN}).union(*_ALSO_OPENED_BY.values())
"""A key without any of these opens nothing of the admin API."""


def scope_of(principal: Principal) -> Scope:
    """Return whose data a principal's sessions are opened for."""
    if principal.organization_id is None:
        return Scope.all_organizations()
    return Scope.of(principal.organization_id)


def find_refusal(
    principal: Principal,
    operation: str,
    *,
    organization_id: str | None = None,
    project_id: str | None = None,
    is_platform_object: bool = False,
) -> Refusal | None:
    """Return why a principal may not do an operation, or None when it may.

    Args:
        principal: Who asks.
        operation: A name of `access.matrix`; one that is not there is denied.
        organization_id: Whose object it is about; None for a listing of what the principal's
            own session shows.
        project_id: Of which project it is, or which one a listing is narrowed to. Somebody of a
            single project is denied almost everything without one.
        is_platform_object: Whether it is about something that belongs to no organization.

    Returns:
        `OBJECT_UNKNOWN` when the object is another organization's or project's: whoever has no
        business there does not learn that it exists. `OPERATION_DENIED` when the role says no.
    """
    opening = {KeyScope.ADMIN} | _ALSO_OPENED_BY.get(operation, frozenset())
    if not opening & principal.scopes:
        return Refusal(OPERATION_DENIED, "This key has not the scope that this needs.")
    if principal.organization_id is not None and organization_id not in {
        None,
        principal.organization_id,
    }:
        return Refusal(OBJECT_UNKNOWN)
    if is_platform_object and principal.organization_id is not None:
        return Refusal(OPERATION_DENIED)
    if principal.project_id is not None and project_id not in {None, principal.project_id}:
        return Refusal(OBJECT_UNKNOWN)
    if not is_allowed(principal.roles, operation):
        return Refusal(OPERATION_DENIED)
    is_beyond = principal.project_id is not None and project_id is None
    if is_beyond and operation not in _ORGANIZATION_READS:
        return Refusal(OPERATION_DENIED, "Your role is for one project only.")
    return None
