"""Every SQL statement about accounts, transfers and grants, each within a scope.

Whoever locks grants of several organizations does so in one statement, in the order of
organizations and ids. So none waits for another in a circle.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    bindparam,
    delete,
    or_,
    select,
    tuple_,
    update,
)

from penstock.ledger.model import Account, Draft, Grant, Lot, Mode, Taken
from penstock.ledger.rules import join_amount, split_amount
from penstock.ledger.tables import (
    BalanceSnapshots,
    BillingTerms,
    CreditGrants,
    Entries,
    LedgerAccounts,
    Transfers,
)
from penstock.storage.scope import Scope, within_scope
from penstock.storage.sessions import ReadSession, WriteSession

_TAKEN_ROWS = 200
"""How many entries are read at a time when something is given back."""


def _among(column: Any, name: str) -> ColumnElement[bool]:
    return column.in_(bindparam(name, expanding=True))  # type: ignore[no-any-return]  # a column's own method


# Built once: to build a statement costs several times what it costs to run it.
_FIND_TERMS = select(BillingTerms.organization_id, BillingTerms.currency, BillingTerms.mode).where(
    within_scope(BillingTerms.organization_id), _among(BillingTerms.organization_id, "owners")
)
_FIND_BOOKED = select(
    Transfers.organization_id, Transfers.kind, Transfers.idempotency_key, Transfers.id
).where(
    within_scope(Transfers.organization_id),
    _among(Transfers.organization_id, "owners"),
    _among(Transfers.kind, "kinds"),
    _among(Transfers.idempotency_key, "keys"),
)
_FIND_ACCOUNTS = select(LedgerAccounts.id).where(
    within_scope(LedgerAccounts.organization_id), _among(LedgerAccounts.id, "ids")
)
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
    "note",
)
_GRANTS: Select[Any] = select(*(getattr(CreditGrants, name) for name in _GRANT_NAMES))
IS_LEFT = or_(CreditGrants.remaining > 0, CreditGrants.remaining_rest > 0)
_LOCK_GRANTS = (
    _GRANTS.where(
        within_scope(CreditGrants.organization_id),
        _among(CreditGrants.organization_id, "owners"),
        or_(IS_LEFT, _among(CreditGrants.organization_id, "all_of")),
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
_FORGET_SNAPSHOTS = delete(BalanceSnapshots).where(
    within_scope(BalanceSnapshots.organization_id),
    _among(BalanceSnapshots.account_id, "ids"),
    BalanceSnapshots.at > bindparam("booked_at", type_=BalanceSnapshots.at.type),
)


async def find_terms(
    session: ReadSession, scope: Scope, organizations: Collection[str]
) -> dict[str, tuple[str, Mode]]:
    """Return currency and mode of the organizations that have terms of their own."""
    parameters = {"owners": sorted(organizations), **scope.parameters}
    rows = await session.rows(_FIND_TERMS, parameters)
    return {organization: (currency, mode) for organization, currency, mode in rows}  # type: ignore[misc]  # what the service wrote


async def find_booked(
    session: ReadSession,
    scope: Scope,
    organizations: Collection[str],
    kinds: Collection[str],
    keys: Collection[str],
) -> dict[tuple[str, str, str], str]:
    """Return the ids of transfers that are booked, by organization, kind and idempotency key."""
    parameters = {
        "owners": sorted(organizations),
        "kinds": sorted(kinds),
        "keys": sorted(keys),
        **scope.parameters,
    }
    rows = await session.rows(_FIND_BOOKED, parameters)
    return {(row[0], row[1], row[2]): row[3] for row in rows}


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
    grant_id, organization, currency, kind, priority, expires_at, *amounts, created_at, note = row
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
        note=note,
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
        "note": grant.note,
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


async def read_taken(
    session: ReadSession,
    scope: Scope,
    accounts: Collection[Account],
    reverses: str | None,
) -> AsyncIterator[list[Taken]]:
    """Yield what charges took from accounts and gave back to them, in parts, the newest first.

    Args:
        session: Where from.
        scope: Whose.
        accounts: Of one organization and currency.
        reverses: Only this transfer, and those that took back parts of it.
    """
    order = (Transfers.recorded_at, Transfers.id, Entries.line)
    owner, *_ = {account.organization for account in accounts}
    conditions = [
        scope.where(Transfers.organization_id),
        Transfers.organization_id == owner,
        Transfers.kind == "charge",
        Entries.account_id.in_([account.id for account in accounts]),
    ]
    if reverses is not None:
        conditions.append(or_(Transfers.id == reverses, Transfers.reverses_id == reverses))
    columns: tuple[Any, ...] = (
        Entries.account_id,
        Entries.grant_id,
        Entries.amount,
        Entries.amount_rest,
    )
    statement: Select[Any] = (
        select(*order, *columns)
        .join(Entries, Entries.transfer_id == Transfers.id)
        .order_by(*(column.desc() for column in order))
        .limit(_TAKEN_ROWS)
    )
    after: tuple[Any, ...] | None = None
    types = tuple(column.type for column in order)
    while True:
        behind = [] if after is None else [tuple_(*order) < tuple_(*after, types=types)]
        rows: Sequence[Any] = await session.rows(statement.where(*conditions, *behind))
        yield [Taken(Lot(row[3], row[4]), join_amount(row[5], row[6])) for row in rows]
        if len(rows) < _TAKEN_ROWS:
            return
        after = rows[-1][:3]


async def add_accounts(session: WriteSession, scope: Scope, accounts: Iterable[Account]) -> None:
    """Store the accounts that are not there."""
    wanted = {account.id: account for account in accounts}
    scope.require(account.organization for account in wanted.values())
    found = await session.rows(_FIND_ACCOUNTS, {"ids": sorted(wanted), **scope.parameters})
    missing = wanted.keys() - {account_id for (account_id,) in found}
    rows = [
        {
            "id": wanted[account_id].id,
            "organization_id": wanted[account_id].organization,
            "kind": wanted[account_id].kind,
            "currency": wanted[account_id].currency,
            "qualifier": wanted[account_id].qualifier,
        }
        for account_id in sorted(missing)
    ]
    await session.insert_new(LedgerAccounts, rows, LedgerAccounts.id)


async def insert_transfers(
    session: WriteSession, scope: Scope, drafts: Sequence[Draft], recorded_at_us: int
) -> None:
    """Book transfers: their entries first, then what seals them.

    Snapshots of balances that they change go.

    Raises:
        RowConflictError: One is booked already, or the rules of the books stand against it.
    """
    if not drafts:
        return
    scope.require(draft.organization for draft in drafts)
    accounts = {line.account.id: line.account for draft in drafts for line in draft.lines}
    await add_accounts(session, scope, accounts.values())
    await session.insert(Entries, *(row for draft in drafts for row in _entry_rows(draft)))
    await session.insert(Transfers, *(_transfer_row(draft, recorded_at_us) for draft in drafts))
    # After the entries: they keep others from making snapshots of these accounts meanwhile.
    earliest = min(draft.booked_at_us for draft in drafts)
    parameters = {"ids": sorted(accounts), "booked_at": earliest, **scope.parameters}
    await session.change(_FORGET_SNAPSHOTS, parameters)


def _entry_rows(draft: Draft) -> Iterable[dict[str, Any]]:
    for place, line in enumerate(draft.lines, 1):
        amount, rest = split_amount(line.amount_atto)
        yield {
            "transfer_id": draft.id,
            "line": place,
            "lines": len(draft.lines),
            "organization_id": draft.organization,
            "currency": draft.currency,
            "booked_at": draft.booked_at_us,
            "account_id": line.account.id,
            "amount": amount,
            "amount_rest": rest,
            "grant_id": line.grant_id,
        }


def _transfer_row(draft: Draft, recorded_at_us: int) -> dict[str, Any]:
    return {
        "id": draft.id,
        "organization_id": draft.organization,
        "kind": draft.kind,
        "idempotency_key": draft.idempotency_key,
        "currency": draft.currency,
        "booked_at": draft.booked_at_us,
        "recorded_at": recorded_at_us,
        "reverses_id": draft.reverses_id,
        "lines": len(draft.lines),
    }
