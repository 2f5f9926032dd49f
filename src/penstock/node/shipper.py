"""Brings every usage event from the journals into the usage store: at least once, in order.

It reads what workers wrote, delivers it in batches, and keeps a checkpoint behind each
acknowledged batch. A delivery that is repeated, after a failure or a crash, counts once, because
each event has an id. When a worker is dead, its open requests end as `interrupted`.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.contract.journal import Close, Open, encode_record
from penstock.contract.usage import UsageBatch, UsageEvent
from penstock.kit.clock import Clock
from penstock.node import log_events
from penstock.node.backoff import Pauses
from penstock.node.checkpoints import Checkpoints
from penstock.node.delivery import MAX_EVENTS, BatchRefusedError, NotDeliveredError, Store, deliver
from penstock.node.places import find_lost, producer_of, ship_again
from penstock.node.progress import Position
from penstock.node.recovery import Journal, list_journals
from penstock.node.retention import sweep
from penstock.node.shipment import Shipment, Volume

POLL_S = 0.15
"""How often journals are looked at."""
_FIRST_PAUSE_S = 0.2
_MOST_PAUSE_S = 5.0
_FINISHING_PAUSE_S = 0.5
_STORE = ""
"""What the store is called among those that rest: no journal has this name."""
_COUNT_EVERY_S = 1.0
_SWEEP_EVERY_S = 60.0
_ASK_EVERY_S = 60.0
"""How often the store is asked how far it has the journals that are there."""
_IDLE_END_S = 1.0
"""When finishing: how long to wait for workers that should be dead and are not."""


@dataclass(slots=True)
class ShipperTotals:
    """What the shipper did, since its start."""

    shipped: int = 0
    failures: int = 0
    refused: int = 0
    set_back: int = 0
    """Journals that are shipped again, since the store lost something of them."""


class Shipper:
    """Ships all journals of a node.

    Args:
        journals: Folder of the journals.
        checkpoints: Where it is kept how far each is shipped.
        refused: File for events that the store refused for ever, as frames of a journal.
        node_id: The node's id.
        store: Where to.
        clock: Tells the time of done journals, and measures pauses.
        random: Returns numbers in [0, 1): nodes must not all come back at the same moment.
        retention_s: How long journals are kept after they are shipped.
    """

    def __init__(
        self,
        *,
        journals: Path,
        checkpoints: Checkpoints,
        refused: Path,
        node_id: str,
        store: Store,
        clock: Clock,
        random: Callable[[], float],
        retention_s: float,
    ) -> None:
        """See the class."""
        self.totals = ShipperTotals()
        self.unshipped = Volume()
        """Journal records that are not acknowledged, as counted a moment ago."""
        self.damaged_count = 0
        """Damaged segments found."""
        self.on_interrupted: Callable[[Sequence[Open], int, int], None] = lambda *_: None
        """Told what each dead worker left open: the requests, its slot, and when it last wrote."""
        self._journals = journals
        self._refused = refused
        self._node_id = node_id
        self._store = store
        self._clock = clock
        self._random = random
        self._retention_ns = round(retention_s * 1e9)
        self._checkpoints = checkpoints
        self._shipments: dict[str, Shipment] = {}
        self._done: set[str] = set()
        self._damaged_before = 0
        self._oldest_ns: int | None = None
        self._counted_s = self._swept_s = self._last_success_s = clock.monotonic_s()
        self._asked_s = self._counted_s - _ASK_EVERY_S
        """A store that was set back may be why we are started again."""
        self._resting = Pauses(first_s=_FIRST_PAUSE_S, most_s=_MOST_PAUSE_S)

    @property
    def lag_s(self) -> float:
        """Age of the oldest event that was read and is not acknowledged; 0 without one."""
        if self._oldest_ns is None:
            return 0.0
        return max((self._clock.wall_ns() - self._oldest_ns) / 1e9, 0.0)

    @property
    def is_idle(self) -> bool:
        """Whether everything that was found is shipped."""
        return all(s.is_at_end and not s.pending for s in self._shipments.values())

    async def run(self, finish: asyncio.Event, grace_s: float) -> None:
        """Ship until `finish` is set, and then what is left.

        Args:
            finish: Set when no worker lives any more.
            grace_s: From then on, how long the store may take nothing before we give up. What is
                left stays on the disk for the next start.
        """
        while not finish.is_set():
            pause_s = await self.ship_once()
            if pause_s:
                try:
                    async with asyncio.timeout(pause_s):
                        await finish.wait()
                except TimeoutError:
                    continue
        await self._finish(grace_s)

    async def ship_once(self) -> float:
        """Give every journal its turn.

        Returns:
            Seconds until the next time; 0 when there is more to ship at once.
        """
        await self._try(self._discover)
        is_full = False
        is_away = False
        for shipment in list(self._shipments.values()):
            name = shipment.journal.name
            if self._resting.is_resting(name, self._clock.monotonic_s()):
                continue
            try:
                is_full |= await self._ship(shipment)
            except (NotDeliveredError, OSError) as error:
                self.totals.failures += 1
                log_events.USAGE_NOT_SHIPPED.log(journal=name, error=error)
                # Alone in its trouble, a journal rests alone; a store that is away, is for all.
                is_away = not isinstance(error, BatchRefusedError | OSError)
                if is_away:
                    break
                self._resting.fail(name, self._clock.monotonic_s(), self._random())
            else:
                self._resting.succeed(name)
        await self._look_after()
        is_away = is_away or not await self._ask()
        if is_away:
            return self._resting.fail(_STORE, self._clock.monotonic_s(), self._random())
        self._resting.succeed(_STORE)
        return 0.0 if is_full else POLL_S

    async def _ship(self, shipment: Shipment) -> bool:
        """Ship a batch; return whether there may be more at once."""
        await asyncio.to_thread(shipment.fill)
        left_open, ended_at_ns = shipment.left_open, shipment.saved.ended_at_ns
        if left_open and ended_at_ns is not None:
            shipment.left_open = []
            self.on_interrupted(left_open, shipment.journal.slot, ended_at_ns)
        batch = tuple(shipment.pending)
        if batch:
            delivered = await deliver(self._store, self._batch(shipment, batch))
            refused, place = delivered.refused, delivered.place
            if refused:
                await asyncio.to_thread(self._set_aside, refused)
                self.totals.refused += len(refused)
            self.totals.shipped += len(batch) - len(refused)
            self._last_success_s = self._clock.monotonic_s()
            if place is not None and place < shipment.saved.told:
                await self._ship_again(shipment.journal, place)
                return True
            await asyncio.to_thread(shipment.acknowledge, is_told=delivered.is_told)
        if shipment.is_stored:
            # Not before it is known that all is still there is anything of it given up.
            if await self._ship_lost([shipment.journal]):
                return True
            producer = producer_of(self._node_id, shipment.journal)
            await self._store.end(producer, shipment.journal.epoch)
            await asyncio.to_thread(shipment.finish, self._clock.wall_ns())
            self._forget(shipment)
            log_events.JOURNAL_SHIPPED.log(journal=shipment.journal.name)
        return len(batch) >= MAX_EVENTS or not shipment.is_at_end

    def _batch(self, shipment: Shipment, events: tuple[UsageEvent, ...]) -> UsageBatch:
        journal, end, begin = shipment.journal, shipment.place, shipment.saved.told
        return UsageBatch(
            producer=producer_of(self._node_id, journal),
            epoch=journal.epoch,
            events=events,
            segment=end.segment,
            offset=end.offset,
            from_segment=begin.segment,
            from_offset=begin.offset,
        )

    async def _ask(self) -> bool:
        """Ask the store now and then whether it lost something; False when it is away."""
        now_s = self._clock.monotonic_s()
        if now_s - self._asked_s < _ASK_EVERY_S:
            return True
        try:
            await self._ship_lost(await asyncio.to_thread(list_journals, self._journals))
        except (NotDeliveredError, OSError) as error:
            log_events.STORE_NOT_ASKED.log(error=error)
            return False
        self._asked_s = now_s
        return True

    async def _ship_lost(self, journals: Sequence[Journal]) -> bool:
        """Ship those again of which the store lost something; return whether there was one."""
        lost = await find_lost(self._store, self._checkpoints, self._node_id, journals)
        for journal, place in lost:
            await self._ship_again(journal, place)
        return bool(lost)

    async def _ship_again(self, journal: Journal, place: Position) -> None:
        await asyncio.to_thread(ship_again, self._checkpoints, journal, place)
        self.totals.set_back += 1
        if journal.name in self._done:
            self._done.discard(journal.name)
            self._damaged_before -= len(self._checkpoints.get(journal.name).damaged)
        else:
            self._shipments.pop(journal.name, None)

    async def _finish(self, grace_s: float) -> None:
        """Ship what is left; the workers are dead, so there is an end to it."""
        begun_s = self._last_success_s = self._clock.monotonic_s()
        while True:
            pause_s = min(await self.ship_once(), _FINISHING_PAUSE_S)
            now_s = self._clock.monotonic_s()
            if not self._shipments or (self.is_idle and now_s - begun_s > _IDLE_END_S):
                return
            if now_s - self._last_success_s > grace_s:
                left = self.unshipped
                log_events.USAGE_LEFT.log(records=left.records)
                return
            await asyncio.sleep(pause_s)

    def _discover(self) -> None:
        """Find journals that are new, and let go of those that somebody deleted."""
        found = {journal.name: journal for journal in list_journals(self._journals)}
        for name, journal in found.items():
            if name not in self._done and name not in self._shipments:
                shipment = Shipment(journal, self._checkpoints)
                self._shipments[name] = shipment
                if shipment.saved.done_at_ns is not None:
                    self._forget(shipment)
        for name in self._shipments.keys() - found.keys():
            log_events.JOURNAL_LOST.log(journal=name)
            del self._shipments[name]
        self._done &= found.keys()

    def _forget(self, shipment: Shipment) -> None:
        name = shipment.journal.name
        self._resting.succeed(name)
        self._damaged_before += shipment.damaged_count
        self._done.add(name)
        del self._shipments[name]

    async def _look_after(self) -> None:
        """Bring the figures up to date and, now and then, count and delete."""
        shipments = list(self._shipments.values())
        now_s = self._clock.monotonic_s()
        if now_s - self._counted_s >= _COUNT_EVERY_S:
            self._counted_s = now_s
            for shipment in shipments:
                await self._try(shipment.count)
        if now_s - self._swept_s >= _SWEEP_EVERY_S:
            self._swept_s = now_s
            await self._try(self.sweep)
        volumes = [shipment.unshipped for shipment in shipments]
        self.unshipped = Volume(
            sum(volume.records for volume in volumes), sum(volume.size_bytes for volume in volumes)
        )
        damaged = self._damaged_before + sum(shipment.damaged_count for shipment in shipments)
        if damaged > self.damaged_count:
            log_events.JOURNAL_DAMAGED.log(segments=damaged - self.damaged_count)
        self.damaged_count = damaged
        pending = (event.finished_at_ns for shipment in shipments for event in shipment.pending)
        self._oldest_ns = min(pending, default=None)

    async def _try(self, work: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(work)
        except OSError as error:
            log_events.HOUSEKEEPING_FAILED.log(error=error)

    def sweep(self) -> None:
        """Delete what is shipped and old enough.

        Raises:
            OSError: Something cannot be deleted.
        """
        journals = list_journals(self._journals)
        now_ns = self._clock.wall_ns()
        for path in sweep(journals, self._checkpoints, now_ns, self._retention_ns):
            log_events.JOURNAL_DELETED.log(path=path.relative_to(self._journals))

    def _set_aside(self, events: Sequence[UsageEvent]) -> None:
        """Keep events that the store refused, on the disk, before they count as shipped."""
        frames = b"".join(encode_record(Close(event)) for event in events)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with os.fdopen(os.open(self._refused, flags, 0o600), "ab") as file:
            file.write(frames)
            file.flush()
            os.fsync(file.fileno())
        for event in events:
            log_events.USAGE_EVENT_REFUSED.log(event_id=event.event_id)
