"""Taking in batches of usage, whatever brought them: checked, stored and counted in one go."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from penstock.contract.usage import UsageBatch, UsageReceipt
from penstock.kit.clock import Clock
from penstock.metering import log_events, service
from penstock.metering.model import MAX_JOINED_EVENTS, Delivery
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.scope import Scope

Take: TypeAlias = Callable[[UsageBatch, Scope], Awaitable[UsageReceipt]]
"""Stores a batch and returns its receipt, which holds: it is committed."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A batch that is to be stored."""

    delivery: Delivery
    scope: Scope
    receipt: UsageReceipt | None = None
    is_alone: bool = False
    """It was joined with others, and they could not be stored together."""
    is_refused: bool = False
    """The database was away while it waited."""


class Intake:
    """Stores batches; those that come while others are written are then written together.

    So a figure that many events add to is written once for all of them. The first that waits
    writes for those behind it; each has a receipt of its own. What cannot be stored together is
    tried alone: a batch that is not taken harms no other.

    Args:
        database: Where usage is kept.
        clock: Says when a batch came.
        settle: Told of each event that is new, in the transaction that stores it.
        committed: Called when what it was told last is stored for good.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        settle: service.Settle | None = None,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        """See the class."""
        self._database = database
        self._clock = clock
        self._settle = settle
        self._committed = committed
        self._queue: list[_Waiting] = []
        self._turn = asyncio.Lock()

    async def __call__(self, batch: UsageBatch, scope: Scope) -> UsageReceipt:
        """Store a batch.

        Raises:
            PenstockError: `BATCH_TOO_LARGE` or `BATCH_INVALID`.
            DatabaseUnavailableError: Nothing is stored, as far as is known.
        """
        delivery = service.prepare_batch(batch, self._clock.wall_ns() // 1_000)
        mine = _Waiting(delivery, scope)
        self._queue.append(mine)
        try:
            # In the order of the queue: whoever has the turn is the first of those that wait.
            async with self._turn:
                return mine.receipt or await self._write(mine)
        finally:
            self._queue.remove(mine)

    async def _write(self, mine: _Waiting) -> UsageReceipt:
        if mine.is_refused:
            raise DatabaseUnavailableError
        joined = self._join(mine)
        if len(joined) > 1:
            try:
                return await self._record(joined)
            except Exception as error:  # noqa: BLE001 - each is tried alone, and says it again
                log_events.STORED_ONE_BY_ONE.log(batches=len(joined), error=error)
                for one in joined:
                    one.is_alone = True
        try:
            return await self._record([mine])
        except DatabaseUnavailableError:
            # They would wait for as long, one after the other, and be asked for again meanwhile.
            for one in self._queue:
                one.is_refused = True
            raise

    def _join(self, mine: _Waiting) -> list[_Waiting]:
        joined = [mine]
        count = len(mine.delivery.events)
        for one in self._queue:
            if one is mine or one.receipt is not None:
                continue
            count += len(one.delivery.events)
            is_joinable = one.scope == mine.scope and not (one.is_alone or mine.is_alone)
            if not is_joinable or count > MAX_JOINED_EVENTS:
                break
            joined.append(one)
        return joined

    async def _record(self, waiting: Sequence[_Waiting]) -> UsageReceipt:
        """Store batches in one transaction, and return the receipt of the first."""
        scope = waiting[0].scope
        deliveries = [one.delivery for one in waiting]
        async with self._database.write(scope) as session:
            receipts = await service.record_events(session, scope, deliveries, self._settle)
        if any(receipt.stored for receipt in receipts):  # else nobody was told anything
            self._committed()
        for one, receipt in zip(waiting, receipts, strict=True):
            one.receipt = receipt
        return receipts[0]
