"""Every SQL statement about accounts, transfers and entries, each within a scope.

Whoever locks grants of several organizations does so in one statement, in the order of
organizations and ids. So none waits for another in a circle.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import (
    Select,
    bindparam,
    delete,
    or_,
    select,
    tuple_,
)

from penstock.ledger.credit_store import among
from penstock.ledger.model import Account, Draft, Line, Lot, Taken
from penstock.ledger.rules import account_of
from penstock.ledger.tables import (
    BalanceSnapshots,
    Entries,
    LedgerAccounts,
    Transfers,
)
from penstock.limits.prices import join_amount, split_amount
from penstock.storage.bulk import Bulk, Values
from penstock.storage.scope import Scope, within_scope
from penstock.storage.sessions import ReadSession, WriteSession

_TAKEN_ROWS = 200
"""How many entries are read at a time when something is given back."""


_ENTRIES = Bulk(
    Entries,
    (
        "transfer_id",
        "line",
        "lines",
        "organization_id",
        "currency",
        "booked_at",
        "account_id",
        "amount",
        "amount_rest",
        "grant_id",
    ),
)
_TRANSFERS = Bulk(
    Transfers,
    (
        "id",
        "organization_id",
        "kind",
        "idempotency_key",
        "currency",
        "booked_at",
        "recorded_at",
        "reverses_id",
        "lines",
    ),
)
# Built once: to build a statement costs several times what it costs to run it.
_FIND_BOOKED = select(
    Transfers.organization_id, Transfers.kind, Transfers.idempotency_key, Transfers.id
).where(
    within_scope(Transfers.organization_id),
    among(Transfers.organization_id, "owners"),
    among(Transfers.kind, "kinds"),
    among(Transfers.idempotency_key, "keys"),
)
_FIND_ACCOUNTS = select(LedgerAccounts.id).where(
    within_scope(LedgerAccounts.organization_id), among(LedgerAccounts.id, "ids")
)
_FORGET_SNAPSHOTS = delete(BalanceSnapshots).where(
    within_scope(BalanceSnapshots.organization_id),
    among(BalanceSnapshots.account_id, "ids"),
    BalanceSnapshots.at > bindparam("booked_at", type_=BalanceSnapshots.at.type),
)


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


async def read_lines(session: ReadSession, scope: Scope, transfer_id: str) -> list[Line]:
    """Return the lines of a transfer, in their order."""
    statement: Any = (
        select(
            Entries.organization_id,
            LedgerAccounts.kind,
            Entries.currency,
            LedgerAccounts.qualifier,
            Entries.amount,
            Entries.amount_rest,
        )
        .join(LedgerAccounts, LedgerAccounts.id == Entries.account_id)
        .where(scope.where(Entries.organization_id), Entries.transfer_id == transfer_id)
        .order_by(Entries.line)
    )
    rows: Sequence[Any] = await session.rows(statement)
    return [Line(account_of(*row[:4]), join_amount(*row[4:])) for row in rows]


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


async def lock_accounts(session: WriteSession, scope: Scope, accounts: Collection[Account]) -> None:
    """Store accounts that are not there, and keep others from booking on all of them."""
    await add_accounts(session, scope, accounts)
    lock = select(LedgerAccounts.id).where(
        scope.where(LedgerAccounts.organization_id),
        LedgerAccounts.id.in_([account.id for account in accounts]),
    )
    await session.rows(lock.order_by(LedgerAccounts.id).with_for_update())


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
    # In the order in which others lock accounts: each entry locks its own by a foreign key.
    entries = sorted((row for draft in drafts for row in _entry_rows(draft)), key=_account_of)
    await session.insert_many(_ENTRIES, entries)
    transfers = [_transfer_row(draft, recorded_at_us) for draft in drafts]
    await session.insert_many(_TRANSFERS, transfers)
    # After the entries: they keep others from making snapshots of these accounts meanwhile.
    earliest = min(draft.booked_at_us for draft in drafts)
    parameters = {"ids": sorted(accounts), "booked_at": earliest, **scope.parameters}
    await session.change(_FORGET_SNAPSHOTS, parameters)


def _account_of(entry: Values) -> str:
    return str(entry[_ENTRIES.names.index("account_id")])


def _entry_rows(draft: Draft) -> Iterable[Values]:
    for place, line in enumerate(draft.lines, 1):
        yield (
            draft.id,
            place,
            len(draft.lines),
            draft.organization,
            draft.currency,
            draft.booked_at_us,
            line.account.id,
            *split_amount(line.amount_atto),
            line.grant_id,
        )


def _transfer_row(draft: Draft, recorded_at_us: int) -> Values:
    return (
        draft.id,
        draft.organization,
        draft.kind,
        draft.idempotency_key,
        draft.currency,
        draft.booked_at_us,
        recorded_at_us,
        draft.reverses_id,
        len(draft.lines),
    )
