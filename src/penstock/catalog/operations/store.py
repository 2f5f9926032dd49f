"""Every SQL statement about operations of engines. They are the platform's, and nobody else's."""

from sqlalchemy import delete, select

from penstock.catalog.operations.model import EngineOperation
from penstock.catalog.tables import EngineOperations
from penstock.storage.base import Microseconds
from penstock.storage.objects import ObjectStore
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

operations = ObjectStore(EngineOperations, EngineOperation, None)


async def find_waiting(session: ReadSession, scope: Scope, since_us: int) -> str | None:
    """Return the id of the oldest operation that nobody has taken; None when there is none.

    Args:
        session: Where from.
        scope: All organizations.
        since_us: Older ones are not done any more.
    """
    scope.require([""])
    row = await session.first(
        select(EngineOperations.id)
        .where(
            EngineOperations.claimed_at.is_(None),
            EngineOperations.created_at >= Microseconds(since_us),
        )
        .order_by(EngineOperations.created_at, EngineOperations.id)
        .limit(1)
    )
    return None if row is None else row.id


async def forget_operations(session: WriteSession, scope: Scope, before_us: int) -> None:
    """Remove operations that were wanted before a time."""
    scope.require([""])
    await session.change(
        delete(EngineOperations).where(EngineOperations.created_at < Microseconds(before_us))
    )
