"""Every SQL statement that adds up entries, each within a scope. Sums are exact."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Select, and_, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute

from penstock.ledger.model import Account, ModelCharge
from penstock.ledger.rules import account_of
from penstock.ledger.tables import BalanceSnapshots, Entries, LedgerAccounts, Transfers
from penstock.limits.prices import join_amount, split_amount
from penstock.rating.tables import ChargeDays
from penstock.storage.bulk import MAX_SUM
from penstock.storage.exact_sums import exact_sum, join_halves
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession


def sums_of(
    amount: InstrumentedAttribute[int],
    rest: InstrumentedAttribute[int],
    high: InstrumentedAttribute[int] | None = None,
) -> tuple[Any, Any, Any]:
    """Return what adds up amounts that have two columns, or three, for `total_of`."""
    return *exact_sum(amount, high), func.sum(rest)


SUMS = sums_of(Entries.amount, Entries.amount_rest)


def total_of(high: Any, low: Any, rest: Any) -> int:
    """Return what `sums_of` came to, in atto-units; 0 of no rows."""
    return join_amount(join_halves((high, low))[0], int(rest or 0))


async def list_accounts(session: ReadSession, scope: Scope, organization: str) -> list[Account]:
    """Return the accounts of an organization."""
    statement = select(
        LedgerAccounts.kind, LedgerAccounts.currency, LedgerAccounts.qualifier
    ).where(
        scope.where(LedgerAccounts.organization_id), LedgerAccounts.organization_id == organization
    )
    rows: Iterable[Any] = await session.rows(statement)
    return [account_of(organization, *row) for row in rows]


async def list_ids(
    session: ReadSession, scope: Scope, after: str, limit: int
) -> list[tuple[str, str]]:
    """Return ids and organizations of accounts behind an id, in their order."""
    statement = (
        select(LedgerAccounts.id, LedgerAccounts.organization_id)
        .where(scope.where(LedgerAccounts.organization_id), LedgerAccounts.id > after)
        .order_by(LedgerAccounts.id)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in await session.rows(statement)]


async def sum_account(session: ReadSession, scope: Scope, account_id: str, before_us: int) -> int:
    """Return what the entries of an account add up to that were booked before a moment."""
    since_us, start = await _find_snapshot(session, scope, account_id, before_us)
    statement = select(*SUMS).where(
        scope.where(Entries.organization_id),
        *_booked(account_id, since_us, before_us),
    )
    row = await session.first(statement)
    return start + (0 if row is None else total_of(*row))


async def _find_snapshot(
    session: ReadSession, scope: Scope, account_id: str, before_us: int
) -> tuple[int | None, int]:
    statement = (
        select(BalanceSnapshots.at, BalanceSnapshots.amount, BalanceSnapshots.amount_rest)
        .where(
            scope.where(BalanceSnapshots.organization_id),
            BalanceSnapshots.account_id == account_id,
            BalanceSnapshots.at <= before_us,
        )
        .order_by(BalanceSnapshots.at.desc())
        .limit(1)
    )
    found = await session.first(statement)
    return (None, 0) if found is None else (found[0], join_amount(found[1], found[2]))


def _booked(account_id: str, since_us: int | None, before_us: int) -> list[Any]:
    conditions = [Entries.account_id == account_id, Entries.booked_at < before_us]
    return conditions if since_us is None else [*conditions, Entries.booked_at >= since_us]


async def is_busy(
    session: ReadSession, scope: Scope, account_id: str, at_us: int, least: int
) -> bool:
    """Return whether so many entries of an account lie between its last snapshot and a moment."""
    since_us, _ = await _find_snapshot(session, scope, account_id, at_us)
    some = (
        select(literal(1))
        .where(scope.where(Entries.organization_id), *_booked(account_id, since_us, at_us))
        .limit(least)
        .subquery()
    )
    row = await session.first(select(func.count()).select_from(some))
    return row is not None and row[0] >= least


async def make_snapshot(
    session: WriteSession, scope: Scope, account_id: str, organization: str, at_us: int
) -> None:
    """Store what an account's entries that were booked before a moment add up to.

    Whoever books on the account has its row locked by a foreign key: they are waited for, and wait.
    """
    lock = select(LedgerAccounts.id).where(
        scope.where(LedgerAccounts.organization_id), LedgerAccounts.id == account_id
    )
    await session.rows(lock.with_for_update())
    amount, rest = split_amount(await sum_account(session, scope, account_id, at_us))
    row = {
        "account_id": account_id,
        "at": at_us,
        "organization_id": organization,
        "amount": amount,
        "amount_rest": rest,
    }
    if abs(amount) <= MAX_SUM:  # as much as the column holds
        await session.insert_new(BalanceSnapshots, [row], BalanceSnapshots.account_id)


async def sum_kinds(
    session: ReadSession,
    scope: Scope,
    accounts: Collection[Account],
    since_us: int,
    before_us: int,
) -> dict[str, int]:
    """Return what entries of accounts add up to, by the kind of their transfers."""
    statement: Select[Any] = (
        select(Transfers.kind, *SUMS)
        .join(Transfers, Transfers.id == Entries.transfer_id)
        .where(
            scope.where(Entries.organization_id),
            Entries.account_id.in_([account.id for account in accounts]),
            Entries.booked_at >= since_us,
            Entries.booked_at < before_us,
        )
        .group_by(Transfers.kind)
    )
    rows: Sequence[Any] = await session.rows(statement)
    return {kind: total_of(*sums) for kind, *sums in rows}


async def sum_signs(
    session: ReadSession, scope: Scope, account: Account, since_us: int, before_us: int
) -> tuple[int, int]:
    """Return what the entries of an account below 0, and the others, add up to."""
    is_credit = Entries.amount < 0
    statement: Select[Any] = (
        select(is_credit, *SUMS)
        .where(
            scope.where(Entries.organization_id),
            and_(*_booked(account.id, since_us, before_us)),
        )
        .group_by(is_credit)
    )
    rows: Sequence[Any] = await session.rows(statement)
    found = {bool(sign): total_of(*sums) for sign, *sums in rows}
    return found.get(True, 0), found.get(False, 0)


async def sum_models(
    session: ReadSession, scope: Scope, account: Account, since_us: int, before_us: int
) -> list[ModelCharge]:
    """Return what usage of days was charged by model, by the time of use.

    Args:
        session: Where from.
        scope: Whose.
        account: Of the organization and currency.
        since_us: Begin of the first day.
        before_us: End of the last one.
    """
    statement: Select[Any] = (
        select(
            ChargeDays.model,
            *sums_of(ChargeDays.amount, ChargeDays.amount_rest, ChargeDays.amount_high),
        )
        .where(
            scope.where(ChargeDays.organization),
            ChargeDays.organization == account.organization,
            ChargeDays.currency == account.currency,
            ChargeDays.kind == "charge",
            ChargeDays.at >= since_us,
            ChargeDays.at < before_us,
        )
        .group_by(ChargeDays.model)
        .order_by(ChargeDays.model)
    )
    rows: Sequence[Any] = await session.rows(statement)
    return [ModelCharge(model, total_of(*sums)) for model, *sums in rows]
