"""Wallets: what organizations paid ahead, as hard budgets that only the ledger fills and empties.

A wallet is a budget of an organization that nobody can change. Its one window has a balance: what
the ledger says is there, moved by each transfer in the transaction that books it. So it can be held
and spent as any other budget, and is never older than the books (ADR 31).

None commits.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping

from penstock.audit.model import Actor
from penstock.kit.base62 import create_id
from penstock.limits import budget_store, wallet_store
from penstock.limits.budget_model import Budget, BudgetWindow, WindowKey
from penstock.limits.budgets import insert_budget, remove_budget
from penstock.limits.prices import ATTO_IN_NANO
from penstock.limits.wallet_model import Cause, Overdraft, WalletMove
from penstock.storage.sessions import WriteSession


def window_of_wallet(wallet: Budget) -> WindowKey:
    """Return the one window of a wallet."""
    return WindowKey(wallet.id, "", 0)


async def open_wallet(session: WriteSession, actor: Actor, opening: WalletMove) -> None:
    """Have an organization spend no more than what is in its wallet from now on.

    Args:
        session: Where to. It keeps others from booking on the wallet's accounts.
        actor: Who does it.
        opening: All that the ledger says is in it by now.
    """
    wallet = Budget(
        organization_id=opening.organization_id,
        project_id=None,
        owner_kind="organization",
        key_id=None,
        member_id=None,
        service_account_id=None,
        id=create_id("bud"),
        currency=opening.currency,
        amount=0,
        period="once",
        time_zone="UTC",
        is_hard=True,
        is_wallet=True,
        per="",
        alias=None,
        alert_percentages=[],
        lowers_cap=True,
        when_away="spend_held",
        exhausted_status=429,
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )
    await insert_budget(session, actor, wallet)
    ends = {window_of_wallet(wallet): (wallet.organization_id, None)}
    await budget_store.make_windows(session, session.scope, ends)
    await move_wallets(session, [opening], "terms", actor.at_us)


async def close_wallets(session: WriteSession, actor: Actor, organization_id: str) -> None:
    """Let an organization spend without regard to its wallets."""
    scope = session.scope
    for wallet in await wallet_store.list_wallets(session, scope, [organization_id]):
        locked = await budget_store.budgets.lock(session, scope, wallet.id)
        await remove_budget(session, actor, locked)


async def move_wallets(
    session: WriteSession, moves: Collection[WalletMove], cause: Cause, now_us: int
) -> None:
    """Move wallets by what was booked in this transaction; who has no wallet is passed over.

    Args:
        session: Books what moves them. It locks budgets and windows after what the ledger locks.
        moves: One of a transfer.
        cause: Why it may take more than is free.
        now_us: The time.
    """
    if not moves:
        return
    scope = session.scope
    owners = {move.organization_id for move in moves}
    wallets = await wallet_store.lock_wallets(session, scope, owners)
    keys = {(one.organization_id, one.currency): window_of_wallet(one) for one in wallets}
    windows = await budget_store.lock_windows(session, scope, keys.values())
    overdrafts: list[Overdraft] = []
    for move in moves:
        key = keys.get((move.organization_id, move.currency))
        if key is None:
            continue
        before, windows[key] = windows[key], moved(windows[key], move.amount_atto)
        overdrafts += blame(move, overdrawn(before, windows[key]), {cause: 0})
    await budget_store.write_windows(session, windows.values())
    await wallet_store.insert_overdrafts(session, scope, overdrafts, now_us)


def moved(window: BudgetWindow, amount_atto: int) -> BudgetWindow:
    """Return a wallet's window with more in it, or less; what is paid in can be used up again."""
    return dataclasses.replace(
        window,
        balance_atto=window.balance_atto + amount_atto,
        is_exhaustion_told=window.is_exhaustion_told and amount_atto <= 0,
    )


def overdrawn(before: BudgetWindow, after: BudgetWindow) -> int:
    """Return how much of what was taken from a wallet was not free, in atto-units.

    Free is what is there and nobody holds. What is held was free once, so whoever spends it takes
    nothing beyond: the others do who took what was held already.
    """
    return max(0, _missing(after) - _missing(before))


def _missing(window: BudgetWindow) -> int:
    return max(0, window.held * ATTO_IN_NANO - window.balance_atto)


def blame(move: WalletMove, amount_atto: int, causes: Mapping[Cause, int]) -> Iterator[Overdraft]:
    """Yield what was taken beyond what was free, by its causes: the last one has the rest.

    Args:
        move: What took it.
        amount_atto: How much it is, >= 0.
        causes: How much each of them can have taken at most; at least one.
    """
    last = [*causes][-1]
    for cause, most in causes.items():
        part = amount_atto if cause == last else min(most, amount_atto)
        amount_atto -= part
        if part:
            yield Overdraft(move.organization_id, move.currency, move.source, cause, part)
