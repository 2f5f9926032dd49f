"""The rules of the books, kept by the database itself against whoever writes raw SQL."""

from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from tests.fakes.ledger_rig import post, posting, read_amounts, run_sql
from tests.fakes.organizations import NOW_US

from penstock.ledger.rules import account_of
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError

REST = account_of("acme", "accrued_usage", "EUR").id
REVENUE = account_of("acme", "revenue", "EUR").id
DOLLARS = account_of("acme", "revenue", "USD").id
OTHERS = account_of("other", "revenue", "EUR").id
REFUSED = (DBAPIError, DatabaseUnavailableError)


BROKEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "another amount": ({}, {"amount": "-3"}),
    "another rest": ({}, {"amount_rest": 1}),
    "a negative rest": ({"amount_rest": -1}, {"amount_rest": 1}),
    "a rest of one and more": ({"amount_rest": 10**9}, {"amount": "-5"}),
    "an account in another currency": ({}, {"account_id": f"'{DOLLARS}'"}),
    "an account of another organization": ({}, {"account_id": f"'{OTHERS}'"}),
    "an account that is not there": ({}, {"account_id": "'acc_none'"}),
    "an entry of another organization": ({}, {"organization_id": "'other'"}),
    "an entry in another currency": ({}, {"currency": "'USD'"}),
    "a grant that is not there": ({}, {"grant_id": "'crd_none'"}),
    "a place behind the last": ({}, {"line": 3}),
    "a place before the first": ({}, {"line": 0}),
    "a place that is taken": ({}, {"line": 1}),
    "another number of places": ({}, {"lines": 3}),
    "large amounts": ({"amount": str(2**62)}, {"amount": str(-(2**62) + 1)}),
}
"""What is wrong with a debit or with its credit."""


@pytest.fixture
async def books(database: Database) -> Database:
    """Books of two organizations with some transfers."""
    await post(database, posting("1.5", cost="0.5"), posting(2, currency="USD"), key="first")
    await post(database, posting(7, organization="other"), key="second")
    return database


def moment(database: Database, at_us: int = NOW_US) -> str:
    """Return a moment as SQL of that kind of database."""
    if isinstance(database.location, str):
        return f"to_timestamp({at_us // 10**6})"
    return str(at_us)


def entry(database: Database, line: int, amount: str, **members: object) -> str:
    """Return the insertion of an entry."""
    values = {
        "transfer_id": "'trf_raw'",
        "line": line,
        "lines": 2,
        "organization_id": "'acme'",
        "currency": "'EUR'",
        "booked_at": moment(database),
        "account_id": f"'{REST}'",
        "amount": amount,
        "amount_rest": 0,
        **members,
    }
    return _insert("entries", values)


def transfer(database: Database, **members: object) -> str:
    """Return the insertion of a transfer."""
    values = {
        "id": "'trf_raw'",
        "organization_id": "'acme'",
        "kind": "'charge'",
        "idempotency_key": "'raw'",
        "currency": "'EUR'",
        "booked_at": moment(database),
        "recorded_at": moment(database),
        "lines": 2,
        **members,
    }
    return _insert("transfers", values)


def _insert(table: str, values: dict[str, object]) -> str:
    names, parts = ", ".join(values), ", ".join(str(value) for value in values.values())
    return f"INSERT INTO {table} ({names}) VALUES ({parts})"  # noqa: S608 - a test's own


async def expect_refused(database: Database, *statements: str, name: str = "") -> None:
    """Fail unless the transaction of these statements is refused, and leaves nothing."""
    before = await run_sql(database, "SELECT * FROM entries ORDER BY transfer_id, line")
    sealed = await run_sql(database, "SELECT * FROM transfers ORDER BY id")
    try:
        await run_sql(database, *statements)
    except REFUSED:
        pass
    else:
        pytest.fail(f"it was taken: {name or statements}")
    assert await run_sql(database, "SELECT * FROM entries ORDER BY transfer_id, line") == before
    assert await run_sql(database, "SELECT * FROM transfers ORDER BY id") == sealed


async def test_a_transfer_of_raw_sql_that_adds_up_is_taken(books: Database) -> None:
    """What the other tests vary is a transfer that the rules let pass."""
    credit = entry(books, 2, "-5", account_id=f"'{REVENUE}'", amount_rest=999_999_999)
    debit = entry(books, 1, "4", amount_rest=1)
    await run_sql(books, debit, credit, transfer(books))
    assert sum((await read_amounts(books)).values()) == 0


async def test_a_transfer_that_breaks_a_rule_is_refused(books: Database) -> None:
    """Entries that do not add up, or are not those of their transfer, are not booked."""
    for name, (debit, credit) in BROKEN.items():
        lines: list[dict[str, Any]] = [
            {"line": 1, "amount": "4", **debit},
            {"line": 2, "amount": "-4", "account_id": f"'{REVENUE}'", **credit},
        ]
        entries = [entry(books, **one) for one in lines]
        await expect_refused(books, *entries, transfer(books), name=name)


async def test_what_is_no_whole_number_is_refused(books: Database) -> None:
    """Texts and fractions, which SQLite would keep, are no amounts."""
    for amount in ("'four'", "4.5", "4e300")[: 1 if isinstance(books.location, str) else 3]:
        await expect_refused(
            books, entry(books, 1, amount), entry(books, 2, f"-{amount}"), transfer(books)
        )


async def test_the_moment_of_an_entry_is_its_transfers(books: Database) -> None:
    """An entry that is booked at another time than its transfer is refused."""
    earlier = moment(books, NOW_US - 10**6)
    credit = entry(books, 2, "-4", booked_at=earlier, account_id=f"'{REVENUE}'")
    await expect_refused(books, entry(books, 1, "4"), credit, transfer(books))


async def test_entries_without_a_transfer_are_refused(books: Database) -> None:
    """Entries that nothing seals do not outlive their transaction."""
    credit = entry(books, 2, "-4", account_id=f"'{REVENUE}'")
    await expect_refused(books, entry(books, 1, "4"), credit)


async def test_a_transfer_without_entries_is_refused(books: Database) -> None:
    """A transfer has as many entries as it says, and two at least."""
    await expect_refused(books, transfer(books))
    await expect_refused(books, transfer(books, lines=0))
    credit = entry(books, 2, "-4", account_id=f"'{REVENUE}'")
    await expect_refused(books, entry(books, 1, "4"), credit, transfer(books, lines=3))


async def test_a_sealed_transfer_takes_no_more_entries(books: Database) -> None:
    """Entries that add up by themselves do not get into a transfer that is booked."""
    ((sealed, lines),) = await run_sql(
        books, "SELECT id, lines FROM transfers WHERE organization_id = 'other'"
    )
    owner: dict[str, Any] = {"transfer_id": f"'{sealed}'", "organization_id": "'other'"}
    owner |= {"account_id": f"'{OTHERS}'"}
    for first in (1, lines + 1):
        for count in (lines, lines + 2):
            pair = [
                entry(books, first + place, amount, **owner, lines=count)
                for place, amount in enumerate(("4", "-4"))
            ]
            await expect_refused(books, *pair)


async def test_what_is_booked_is_never_changed(books: Database) -> None:
    """No row of accounts, transfers and entries is changed or deleted."""
    for statement in (
        "UPDATE entries SET amount = amount + 1",
        "UPDATE entries SET account_id = account_id",
        "DELETE FROM entries",
        "UPDATE transfers SET kind = 'cost'",
        "UPDATE transfers SET booked_at = recorded_at",
        "DELETE FROM transfers",
        "UPDATE ledger_accounts SET kind = 'writeoff'",
        "DELETE FROM ledger_accounts",
    ):
        await expect_refused(books, statement, name=statement)


async def test_what_is_booked_is_not_emptied_or_replaced(books: Database) -> None:
    """The other ways to make rows go are closed, too: of each kind of database its own."""
    if isinstance(books.location, str):
        for table in ("entries", "transfers", "ledger_accounts"):
            await expect_refused(books, f"TRUNCATE {table} CASCADE")
        return
    ((sealed,),) = await run_sql(books, "SELECT max(id) FROM transfers")
    for table, column in (("entries", "amount"), ("transfers", "kind")):
        names = [row[1] for row in await run_sql(books, f"PRAGMA table_info({table})")]
        values = ", ".join(f"{name} + 1" if name == column else name for name in names)
        key = "transfer_id" if table == "entries" else "id"
        await expect_refused(
            books,
            f"INSERT OR REPLACE INTO {table} SELECT {values} FROM {table} "  # noqa: S608 - a test's own
            f"WHERE {key} = '{sealed}'",
        )


async def test_of_a_grant_only_what_remains_changes(books: Database) -> None:
    """What was granted stays, and what remains of it is between nothing and all."""
    values: dict[str, object] = {
        "id": "'crd_1'", "organization_id": "'acme'", "currency": "'EUR'", "kind": "'promo'",
        "priority": 1, "amount": 5, "amount_rest": 5, "remaining": 5, "remaining_rest": 5,
        "created_at": moment(books), "name": "''",
    }  # fmt: skip
    await run_sql(books, _insert("credit_grants", values))
    for change in (
        "DELETE FROM credit_grants",
        "UPDATE credit_grants SET amount = 6",
        "UPDATE credit_grants SET expires_at = created_at",
        "UPDATE credit_grants SET remaining = 6",
        "UPDATE credit_grants SET remaining_rest = 6",
        "UPDATE credit_grants SET remaining = -1",
        "UPDATE credit_grants SET remaining_rest = -1",
        "UPDATE credit_grants SET remaining = 4, remaining_rest = 1000000000",
    ):
        with pytest.raises(REFUSED):
            await run_sql(books, change)
    await run_sql(books, "UPDATE credit_grants SET remaining = 4, remaining_rest = 999999999")
