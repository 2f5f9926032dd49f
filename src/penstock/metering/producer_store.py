"""Every SQL statement about how far journals are stored.

Lives of workers belong to nodes, not to organizations, so there is no scope to apply.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import bindparam, select, tuple_, update

from penstock.metering.model import Delivery, Place, Producer
from penstock.metering.tables import UsageProducers
from penstock.storage.bulk import Bulk
from penstock.storage.sessions import ReadSession, WriteSession

_NAMES = (
    "producer",
    "epoch",
    "position_segment",
    "position_offset",
    "event_count",
    "first_day",
    "last_day",
    "seen_at",
)
_COLUMNS: Any = tuple(getattr(UsageProducers, name) for name in _NAMES)
_INSERT = Bulk(UsageProducers, _NAMES)
_IS_LIFE = (
    UsageProducers.producer == bindparam("life_producer"),
    UsageProducers.epoch == bindparam("life_epoch"),
)
_LOCK = select(*_COLUMNS).where(*_IS_LIFE).with_for_update()
_WRITE = (
    update(UsageProducers)
    .where(*_IS_LIFE)
    .values({name: bindparam(f"new_{name}") for name in _NAMES[2:]})
)


async def lock_producer(session: WriteSession, delivery: Delivery) -> Producer:
    """Return how far the journal that a delivery is of is stored, and keep others from it.

    The first thing that a transaction locks that stores usage.
    """
    life = {"life_producer": delivery.producer, "life_epoch": delivery.epoch}
    row = await session.first(_LOCK, life)
    if row is None:
        new = (delivery.producer, delivery.epoch, 0, 0, 0, 0, 0, delivery.recorded_at_us)
        await session.insert_many_new(_INSERT, [new])
        row = await session.first(_LOCK, life)
    return _producer(row)


async def write_producer(session: WriteSession, producer: Producer) -> None:
    """Store how far a journal that is locked is stored."""
    members = (*producer.place, *_counts(producer))
    values = {f"new_{name}": value for name, value in zip(_NAMES[2:], members, strict=True)}
    life = {"life_producer": producer.producer, "life_epoch": producer.epoch}
    await session.change(_WRITE, life | values)


async def list_producers(
    session: ReadSession, lives: Collection[tuple[str, int]]
) -> dict[tuple[str, int], Producer]:
    """Return what is known of lives, by producer and epoch; those of which nothing is are left out.

    Args:
        session: Where from.
        lives: Producers and their epochs, 500 at most.
    """
    is_asked = tuple_(UsageProducers.producer, UsageProducers.epoch).in_(sorted({*lives}))
    found = [_producer(row) for row in await session.rows(select(*_COLUMNS).where(is_asked))]
    return {(producer.producer, producer.epoch): producer for producer in found}


def _producer(row: Any) -> Producer:
    name, epoch, segment, offset, *counts = row
    return Producer(name, epoch, Place(segment, offset), *counts)


def _counts(producer: Producer) -> tuple[int, ...]:
    return producer.event_count, producer.first_day, producer.last_day, producer.seen_at_us
