"""Prepaid organizations spend what is in their wallets, and no more; see `limits.wallets`.

None commits.
"""

from collections.abc import Mapping

from penstock.audit.model import Actor
from penstock.ledger import credit_store, store
from penstock.ledger.balance_store import sum_account
from penstock.ledger.model import Terms
from penstock.ledger.rules import wallet_accounts
from penstock.limits.budget_windows import LAST_US
from penstock.limits.wallet_model import Lapse, WalletMove
from penstock.limits.wallets import close_wallets, open_wallet
from penstock.storage.sessions import ReadSession, WriteSession

LAPSE_US = 5_000_000
"""So long before its end credit is not held any more: a hold lasts that long at least."""
MAX_OPENINGS = 100
"""Most wallets that begin to count in one transaction."""


async def follow_terms(session: WriteSession, actor: Actor, terms: Terms) -> None:
    """Have the wallet of an organization count by its terms, and none when it is postpaid.

    Args:
        session: The only one that writes configuration.
        actor: Who changed the terms.
        terms: Those that hold from now on.
    """
    opening = await _read_opening(session, terms) if terms.mode == "prepaid" else None
    await close_wallets(session, actor, terms.organization_id)
    if opening is not None:
        await open_wallet(session, actor, opening)


async def _read_opening(session: WriteSession, terms: Terms) -> WalletMove:
    """Return what is in a wallet, and keep others from booking on it."""
    accounts = wallet_accounts(terms.organization_id, terms.currency)
    await store.lock_accounts(session, session.scope, accounts)
    sums = [await sum_account(session, session.scope, one.id, LAST_US) for one in accounts]
    source = f"terms/{terms.version}"
    return WalletMove(terms.organization_id, terms.currency, -sum(sums), source)


async def open_missing(session: WriteSession, actor: Actor) -> int:
    """Have wallets count of organizations that were prepaid before wallets did, and count them.

    `MAX_OPENINGS` when there may be more.
    """
    await session.lock_configuration()
    missing = await credit_store.list_without_wallet(session, session.scope, MAX_OPENINGS)
    for terms in missing:
        await follow_terms(session, actor, terms)
    return len(missing)


async def find_lapses(session: ReadSession, organization: str, now_us: int) -> Mapping[str, Lapse]:
    """Return which credit of an organization ends within `LAPSE_US`, or has ended, by currency.

    What has ended is in balances until no usage of before can arrive any more.
    """
    horizon_us = now_us + LAPSE_US
    lapses: dict[str, Lapse] = {}
    for one in await credit_store.list_ending(session, session.scope, organization):
        old = lapses.get(one.currency, Lapse())
        if one.expires_at_us is None or old.next_us is not None:
            continue
        lapses[one.currency] = (
            Lapse(old.amount_atto + one.remaining_atto)
            if one.expires_at_us <= horizon_us
            else Lapse(old.amount_atto, one.expires_at_us)
        )
    return lapses
