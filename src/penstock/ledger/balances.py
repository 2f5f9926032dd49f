"""What organizations have and owe: sums of entries, at any moment; statements of months."""

from dataclasses import replace
from typing import Final

from penstock.ledger import balance_store as store
from penstock.ledger.model import Account, AccountKind, Balance, Statement
from penstock.ledger.rules import account_of
from penstock.limits.wallet_store import sum_overdrafts
from penstock.metering.bucket_rules import DAY_US, bucket_start
from penstock.storage.database import Database
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

SNAPSHOT_ENTRIES = 1_000
"""So many entries of an account are worth a snapshot."""
_PAGE = 500
_KINDS: Final[tuple[AccountKind, ...]] = (
    "wallet_prepaid",
    "wallet_promo",
    "accrued_usage",
    "receivable",
)
"""Accounts that say what an organization has and owes."""


async def list_balances(session: ReadSession, organization: str, before_us: int) -> list[Balance]:
    """Return what an organization has and owes, of what was booked before a moment, by currency."""
    accounts = await store.list_accounts(session, session.scope, organization)
    currencies = sorted({account.currency for account in accounts if account.kind in _KINDS})
    overdrafts = await sum_overdrafts(session, session.scope, organization, 0, before_us)
    found = [await _balance(session, organization, one, before_us) for one in currencies]
    return [replace(one, overdrafts=overdrafts.get(one.currency, {})) for one in found]


async def _balance(
    session: ReadSession, organization: str, currency: str, before_us: int
) -> Balance:
    sums = [
        await store.sum_account(session, session.scope, account.id, before_us)
        for account in _accounts(organization, currency)
    ]
    # The first two are debts of ours, so a credit is what the organization has.
    return Balance(currency, -sums[0], -sums[1], sums[2], sums[3])


def _accounts(organization: str, currency: str) -> list[Account]:
    return [account_of(organization, kind, currency) for kind in _KINDS]


async def list_statements(
    session: ReadSession, organization: str, since_us: int, before_us: int
) -> list[Statement]:
    """Return what happened between two moments to the balances of an organization, by currency."""
    opening = {one.currency: one for one in await list_balances(session, organization, since_us)}
    closing = {one.currency: one for one in await list_balances(session, organization, before_us)}
    period = since_us, before_us
    overdrafts = await sum_overdrafts(session, session.scope, organization, *period)
    found = [
        await _statement(session, organization, opening[currency], closing[currency], period)
        for currency in sorted(closing)
    ]
    return [replace(one, overdrafts=overdrafts.get(one.currency, {})) for one in found]


async def _statement(
    session: ReadSession,
    organization: str,
    opening: Balance,
    closing: Balance,
    period: tuple[int, int],
) -> Statement:
    scope, currency = session.scope, closing.currency
    kinds = await store.sum_kinds(session, scope, _accounts(organization, currency), *period)
    revenue = account_of(organization, "revenue", currency)
    credited, debited = await store.sum_signs(session, scope, revenue, *period)
    models = await store.sum_models(session, scope, revenue, *period)
    return Statement(
        currency=currency,
        opening=opening,
        topups_atto=-kinds.pop("topup", 0),
        grants_atto=-kinds.pop("grant", 0),
        expiries_atto=kinds.pop("expiry", 0),
        charges_atto=-credited,
        corrections_atto=debited,
        # Charges that revenue does not have would be here, too.
        others_atto=-sum(kinds.values()) - credited - debited,
        closing=closing,
        models=tuple(models),
        elsewhere_atto=-credited - debited - sum(one.amount_atto for one in models),
    )


async def make_snapshots(database: Database, now_us: int, least: int = SNAPSHOT_ENTRIES) -> int:
    """Make snapshots of accounts that have many entries since their last one, and count them.

    They are of the beginning of the day before; each is made in a transaction of its own, for who
    books on the account waits meanwhile.

    Args:
        database: Where accounts are.
        now_us: The time.
        least: How many entries are many.
    """
    everybody = Scope.all_organizations()
    at_us = bucket_start("day", now_us) - DAY_US
    after, count = "", 0
    while True:
        async with database.read(everybody) as session:
            page = await store.list_ids(session, everybody, after, _PAGE)
            busy = [
                one for one in page if await store.is_busy(session, everybody, one[0], at_us, least)
            ]
        for account_id, organization in busy:
            async with database.write(everybody) as session:
                await store.make_snapshot(session, everybody, account_id, organization, at_us)
        count += len(busy)
        if len(page) < _PAGE:
            return count
        after = page[-1][0]
