"""Use cases that read invoices, and what drafts would come to."""

from typing import Any

from sqlalchemy import Select

from penstock.billing import store, usage_store
from penstock.billing.documents import describe, said_of
from penstock.billing.model import Invoice, Paid, Usage
from penstock.billing.parties import find_recipient
from penstock.billing.rules import reckon
from penstock.kit.errors import PenstockError
from penstock.ledger.verify_store import STATEMENT_TIMEOUT_MS
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession


async def get_invoice(session: ReadSession, invoice_id: str) -> Invoice:
    """Return an invoice, a credit note or a draft.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    found = await store.find_invoice(session, session.scope, invoice_id)
    if found is None:
        raise PenstockError(OBJECT_UNKNOWN)
    return found


async def list_invoices(
    session: ReadSession, page: PageRequest, organization_id: str | None
) -> Page[Invoice]:
    """Return a page of invoices, credit notes and drafts that the session may see, oldest first."""
    return await store.list_invoices(session, session.scope, page, organization_id)


async def read_content(session: ReadSession, invoice: Invoice) -> dict[str, Any] | None:
    """Return what an invoice says; of a draft what it would say now.

    A draft is read as long as it takes; it says nothing, None, while nobody has said how the
    organization is taxed.
    """
    if invoice.content is not None:
        return said_of(invoice)
    recipient = await find_recipient(session, invoice.organization_id)
    if recipient is None:
        return None
    await session.tune(statement_timeout=str(STATEMENT_TIMEOUT_MS))
    usages, paid = await read_charges(session, store.UNBILLED, invoice)
    return describe(invoice, reckon(invoice.currency, usages, paid, recipient.vat))


async def read_charges(
    session: ReadSession, charges: Select[Any], invoice: Invoice
) -> tuple[list[Usage], Paid]:
    """Return what some charges are for and who paid them: each row that they are made of is read.

    Args:
        session: Where from; its statements may take `STATEMENT_TIMEOUT_MS`.
        charges: `store.UNBILLED` or `store.BILLED`.
        invoice: What these are asked for.
    """
    where = (session, session.scope, charges, invoice)
    return await usage_store.list_usage(*where), await usage_store.sum_paid(*where)
