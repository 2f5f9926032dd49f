"""Whether the books are right: invariants as statements that must return no row."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Final, TypeAlias

from penstock.ledger import verify_store as store
from penstock.ledger.model import Violation
from penstock.storage.sessions import ReadSession

MAX_ROWS = 100
"""Most rows that are told of one check."""
LANES: Final = max(2, min(os.cpu_count() or 2, 4))
"""How many checks run side by side at most."""

Read = Callable[[], AbstractAsyncContextManager[ReadSession]]
Check: TypeAlias = Callable[[ReadSession], Awaitable[Sequence[str]]]
"""Returns what is wrong, by id: for what no SQL can tell."""
NO_CHECKS: Final[Mapping[str, Check]] = MappingProxyType({})


async def verify(
    read: Read, more: Mapping[str, Check] = NO_CHECKS, *, lanes: int = LANES
) -> list[Violation]:
    """Return rows that the books should not have: none, unless somebody broke them.

    Each check is one transaction and sees one state of the database, in which it holds alone: what
    is compared is written in the same transaction. So they need not all see the same state, and run
    side by side, those that take longest first. When one fails, or this is cancelled, the others
    are given up.

    Args:
        read: Opens a session of all organizations.
        more: Checks of rooms above, by name.
        lanes: How many checks run side by side.
    """
    waiting = iter((*store.LONGEST_FIRST, *more))
    found: dict[str, Sequence[Violation]] = {}

    async def work() -> None:
        for name in waiting:
            async with read() as session:
                if name in more:
                    wrong = (await more[name](session))[:MAX_ROWS]
                    found[name] = [Violation(name, subject) for subject in wrong]
                    continue
                found[name] = await store.find_violations(session, session.scope, name, MAX_ROWS)

    tasks = [asyncio.create_task(work(), name="verify") for _ in range(lanes)]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        # Once each: a second time would take them away from closing what they read with.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        await task
    return [violation for name in (*store.NAMES, *more) for violation in found[name]]
