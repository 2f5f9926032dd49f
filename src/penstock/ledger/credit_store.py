"""Every SQL statement about terms, grants and top-ups, each within a scope."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, exists, or_, select, update

from penstock.ledger.model import Grant, Mode, Terms, TopUp
from penstock.ledger.tables import BillingTerms, CreditGrants, Entries, Transfers
from penstock.limits.budget_tables import Budgets
from penstock.limits.prices import join_amount, split_amount
from penstock.storage.paging import Page, PageRequest
from penstock.storage.scope import Scope, within_scope
from penstock.storage.sessions import ReadSession, WriteSession


def among(column: Any, name: str) -> ColumnElement[bool]:
    """Return the condition that a column has one of the values that a statement is run with."""
    return column.in_(bindparam(name, expanding=True))  # type: ignore[no-any-return]  # a column's own method


# Built once: to build a statement costs several times what it costs to run it.
_FIND_TERMS = select(BillingTerms.organization_id, BillingTerms.currency, BillingTerms.mode).where(
    within_scope(BillingTerms.organization_id), among(BillingTerms.organization_id, "owners")
)
_TERMS = {
    field.name: getattr(BillingTerms, field.name.removesuffix("_us"))
    for field in dataclasses.fields(Terms)
}
_GRANT_NAMES = (
    "id",
    "organization_id",
    "currency",
    "kind",
    "priority",
    "expires_at",
    "amount",
    "amount_rest",
    "remaining",
    "remaining_rest",
    "created_at",
    "name",
)
_GRANTS: Select[Any] = select(*(getattr(CreditGrants, name) for name in _GRANT_NAMES))
_IS_LEFT = or_(CreditGrants.remaining > 0, CreditGrants.remaining_rest > 0)
_LOCK_GRANTS = (
    _GRANTS.where(
        within_scope(CreditGrants.organization_id),
        among(CreditGrants.organization_id, "owners"),
        or_(_IS_LEFT, among(CreditGrants.organization_id, "all_of")),
    )
    .order_by(CreditGrants.organization_id, CreditGrants.id)
    # Entries, which point at them, may be stored meanwhile.
    .with_for_update(key_share=True)
)
_WRITE_GRANT = (
    update(CreditGrants)
    .where(within_scope(CreditGrants.organization_id), CreditGrants.id == bindparam("grant"))
    .values(remaining=bindparam("new_remaining"), remaining_rest=bindparam("new_rest"))
)


async def find_terms(
    session: ReadSession, scope: Scope, organizations: Collection[str]
) -> dict[str, tuple[str, Mode]]:
    """Return currency and mode of the organizations that have terms of their own."""
    parameters = {"owners": sorted(organizations), **scope.parameters}
    rows = await session.rows(_FIND_TERMS, parameters)
    return {organization: (currency, mode) for organization, currency, mode in rows}  # type: ignore[misc]  # what the service wrote


async def lock_grants(
    session: WriteSession,
    scope: Scope,
    organizations: Collection[str],
    *,
    all_of: Collection[str] = (),
) -> dict[str, Grant]:
    """Return grants by id, and keep others from using them.

    Args:
        session: Where from.
        scope: Whose.
        organizations: Those of which it is what has something left.
        all_of: Those of them of which it is every grant.
    """
    parameters = {
        "owners": sorted(organizations), "all_of": sorted(all_of), **scope.parameters
    }  # fmt: skip
    return {row[0]: _grant(row) for row in await session.rows(_LOCK_GRANTS, parameters)}


def _grant(row: Sequence[Any]) -> Grant:
    """Return the grant that a row of `_GRANTS` is."""
    grant_id, organization, currency, kind, priority, expires_at, *amounts, created_at, name = row
    return Grant(
        id=grant_id,
        organization=organization,
        currency=currency,
        kind=kind,
        priority=priority,
        expires_at_us=expires_at,
        amount_atto=join_amount(*amounts[:2]),
        remaining_atto=join_amount(*amounts[2:]),
        created_at_us=created_at,
        name=name,
    )


async def insert_grant(session: WriteSession, scope: Scope, grant: Grant) -> None:
    """Store a new grant.

    Raises:
        RowConflictError: It is there already.
    """
    scope.require([grant.organization])
    amount, rest = split_amount(grant.amount_atto)
    remaining, remaining_rest = split_amount(grant.remaining_atto)
    row = {
        "id": grant.id,
        "organization_id": grant.organization,
        "currency": grant.currency,
        "kind": grant.kind,
        "priority": grant.priority,
        "expires_at": grant.expires_at_us,
        "amount": amount,
        "amount_rest": rest,
        "remaining": remaining,
        "remaining_rest": remaining_rest,
        "created_at": grant.created_at_us,
        "name": grant.name,
    }
    await session.insert(CreditGrants, row)


async def write_grants(session: WriteSession, scope: Scope, left: Mapping[str, int]) -> None:
    """Store what remains of grants that are locked, by id."""
    rows = []
    for grant_id in sorted(left):
        remaining, rest = split_amount(left[grant_id])
        rows.append(
            {
                "grant": grant_id,
                "new_remaining": remaining,
                "new_rest": rest,
                **scope.parameters,
            }
        )
    await session.change_many(_WRITE_GRANT, rows)


async def find_whole_terms(session: ReadSession, scope: Scope, organization: str) -> Terms | None:
    """Return the terms of an organization, or None when it has none of its own."""
    found = await list_terms(session, scope, ids=[organization])
    return found[0] if found else None


async def list_terms(
    session: ReadSession,
    scope: Scope,
    *,
    ids: Collection[str] | None = None,
    after_id: str = "",
    limit: int | None = None,
) -> list[Terms]:
    """Return terms in order of their organizations' ids, of those organizations that have some.

    Args:
        session: Where from.
        scope: Whose.
        ids: Only of these.
        after_id: Behind this one.
        limit: So many at most.
    """
    conditions = [
        scope.where(BillingTerms.organization_id),
        BillingTerms.organization_id > after_id,
    ]
    if ids is not None:
        conditions.append(BillingTerms.organization_id.in_(ids))
    return await _list_terms(session, conditions, limit)


async def _list_terms(
    session: ReadSession, conditions: Collection[ColumnElement[bool]], limit: int | None
) -> list[Terms]:
    statement = (
        select(*_TERMS.values())
        .where(*conditions)
        .order_by(BillingTerms.organization_id)
        .limit(limit)
    )
    rows = await session.rows(statement)
    return [Terms(**dict(zip(_TERMS, row, strict=True))) for row in rows]


async def write_terms(session: WriteSession, scope: Scope, terms: Terms, *, is_new: bool) -> None:
    """Store the terms of an organization, in place of those that it has."""
    scope.require([terms.organization_id])
    values = {
        "currency": terms.currency,
        "mode": terms.mode,
        "unpriced": terms.unpriced,
        "version": terms.version,
        "updated_at": terms.updated_at_us,
    }
    if is_new:
        row = {"organization_id": terms.organization_id, "created_at": terms.created_at_us}
        await session.insert(BillingTerms, row | values)
        return
    statement = update(BillingTerms).where(
        scope.where(BillingTerms.organization_id),
        BillingTerms.organization_id == terms.organization_id,
    )
    await session.change(statement.values(**values))


async def list_without_wallet(session: ReadSession, scope: Scope, limit: int) -> list[Terms]:
    """Return terms of prepaid organizations whose wallets do not count."""
    has_wallet = exists().where(
        Budgets.is_wallet.is_(True),
        Budgets.organization_id == BillingTerms.organization_id,
        Budgets.currency == BillingTerms.currency,
    )
    conditions = (
        scope.where(BillingTerms.organization_id),
        BillingTerms.mode == "prepaid",
        ~has_wallet,
    )
    return await _list_terms(session, conditions, limit)


async def find_top_up(session: ReadSession, scope: Scope, transfer_id: str) -> TopUp | None:
    """Return the top-up that a transfer is, or None when there is none."""
    statement = (
        select(
            Transfers.organization_id,
            Transfers.currency,
            Transfers.idempotency_key,
            Transfers.booked_at,
            Entries.amount,
            Entries.amount_rest,
        )
        .join(Entries, Entries.transfer_id == Transfers.id)
        .where(
            scope.where(Transfers.organization_id),
            Transfers.id == transfer_id,
            Transfers.kind == "topup",
            Entries.line == 1,
        )
    )
    row = await session.first(statement)
    if row is None:
        return None
    return TopUp(
        id=transfer_id,
        organization_id=row[0],
        currency=row[1],
        amount_atto=join_amount(row[4], row[5]),
        reference=row[2],
        created_at_us=row[3],
    )


async def find_grant(session: ReadSession, scope: Scope, grant_id: str) -> Grant | None:
    """Return a grant, or None when there is none."""
    condition = (scope.where(CreditGrants.organization_id), CreditGrants.id == grant_id)
    row = await session.first(_GRANTS.where(*condition))
    return None if row is None else _grant(row)


async def list_grants(
    session: ReadSession, scope: Scope, page: PageRequest, organization: str | None
) -> Page[Grant]:
    """Return a page of grants, of one organization or of all in the scope, oldest first."""
    conditions = [scope.where(CreditGrants.organization_id)]
    if organization is not None:
        conditions.append(CreditGrants.organization_id == organization)
    order = (CreditGrants.created_at, CreditGrants.id)
    statement = _GRANTS.where(*conditions, *page.condition(*order)).order_by(*order)
    rows = await session.rows(statement.limit(page.limit + 1))
    return page.page([_grant(row) for row in rows])


async def list_ending(session: ReadSession, scope: Scope, organization: str) -> list[Grant]:
    """Return grants of an organization that have something left and an expiry, the next first."""
    statement = _GRANTS.where(
        scope.where(CreditGrants.organization_id),
        CreditGrants.organization_id == organization,
        CreditGrants.expires_at.is_not(None),
        _IS_LEFT,
    ).order_by(CreditGrants.expires_at)
    return [_grant(row) for row in await session.rows(statement)]


async def lock_expired(
    session: WriteSession, scope: Scope, before_us: int, limit: int
) -> list[Grant]:
    """Return grants that have something left and expired before a moment, and lock them.

    Those that somebody is using are left for another time.
    """
    statement = (
        _GRANTS.where(
            scope.where(CreditGrants.organization_id),
            _IS_LEFT,
            CreditGrants.expires_at <= before_us,
        )
        .order_by(CreditGrants.organization_id, CreditGrants.id)
        .limit(limit)
        .with_for_update(key_share=True, skip_locked=True)
    )
    return [_grant(row) for row in await session.rows(statement)]
