"""Credit that organizations are given, and how they pay."""

from penstock.ledger import store
from penstock.ledger.model import Grant
from penstock.ledger.rules import draft_grant
from penstock.storage.sessions import WriteSession


async def book_grant(session: WriteSession, grant: Grant, *, key: str, recorded_at_us: int) -> None:
    """Store a grant of which nothing is used, and book it.

    Raises:
        RowConflictError: It is there already, or its key is.
    """
    await store.insert_grant(session, session.scope, grant)
    await store.insert_transfers(session, session.scope, [draft_grant(grant, key)], recorded_at_us)
