"""Who may do what: one table of operations and roles. What is not in it, nobody may.

A dot is a no. The letters of a row are, in this order:

- `P` platform_admin: the operator of the platform, in all organizations
- `O` org_owner, `A` org_admin: everything in their organization; owners name owners
- `B` billing_admin: what was used and what it costs
- `J` project_admin: everything in their project
- `D` developer: keys of their project for themselves
- `I` inference_only: call models, nothing else
- `U` auditor: read everything in their organization, change nothing
"""

from collections.abc import Iterable, Mapping

from penstock.tenancy.model import Role

_COLUMNS = "POABJDIU"
_ROLES = dict(
    zip(
        _COLUMNS,
        (
            Role.PLATFORM_ADMIN,
            Role.ORG_OWNER,
            Role.ORG_ADMIN,
            Role.BILLING_ADMIN,
            Role.PROJECT_ADMIN,
            Role.DEVELOPER,
            Role.INFERENCE_ONLY,
            Role.AUDITOR,
        ),
        strict=True,
    )
)

_TABLE = {
    # the platform
    "platform:apply": "P.......",
    "platform:export": "P.......",
    "nodes:list": "P.......",
    "snapshots:read": "P.......",
    "peppers:read": "P.......",
    # what is to be told
    "notices:list": "POAB...U",
    # organizations
    "organizations:create": "P.......",
    "organizations:list": "POABJD.U",
    "organizations:get": "POABJD.U",
    "organizations:update": "POA.....",
    "organizations:suspend": "P.......",
    "organizations:resume": "P.......",
    "organizations:archive": "P.......",
    # projects
    "projects:create": "POA.....",
    "projects:list": "POABJD.U",
    "projects:get": "POABJD.U",
    "projects:update": "POA.J...",
    "projects:archive": "POA.....",
    # members and service accounts
    "members:add": "POA.J...",
    "members:list": "POA.J..U",
    "members:get": "POA.J..U",
    "members:update": "POA.J...",
    "members:remove": "POA.J...",
    "service_accounts:create": "POA.J...",
    "service_accounts:list": "POA.JD.U",
    "service_accounts:get": "POA.JD.U",
    "service_accounts:update": "POA.J...",
    # API keys
    "keys:create": "POA.JD..",
    "keys:list": "POA.JD.U",
    "keys:get": "POA.JD.U",
    "keys:update": "POA.JD..",
    "keys:disable": "POA.JD..",
    "keys:enable": "POA.JD..",
    "keys:revoke": "POA.JD..",
    "keys:rotate": "POA.JD..",
    "key_secrets:list": "POA.JD.U",
    "key_secrets:revoke": "POA.JD..",
    # the data plane: the one row that is no operation of the admin API
    "inference:invoke": "POA.JDI.",
    # catalog
    "providers:list": "POA.JD.U",
    "upstreams:create": "P.......",
    "upstreams:list": "P.......",
    "upstreams:get": "P.......",
    "upstreams:update": "P.......",
    "upstreams:delete": "P.......",
    "engines:operate": "P.......",
    "engines:list_operations": "P.......",
    "engines:get_operation": "P.......",
    "registration_tokens:create": "P.......",
    "registration_tokens:list": "P.......",
    "registration_tokens:get": "P.......",
    "registration_tokens:delete": "P.......",
    "registrations:list": "P.......",
    "deployments:create": "P.......",
    "deployments:list": "P.......",
    "deployments:get": "P.......",
    "deployments:update": "P.......",
    "deployments:delete": "P.......",
    "routes:create": "P.......",
    "routes:list": "P.......",
    "routes:get": "P.......",
    "routes:update": "P.......",
    "routes:delete": "P.......",
    "aliases:create": "P.......",
    "aliases:list": "POA.JD.U",
    "aliases:get": "POA.JD.U",
    "aliases:update": "P.......",
    "aliases:delete": "P.......",
    "grants:create": "P.......",
    "grants:list": "POA.J..U",
    "grants:get": "POA.J..U",
    "grants:delete": "P.......",
    "credentials:create": "POA.....",
    "credentials:list": "POA....U",
    "credentials:get": "POA....U",
    "credentials:update": "POA.....",
    "credentials:delete": "POA.....",
    "credentials:rewrap": "P.......",
    "credentials:rotate": "POA.....",
    # limits; an organization never changes its own, nor a project's administrator the project's
    "plans:create": "P.......",
    "plans:list": "P.......",
    "plans:get": "P.......",
    "plans:update": "P.......",
    "plans:delete": "P.......",
    "limits:create": "POA.J...",
    "limits:list": "POABJD.U",
    "limits:get": "POABJD.U",
    "limits:update": "POA.J...",
    "limits:delete": "POA.J...",
    "limits:read_use": "POABJD.U",
    # money; as with limits
    "price_books:create": "P.......",
    "price_books:list": "P.......",
    "price_books:get": "P.......",
    "price_books:simulate": "P.......",
    "price_runs:create": "P.......",
    "price_runs:list": "P.......",
    "price_runs:get": "P.......",
    "price_runs:step": "P.......",
    "usage_corrections:create": "P.......",
    "usage_corrections:list": "POAB...U",
    "prices:create": "P.......",
    "prices:import": "P.......",
    "prices:list": "P.......",
    "prices:get": "P.......",
    "prices:delete": "P.......",
    "budgets:create": "POA.J...",
    "budgets:list": "POABJD.U",
    "budgets:get": "POABJD.U",
    "budgets:update": "POA.J...",
    "budgets:delete": "POA.J...",
    "holds:list": "POABJD.U",
    # the books: an organization reads its own, the platform writes them
    "terms:set": "P.......",
    "terms:get": "POAB...U",
    "topups:create": "P.......",
    "credits:create": "P.......",
    "credits:list": "POAB...U",
    "credits:get": "POAB...U",
    "balances:read": "POAB...U",
    "statements:read": "POAB...U",
    "ledger:verify": "P.......",
    "billing_issuer:get": "P.......",
    "billing_issuer:set": "P.......",
    "billing_recipients:get": "POAB...U",
    "billing_recipients:set": "P.......",
    "invoices:create": "P.......",
    "invoices:list": "POAB...U",
    "invoices:get": "POAB...U",
    "invoices:finalize": "P.......",
    "invoices:void": "P.......",
    "invoices:pay": "P.......",
    # what happened
    "usage:read": "POABJD.U",
    "requests:read": "POABJD.U",
    "reconciliation:read": "P.......",
    "reconciliation:compare": "P.......",
    "usage:export": "POABJD.U",
    "costs:read": "POABJD.U",
    "audit:read": "POA....U",
    "audit:verify": "POA....U",
}


def _parse(table: Mapping[str, str]) -> dict[str, frozenset[Role]]:
    matrix = {}
    for operation, row in table.items():
        is_aligned = len(row) == len(_COLUMNS) and all(
            letter in {".", column} for letter, column in zip(row, _COLUMNS, strict=False)
        )
        if not is_aligned:
            message = f"the row of {operation} is not in columns: {row}"
            raise ValueError(message)
        matrix[operation] = frozenset(_ROLES[letter] for letter in row if letter != ".")
    return matrix


MATRIX: Mapping[str, frozenset[Role]] = _parse(_TABLE)
"""The roles that may do an operation."""

_OWNERS = frozenset({Role.ORG_OWNER, Role.PLATFORM_ADMIN})


def is_allowed(roles: Iterable[str], operation: str) -> bool:
    """Return whether a principal with these roles may do an operation.

    All of them must allow it: a key can do no more than the account that it belongs to. Without
    any role, and for an operation or role that the table does not have, the answer is no.
    """
    names = list(roles)
    allowed = MATRIX.get(operation, frozenset())
    return bool(names) and all(name in allowed for name in names)


def operations_of(role: str) -> frozenset[str]:
    """Return what a role may do; nothing for one that the table does not have."""
    return frozenset(operation for operation, roles in MATRIX.items() if role in roles)


def may_grant(roles: Iterable[str], role: str) -> bool:
    """Return whether a principal with these roles may give a role to somebody or something.

    Nobody gives more than they have, and only owners make owners.
    """
    names = list(roles)
    if not names or not {role, *names} <= set(Role):
        return False
    if role in _OWNERS and not all(name in _OWNERS for name in names):
        return False
    return all(operations_of(role) <= operations_of(name) for name in names)
