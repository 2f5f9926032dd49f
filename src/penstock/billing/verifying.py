"""Whether what was issued still says what it said, and what it says is what is booked."""

from collections.abc import Mapping
from typing import Final

from penstock.billing import store
from penstock.billing.documents import format_minor, hash_of, said_of
from penstock.billing.model import Invoice
from penstock.billing.rules import minor_unit
from penstock.ledger.verifying import Check
from penstock.storage.sessions import ReadSession

_PAGE = 500


async def find_changed(session: ReadSession) -> list[str]:
    """Return ids of invoices and credit notes that are not what was issued, in their order.

    Their hash is not that of their content, their columns have other amounts than it, or the
    organization owes something else by what is booked.
    """
    found: list[str] = []
    after = 0
    while page := await store.list_issued(session, session.scope, after, _PAGE):
        found += [one.id for one, owed_atto in page if not _is_as_issued(one, owed_atto)]
        after = page[-1][0].number or after
    return found


def _is_as_issued(invoice: Invoice, owed_atto: int) -> bool:
    if hash_of(invoice.content or "") != invoice.hash:
        return False
    try:
        said = said_of(invoice)
    except ValueError:
        return False
    amounts = (invoice.net or 0, invoice.tax or 0, invoice.gross or 0)
    expected = {
        "number": invoice.label,
        "currency": invoice.currency,
        "organization_id": invoice.organization_id,
        **{
            name: format_minor(amount, invoice.currency)
            for name, amount in zip(("net", "tax", "gross"), amounts, strict=True)
        },
    }
    sign = -1 if invoice.kind == "credit_note" else 1
    is_said = all(said.get(name) == value for name, value in expected.items())
    return is_said and sign * amounts[-1] * minor_unit(invoice.currency) == owed_atto


BILLING_CHECKS: Final[Mapping[str, Check]] = {"invoice_content": find_changed}
"""What `ledger.verifying.verify` does besides its own."""
