"""Keeps a worker alive in every slot.

Workers outlive their agent. A new agent listens first, waits a moment for those that live to say
Hello, adopts those that are what it would start itself, lets the others drain, and starts what is
missing. Which workers live can be told from the locks of their journals.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from penstock.contract.node import (
    Applied,
    CachesEmptied,
    CheckHolds,
    ContextLengths,
    Credentials,
    EngineLoads,
    FreeHolds,
    Inspected,
    LoadedAdapters,
    LogLevel,
    NotReady,
    RefusedRequests,
    Rehashed,
    Stats,
    Tracing,
    UsedAdapters,
    WantAdapter,
    WantHolds,
    WorkerSettings,
)
from penstock.kit.clock import Clock
from penstock.kit.files import write_atomic
from penstock.kit.logs.setup import get_level
from penstock.kit.running_time import running_timeout
from penstock.node import log_events
from penstock.node.adapters import Adapters
from penstock.node.backoff import RestartPauses
from penstock.node.finished import FinishedRequests
from penstock.node.holds import Holds
from penstock.node.identity import next_epoch
from penstock.node.inspections import Inspections
from penstock.node.layout import CACHES_SOCKET, Layout
from penstock.node.limits import Broker
from penstock.node.links import Link, Wish
from penstock.node.process import Process
from penstock.node.recovery import is_alive, list_journals
from penstock.node.rehashes import Rehashes
from penstock.node.settings import AgentSettings
from penstock.node.stats import StatsBook
from penstock.node.worker import Worker

ADOPTION_S = 5.0
"""How long living workers may take to greet a new agent."""
KILL_SLACK_S = 2.0
"""How much longer than its grace a worker may take to drain, while the agent runs."""
_REAP_S = 5.0
_LAST_WORDS_S = 1.0


@dataclass(frozen=True, slots=True)
class Desks:
    """Who answers what workers ask, and takes what they say."""

    credentials: Callable[[], Iterable[Credentials]]
    """Returns what a worker is told of open credentials."""
    rehashes: Rehashes
    """Told of keys that are stored under an old pepper."""
    broker: Broker
    """Leases limits to workers."""
    holds: Holds
    """Has money held for them."""
    not_ready: Callable[[], NotReady]
    """Returns which endpoints cannot be asked."""
    loads: Callable[[], EngineLoads]
    """Returns how busy engines say that they are."""
    contexts: Callable[[], ContextLengths]
    """Returns how many tokens requests may have."""
    finished: FinishedRequests
    """Told of requests that workers refused, if it wants to know."""
    inspections: Inspections
    """Asks workers about themselves."""
    tracing: Tracing | None
    """How requests are traced."""
    adapters: Adapters
    """Knows where LoRA adapters are, and has them loaded."""


class Supervisor:
    """Starts, adopts, restarts and stops workers; the `Listener` of their connections.

    Args:
        settings: The agent's.
        layout: Where files are.
        node_id: The node's id.
        socket: Where workers connect to.
        clock: Measures lives.
        current_version: Returns the snapshot's version that workers should serve from.
        desks: Who answers workers.
    """

    def __init__(
        self,
        settings: AgentSettings,
        layout: Layout,
        *,
        node_id: str,
        socket: Path,
        clock: Clock,
        current_version: Callable[[], int],
        desks: Desks,
    ) -> None:
        """See the class."""
        self.stats = StatsBook()
        self.restart_count = 0
        self._desks = desks
        self._settings = settings
        self._layout = layout
        self._node_id = node_id
        self._socket = socket
        self._clock = clock
        self._current_version = current_version
        self._workers: dict[tuple[int, int], Worker] = {}
        self._slots: dict[int, Worker] = {}
        self._is_adopting = True
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connected_count(self) -> int:
        """How many workers are connected and not draining."""
        return sum(w.link is not None and not w.is_leaving for w in self._workers.values())

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the workers, by what metrics call them."""
        return {f"worker-{slot}": worker.process.pid for slot, worker in self._slots.items()}

    @property
    def newest_version(self) -> int:
        """The newest snapshot that a worker serves from."""
        return max((worker.snapshot_version for worker in self._workers.values()), default=0)

    @property
    def oldest_version(self) -> int:
        """The oldest snapshot that a worker serves from which is connected and not draining."""
        serving = (w for w in self._workers.values() if w.link is not None and not w.is_leaving)
        return min((worker.snapshot_version for worker in serving), default=0)

    async def start(self) -> None:
        """Adopt the workers that live, then start the others. The socket must listen already."""
        living = [journal for journal in list_journals(self._layout.journal) if is_alive(journal)]
        try:
            async with running_timeout(ADOPTION_S):
                while len(self._workers) < len(living):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log_events.WORKERS_SILENT.log(living=len(living), greeted=len(self._workers))
        self._is_adopting = False
        for slot in range(self._settings.workers):
            self._spawn_task(self._keep(slot), f"keep {slot}")

    async def run(self) -> None:
        """Raise what goes wrong in keeping a slot; runs until cancelled."""
        while True:
            self._changed.clear()
            for task in [task for task in self._tasks if task.done()]:
                self._tasks.discard(task)
                task.result()
            await self._changed.wait()

    def list_workers(self) -> list[Worker]:
        """Return the workers that live, those that drain too."""
        return list(self._workers.values())

    def offer(self, version: int) -> None:
        """Tell every worker that does not serve from `version` to do so."""
        for worker in self._workers.values():
            if worker.offer(version, self._clock.monotonic_s()):
                log_events.SNAPSHOT_NOT_APPLIED_YET.log(slot=worker.slot, version=version)

    def tell_credentials(self) -> None:
        """Tell every worker which credentials are open now."""
        for worker in self._workers.values():
            self._tell_credentials(worker)

    def tell(
        self,
        message: NotReady
        | EngineLoads
        | ContextLengths
        | LoadedAdapters
        | CachesEmptied
        | LogLevel,
    ) -> None:
        """Tell every worker the same."""
        for worker in self._workers.values():
            if worker.link is not None:
                worker.link.send(message)

    def refresh(self, version: int) -> None:
        """Tell every worker to read the snapshot and the secrets behind it, even if it is known."""
        for worker in self._workers.values():
            worker.snapshot_version = worker.told_version = 0
        self.offer(version)

    async def stop(self, grace_s: float, hurry: asyncio.Event) -> None:
        """Drain all workers and wait; kill what is left after the grace, or once in a hurry."""
        self._stopping.set()
        for worker in list(self._workers.values()):
            self._ask_to_end(worker, grace_s)
        ended = asyncio.gather(*(worker.process.wait() for worker in self._workers.values()))
        hurried = asyncio.create_task(hurry.wait())
        either: set[asyncio.Future[Any]] = {ended, hurried}
        await asyncio.wait(either, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        with suppress(TimeoutError):
            # Time in which it ran: where it stood still, its workers may have done so, too.
            async with running_timeout(KILL_SLACK_S):
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for worker in list(self._workers.values()):
            if not worker.process.has_ended:
                log_events.WORKER_KILLED.log(slot=worker.slot, pid=worker.process.pid)
                worker.process.signal(signal.SIGKILL)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_REAP_S)
        ended.cancel()
        for task in self._tasks:
            task.cancel()

    # What workers say

    def on_hello(self, link: Link) -> None:
        """Take in a worker: one of ours, one to adopt, or one to send away."""
        hello = link.hello
        key = (hello.slot, hello.epoch)
        worker = self._workers.get(key)
        if worker is None:
            try:
                process = Process(hello.pid)
            except (OSError, OverflowError):
                log_events.HELLO_OF_NOBODY.log(slot=hello.slot, pid=hello.pid)
                link.close()
                return
            worker = Worker(hello.slot, hello.epoch, process, self._clock.monotonic_s())
            self._workers[key] = worker
            worker.attach(link)
            self._place(worker)
        else:
            worker.attach(link)
            log_events.WORKER_CONNECTED.log(slot=worker.slot, pid=worker.process.pid)
        if get_level() != self._settings.log_level:  # an operator changed it since
            link.send(LogLevel(get_level()))
        self._desks.broker.greet(link)
        if self._stopping.is_set():
            worker.drain(self._settings.drain_grace_s)
        else:
            self._tell_credentials(worker)
            link.send(self._desks.not_ready())
            link.send(self._desks.loads())
            link.send(self._desks.contexts())
            for message in self._desks.adapters.messages():
                link.send(message)
            self.offer(self._current_version())
        self._notify()

    def on_stats(self, link: Link, stats: Stats) -> None:
        """Take a worker's totals."""
        self.stats.report((link.hello.slot, link.hello.epoch), stats)

    def on_applied(self, link: Link, applied: Applied) -> None:
        """Take note of what a worker serves from."""
        worker = self._workers.get((link.hello.slot, link.hello.epoch))
        if worker is None:
            return
        if applied.error is None:
            worker.snapshot_version = applied.version
            log_events.SNAPSHOT_APPLIED.log(slot=worker.slot, version=applied.version)
        else:
            worker.has_rejected = True
            log_events.SNAPSHOT_REJECTED.log(
                slot=worker.slot, version=worker.told_version, error=applied.error
            )

    def on_rehashed(self, _link: Link, rehashed: Rehashed) -> None:
        """Pass on which keys were shown that are stored under an old pepper."""
        self._desks.rehashes.add(rehashed.hashes)

    def on_refused(self, _link: Link, refused: RefusedRequests) -> None:
        """Pass on which requests were refused."""
        self._desks.finished.take(refused)

    def on_wish(self, link: Link, message: Wish) -> None:
        """Serve a worker, unless it is dead or has another connection by now."""
        if not self._is_current(link):
            return
        match message:
            case WantHolds() | FreeHolds() | CheckHolds():
                self._desks.holds.hear(link, message)
            case WantAdapter() | UsedAdapters():
                self._desks.adapters.hear(message)
            case _:
                self._desks.broker.hear(link, message)

    def on_inspected(self, inspected: Inspected) -> None:
        """Pass on what a worker says of itself."""
        self._desks.inspections.hear(inspected)

    def on_closed(self, link: Link) -> None:
        """Wait for the worker to come back or to end."""
        worker = self._workers.get((link.hello.slot, link.hello.epoch))
        if worker is not None:
            worker.detach(link)

    def _is_current(self, link: Link) -> bool:
        worker = self._workers.get((link.hello.slot, link.hello.epoch))
        return worker is not None and worker.link is link

    # Slots

    def _place(self, worker: Worker) -> None:
        """Give a worker that an agent before us started its slot, or let it go."""
        pid = worker.process.pid
        is_wanted = (
            self._is_adopting
            and worker.slot in range(self._settings.workers)
            and worker.slot not in self._slots
            and worker.link is not None
            and not worker.link.hello.is_draining
            and self._read_settings(worker.slot) == self._worker_settings(worker.slot, worker.epoch)
        )
        if is_wanted:
            self._slots[worker.slot] = worker
            log_events.WORKER_ADOPTED.log(slot=worker.slot, epoch=worker.epoch, pid=pid)
            return
        worker.is_leaving = True
        log_events.WORKER_SENT_AWAY.log(slot=worker.slot, epoch=worker.epoch, pid=pid)
        worker.drain(self._settings.drain_grace_s)
        self._spawn_task(self._bury(worker), f"bury {worker.slot}-{worker.epoch}")

    async def _keep(self, slot: int) -> None:
        """Keep a worker alive in a slot until the agent stops."""
        pauses = RestartPauses()
        while not self._stopping.is_set():
            worker = self._slots.get(slot)
            begun_s = self._clock.monotonic_s()
            if worker is None:
                worker = self._start_worker(slot)
            if worker is not None:
                begun_s = worker.started_s
                await self._bury(worker)
                self._slots.pop(slot, None)
                if self._stopping.is_set():
                    return
                self.restart_count += 1
            pause_s = pauses.next_s(self._clock.monotonic_s() - begun_s)
            if pause_s:
                log_events.WORKER_RESTART_DELAYED.log(slot=slot, pause_s=pause_s)
                try:
                    async with asyncio.timeout(pause_s):
                        await self._stopping.wait()
                except TimeoutError:
                    continue

    def _start_worker(self, slot: int) -> Worker | None:
        layout = self._layout
        command = self._settings.worker_command or (sys.executable, "-m", "penstock.gateway")
        log_path = None if self._settings.log_to_stderr else layout.worker_log(slot)
        try:
            epoch = next_epoch(layout.epoch, layout.journal, layout.shipper)
            settings = self._worker_settings(slot, epoch)
            encoded = msgspec.json.encode(settings)
            # Before it is started: an agent after us must know what it was started with.
            write_atomic(layout.worker_settings(slot), encoded, mode=0o600)
            process = Process.start([*command, encoded.decode()], log_path)
        except OSError as error:
            # E.g. a full disk: it is tried again after a pause, like a worker that died.
            log_events.WORKER_CANNOT_BE_STARTED.log(slot=slot, error=error)
            return None
        worker = Worker(slot, settings.epoch, process, self._clock.monotonic_s())
        self._workers[worker.key] = worker
        self._slots[slot] = worker
        log_events.WORKER_STARTED.log(slot=slot, epoch=settings.epoch, pid=process.pid)
        return worker

    async def _bury(self, worker: Worker) -> None:
        """Wait for a worker's end, hear its last words, keep its totals."""
        how = await worker.process.wait()
        try:
            async with running_timeout(_LAST_WORDS_S):
                await worker.unlinked.wait()
        except TimeoutError:
            log_events.CONNECTION_OUTLIVES_ITS_WORKER.log(slot=worker.slot)
        del self._workers[worker.key]
        self.stats.retire(worker.key)
        self._desks.broker.bury(*worker.key)
        is_expected = worker.is_leaving or self._stopping.is_set()
        event = log_events.WORKER_ENDED if is_expected else log_events.WORKER_DIED
        event.log(slot=worker.slot, pid=worker.process.pid, how=how)

    def _tell_credentials(self, worker: Worker) -> None:
        if worker.link is not None:
            for message in self._desks.credentials():
                worker.link.send(message)

    def _ask_to_end(self, worker: Worker, grace_s: float) -> None:
        if not worker.drain(grace_s):
            worker.process.signal(signal.SIGTERM)

    def _worker_settings(self, slot: int, epoch: int) -> WorkerSettings:
        settings = self._settings
        return WorkerSettings(
            slot=slot,
            epoch=epoch,
            node_id=self._node_id,
            snapshot_path=str(self._layout.snapshot),
            journal_path=str(self._layout.journal),
            pepper_path=str(self._layout.pepper),
            agent_socket=str(self._socket),
            host=settings.host,
            port=settings.port,
            grpc_port=settings.grpc_port,
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
            max_connections=settings.max_connections,
            drain_grace_s=settings.drain_grace_s,
            drain_delay_s=settings.drain_delay_s,
            orphan_grace_s=settings.orphan_grace_s,
            journal_strict=settings.journal_strict,
            journal_segment_bytes=settings.journal_segment_bytes,
            labels=settings.labels,
            metadata_labels=settings.metadata_labels,
            form_bytes=settings.form_bytes,
            stream_keep_alive_s=settings.stream_keep_alive_s,
            overloaded_status=settings.overloaded_status,
            heeds_load=settings.engine_load_s > 0,
            prefix_index_bytes=settings.prefix_index_bytes,
            caches_socket=str(self._socket.with_name(CACHES_SOCKET)),
            caches_wait_s=settings.kv_answer_ms / 1_000,
            tells_refused=self._desks.finished.is_wanted,
            organizations_shown=settings.organizations_shown,
            models_shown=settings.models_shown,
            upstreams_shown=settings.upstreams_shown,
            log_format=settings.log_format,
            log_level=settings.log_level,
            tracing=self._desks.tracing,
        )

    def _read_settings(self, slot: int) -> WorkerSettings | None:
        """Return what the slot's last worker was started with, or None when that is not known."""
        try:
            content = self._layout.worker_settings(slot).read_bytes()
            return msgspec.json.decode(content, type=WorkerSettings)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _spawn_task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._notify())

    def _notify(self) -> None:
        self._changed.set()
