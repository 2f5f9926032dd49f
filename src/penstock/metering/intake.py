"""Taking in a batch of usage, whatever brought it: checked, stored and counted in one go."""

from collections.abc import Awaitable, Callable

from penstock.contract.usage import UsageBatch, UsageReceipt
from penstock.kit.clock import Clock
from penstock.metering import service
from penstock.metering.model import Delivery, Place
from penstock.storage.database import Database
from penstock.storage.scope import Scope

Take = Callable[[UsageBatch, Scope], Awaitable[UsageReceipt]]
"""Stores a batch and returns its receipt, which holds: it is committed."""


def create_intake(database: Database, clock: Clock, settle: service.Settle | None = None) -> Take:
    """Return what stores batches.

    Args:
        database: Where usage is kept.
        clock: Says when a batch came.
        settle: Told of each event that is new, in the transaction that stores it.
    """

    async def take(batch: UsageBatch, scope: Scope) -> UsageReceipt:
        """Store a batch.

        Raises:
            PenstockError: `BATCH_TOO_LARGE` or `BATCH_INVALID`.
            DatabaseUnavailableError: Nothing is stored, as far as is known.
        """
        events = service.prepare_batch(batch)
        delivery = Delivery(
            producer=batch.producer,
            epoch=batch.epoch,
            recorded_at_us=clock.wall_ns() // 1_000,
            begin=Place(batch.from_segment, batch.from_offset),
            end=Place(batch.segment, batch.offset),
        )
        async with database.write(scope) as session:
            return await service.record_events(session, scope, events, delivery, settle)

    return take
