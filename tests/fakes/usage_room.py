"""The usage store of a node without the network between: the metering room on a database."""

from collections.abc import Sequence

from penstock.contract.usage import StoredPlace, UsageBatch, UsageReceipt, WorkerLife
from penstock.metering import service
from penstock.node.delivery import NotDeliveredError
from penstock.storage.database import Database
from penstock.storage.scope import Scope


class RoomStore:
    """Takes batches as the control plane's endpoint does.

    Args:
        database: Where usage is kept; None while it is away.
        settle: What else happens with events that are new.
    """

    def __init__(self, database: Database | None, settle: service.Settle | None = None) -> None:
        """See the class."""
        self.database = database
        self._settle = settle
        self.stored = 0
        """Events that were new."""

    async def send(self, batch: UsageBatch) -> UsageReceipt:
        """Store a batch."""
        if self.database is None:
            raise NotDeliveredError
        delivery = service.prepare_batch(batch, 1_800_000_000_000_000)
        scope = Scope.all_organizations()
        async with self.database.write(scope) as session:
            (receipt,) = await service.record_events(session, scope, [delivery], self._settle)
        self.stored += receipt.stored
        return receipt

    async def places(self, lives: Sequence[WorkerLife]) -> Sequence[StoredPlace]:
        """Say how far journals are stored."""
        if self.database is None:
            raise NotDeliveredError
        async with self.database.read(Scope.all_organizations()) as session:
            known = [(life.producer, life.epoch) for life in lives]
            places = await service.list_places(session, known)
        return [StoredPlace(*place) for place in places]

    async def end(self, producer: str, epoch: int) -> None:
        """Take note that a worker is dead."""
