"""Whether the books are right: invariants as statements that must return no row."""

from penstock.ledger import verify_store as store
from penstock.ledger.model import Violation
from penstock.storage.sessions import ReadSession

MAX_ROWS = 100
"""Most rows that are told of one check."""


async def verify(session: ReadSession) -> list[Violation]:
    """Return rows that the books should not have: none, unless somebody broke them.

    All is looked at in one state of the database.

    Args:
        session: Of all organizations.
    """
    found: list[Violation] = []
    for name in store.NAMES:
        found += await store.find_violations(session, session.scope, name, MAX_ROWS)
    return found
