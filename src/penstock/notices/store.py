"""Every SQL statement of the notices room, each within a scope."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, ColumnElement, String, cast, delete, func, select, tuple_

from penstock.kit.base62 import create_id
from penstock.notices.model import Notice, Position, StoredNotice
from penstock.notices.tables import Outbox
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

_ORDER = (Outbox.transaction_number, Outbox.seq)
# Below it every transaction has ended: what it wrote can be seen, or will never be there.
_OLDEST_OPEN = cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), String), BigInteger)


async def insert_notices(
    session: WriteSession, scope: Scope, notices: Sequence[Notice], now_us: int
) -> None:
    """Store notices; each gets an id, and the number of the transaction."""
    scope.require(notice.organization_id for notice in notices)
    rows = [
        {
            "id": create_id("ntc"),
            "topic": notice.topic,
            "organization_id": notice.organization_id,
            "key": notice.key,
            "payload": dict(notice.payload),
            "created_at": now_us,
        }
        for notice in notices
    ]
    await session.insert(Outbox, *rows)


async def list_notices(
    session: ReadSession,
    scope: Scope,
    *,
    after: Position,
    organization: str | None,
    limit: int,
) -> list[StoredNotice]:
    """Return the notices behind a place that none can come before any more.

    Args:
        session: Where from.
        scope: Whose.
        after: The place.
        organization: Of this one only.
        limit: Most notices.
    """
    types = [column.type for column in _ORDER]
    conditions: list[ColumnElement[bool]] = [
        scope.where(Outbox.organization_id),
        tuple_(*_ORDER) > tuple_(*after, types=types),
    ]
    if session.has_snapshots:
        conditions.append(Outbox.transaction_number < _OLDEST_OPEN)
    if organization is not None:
        conditions.append(Outbox.organization_id == organization)
    statement = (
        select(
            *_ORDER,
            Outbox.id,
            Outbox.topic,
            Outbox.organization_id,
            Outbox.key,
            Outbox.payload,
            Outbox.created_at,
        )
        .where(*conditions)
        .order_by(*_ORDER)
        .limit(limit)
    )
    return [
        StoredNotice(Position(number, seq), *row)
        for number, seq, *row in await session.rows(statement)
    ]


async def forget_notices(session: WriteSession, scope: Scope, before_us: int) -> int:
    """Remove the notices that were written before a moment, and count them."""
    statement = delete(Outbox).where(
        scope.where(Outbox.organization_id), Outbox.created_at < before_us
    )
    return await session.change(statement)
