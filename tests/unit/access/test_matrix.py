"""Who may do what."""

import pytest

from penstock.access.authorization import find_refusal, scope_of
from penstock.access.errors import OPERATION_DENIED
from penstock.access.matrix import MATRIX, is_allowed, may_grant, operations_of
from penstock.access.model import KeyScope, Principal
from penstock.kit.errors import ErrorCode
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.scope import Scope
from penstock.tenancy.model import Role

READS = {"list", "get", "read", "read_use", "verify", "export"}


def _principal(
    role: str = Role.ORG_ADMIN,
    *,
    organization_id: str | None = "org_a",
    project_id: str | None = None,
    scopes: frozenset[str] = frozenset({KeyScope.ADMIN}),
) -> Principal:
    return Principal(
        kind="api_key",
        id="key",
        roles=frozenset({role}),
        scopes=scopes,
        organization_id=organization_id,
        project_id=project_id,
    )


def _refusal(
    principal: Principal,
    operation: str,
    organization_id: str | None = None,
    project_id: str | None = None,
) -> ErrorCode | None:
    refusal = find_refusal(
        principal, operation, organization_id=organization_id, project_id=project_id
    )
    return None if refusal is None else refusal.error


def test_the_operator_may_do_everything() -> None:
    """Nothing of the table is closed to the operator of the platform."""
    assert operations_of(Role.PLATFORM_ADMIN) == MATRIX.keys()


def test_an_auditor_changes_nothing() -> None:
    """An auditor has operations that read, and none else."""
    verbs = {operation.partition(":")[2] for operation in operations_of(Role.AUDITOR)}
    assert verbs <= READS


def test_inference_is_for_the_data_plane_alone() -> None:
    """A role for calling models may do that, and nothing of the admin API."""
    assert operations_of(Role.INFERENCE_ONLY) == {"inference:invoke"}
    assert Role.BILLING_ADMIN not in MATRIX["inference:invoke"]
    assert Role.AUDITOR not in MATRIX["inference:invoke"]


def test_roles_of_organizations_do_not_run_the_platform() -> None:
    """What belongs to the platform is the operator's alone."""
    for operation, roles in MATRIX.items():
        kind, _, verb = operation.partition(":")
        is_platform = kind in {"platform", "nodes", "snapshots", "upstreams", "routes", "peppers"}
        if is_platform or (kind == "organizations" and verb not in READS | {"update"}):
            assert roles == {Role.PLATFORM_ADMIN}, operation


@pytest.mark.parametrize(
    ("roles", "operation"),
    [
        ([], "keys:list"),
        ([Role.PLATFORM_ADMIN], "keys:frobnicate"),
        ([Role.PLATFORM_ADMIN], ""),
        (["root"], "keys:list"),
        ([""], "keys:list"),
        ([Role.ORG_OWNER, Role.INFERENCE_ONLY], "keys:list"),
        ([Role.ORG_OWNER, ""], "keys:list"),
    ],
)
def test_what_is_not_listed_is_denied(roles: list[str], operation: str) -> None:
    """Without a role, with an unknown one, or for an unknown operation, the answer is no."""
    assert not is_allowed(roles, operation)


def test_nobody_gives_more_than_they_have() -> None:
    """Whatever role somebody can give allows nothing that they may not do themselves."""
    for role in Role:
        for given in Role:
            if may_grant([role], given):
                assert operations_of(given) <= operations_of(role)
    assert not may_grant([], Role.INFERENCE_ONLY)
    assert not may_grant([Role.PLATFORM_ADMIN], "root")
    assert not may_grant(["root"], Role.INFERENCE_ONLY)
    assert not may_grant([Role.ORG_ADMIN], Role.ORG_OWNER)
    assert not may_grant([Role.ORG_OWNER], Role.PLATFORM_ADMIN)
    assert may_grant([Role.ORG_OWNER], Role.ORG_ADMIN)
    assert may_grant([Role.DEVELOPER], Role.INFERENCE_ONLY)
    assert not may_grant([Role.ORG_OWNER, Role.DEVELOPER], Role.PROJECT_ADMIN)


def test_a_key_without_the_scope_opens_nothing() -> None:
    """The admin API wants the admin scope, and usage that or its own."""
    inference = _principal(scopes=frozenset({KeyScope.INFERENCE}))
    assert _refusal(inference, "keys:list") is OPERATION_DENIED
    for scope, other in (
        (KeyScope.USAGE_READ, KeyScope.COSTS_READ),
        (KeyScope.COSTS_READ, KeyScope.USAGE_READ),
    ):
        reader = _principal(scopes=frozenset({scope}))
        assert _refusal(reader, scope) is None
        assert _refusal(reader, other) is OPERATION_DENIED
        assert _refusal(reader, "keys:list") is OPERATION_DENIED


def test_another_organization_is_not_there() -> None:
    """What is another organization's is answered like what does not exist."""
    principal = _principal()
    assert _refusal(principal, "keys:get", "org_a") is None
    assert _refusal(principal, "keys:get", "org_b") is OBJECT_UNKNOWN
    assert _refusal(_principal(Role.INFERENCE_ONLY), "keys:get", "org_b") is OBJECT_UNKNOWN
    assert scope_of(principal) == Scope.of("org_a")
    operator = Principal.of_admin_token()
    assert _refusal(operator, "keys:get", "org_b") is None
    assert scope_of(operator) == Scope.all_organizations()


def test_a_role_for_one_project_ends_there() -> None:
    """Somebody of a project sees neither other projects nor what is the whole organization's."""
    principal = _principal(Role.PROJECT_ADMIN, project_id="prj_a")
    assert _refusal(principal, "keys:create", "org_a", "prj_a") is None
    assert _refusal(principal, "keys:create", "org_a", "prj_b") is OBJECT_UNKNOWN
    assert _refusal(principal, "members:list", "org_a") is OPERATION_DENIED
    assert _refusal(principal, "members:list") is OPERATION_DENIED
    assert _refusal(principal, "organizations:get", "org_a") is None


def test_the_platforms_objects_are_the_operators() -> None:
    """An operation that organizations have on their own objects is denied on the platform's."""
    refusal = find_refusal(_principal(), "credentials:create", is_platform_object=True)
    assert refusal is not None
    assert refusal.error is OPERATION_DENIED
    operator = Principal.of_admin_token()
    assert find_refusal(operator, "credentials:create", is_platform_object=True) is None
