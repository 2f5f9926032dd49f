"""Whether the books are right: invariants as statements that must return no row."""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from penstock.ledger import verify_store as store
from penstock.ledger.model import Violation
from penstock.storage.sessions import ReadSession

MAX_ROWS = 100
"""Most rows that are told of one check."""
LANES: Final = max(2, min(os.cpu_count() or 2, 4))
"""How many checks run side by side at most."""

Read = Callable[[], AbstractAsyncContextManager[ReadSession]]


async def verify(read: Read, *, lanes: int = LANES) -> list[Violation]:
    """Return rows that the books should not have: none, unless somebody broke them.

    Each check is one statement and sees one state of the database, in which it holds alone: what
    is compared is written in the same transaction. So they need not all see the same state, and run
    side by side, those that take longest first. When one fails, or this is cancelled, the others
    are given up.

    Args:
        read: Opens a session of all organizations.
        lanes: How many checks run side by side.
    """
    waiting = iter(store.LONGEST_FIRST)
    found: dict[str, Sequence[Violation]] = {}

    async def work() -> None:
        for name in waiting:
            async with read() as session:
                found[name] = await store.find_violations(session, session.scope, name, MAX_ROWS)

    tasks = [asyncio.create_task(work(), name="verify") for _ in range(lanes)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [violation for name in store.NAMES for violation in found[name]]
