"""What the database keeps of invoices itself, what is found if it did not, open transactions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.fakes.billing_rig import AUGUST_US, DAY_US, BillingRig, use
from tests.fakes.databases import postgresql_database
from tests.fakes.ledger_rig import run_sql
from tests.fakes.organizations import ALL, NOW_US, actor, create_organization
from tests.fakes.postgresql_server import PostgresqlServer

from penstock.billing import service
from penstock.billing.documents import hash_of
from penstock.billing.errors import INVOICE_UNBALANCED
from penstock.billing.reading import read_content
from penstock.billing.verifying import BILLING_CHECKS
from penstock.kit.errors import PenstockError
from penstock.ledger.verify_bills import CHECKS
from penstock.ledger.verifying import verify
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.sessions import ReadSession

REFUSED = (DBAPIError, DatabaseUnavailableError)
TABLES = ("invoices", "invoice_transfers", "invoice_payments", "transfers", "entries")
WORDS = {
    word: f"(SELECT id FROM sealed_invoices WHERE number = {number})"  # noqa: S608 - a test's own
    for word, number in {"FIRST": 1, "SECOND": 3, "THIRD": 4}.items()
}
"""An invoice that was taken back, the one in its place, and one that was paid; 2 is its note."""
WORDS["EMPTY"] = hash_of("")
BILL_TWICE = """
    INSERT INTO invoice_transfers (invoice_id, transfer_id, organization_id, credit_note_id)
    SELECT n.id, c.transfer_id, c.organization_id, NULL
    FROM invoice_transfers c JOIN invoices n ON n.number = 1 WHERE c.credit_note_id IS NULL
"""
DAMAGES: dict[str, tuple[set[str], str]] = {
    "a charge is on no invoice any more": (
        {"invoice_sum", "invoice_left_out"},
        "DELETE FROM invoice_transfers WHERE invoice_id = SECOND",
    ),
    "a charge is on two": (
        {"invoice_once", "invoice_taken_back"},
        "UPDATE invoice_transfers SET credit_note_id = NULL WHERE invoice_id = FIRST",
    ),
    "an invoice is over another one's charges": (
        {"invoice_sum", "invoice_charge"},
        "UPDATE invoice_transfers SET invoice_id = THIRD WHERE invoice_id = SECOND",
    ),
    "what was taken back comes back": (
        {"invoice_taken_back"},
        "UPDATE invoice_transfers SET credit_note_id = 'x' WHERE invoice_id = FIRST",
    ),
    "an invoice is gone": (
        {"invoice_charge", "invoice_settled", "invoice_sum"},
        "DELETE FROM invoices WHERE id = THIRD",
    ),
    "a number is there twice": (
        {"invoice_number"},
        "UPDATE invoices SET number = 2 WHERE id = THIRD",
    ),
    "a payment is booked nowhere": (
        {"invoice_settled"},
        "UPDATE invoice_payments SET transfer_id = NULL",
    ),
    "an invoice says something else": (
        {"invoice_content"},
        "UPDATE invoices SET content = replace(content, 'Berlin', 'Bremen') WHERE id = SECOND",
    ),
    "an invoice says nothing": (
        {"invoice_content"},
        "UPDATE invoices SET content = '', hash = 'EMPTY' WHERE id = SECOND",
    ),
    "more is to be paid than was issued": (
        {"invoice_content"},
        "UPDATE invoices SET gross = gross + 1, net = net + 1 WHERE id = SECOND",
    ),
}


async def _fill(rig: BillingRig) -> None:
    """Have one invoice that was taken back, the one after it, and one that was paid."""
    acme, other = [(await create_organization(rig.database, name)).id for name in ("acme", "other")]
    for owner in (acme, other):
        await rig.set_recipient(owner)
        await rig.deliver(use(owner))
    taken_back = await rig.bill(acme)
    await rig.void(taken_back.id, NOW_US + 1)
    await rig.bill(acme, at_us=NOW_US + 2)
    await rig.pay((await rig.bill(other)).id)


@pytest.fixture
async def rig(database: Database) -> BillingRig:
    """A database with invoices in each state."""
    rig = BillingRig(database)
    await rig.begin()
    await _fill(rig)
    return rig


async def test_what_was_issued_is_never_changed(rig: BillingRig) -> None:
    """Whoever writes raw SQL changes no invoice and no payment, and bills nothing twice."""
    before = await _rows(rig.database)
    for statement in (
        "UPDATE invoices SET content = 'x' WHERE number = 1",
        "UPDATE invoices SET number = NULL WHERE number = 1",
        "DELETE FROM invoices WHERE number = 1",
        "UPDATE invoice_transfers SET invoice_id = 'x'",
        "UPDATE invoice_transfers SET credit_note_id = NULL",
        "DELETE FROM invoice_transfers",
        "UPDATE invoice_payments SET reference = 'x'",
        "DELETE FROM invoice_payments",
        BILL_TWICE,
    ):
        with pytest.raises(REFUSED):
            await run_sql(rig.database, statement)
        assert await _rows(rig.database) == before, statement
    assert await rig.find_wrong() == set()


async def _rows(database: Database) -> list[Any]:
    tables = {"invoices": "id", "invoice_transfers": "invoice_id", "invoice_payments": "invoice_id"}
    return [
        await run_sql(database, f"SELECT * FROM {table} ORDER BY {key}")  # noqa: S608 - names of ours
        for table, key in tables.items()
    ]


async def test_each_damage_of_invoices_is_found(rig: BillingRig) -> None:
    """Each damage is found by the checks that are about it and by no other; every check finds."""
    found = {}
    async with rig.database.write(ALL) as session:
        connection = session._connection

        def read() -> nullcontext[ReadSession]:
            return nullcontext(session)

        async def find() -> set[str]:
            return {one.check for one in await verify(read, BILLING_CHECKS, lanes=1)}

        for table in TABLES:
            await connection.execute(text(f"ALTER TABLE {table} RENAME TO sealed_{table}"))
            copy = f"CREATE TABLE {table} AS SELECT * FROM sealed_{table}"  # noqa: S608 - as above
            await connection.execute(text(copy))
        assert await find() == set()
        for what, (_, statement) in DAMAGES.items():
            async with connection.begin_nested() as done:
                for word, meaning in WORDS.items():
                    statement = statement.replace(word, meaning)  # noqa: PLW2901 - names in it
                assert (await connection.execute(text(statement))).rowcount, what
                found[what] = await find()
                await done.rollback()
    assert found == {what: checks for what, (checks, _) in DAMAGES.items()}
    assert set().union(*found.values()) == {*CHECKS, *BILLING_CHECKS}


async def test_what_is_not_what_is_booked_is_not_issued(rig: BillingRig) -> None:
    """Where somebody added to what was rated, nothing gets a number until that is cleared up."""
    owner = (await create_organization(rig.database, "damaged")).id
    await rig.set_recipient(owner)
    await rig.deliver(use(owner))
    draft = await rig.draft(owner)
    statement = (
        "INSERT INTO rated_usage SELECT day, event_id, kind, 'new', organization, currency, "  # noqa: S608 - a test's own
        "price_id, amount, amount_rest, transfer_id, reverses, recorded_at FROM rated_usage "
        f"WHERE kind = 'charge' AND organization = '{owner}'"
    )
    await run_sql(rig.database, statement)
    before = await _rows(rig.database)
    with pytest.raises(PenstockError) as refused:
        await rig.finalize(draft.id)
    assert refused.value.error == INVOICE_UNBALANCED
    assert await _rows(rig.database) == before
    assert await rig.find_wrong() == {"rated"}


@pytest.fixture
async def parallel(postgresql: PostgresqlServer) -> AsyncIterator[BillingRig]:
    """A database in which transactions run side by side."""
    async with postgresql_database(postgresql) as database:
        rig = BillingRig(database)
        await rig.begin()
        yield rig
        assert await rig.find_wrong() == set()


async def test_numbers_have_no_gap_whoever_gives_up(parallel: BillingRig) -> None:
    """Invoices that are issued at once have one number after the other; undone ones leave none."""
    drafts = []
    for number in range(8):
        owner = (await create_organization(parallel.database, f"org-{number}")).id
        await parallel.set_recipient(owner)
        await parallel.deliver(use(owner))
        drafts.append((await parallel.draft(owner)).id)

    async def issue(place: int, invoice_id: str) -> int | None:
        try:
            async with parallel.database.write(ALL) as session:
                invoice = await service.finalize_invoice(session, actor(), invoice_id, grace_s=0)
                assert place % 3, "it has its number, and is not committed"
        except AssertionError:
            return None
        return invoice.number

    given = await asyncio.gather(*(issue(*one) for one in enumerate(drafts)))
    assert sorted(number for number in given if number) == [1, 2, 3, 4, 5]
    again = [await issue(1, invoice_id) for invoice_id in drafts[::3]]
    assert again == [6, 7, 8]


async def test_a_large_month_has_the_time_it_takes(parallel: BillingRig) -> None:
    """What reads all of a month is not ended as what must be quick is."""
    owner = (await create_organization(parallel.database)).id
    await parallel.set_recipient(owner)
    await parallel.deliver(use(owner))
    draft = await parallel.draft(owner)
    shown = text("SHOW statement_timeout")
    async with parallel.database.read(ALL) as session:
        assert await read_content(session, draft) is not None
        assert (await session._connection.execute(shown)).scalar() == "10min"
    async with parallel.database.write(ALL) as session:
        assert (await session._connection.execute(shown)).scalar() == "15s"
        await service.finalize_invoice(session, actor(), draft.id, grace_s=0)
        assert (await session._connection.execute(shown)).scalar() == "10min"


async def test_a_charge_of_an_open_transaction_is_on_the_next_invoice(parallel: BillingRig) -> None:
    """One that began before an invoice and ends after it is skipped by that, and by none after."""
    owner = (await create_organization(parallel.database)).id
    await parallel.set_recipient(owner)
    is_stored, may_end = asyncio.Event(), asyncio.Event()
    late, early = use(owner, project="late"), use(owner, project="early")
    books = parallel.books

    async def store_slowly(session: Any, arrivals: Any) -> None:
        await books(session, arrivals)
        is_stored.set()
        await may_end.wait()

    slow = BillingRig(parallel.database)
    slow.books = store_slowly  # type: ignore[assignment]
    await parallel.deliver(early)
    open_one = asyncio.create_task(slow.deliver(late))
    await asyncio.wait_for(is_stored.wait(), 60)
    first = await parallel.bill(owner, at_us=AUGUST_US + 31 * DAY_US)
    may_end.set()
    await open_one
    second = await parallel.bill(owner, "2026-09", at_us=AUGUST_US + 61 * DAY_US)
    projects = [
        [line["project_id"] for line in (await parallel.read(one.id))[1]["lines"]]
        for one in (first, second)
    ]
    assert projects == [["early"], ["late"]]
