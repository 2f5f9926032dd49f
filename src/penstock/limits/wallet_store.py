"""Every SQL statement about wallets alone, each within a scope; see `budget_store` for the rest."""

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, func, select

from penstock.limits.budget_model import Budget
from penstock.limits.budget_store import budgets
from penstock.limits.budget_tables import Budgets, WalletOverdrafts
from penstock.limits.prices import join_amount, split_large
from penstock.limits.wallet_model import Cause, Overdraft
from penstock.storage.exact_sums import exact_sum, join_halves
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession


async def list_wallets(
    session: ReadSession, scope: Scope, organizations: Collection[str]
) -> Sequence[Budget]:
    """Return the wallets of organizations."""
    return await budgets.list_by_id(session, scope, *_is_wallet_of(organizations))


async def lock_wallets(
    session: WriteSession, scope: Scope, organizations: Collection[str]
) -> Sequence[Budget]:
    """Return the wallets of organizations, and let nobody remove them before the end."""
    return await budgets.share(session, scope, *_is_wallet_of(organizations))


def _is_wallet_of(organizations: Collection[str]) -> tuple[ColumnElement[bool], ...]:
    return (
        Budgets.is_wallet.is_(True),
        # An index knows owners of this kind.
        Budgets.owner_kind == "organization",
        Budgets.organization_id.in_(organizations),
    )


async def insert_overdrafts(
    session: WriteSession, scope: Scope, overdrafts: Sequence[Overdraft], recorded_at_us: int
) -> None:
    """Store what was taken from wallets beyond what was free in them."""
    scope.require(one.organization_id for one in overdrafts)
    rows = []
    for one in overdrafts:
        high, amount, rest = split_large(one.amount_atto)
        rows.append(
            {
                "organization_id": one.organization_id,
                "source": one.source,
                "cause": one.cause,
                "currency": one.currency,
                "amount_high": high,
                "amount": amount,
                "amount_rest": rest,
                "recorded_at": recorded_at_us,
            }
        )
    await session.insert_new(WalletOverdrafts, rows, WalletOverdrafts.source)


async def sum_overdrafts(
    session: ReadSession, scope: Scope, organization: str, since_us: int, before_us: int
) -> dict[str, dict[Cause, int]]:
    """Return what was taken from wallets beyond what was free, by currency and cause."""
    statement = (
        select(
            WalletOverdrafts.currency,
            WalletOverdrafts.cause,
            *exact_sum(WalletOverdrafts.amount, WalletOverdrafts.amount_high),
            func.sum(WalletOverdrafts.amount_rest),
        )
        .where(
            scope.where(WalletOverdrafts.organization_id),
            WalletOverdrafts.organization_id == organization,
            WalletOverdrafts.recorded_at >= since_us,
            WalletOverdrafts.recorded_at < before_us,
        )
        .group_by(WalletOverdrafts.currency, WalletOverdrafts.cause)
        .order_by(WalletOverdrafts.currency, WalletOverdrafts.cause)
    )
    found: dict[str, dict[Cause, int]] = {}
    for currency, cause, *halves, rest in await session.rows(statement):
        amount_atto = join_amount(join_halves(halves)[0], int(rest))
        found.setdefault(currency, {})[cause] = amount_atto  # type: ignore[index]  # what `wallets` wrote
    return found
