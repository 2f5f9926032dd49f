"""Every SQL statement about how far journals are stored.

Lives of workers belong to nodes, not to organizations, so there is no scope to apply.
"""

from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import Select, bindparam, select, tuple_, update

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
_LIFE = (UsageProducers.producer, UsageProducers.epoch)
_LIVES: Any = tuple_(*_LIFE)
_LOCK: Select[Any] = (
    select(*_COLUMNS)
    .where(_LIVES.in_(bindparam("lives", expanding=True)))
    .order_by(*_LIFE)
    .with_for_update()
)
_WRITE = (
    update(UsageProducers)
    .where(
        UsageProducers.producer == bindparam("life_producer"),
        UsageProducers.epoch == bindparam("life_epoch"),
    )
    .values({name: bindparam(f"new_{name}") for name in _NAMES[2:]})
)


async def lock_producers(
    session: WriteSession, deliveries: Iterable[Delivery]
) -> dict[tuple[str, int], Producer]:
    """Return how far the journals that deliveries are of are stored, and keep others from them.

    The first thing that a transaction locks that stores usage.
    """
    times = {one.life: one.recorded_at_us for one in deliveries}
    lives = sorted(times)
    # None is locked before all are there: see `latency_store.add_counts`.
    missing = sorted(times.keys() - await session.find_many(_INSERT, lives))
    if missing:
        new = [(*life, 0, 0, 0, 0, 0, times[life]) for life in missing]
        await session.insert_many_new(_INSERT, new)
    found = map(_producer, await session.rows(_LOCK, {"lives": lives}))
    return {producer.life: producer for producer in found}


async def write_producers(session: WriteSession, producers: Iterable[Producer]) -> None:
    """Store how far journals that are locked are stored."""
    rows = []
    for producer in producers:
        members = (*producer.place, *_counts(producer))
        values = {f"new_{name}": value for name, value in zip(_NAMES[2:], members, strict=True)}
        life = {"life_producer": producer.producer, "life_epoch": producer.epoch}
        rows.append(life | values)
    await session.change_many(_WRITE, rows)


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
