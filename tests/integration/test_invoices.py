"""Invoices on both kinds of database: what is on them, what they are booked as, their states."""

import asyncio
from collections.abc import AsyncIterator
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.fakes.billing_rig import (
    AUGUST_US,
    DAY_US,
    BillingRig,
    amounts_of,
    exact,
    make_party,
    make_vat,
    price_of,
    use,
)
from tests.fakes.databases import until_somebody_waits
from tests.fakes.ledger_rig import add_grant, read_amounts
from tests.fakes.organizations import ALL as EVERYBODY
from tests.fakes.organizations import NOW_US, actor, create_organization
from tests.fakes.rating_rig import RatingRig

from penstock.billing import service
from penstock.billing.errors import INVOICE_STATE
from penstock.billing.model import Invoice
from penstock.control.books import UsageBooks
from penstock.control.ratings import post_differences
from penstock.kit.errors import PenstockError
from penstock.ledger.balances import list_statements
from penstock.limits.prices import ATTO
from penstock.rating.corrections import correct_usage
from penstock.rating.model import NewCorrection
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError

REFUSED = (DBAPIError, DatabaseUnavailableError)


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[BillingRig]:
    """A database with a price and an issuer. At the end no check of the books finds anything."""
    rig = BillingRig(database)
    await rig.begin()
    yield rig
    assert await rig.find_wrong() == set()


@pytest.fixture
async def acme(rig: BillingRig) -> str:
    """An organization that pays after it used something."""
    organization = await create_organization(rig.database)
    await rig.set_recipient(organization.id)
    return organization.id


async def expect_refused(code: str, work: Any) -> None:
    """Fail unless something is refused with that code."""
    with pytest.raises(PenstockError) as refused:
        await work
    assert refused.value.error.code == f"err:control:billing:{code}"


async def test_an_invoice_is_what_was_used_and_is_booked(rig: BillingRig, acme: str) -> None:
    """Each project's model is a line; amounts are exact to the line, and the books say the same."""
    mails = [use(acme, AUGUST_US + day * DAY_US, project="mail") for day in (0, 30)]
    search = use(acme, project="search", image_count=2)
    free = use(acme, model="unpriced")
    await rig.deliver(*mails, search, free)
    invoice = await rig.bill(acme)
    _, said = await rig.read(invoice.id)
    assert (invoice.state, invoice.number, said["number"]) == ("final", 1, "INV-1")
    lines = {(line["project_id"], line["model"]): line for line in said["lines"]}
    assert lines["mail", "small"]["quantities"] == {
        "requests": 2, "input_tokens": 30_006, "output_tokens": 20_000
    }  # fmt: skip
    assert lines["search", "small"]["quantities"]["images"] == 2
    assert exact(lines["mail", "small"]["amount"]) == price_of(*mails)
    assert exact(lines["search", "small"]["amount"]) == price_of(search)
    assert lines["search", "unpriced"]["amount"] == "0"
    assert (said["net"], said["tax"], said["gross"]) == ("0.12", "0.02", "0.14")
    assert (said["since"], said["until"], said["issued_on"]) == (
        "2026-08-01", "2026-08-31", "2026-09-21"
    )  # fmt: skip
    assert (said["seller"]["name"], said["buyer"]["city"]) == ("Penstock AG", "Berlin")
    amounts = await read_amounts(rig.database, acme)
    rounding = Fraction("0.12") - price_of(*mails, search)
    assert amounts["receivable"] == Fraction("0.14")
    assert amounts["accrued_usage"] == 0
    assert amounts["tax_payable"] == -Fraction("0.02")
    assert -amounts["rounding"] == rounding == exact(said["rounding"])


async def test_what_comes_late_is_on_the_next_invoice(rig: BillingRig, acme: str) -> None:
    """Usage of a month that is billed already goes on the next invoice, with its own month."""
    first, late, next_month = use(acme), use(acme), use(acme, AUGUST_US + 31 * DAY_US)
    await rig.deliver(first, next_month)
    # A batch counts when the last of it was used: so this one waits for the next invoice.
    assert [line["model"] for line in (await _preview(rig, acme))["lines"]] == []
    await rig.deliver(use(acme, project="mail"))
    await rig.bill(acme)
    await rig.deliver(late, recorded_at_us=NOW_US)
    await expect_refused("exists", rig.draft(acme))
    october_us = AUGUST_US + 61 * DAY_US
    invoice = await rig.bill(acme, "2026-09", at_us=october_us)
    _, said = await rig.read(invoice.id)
    lines = {line["month"]: line for line in said["lines"]}
    assert exact(lines["2026-08"]["amount"]) == price_of(first, late)
    assert exact(lines["2026-09"]["amount"]) == price_of(next_month)


async def _preview(rig: BillingRig, organization: str) -> dict[str, Any]:
    draft = await rig.draft(organization)
    assert (await rig.draft(organization)).id == draft.id, "said again it is the same"
    return (await rig.read(draft.id))[1]


async def test_a_draft_takes_nothing(rig: BillingRig, acme: str) -> None:
    """It says what it would come to now, and is issued after its time of grace, once."""
    await rig.deliver(use(acme))
    draft = await rig.draft(acme)
    assert (await rig.read(draft.id))[1]["net"] == "0.04"
    await rig.deliver(use(acme))
    assert (await rig.read(draft.id))[1]["net"] == "0.08"
    end_us = AUGUST_US + 31 * DAY_US
    hour_us = 3_600 * 10**6
    await expect_refused("early", rig.finalize(draft.id, end_us + hour_us - 1, grace_s=3_600))
    assert (await rig.finalize(draft.id, end_us + hour_us, grace_s=3_600)).state == "final"
    await expect_refused("state", rig.finalize(draft.id))
    await expect_refused("invalid", rig.draft(acme, "2026-09"))
    await expect_refused("invalid", rig.draft(acme, "2026-13"))


async def test_credit_pays_first_and_nothing_is_due_for_it(rig: BillingRig, acme: str) -> None:
    """What grants paid is taken off; who paid all of it before gets an invoice over nothing."""
    await add_grant(rig.database, "crd_1", "0.05", organization=acme, created_at_us=AUGUST_US)
    await add_grant(
        rig.database, "crd_2", 9, organization=acme, kind="paid", created_at_us=AUGUST_US,
        expires_at_us=AUGUST_US + DAY_US, priority=9,
    )  # fmt: skip
    early = [use(acme, project=name) for name in "abc"]
    later = [use(acme, AUGUST_US + DAY_US, project=name) for name in "abc"]
    await rig.deliver(*early)
    invoice = await rig.bill(acme)
    _, said = await rig.read(invoice.id)
    assert (said["gross"], said["rounding"], invoice.state) == ("0.00", "0", "paid")
    assert exact(said["credit"]["promo"]) == Fraction("0.05")
    assert invoice.transfer_id is None
    await expect_refused("state", rig.pay(invoice.id))
    await rig.void(invoice.id)
    await rig.deliver(*later, recorded_at_us=NOW_US)
    _, said = await rig.read((await rig.bill(acme)).id)
    assert exact(said["accrued"]) == price_of(*later)
    assert said["net"] == "0.12"
    assert sum(exact(line["net"]) for line in said["lines"]) - exact(said["credit"]["net"]) == (
        exact(said["net"])
    )


async def test_what_is_taken_back_is_on_the_next_invoice(rig: BillingRig, acme: str) -> None:
    """A correction after the invoice is a line below zero, and waits while no more was used."""
    wrong = use(acme)
    await rig.deliver(wrong)
    await rig.bill(acme)
    async with rig.database.write(EVERYBODY) as session:
        new = NewCorrection(event_id=wrong.event_id, quantities=None, reason="", reference="")
        await correct_usage(session, actor(), new, post_differences)
    october_us = AUGUST_US + 61 * DAY_US
    draft = await rig.draft(acme, "2026-09", at_us=october_us)
    await expect_refused("empty", rig.finalize(draft.id, october_us))
    more = [use(acme, AUGUST_US + 32 * DAY_US) for _ in range(2)]
    await rig.deliver(*more)
    _, said = await rig.read((await rig.finalize(draft.id, october_us)).id)
    assert amounts_of(said) == [-price_of(wrong), price_of(*more)]
    assert said["lines"][0]["quantities"] == {
        "requests": -1, "input_tokens": -15_003, "output_tokens": -10_000
    }  # fmt: skip
    assert said["net"] == "0.04"


async def test_an_invoice_is_paid_once_or_taken_back_once(rig: BillingRig, acme: str) -> None:
    """A payment clears what is owed; a credit note turns all round, and usage is billed anew."""
    event = use(acme)
    await rig.deliver(event)
    invoice = await rig.bill(acme)
    note = await rig.void(invoice.id)
    assert (note.kind, note.number, note.preceding_id) == ("credit_note", 2, invoice.id)
    assert (await rig.read(invoice.id))[0].state == "void"
    said = (await rig.read(note.id))[1]
    assert said["preceding"] == {"number": "INV-1", "issued_on": "2026-09-21"}
    amounts = await read_amounts(rig.database, acme)
    assert amounts["receivable"] == amounts["tax_payable"] == amounts["rounding"] == 0
    assert amounts["accrued_usage"] == price_of(event)
    for refused in (rig.void(invoice.id), rig.pay(invoice.id), rig.void(note.id), rig.pay(note.id)):
        await expect_refused("state", refused)
    again = await rig.bill(acme)
    assert (again.number, again.gross) == (3, invoice.gross)
    paid = await rig.pay(again.id)
    assert (paid.state, paid.paid_at_us) == ("paid", NOW_US)
    assert await rig.pay(again.id) == paid, "said again it is booked once"
    await expect_refused("state", rig.pay(again.id, "another"))
    await expect_refused("state", rig.void(again.id))
    amounts = await read_amounts(rig.database, acme)
    assert amounts["receivable"] == 0
    assert amounts["payment_clearing"] == Fraction("0.05")
    async with rig.database.read(EVERYBODY) as session:
        (statement,) = await list_statements(session, acme, AUGUST_US + 31 * DAY_US, NOW_US + 1)
    assert statement.opening.accrued_atto == statement.others_atto == price_of(event) * ATTO
    assert statement.closing.total_atto == 0


async def test_the_same_usage_makes_the_same_invoice(rig: BillingRig) -> None:
    """In whatever order usage comes, and billed anew after a credit note, no byte changes."""
    said = set()
    for name, order in (("one", 1), ("other", -1)):
        owner = (await create_organization(rig.database, name)).id
        await rig.set_recipient(owner)
        for number in range(12)[::order]:
            place = {"project": f"p{number % 3}", "input_tokens": 15_003 * number}
            await rig.deliver(use(owner, AUGUST_US + number * DAY_US, **place))
        first = await rig.bill(owner)
        await rig.void(first.id)
        for invoice in (first, await rig.bill(owner)):
            text = (invoice.content or "").replace(f'"{invoice.label}"', "-")
            said.add(text.replace(owner, "-"))
    assert len(said) == 1


async def test_who_reads_a_large_month_keeps_nobody_waiting(pg_database: Database) -> None:
    """While charges are read configuration may change, and the invoice says what holds then."""
    rig = BillingRig(pg_database)
    await rig.begin()
    acme = (await create_organization(pg_database)).id
    await rig.set_recipient(acme)
    await rig.deliver(use(acme, input_tokens=100_000_000))
    draft = await rig.draft(acme)

    async def finalize() -> Invoice:
        async with pg_database.write(EVERYBODY) as session:
            await session.tune(lock_timeout="0")
            return await service.finalize_invoice(session, actor(), draft.id, grace_s=0)

    async with pg_database.write(EVERYBODY) as other:
        lock = text("LOCK TABLE usage_corrections IN ACCESS EXCLUSIVE MODE")
        await other._connection.execute(lock)
        reading = asyncio.create_task(finalize())
        await until_somebody_waits(other._connection)
        assert not reading.done()
        await rig.set_recipient(acme, make_vat(rate_bps=700))
    invoice = await reading
    _, said = await rig.read(invoice.id)
    assert (said["net"], said["tax"]) == ("100.03", "7.00")
    assert await rig.find_wrong() == set()


async def test_charges_are_taken_once_by_invoices_that_are_issued_at_once(
    rig: BillingRig, acme: str
) -> None:
    """Of one draft twice and another month's, at the same time, each charge is on one invoice."""
    events = [use(acme, AUGUST_US + day * DAY_US) for day in (-20, -10, 0, 10)]
    await rig.deliver(*events[:2])
    await rig.deliver(*events[2:])
    july, august = await rig.draft(acme, "2026-07"), await rig.draft(acme)
    ids = (august.id, july.id, august.id)
    found = await asyncio.gather(*map(rig.finalize, ids), return_exceptions=True)
    issued = [one for one in found if isinstance(one, Invoice)]
    refused = [one.error for one in found if isinstance(one, PenstockError)]
    assert len(issued) + len(refused) == len(ids)
    assert INVOICE_STATE in refused
    lines = [amount for one in issued for amount in amounts_of((await rig.read(one.id))[1])]
    assert sum(lines) == price_of(*events)


async def test_each_currency_has_its_own_invoices(rig: BillingRig, acme: str) -> None:
    """A month that was charged in two has one of each, over its own charges alone."""
    rating = RatingRig(rig.database)
    await rating.add_price(await rating.add_book("list", "JPY"), "prc_yen", "small")
    euros, yen = use(acme), use(acme, input_tokens=15_003_000)
    await rig.deliver(euros)
    rig.books = UsageBooks("JPY")
    await rig.deliver(yen)
    invoice = await rig.bill(acme)
    draft = await rig.draft(acme, currency="JPY")
    in_yen = await rig.finalize(draft.id)
    said = [(await rig.read(one.id))[1] for one in (invoice, in_yen)]
    assert [amounts_of(one) for one in said] == [[price_of(euros)], [price_of(yen)]]
    assert [(one["net"], one["tax"], one["gross"]) for one in said] == [
        ("0.04", "0.01", "0.05"), ("15", "3", "18")
    ]  # fmt: skip
    await rig.void(in_yen.id)
    await rig.pay(invoice.id)
    again = await rig.finalize((await rig.draft(acme, currency="JPY")).id)
    assert (again.number, again.gross, again.currency) == (4, 18, "JPY")


async def test_nobody_is_billed_without_particulars_that_fit(rig: BillingRig) -> None:
    """Whoever is not known, or cannot be taxed like this, gets no invoice."""
    organization = (await create_organization(rig.database, "new")).id
    await rig.deliver(use(organization))
    draft = await rig.draft(organization)
    await expect_refused("particulars_missing", rig.finalize(draft.id))
    await rig.set_recipient(organization, make_vat("O"))
    await rig.set_issuer(party=make_party(registration_id=""))
    await expect_refused("particulars_missing", rig.finalize(draft.id))
    await rig.set_recipient(organization, make_vat("AE"))
    invoice = await rig.finalize(draft.id)
    assert (invoice.number, invoice.tax, invoice.net, invoice.gross) == (1, 0, 4, 4)
