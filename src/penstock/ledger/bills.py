"""Booking of invoices, credit notes and payments: what organizations owe for what they used."""

from penstock.ledger import store
from penstock.ledger.drafts import draft_bill, draft_credit_note, draft_payment
from penstock.ledger.model import BillPosting, Draft
from penstock.storage.sessions import WriteSession


async def post_bill(session: WriteSession, posting: BillPosting, now_us: int) -> str | None:
    """Book an invoice, and return the transfer; None when it is over nothing.

    Raises:
        RowConflictError: It is booked already.
    """
    return await _book(session, draft_bill(posting, now_us), now_us)


async def post_credit_note(
    session: WriteSession, owner: tuple[str, str], *, key: str, reverses_id: str, now_us: int
) -> str | None:
    """Book the transfer of an invoice the other way round, and return what does it.

    Args:
        session: Where to.
        owner: Organization and currency.
        key: Id of the credit note: booked once.
        reverses_id: The invoice's transfer.
        now_us: The time.

    Raises:
        RowConflictError: It is booked already.
    """
    lines = await store.read_lines(session, session.scope, reverses_id)
    draft = draft_credit_note(owner, key, reverses_id, lines, now_us)
    return await _book(session, draft, now_us)


async def post_payment(
    session: WriteSession, owner: tuple[str, str], *, key: str, gross_atto: int, now_us: int
) -> str | None:
    """Book that an invoice was paid in full, and return the transfer.

    Args:
        session: Where to.
        owner: Organization and currency.
        key: Id of the invoice: booked once.
        gross_atto: What was due, more than 0.
        now_us: The time.

    Raises:
        RowConflictError: It is booked already.
    """
    return await _book(session, draft_payment(owner, key, gross_atto, now_us), now_us)


async def _book(session: WriteSession, draft: Draft, now_us: int) -> str | None:
    if not draft.lines:
        return None
    await store.insert_transfers(session, session.scope, [draft], now_us)
    return draft.id
