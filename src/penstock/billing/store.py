"""Every SQL statement about invoices and particulars, each within a scope."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Insert, Select, bindparam, exists, func, insert, select, update
from sqlalchemy.orm import aliased

from penstock.billing.model import Invoice, State
from penstock.billing.tables import (
    BillingParties,
    InvoicePayments,
    Invoices,
    InvoiceTransfers,
)
from penstock.ledger.balance_store import SUMS, total_of
from penstock.ledger.tables import Entries, LedgerAccounts, Transfers
from penstock.storage.paging import Page, PageRequest
from penstock.storage.scope import Scope, within_scope
from penstock.storage.sessions import ReadSession, WriteSession

_NAMES = (
    *("id", "organization_id", "kind", "currency", "since_us", "until_us", "created_at_us"),
    *("number", "label", "issued_at_us", "net", "tax", "gross", "transfer_id", "preceding_id"),
    *("content", "hash"),
)
_CREDIT_NOTES = aliased(Invoices)
_INVOICES: Select[Any] = (
    select(
        *(getattr(Invoices, name.removesuffix("_us")) for name in _NAMES),
        InvoicePayments.paid_at,
        _CREDIT_NOTES.id,
    )
    .outerjoin(InvoicePayments, InvoicePayments.invoice_id == Invoices.id)
    .outerjoin(_CREDIT_NOTES, _CREDIT_NOTES.preceding_id == Invoices.id)
)
_UNBILLED = (
    within_scope(Transfers.organization_id),
    Transfers.organization_id == bindparam("owner"),
    Transfers.currency == bindparam("currency"),
    Transfers.kind == "charge",
    Transfers.booked_at < bindparam("until", type_=Transfers.booked_at.type),
    ~exists().where(
        InvoiceTransfers.transfer_id == Transfers.id, InvoiceTransfers.credit_note_id.is_(None)
    ),
)
# Not until a moment of recording: a transaction that ends late is simply on the next one.
UNBILLED = select(Transfers.id).where(*_UNBILLED)
"""Charges that are on no invoice, for `parameters_of`."""
BILLED = select(InvoiceTransfers.transfer_id).where(
    within_scope(InvoiceTransfers.organization_id),
    InvoiceTransfers.invoice_id == bindparam("invoice"),
)
"""Charges that are on an invoice, for `parameters_of`."""
_BILL: Insert = insert(InvoiceTransfers).from_select(
    ["invoice_id", "transfer_id", "organization_id"],
    select(bindparam("invoice"), Transfers.id, Transfers.organization_id).where(*_UNBILLED),
)


def parameters_of(scope: Scope, invoice: Invoice) -> dict[str, Any]:
    """Return what `UNBILLED` and `BILLED` are run with."""
    return {
        "invoice": invoice.id,
        "owner": invoice.organization_id,
        "currency": invoice.currency,
        "until": invoice.until_us,
        **scope.parameters,
    }


async def find_particulars(
    session: ReadSession, scope: Scope, organization_id: str
) -> tuple[Any, int, int] | None:
    """Return who an invoice is from or to, as JSON, with version and time of the last change."""
    statement = select(
        BillingParties.particulars, BillingParties.version, BillingParties.updated_at
    ).where(
        scope.where(BillingParties.organization_id),
        BillingParties.organization_id == organization_id,
    )
    row = await session.first(statement)
    return None if row is None else (row[0], row[1], row[2])


async def write_particulars(
    session: WriteSession,
    scope: Scope,
    organization_id: str,
    particulars: Mapping[str, Any],
    *,
    version: int,
    now_us: int,
) -> None:
    """Store the next version of who invoices are from or to; the first one is a new row."""
    scope.require([organization_id])
    values = {"particulars": dict(particulars), "version": version, "updated_at": now_us}
    if version == 1:
        row = {"organization_id": organization_id, "created_at": now_us}
        await session.insert(BillingParties, row | values)
        return
    where = BillingParties.organization_id == organization_id
    await session.change(update(BillingParties).where(where).values(**values))


async def insert_invoice(session: WriteSession, scope: Scope, invoice: Invoice) -> None:
    """Store a draft, or a credit note.

    Raises:
        RowConflictError: There is one already.
    """
    scope.require([invoice.organization_id])
    await session.insert(Invoices, _row(invoice))


async def issue_invoice(session: WriteSession, scope: Scope, invoice: Invoice) -> None:
    """Store what a draft has become. The database refuses every later change.

    Raises:
        RowConflictError: Its number is taken.
    """
    await session.change(
        update(Invoices)
        .where(scope.where(Invoices.organization_id), Invoices.id == invoice.id)
        .values(**_row(invoice))
    )


def _row(invoice: Invoice) -> dict[str, Any]:
    return {name.removesuffix("_us"): getattr(invoice, name) for name in _NAMES}


async def find_invoice(session: ReadSession, scope: Scope, invoice_id: str) -> Invoice | None:
    """Return an invoice, a credit note or a draft; None when there is none."""
    where = (scope.where(Invoices.organization_id), Invoices.id == invoice_id)
    row = await session.first(_INVOICES.where(*where))
    return None if row is None else _build(row)


async def list_invoices(
    session: ReadSession, scope: Scope, page: PageRequest, organization_id: str | None
) -> Page[Invoice]:
    """Return a page of invoices, credit notes and drafts, oldest first."""
    order = (Invoices.created_at, Invoices.id)
    where = [scope.where(Invoices.organization_id), *page.condition(*order)]
    if organization_id is not None:
        where.append(Invoices.organization_id == organization_id)
    statement = _INVOICES.where(*where).order_by(*order).limit(page.limit + 1)
    return page.page([_build(row) for row in await session.rows(statement)])


async def find_of_month(
    session: ReadSession, scope: Scope, organization_id: str, currency: str, since_us: int
) -> Invoice | None:
    """Return the invoice over a month that is not taken back, or its draft."""
    statement = _INVOICES.where(
        scope.where(Invoices.organization_id),
        Invoices.organization_id == organization_id,
        Invoices.kind == "invoice",
        Invoices.currency == currency,
        Invoices.since == since_us,
        _CREDIT_NOTES.id.is_(None),
    )
    row = await session.first(statement)
    return None if row is None else _build(row)


def _build(row: Any) -> Invoice:
    *values, paid_at, credit_note_id = row
    members = dict(zip(_NAMES, values, strict=True))
    return Invoice(
        **members,
        paid_at_us=paid_at,
        credit_note_id=credit_note_id,
        state=_state_of(members, is_void=credit_note_id is not None, is_paid=paid_at is not None),
    )


def _state_of(members: Mapping[str, Any], *, is_void: bool, is_paid: bool) -> State:
    if members["number"] is None:
        return "draft"
    if is_void:
        return "void"
    # Nobody pays an invoice over nothing: who paid before gets those.
    is_free = members["kind"] == "invoice" and members["gross"] == 0
    return "paid" if is_paid or is_free else "final"


async def next_number(session: WriteSession, scope: Scope) -> int:
    """Return the number of what is issued next, under the lock of the configuration.

    It follows from what is stored: so a transaction that is undone leaves no gap.
    """
    scope.require([])
    await session.lock_configuration()
    last = await session.first(select(func.max(Invoices.number)))
    return 1 + int((last and last[0]) or 0)


async def take_charges(session: WriteSession, scope: Scope, invoice: Invoice) -> None:
    """Have an invoice be over all charges of its organization that are on no other one."""
    scope.require([invoice.organization_id])
    await session.change_together((_BILL, parameters_of(scope, invoice)))


async def release_charges(
    session: WriteSession, scope: Scope, invoice_id: str, credit_note_id: str
) -> None:
    """Have the charges of an invoice that is taken back be free for another one."""
    await session.change(
        update(InvoiceTransfers)
        .where(
            scope.where(InvoiceTransfers.organization_id), InvoiceTransfers.invoice_id == invoice_id
        )
        .values(credit_note_id=credit_note_id)
    )


async def insert_payment(
    session: WriteSession,
    scope: Scope,
    invoice: Invoice,
    *,
    reference: str,
    transfer_id: str | None,
    paid_at_us: int,
) -> None:
    """Store that an invoice was paid.

    Raises:
        RowConflictError: It was before.
    """
    scope.require([invoice.organization_id])
    row = {
        "invoice_id": invoice.id,
        "organization_id": invoice.organization_id,
        "reference": reference,
        "transfer_id": transfer_id,
        "paid_at": paid_at_us,
    }
    await session.insert(InvoicePayments, row)


async def find_reference(session: ReadSession, scope: Scope, invoice_id: str) -> str | None:
    """Return the reference of an invoice's payment; None when it was not paid."""
    statement = select(InvoicePayments.reference).where(
        scope.where(InvoicePayments.organization_id), InvoicePayments.invoice_id == invoice_id
    )
    row = await session.first(statement)
    return None if row is None else row[0]


async def list_issued(
    session: ReadSession, scope: Scope, after: int, limit: int
) -> list[tuple[Invoice, int]]:
    """Return what was issued behind a number, each with what it has the organization owe.

    That is as it is booked, in atto-units; 0 of what is booked nowhere.
    """
    scope.require([])
    statement = _INVOICES.where(Invoices.number > after).order_by(Invoices.number).limit(limit)
    found = [_build(row) for row in await session.rows(statement)]
    owed: Select[Any] = (
        select(Entries.transfer_id, *SUMS)
        .join(LedgerAccounts, LedgerAccounts.id == Entries.account_id)
        .where(
            LedgerAccounts.kind == "receivable",
            Entries.transfer_id.in_([one.transfer_id for one in found]),
        )
        .group_by(Entries.transfer_id)
    )
    rows: Iterable[Any] = await session.rows(owed)
    booked = {transfer_id: total_of(*sums) for transfer_id, *sums in rows}
    return [(one, booked.get(one.transfer_id, 0)) for one in found]
