"""Use cases of invoices: drafted, issued, paid, taken back. None commits.

Whoever changes invoices holds the lock of the configuration, so each decides by what the one before
has left; ids and numbers that are unique stand behind it. Only charges are taken, and read, before.
"""

import dataclasses
from typing import Any

from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.billing import store, usage_store
from penstock.billing.documents import (
    describe,
    finish,
    hash_of,
    said_of,
    take_back,
    write_canonical,
)
from penstock.billing.errors import (
    BILLING_INVALID,
    INVOICE_EARLY,
    INVOICE_EMPTY,
    INVOICE_EXISTS,
    INVOICE_STATE,
    INVOICE_UNBALANCED,
    PARTICULARS_MISSING,
)
from penstock.billing.model import Bill, Invoice, Issuer, Recipient, State
from penstock.billing.parties import find_issuer, find_recipient
from penstock.billing.party_rules import find_pair_fault
from penstock.billing.reading import get_invoice, read_charges
from penstock.billing.rules import is_balanced, minor_unit, reckon
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.kit.moments import format_time
from penstock.ledger.credits import get_terms
from penstock.ledger.model import BillPosting
from penstock.ledger.months import find_month
from penstock.ledger.service import post_bill, post_credit_note, post_payment
from penstock.ledger.verify_store import STATEMENT_TIMEOUT_MS
from penstock.limits.budget_rules import find_currency_fault
from penstock.storage.errors import VERSION_CONFLICT
from penstock.storage.sessions import ReadSession, WriteSession

_SECOND_US = 1_000_000


async def draft_invoice(
    session: WriteSession,
    actor: Actor,
    *,
    organization_id: str,
    month: str,
    currency: str | None,
    default: str,
) -> Invoice:
    """Return the draft of an organization's invoice over a month that is over.

    It takes nothing: what it would be over is read when it is shown, and once more when it is
    finalized. Said again it is the same draft.

    Args:
        session: Where to.
        actor: Who does it.
        organization_id: Whose usage.
        month: YYYY-MM, in UTC.
        currency: That of its terms when None.
        default: Of those that have no terms of their own.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `BILLING_INVALID`, `INVOICE_EXISTS`.
    """
    await session.lock_configuration()
    terms = await get_terms(session, organization_id, default)
    currency = currency or terms.currency
    period = find_month(month)
    if period is None or period[1] > actor.at_us:
        raise PenstockError(BILLING_INVALID, "`month`: use one that is over, e.g. 2026-11.")
    if (fault := find_currency_fault(currency)) is not None:
        raise PenstockError(BILLING_INVALID, f"`currency`: {fault}.")
    before = await store.find_of_month(session, session.scope, organization_id, currency, period[0])
    if before is not None:
        if before.state != "draft":
            raise PenstockError(INVOICE_EXISTS)
        return before
    invoice = Invoice(
        id=create_id("inv"),
        organization_id=organization_id,
        kind="invoice",
        currency=currency,
        since_us=period[0],
        until_us=period[1],
        created_at_us=actor.at_us,
    )
    await store.insert_invoice(session, session.scope, invoice)
    return await _done(session, actor, "invoice.draft", invoice)


async def finalize_invoice(
    session: WriteSession,
    actor: Actor,
    invoice_id: str,
    *,
    grace_s: int,
    expected_version: int | None = None,
) -> Invoice:
    """Issue a draft: number, amounts, parties and what it is over are fixed, and it is booked.

    All of it or nothing. It is over all charges that were booked for the time until the end of its
    month and are on no other invoice: so what came late for an earlier one is on it, too. They are
    taken and read before the lock of the configuration, one invoice of an organization at a time:
    what they say does not change, and everything that can is read behind the lock.

    Args:
        session: Where to; it does not have that lock.
        actor: Who does it.
        invoice_id: Which draft.
        grace_s: How long after the end of the month usage of it is waited for.
        expected_version: That it must have.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `INVOICE_STATE`, `INVOICE_EARLY`,
            `PARTICULARS_MISSING`, `INVOICE_EMPTY`, `INVOICE_UNBALANCED`.
    """
    draft = await _get(session, invoice_id, expected_version, "draft")
    await session.lock_work(f"invoices of {draft.organization_id}")
    draft = await _get(session, invoice_id, expected_version, "draft")
    ready_us = draft.until_us + grace_s * _SECOND_US
    if actor.at_us < ready_us:
        message = f"Usage of the month is waited for until {format_time(ready_us)}."
        raise PenstockError(INVOICE_EARLY, message)
    await _find_parties(session, draft.organization_id)
    await session.tune(statement_timeout=str(STATEMENT_TIMEOUT_MS))
    await store.take_charges(session, session.scope, draft)
    transfers = await usage_store.count_charges(session, session.scope, store.BILLED, draft)
    usages, paid = await read_charges(session, store.BILLED, draft)
    draft = await _lock(session, invoice_id, expected_version, "draft")
    issuer, recipient = await _find_parties(session, draft.organization_id)
    bill = reckon(draft.currency, usages, paid, recipient.vat)
    if not transfers or bill.net < 0:
        raise PenstockError(INVOICE_EMPTY)
    if not is_balanced(bill):
        raise PenstockError(INVOICE_UNBALANCED)
    number = await store.next_number(session, session.scope)
    said = describe(draft, bill)
    label = f"{issuer.number_prefix}{number}"
    content = finish(said, issuer, recipient, label=label, now_us=actor.at_us, transfers=transfers)
    invoice = dataclasses.replace(
        _issue(draft, content, number=number, now_us=actor.at_us),
        net=bill.net,
        tax=bill.tax,
        gross=bill.gross,
        transfer_id=await post_bill(session, _posting(draft, bill), actor.at_us),
    )
    await store.issue_invoice(session, session.scope, invoice)
    return await _done(session, actor, "invoice.finalize", invoice)


async def void_invoice(
    session: WriteSession, actor: Actor, invoice_id: str, *, expected_version: int | None = None
) -> Invoice:
    """Take an invoice back that nobody paid, and return its credit note.

    What it was booked as is booked the other way round, and its charges are free for another one.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `INVOICE_STATE`, `PARTICULARS_MISSING`.
    """
    before = await _lock(session, invoice_id, expected_version, "final", "paid")
    if before.kind == "credit_note" or before.paid_at_us is not None:
        raise PenstockError(INVOICE_STATE)
    issuer = await find_issuer(session)
    if issuer is None:
        raise PenstockError(PARTICULARS_MISSING)
    number = await store.next_number(session, session.scope)
    label = f"{issuer.number_prefix}{number}"
    content = take_back(said_of(before), label=label, now_us=actor.at_us)
    note_id, transfer_id = create_id("inv"), None
    if before.transfer_id is not None:
        transfer_id = await post_credit_note(
            session,
            (before.organization_id, before.currency),
            key=note_id,
            reverses_id=before.transfer_id,
            now_us=actor.at_us,
        )
    note = dataclasses.replace(
        _issue(before, content, number=number, now_us=actor.at_us),
        id=note_id,
        kind="credit_note",
        created_at_us=actor.at_us,
        preceding_id=before.id,
        transfer_id=transfer_id,
    )
    await store.insert_invoice(session, session.scope, note)
    await store.release_charges(session, session.scope, before.id, note.id)
    return await _done(session, actor, "invoice.void", note)


async def pay_invoice(
    session: WriteSession,
    actor: Actor,
    invoice_id: str,
    *,
    reference: str,
    expected_version: int | None = None,
) -> Invoice:
    """Book that an invoice was paid in full, once for all references.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`; `INVOICE_STATE`, unless it was paid
            under this reference.
    """
    before = await _lock(session, invoice_id, expected_version, "final", "paid")
    if before.paid_at_us is not None:
        known = await store.find_reference(session, session.scope, invoice_id)
        if known == reference:
            return before
    if before.kind == "credit_note" or before.state == "paid":
        raise PenstockError(INVOICE_STATE)
    transfer_id = await post_payment(
        session,
        (before.organization_id, before.currency),
        key=before.id,
        gross_atto=(before.gross or 0) * minor_unit(before.currency),
        now_us=actor.at_us,
    )
    await store.insert_payment(
        session,
        session.scope,
        before,
        reference=reference,
        transfer_id=transfer_id,
        paid_at_us=actor.at_us,
    )
    return await _done(session, actor, "invoice.pay", before)


async def _lock(
    session: WriteSession, invoice_id: str, expected_version: int | None, *states: State
) -> Invoice:
    await session.lock_configuration()
    return await _get(session, invoice_id, expected_version, *states)


async def _get(
    session: ReadSession, invoice_id: str, expected_version: int | None, *states: State
) -> Invoice:
    found = await get_invoice(session, invoice_id)
    if expected_version not in {None, found.version}:
        raise PenstockError(VERSION_CONFLICT)
    if found.state not in states:
        raise PenstockError(INVOICE_STATE)
    return found


async def _find_parties(session: ReadSession, organization_id: str) -> tuple[Issuer, Recipient]:
    issuer, recipient = await find_issuer(session), await find_recipient(session, organization_id)
    if issuer is None:
        raise PenstockError(PARTICULARS_MISSING, "It is not known who sends the invoices.")
    if recipient is None:
        raise PenstockError(PARTICULARS_MISSING, "It is not known who gets the invoice.")
    if (fault := find_pair_fault(issuer, recipient)) is not None:
        raise PenstockError(PARTICULARS_MISSING, fault)
    return issuer, recipient


def _posting(invoice: Invoice, bill: Bill) -> BillPosting:
    return BillPosting(
        organization=invoice.organization_id,
        currency=invoice.currency,
        key=invoice.id,
        accrued_atto=bill.paid.accrued_atto,
        tax_atto=bill.tax * minor_unit(bill.currency),
        rounding_atto=bill.rounding_atto,
    )


def _issue(invoice: Invoice, content: dict[str, Any], *, number: int, now_us: int) -> Invoice:
    text = write_canonical(content)
    return dataclasses.replace(
        invoice,
        number=number,
        label=content["number"],
        issued_at_us=now_us,
        content=text,
        hash=hash_of(text),
    )


async def _done(session: WriteSession, actor: Actor, action: str, invoice: Invoice) -> Invoice:
    """Record what happened to an invoice, and return it as it is then."""
    after = await get_invoice(session, invoice.id)
    names = ("kind", "state", "label", "currency", "net", "tax", "gross", "preceding_id", "hash")
    entry = Entry(
        actor=actor,
        action=action,
        resource_kind="invoice",
        resource_id=after.id,
        organization_id=after.organization_id,
        after={name: getattr(after, name) for name in names},
    )
    await record(session, entry)
    return after
