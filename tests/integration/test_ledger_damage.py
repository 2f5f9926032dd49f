"""Every damage of the books that `verify` looks for, each done alone, by raw SQL.

It is done to copies of the tables that have no rules at all: no trigger, key or wall of the books
stands against anything there.
"""

from contextlib import nullcontext
from typing import NamedTuple

from sqlalchemy import text
from tests.fakes.ledger_rig import add_grant, post_rated, posting, set_mode
from tests.fakes.organizations import ALL, NOW_US

from penstock.ledger.balances import make_snapshots
from penstock.ledger.verify_store import NAMES
from penstock.ledger.verifying import verify
from penstock.metering.bucket_rules import DAY_US
from penstock.storage.database import Database
from penstock.storage.sessions import WriteSession

DAY_1 = NOW_US - NOW_US % DAY_US
TABLES = (
    "ledger_accounts", "transfers", "entries", "credit_grants", "balance_snapshots", "rated_usage",
    "charge_quarters", "charge_days", "charge_months", "charge_project_quarters",
    "charge_project_days", "charge_model_quarters", "charge_eighths", "charge_project_eighths",
    "charge_model_eighths",
)  # fmt: skip
WORDS = {
    "FIRST": "(SELECT id FROM sealed_transfers WHERE kind = 'charge' "
    "AND idempotency_key = 'first/EUR')",
    "SECOND": "(SELECT id FROM sealed_transfers WHERE kind = 'charge' "
    "AND idempotency_key = 'second/EUR')",
    "WALLET": "(SELECT id FROM sealed_ledger_accounts WHERE kind = 'wallet_prepaid')",
    "REVENUE": "(SELECT id FROM sealed_ledger_accounts WHERE kind = 'revenue')",
}
"""What words of the statements below stand for."""


class Damage(NamedTuple):
    """What somebody does, and the checks that find it."""

    checks: set[str]
    what: str
    statements: tuple[str, ...]


DAMAGES = (
    Damage(
        {"transfer_sum"},
        "one transfer has too much and another too little",
        (
            (
                "UPDATE entries SET amount = amount + 1 WHERE transfer_id = FIRST "
                "AND account_id = WALLET AND grant_id IS NULL"
            ),
            (
                "UPDATE entries SET amount = amount - 1 WHERE transfer_id = SECOND "
                "AND account_id = WALLET"
            ),
        ),
    ),
    # No currency is wrong alone: then one of its transfers is, too.
    Damage(
        {"transfer_sum", "currency_sum", "snapshot"},
        "the smallest part of an amount is gone",
        (
            (
                "UPDATE entries SET amount_rest = 1 WHERE transfer_id = FIRST "
                "AND account_id = WALLET AND grant_id IS NULL"
            ),
        ),
    ),
    Damage(
        {"transfer_lines"},
        "a transfer and its entries say that there are more of them",
        (
            "UPDATE entries SET lines = 9 WHERE transfer_id = FIRST",
            "UPDATE transfers SET lines = 9 WHERE id = FIRST",
        ),
    ),
    Damage(
        {"entry_transfer"},
        "an entry counts at another time than its transfer",
        (
            (
                "UPDATE entries SET booked_at = (SELECT max(booked_at) FROM entries) "
                "WHERE transfer_id = FIRST AND line = 1"
            ),
        ),
    ),
    Damage(
        {"entry_transfer", "entry_account"},
        "an entry is of another organization than its transfer and account",
        ("UPDATE entries SET organization_id = 'x' WHERE transfer_id = SECOND AND line = 1",),
    ),
    Damage(
        {"entry_account"},
        "an account becomes somebody else's",
        ("UPDATE ledger_accounts SET organization_id = 'x' WHERE id = WALLET",),
    ),
    Damage(
        {"entry_account", "rated", "charge_months"},
        "an account is gone",
        ("DELETE FROM ledger_accounts WHERE id = REVENUE",),
    ),
    Damage(
        {"idempotency_key"},
        "two transfers have the key of one",
        ("UPDATE transfers SET idempotency_key = 'same' WHERE kind = 'charge'",),
    ),
    Damage(
        {"grant_remaining"},
        "more remains of a grant than its entries left",
        ("UPDATE credit_grants SET remaining_rest = 1",),
    ),
    Damage(
        {"grant_amount"},
        "more was granted than was booked",
        ("UPDATE credit_grants SET amount = amount + 1",),
    ),
    Damage(
        {"grant_bounds"},
        "a grant paid more than it was",
        (
            (
                "UPDATE entries SET amount = amount + 1 WHERE transfer_id = FIRST "
                "AND grant_id IS NOT NULL"
            ),
            (
                "UPDATE entries SET amount = amount - 1 WHERE transfer_id = FIRST "
                "AND account_id = WALLET AND grant_id IS NULL"
            ),
            "UPDATE credit_grants SET remaining = remaining - 1",
        ),
    ),
    Damage(
        {"grant_account"},
        "credit that was paid becomes a present",
        ("UPDATE credit_grants SET kind = 'promo'",),
    ),
    Damage(
        {"rated"},
        "an event is rated at more than was booked",
        ("UPDATE rated_usage SET amount_rest = 1 WHERE transfer_id = FIRST",),
    ),
    Damage(
        {"rated"},
        "an event is rated as somebody else's",
        ("UPDATE rated_usage SET organization = 'x' WHERE transfer_id = FIRST",),
    ),
    Damage(
        {"rated"},
        "an event is rated in another currency",
        ("UPDATE rated_usage SET currency = 'USD' WHERE transfer_id = FIRST",),
    ),
    Damage(
        {"rated"},
        "a charge is rated as a cost",
        ("UPDATE rated_usage SET kind = 'cost' WHERE transfer_id = FIRST",),
    ),
    Damage(
        {"rated"},
        "what an event was rated at is gone",
        ("DELETE FROM rated_usage WHERE transfer_id = FIRST",),
    ),
    Damage(
        {"rated"},
        "an event is rated at nothing that is booked",
        ("UPDATE rated_usage SET transfer_id = 'x' WHERE transfer_id = FIRST",),
    ),
    Damage(
        {"rated", "rated_unbooked"},
        "an event is rated and its transfer forgotten",
        ("UPDATE rated_usage SET transfer_id = NULL WHERE transfer_id = FIRST",),
    ),
    Damage(
        {"rated_unbooked"},
        "another event is rated and never booked",
        (
            (
                "INSERT INTO rated_usage SELECT day, 'new', kind, run_id, organization, currency, "
                "price_id, amount, amount_rest, NULL, reverses, recorded_at "
                "FROM rated_usage WHERE transfer_id = FIRST"
            ),
        ),
    ),
    Damage(
        {"rated", "charge_months", "snapshot"},
        "more is taken from a wallet than was used",
        (
            (
                "UPDATE entries SET amount = amount + 1 WHERE transfer_id = SECOND "
                "AND account_id = WALLET"
            ),
            (
                "UPDATE entries SET amount = amount - 1 WHERE transfer_id = SECOND "
                "AND account_id = REVENUE"
            ),
        ),
    ),
    Damage(
        {"snapshot"},
        "a snapshot says more",
        ("UPDATE balance_snapshots SET amount_rest = 1 WHERE account_id = WALLET",),
    ),
    Damage(
        {"entry_transfer", "rated", "charge_months"},
        "a transfer is gone and its entries are left",
        ("DELETE FROM transfers WHERE id = FIRST",),
    ),
    Damage(
        {"charge_months", "charge_days"},
        "a month's figure says more than was booked",
        ("UPDATE charge_months SET amount_rest = 1 WHERE kind = 'cost'",),
    ),
    Damage(
        {"charge_months", "charge_days"},
        "a month's figure says thousands of millions more",
        ("UPDATE charge_months SET amount_high = amount_high - 1 WHERE kind = 'charge'",),
    ),
    Damage(
        {"charge_days", "charge_eighths", "charge_project_days"},
        "a day's figure is gone",
        ("DELETE FROM charge_days WHERE kind = 'charge'",),
    ),
    Damage(
        {"charge_quarters"},
        "a quarter of an hour is another key's",
        ("UPDATE charge_quarters SET key_id = 'x' WHERE kind = 'charge'",),
    ),
    Damage(
        {"charge_project_quarters", "charge_model_quarters"},
        "a project's quarter of an hour is another model's",
        ("UPDATE charge_project_quarters SET model = 'x' WHERE kind = 'cost'",),
    ),
    Damage(
        {"charge_model_quarters"},
        "a model's quarter of an hour is gone",
        ("DELETE FROM charge_model_quarters WHERE kind = 'charge'",),
    ),
    Damage(
        {"charge_eighths", "charge_quarters"},
        "an eighth of a day says more",
        ("UPDATE charge_eighths SET amount = amount + 1 WHERE kind = 'charge'",),
    ),
    Damage(
        {"charge_model_eighths"},
        "a model's eighth of a day is gone",
        ("DELETE FROM charge_model_eighths WHERE kind = 'charge'",),
    ),
    Damage(
        {"charge_project_days", "charge_project_eighths"},
        "a project's day says less",
        ("UPDATE charge_project_days SET amount = amount - 1 WHERE kind = 'charge'",),
    ),
    Damage(
        # Each row says more: so two projects say more than the model of both.
        {"charge_months", "charge_model_quarters", "charge_model_eighths"},
        "all figures of charges say more",
        tuple(
            f"UPDATE {table} SET amount = amount + 1 WHERE kind = 'charge'"  # noqa: S608 - a test's own
            for table in TABLES
            if table.startswith("charge_")
        ),
    ),
    Damage(
        {"transfer_lines", "rated", "charge_months", "snapshot"},
        "the entries of a transfer are gone",
        ("DELETE FROM entries WHERE transfer_id = SECOND",),
    ),
)


async def _fill(database: Database) -> None:
    """Book what every check has something to look at in."""
    await set_mode(database, "prepaid")
    await add_grant(database, "crd_1", 5, kind="paid", created_at_us=DAY_1)
    # The first is paid by the grant and the wallet, the second by the wallet.
    for place, key in enumerate(("first", "second")):
        at_us = DAY_1 + 1 + place
        await post_rated(database, posting(7, cost=1, at_us=at_us), key=key, recorded_at_us=at_us)
    await make_snapshots(database, DAY_1 + 3 * DAY_US, least=1)


async def _lift_rules(session: WriteSession) -> None:
    for table in TABLES:
        await _run(session, f"ALTER TABLE {table} RENAME TO sealed_{table}")
        await _run(session, f"CREATE TABLE {table} AS SELECT * FROM sealed_{table}")  # noqa: S608 - names of ours


async def _run(session: WriteSession, statement: str) -> int:
    for word, meaning in WORDS.items():
        statement = statement.replace(word, meaning)
    return (await session._connection.execute(text(statement))).rowcount


async def _find(session: WriteSession) -> set[str]:
    return {one.check for one in await verify(lambda: nullcontext(session), lanes=1)}


async def test_each_damage_is_found_by_the_checks_about_it(database: Database) -> None:
    """Each damage is found by the checks that are about it and by no other; every check finds."""
    await _fill(database)
    found = {}
    async with database.write(ALL) as session:
        await _lift_rules(session)
        assert await _find(session) == set()
        for damage in DAMAGES:
            async with session._connection.begin_nested() as done:
                for statement in damage.statements:
                    assert await _run(session, statement), statement
                found[damage.what] = await _find(session)
                await done.rollback()
        assert await _find(session) == set()
    assert found == {damage.what: damage.checks for damage in DAMAGES}
    # Wallets are damaged in `test_wallets.py`: their rows have rules that stay; invoices in
    # `test_invoice_rules.py`.
    books = {name for name in NAMES if not name.startswith(("wallet_", "invoice_"))}
    assert set().union(*found.values()) == books
