"""Use cases of the notices room. None commits."""

import re
from collections.abc import Sequence

from penstock.kit.errors import PenstockError
from penstock.notices import store
from penstock.notices.model import Notice, Position, StoredNotice
from penstock.storage.errors import PAGE_CURSOR_INVALID
from penstock.storage.sessions import ReadSession, WriteSession

KEEP_S = 30 * 86_400
"""How long notices are kept."""
_CURSOR = re.compile(r"(?P<transaction>[0-9]{1,18})\.(?P<seq>[0-9]{1,18})")


async def record_notices(session: WriteSession, notices: Sequence[Notice], now_us: int) -> None:
    """Have something told when, and only if, this transaction commits.

    Args:
        session: The transaction of what is told of.
        notices: What is to be told, each for the first time.
        now_us: The time.
    """
    if notices:
        await store.insert_notices(session, session.scope, notices, now_us)


async def list_notices(
    session: ReadSession, after: str | None, *, organization: str | None = None, limit: int
) -> tuple[list[StoredNotice], str]:
    """Return notices in the order of the feed, and the cursor behind them.

    Whoever follows the cursors gets every notice, and none twice; who has lost the last one goes on
    behind the one before, and gets the same notices again.

    Args:
        session: Whose they may be.
        after: Cursor of the answer before; the oldest notice that is kept is first when None.
        organization: Of this one only.
        limit: Most notices, 1..1000.

    Raises:
        PenstockError: `PAGE_CURSOR_INVALID`.
    """
    place = Position() if after is None else _read_cursor(after)
    found = await store.list_notices(
        session, session.scope, after=place, organization=organization, limit=limit
    )
    return found, write_cursor(found[-1].position if found else place)


def write_cursor(position: Position) -> str:
    """Return a place in the feed as the word that a reader hands back."""
    return f"{position.transaction}.{position.seq}"


async def forget_old_notices(session: WriteSession, now_us: int) -> int:
    """Remove notices that are older than `KEEP_S`, and count them."""
    return await store.forget_notices(session, session.scope, now_us - KEEP_S * 1_000_000)


def _read_cursor(text: str) -> Position:
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise PenstockError(PAGE_CURSOR_INVALID)
    return Position(int(match["transaction"]), int(match["seq"]))
