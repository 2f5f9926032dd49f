"""The change feed: which objects that data planes need were changed, in order of commit."""

from typing import Literal

from sqlalchemy import BigInteger, Integer, String, bindparam, func, select
from sqlalchemy.orm import Mapped, mapped_column

from penstock.storage.base import Base, Microseconds
from penstock.storage.sessions import ReadSession, WriteSession, insertion

ChangeKind = Literal[
    "key",
    "key_hash",
    "organization",
    "project",
    "upstream",
    "deployment",
    "route",
    "alias",
    "grant",
    "credential",
    "plan",
    "limits",
    "budget",
    "price",
    "terms",
]
"""What sort of object; those of the catalog and plans are named by their names, others by ids, and
what limits somebody, and budgets, by whom it limits; prices by their alias, terms by
whose they are."""


class SnapshotChanges(Base):
    """One row for each change; only ever added, and removed when no data plane needs it."""

    __tablename__ = "snapshot_changes"
    __table_args__ = ({"sqlite_autoincrement": True},)

    seq: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    kind: Mapped[ChangeKind] = mapped_column(String)
    object_id: Mapped[str]
    recorded_at: Mapped[Microseconds]


_CHANGES = (
    select(SnapshotChanges.seq, SnapshotChanges.kind, SnapshotChanges.object_id)
    .where(SnapshotChanges.seq > bindparam("after_seq"))
    .order_by(SnapshotChanges.seq)
    .limit(bindparam("row_limit", type_=Integer))
)
_LAST = select(func.coalesce(func.max(SnapshotChanges.seq), 0))
_STAMP = select(SnapshotChanges.recorded_at).where(SnapshotChanges.seq == bindparam("stamped_seq"))


async def record_change(
    session: WriteSession, kind: ChangeKind, object_id: str, now_us: int
) -> None:
    """Tell data planes that an object is not what it was, when this transaction commits.

    Numbers become visible in their order: who has read up to one misses none below it.

    Args:
        session: The transaction of the change itself.
        kind: What sort of object.
        object_id: Its id.
        now_us: The time.
    """
    await session.lock_configuration()
    row = {"kind": kind, "object_id": object_id, "recorded_at": now_us}
    session.change_later(insertion(SnapshotChanges, row))


async def list_changes(
    session: ReadSession, after_seq: int, limit: int
) -> list[tuple[int, str, str]]:
    """Return changes behind a number as (number, kind, object id), in their order."""
    rows = await session.rows(_CHANGES, {"after_seq": after_seq, "row_limit": limit})
    return [(seq, kind, object_id) for seq, kind, object_id in rows]


async def get_last_change(session: ReadSession) -> int:
    """Return the number of the last change, 0 before the first."""
    return (await session.rows(_LAST))[0][0]


async def find_change_time(session: ReadSession, seq: int) -> int | None:
    """Return when a change was recorded; None when there is none of that number."""
    row = await session.first(_STAMP, {"stamped_seq": seq})
    return None if row is None else row[0]
