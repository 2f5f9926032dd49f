"""Shipping: whatever crashes, fails or is repeated, each request is stored once, and right."""

import asyncio
import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries
from tests.fakes.fake_worker import FakeJournal, make_event, make_open

from penstock.contract.journal import Close, Open
from penstock.contract.usage import (
    StoredPlace,
    UsageBatch,
    UsageEvent,
    UsageReceipt,
    WorkerLife,
)
from penstock.kit.clock import ManualClock
from penstock.node.checkpoints import Checkpoints
from penstock.node.delivery import BatchRefusedError, NotDeliveredError
from penstock.node.progress import Checkpoint, Position
from penstock.node.shipper import Shipper

FAR_FUTURE_NS = 4_000_000_000_000_000_000


class CrashError(Exception):
    """The agent ends here, between two instructions."""


class Plan:
    """What happens at the next occasions; nothing once it is used up."""

    def __init__(self) -> None:
        """Start with nothing planned."""
        self.deliveries: list[str] = []
        self.saves: list[str] = []


class PlannedStore:
    """A store that keeps everything, and fails or crashes as planned, before or after."""

    def __init__(self, plan: Plan) -> None:
        """See the class."""
        self.events: dict[str, UsageEvent] = {}
        self.conflicts: list[str] = []
        self.orders: dict[str, list[str]] = {}
        self.ended: set[str] = set()
        self.places_known: dict[tuple[str, int], Position] = {}
        self._plan = plan

    def copy(self) -> dict[str, Any]:
        """Return all that it knows."""
        return copy.deepcopy({name: getattr(self, name) for name in self._KNOWS})

    def restore(self, known: dict[str, Any]) -> None:
        """Know what a copy knows, and nothing else."""
        for name, value in copy.deepcopy(known).items():
            setattr(self, name, value)

    _KNOWS = ("events", "conflicts", "orders", "ended", "places_known")

    async def send(self, batch: UsageBatch) -> UsageReceipt:
        """Store a batch, or not."""
        fate = self._plan.deliveries.pop() if self._plan.deliveries else "ok"
        if fate == "lost":
            raise NotDeliveredError
        if fate == "crash before":
            raise CrashError
        assert 0 < len(batch.events) <= 500
        duplicates = 0
        for usage in batch.events:
            known = self.events.get(usage.event_id)
            if known is None:
                self.events[usage.event_id] = usage
                key = f"{batch.producer}-{batch.epoch}"
                assert key not in self.ended, "what was held for it is free already"
                self.orders.setdefault(key, []).append(usage.event_id)
            elif known == usage:
                duplicates += 1
            else:
                self.conflicts.append(usage.event_id)
        place = self._follow(batch)
        if fate == "unheard":
            raise NotDeliveredError
        if fate == "crash after":
            raise CrashError
        return UsageReceipt(
            len(batch.events) - duplicates - len(self.conflicts),
            duplicates,
            len(self.conflicts),
            *place,
        )

    def _follow(self, batch: UsageBatch) -> Position:
        """Note how far a journal is stored without a gap; return how far it was."""
        life = batch.producer, batch.epoch
        place = self.places_known.get(life, Position(0, 0))
        if (batch.from_segment, batch.from_offset) <= place:
            self.places_known[life] = max(place, Position(batch.segment, batch.offset))
        return place

    async def places(self, lives: Sequence[WorkerLife]) -> Sequence[StoredPlace]:
        """Say how far journals are stored."""
        known = [self.places_known.get((life.producer, life.epoch), (0, 0)) for life in lives]
        return [StoredPlace(*place) for place in known]

    async def end(self, producer: str, epoch: int) -> None:
        """Hear that a dead worker's events are all stored, or not."""
        fate = self._plan.deliveries.pop() if self._plan.deliveries else "ok"
        if fate in ("lost", "unheard"):
            raise BatchRefusedError
        if fate == "crash before":
            raise CrashError
        self.ended.add(f"{producer}-{epoch}")
        if fate == "crash after":
            raise CrashError


class PlannedCheckpoints(Checkpoints):
    """Checkpoints whose saving fails or crashes as planned, before or after."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        """See the class."""
        super().__init__(folder)
        self._plan = plan

    def save(self, name: str, checkpoint: Checkpoint) -> None:
        """Save a checkpoint, or not."""
        fate = self._plan.saves.pop() if self._plan.saves else "ok"
        if fate == "full":
            raise OSError(28, "No space left on device")
        if fate == "crash before":
            raise CrashError
        super().save(name, checkpoint)
        if fate == "crash after":
            raise CrashError


class World:
    """Two workers, one agent, one store."""

    def __init__(self, root: Path, retention_s: float = 0) -> None:
        """See the class."""
        self.root = root
        self._retention_s = retention_s
        self.plan = Plan()
        self.store = PlannedStore(self.plan)
        self.clock = ManualClock(now_ns=FAR_FUTURE_NS)
        (root / "shipper").mkdir()
        (root / "journal").mkdir()
        self.journals = [FakeJournal(root / "journal", slot, slot + 1, 2048) for slot in (0, 1)]
        self.is_dead = [False, False]
        self.opened: list[list[Open]] = [[], []]
        self.closed: list[list[str]] = [[], []]
        self.shipper = self._make_shipper()
        self.crashes = self.restores = 0
        self.known: dict[str, Any] | None = None

    def _make_shipper(self) -> Shipper:
        return Shipper(
            journals=self.root / "journal",
            checkpoints=PlannedCheckpoints(self.root / "shipper", self.plan),
            refused=self.root / "refused",
            node_id="node-test",
            store=self.store,
            clock=self.clock,
            random=lambda: 0.5,
            retention_s=self._retention_s,
        )

    def open(self, worker: int) -> None:
        """A worker begins a request."""
        if not self.is_dead[worker]:
            opened = make_open(f"{worker}-{len(self.opened[worker])}")
            self.opened[worker].append(opened)
            self.journals[worker].write(opened)

    def close(self, worker: int, choice: int) -> None:
        """A worker ends one of its requests."""
        unclosed = [o for o in self.opened[worker] if o.event_id not in self.closed[worker]]
        if unclosed and not self.is_dead[worker]:
            opened = unclosed[choice % len(unclosed)]
            self.closed[worker].append(opened.event_id)
            self.journals[worker].write(Close(make_event(opened)))

    def allocate(self, worker: int) -> None:
        """A worker makes its next segment ahead of time."""
        if not self.is_dead[worker]:
            self.journals[worker].allocate(self.journals[worker].number + 1)

    def die(self, worker: int) -> None:
        """A worker dies."""
        if not self.is_dead[worker]:
            self.is_dead[worker] = True
            self.journals[worker].die()

    async def ship(self) -> None:
        """The agent gives every journal its turn, unless it crashes and is started again."""
        self.clock.advance(2)
        try:
            await self.shipper.ship_once()
        except CrashError:
            self.restart()

    def restart(self) -> None:
        """The agent is killed and started again."""
        self.crashes += 1
        self.shipper = self._make_shipper()

    def forget(self) -> None:
        """The checkpoints are lost, and the agent is started again."""
        for path in (self.root / "shipper").iterdir():
            path.unlink()
        self.restart()

    def sweep(self) -> None:
        """What is shipped is deleted at once."""
        self.clock.advance(1)
        self.shipper.sweep()

    async def finish(self) -> None:
        """All workers die, the store is there, and the agent ships until nothing is left."""
        self.plan.deliveries.clear()
        self.plan.saves.clear()
        for worker in (0, 1):
            self.die(worker)
        for _ in range(30):
            await self.ship()
            self.sweep()
            if not list((self.root / "journal").iterdir()):
                return
        message = "the journals are never done"
        raise AssertionError(message)

    async def finish_again(self) -> None:
        """The agent ships until everything is stored, and has asked whether that is so."""
        self.plan.deliveries.clear()
        self.plan.saves.clear()
        for worker in (0, 1):
            self.die(worker)
        for _ in range(30):
            await self.ship()
        self.clock.advance(120)  # its next question is due
        for _ in range(30):
            await self.ship()
        for path in (self.root / "journal").iterdir():  # one without a request is deleted at once
            assert self.shipper._checkpoints.get(path.name).done_at_ns is not None

    def copy(self) -> None:
        """The store is copied."""
        self.known = self.store.copy()

    def restore(self) -> None:
        """The store is set back to the copy, if there is one."""
        if self.known is not None:
            self.restores += 1
            self.store.restore(self.known)

    def check(self) -> None:
        """Every request is stored once, with the outcome that it had."""
        expected = {}
        for worker in (0, 1):
            for opened in self.opened[worker]:
                is_closed = opened.event_id in self.closed[worker]
                expected[opened.event_id] = "ok" if is_closed else "interrupted"
        assert {key: usage.outcome for key, usage in self.store.events.items()} == expected
        assert self.store.conflicts == []
        assert not (self.root / "refused").exists()
        for worker in (0, 1) if not self.restores else ():
            order = self.store.orders.get(f"node-test/{worker}-{worker + 1}", [])
            is_ok = set(self.closed[worker])
            assert [key for key in order if key in is_ok] == self.closed[worker]
            assert f"node-test/{worker}-{worker + 1}" in self.store.ended


def steps() -> st.SearchStrategy[list[tuple[str, int, int]]]:
    """Return a strategy of what happens, in an order."""
    names = ["open"] * 6 + ["close"] * 5 + ["ship"] * 4
    names += ["allocate", "die", "restart", "forget", "sweep"]
    step = st.tuples(st.sampled_from(names), st.integers(0, 1), st.integers(0, 20))
    return st.lists(step, min_size=20, max_size=120)


FATES = ["ok", "ok", "lost", "unheard", "crash before", "crash after"]
SAVE_FATES = ["ok", "ok", "full", "crash before", "crash after"]


async def live(world: World, happenings: list[tuple[str, int, int]]) -> None:
    """Let things happen, then let everything come to its end."""
    acts: dict[str, Callable[[int, int], None]] = {
        "open": lambda worker, _: world.open(worker),
        "close": world.close,
        "allocate": lambda worker, _: world.allocate(worker),
        "die": lambda worker, _: world.die(worker),
        "restart": lambda *_: world.restart(),
        "forget": lambda *_: world.forget(),
        "sweep": lambda *_: world.sweep(),
        "copy": lambda *_: world.copy(),
        "restore": lambda *_: world.restore(),
    }
    for name, worker, choice in happenings:
        if name == "ship":
            await world.ship()
        else:
            acts[name](worker, choice)


@settings(max_examples=tries(150))
@given(
    steps(),
    st.lists(st.sampled_from(FATES), min_size=3, max_size=12),
    st.lists(st.sampled_from(SAVE_FATES), min_size=3, max_size=12),
)
def test_each_request_is_stored_once(
    happenings: list[tuple[str, int, int]], deliveries: list[str], saves: list[str]
) -> None:
    """Whenever agent, workers and store fail, each request ends as exactly one right event."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        world.plan.deliveries, world.plan.saves = deliveries, saves
        asyncio.run(live(world, happenings))
        asyncio.run(world.finish())
        world.check()
        event(f"crashes: {min(world.crashes, 5)}")


def restored_steps() -> st.SearchStrategy[list[tuple[str, int, int]]]:
    """Return a strategy of what happens when the store is copied and set back."""
    names = ["open"] * 4 + ["close"] * 4 + ["ship"] * 8
    names += ["allocate", "die", "restart", "forget", "sweep", "copy", "copy", "restore"]
    step = st.tuples(st.sampled_from(names), st.integers(0, 1), st.integers(0, 20))
    return st.lists(step, min_size=10, max_size=60)


@settings(max_examples=tries(60))
@given(
    restored_steps(),
    st.lists(st.sampled_from(FATES), min_size=3, max_size=12),
    st.lists(st.sampled_from(SAVE_FATES), min_size=3, max_size=12),
)
def test_a_store_that_was_set_back_gets_everything_again(
    happenings: list[tuple[str, int, int]], deliveries: list[str], saves: list[str]
) -> None:
    """Whenever the store is restored from a copy, all that is on the disk comes back, once."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), retention_s=72 * 3600)
        world.plan.deliveries, world.plan.saves = deliveries, saves
        asyncio.run(live(world, happenings))
        asyncio.run(world.finish_again())
        world.check()
        event(f"restores: {min(world.restores, 5)}")
