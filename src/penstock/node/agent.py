"""The agent's life: starts everything in its order, keeps it running, stops it in its order."""

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from penstock.access.peppers import Peppers, read_peppers
from penstock.contract.exposition import Family
from penstock.contract.feed import Position
from penstock.contract.metrics import Metric
from penstock.contract.node import (
    CachesEmptied,
    ContextLengths,
    EngineLoads,
    LoadedAdapters,
    LogLevel,
    NotReady,
    Stats,
)
from penstock.contract.operations import MAX_WAIT_S
from penstock.contract.vitals import Vitals, show_processes
from penstock.kit.clock import Clock
from penstock.kit.debug_door import DebugDoor, debug_routes, socket_path
from penstock.kit.errors import PenstockError
from penstock.kit.files import read_or_create_secret
from penstock.kit.kek.configure import KekSettingError, configure_kek
from penstock.kit.kek.model import Kek, KekUnavailableError
from penstock.kit.logs.setup import know, tell_repeats
from penstock.kit.logs.switch import LevelChange, level_routes
from penstock.kit.moments import format_time
from penstock.kit.secrets import find_secret_fault
from penstock.node import log_events, metrics
from penstock.node.access_log import AccessLog
from penstock.node.adapters import Adapters
from penstock.node.caches.supervision import Caches
from penstock.node.calls import ControlCalls
from penstock.node.checkpoints import Checkpoints
from penstock.node.configuration import Configuration
from penstock.node.contexts import Contexts
from penstock.node.credentials import OpenCredentials
from penstock.node.discovery.discovery import Discovery
from penstock.node.discovery.sources import make_follow
from penstock.node.engine_loads import EngineLoadsReader
from penstock.node.errors import SECRET_WEAK, SETTINGS_INVALID, AgentError
from penstock.node.feed import Feed
from penstock.node.finished import FinishedRequests, Recipient
from penstock.node.health import Health
from penstock.node.holds import Holds
from penstock.node.identity import AgentLock, read_or_create_node_id
from penstock.node.inspections import Inspections
from penstock.node.layout import CACHES_SOCKET, Layout, create_runtime_folder, runtime_folder
from penstock.node.limits_setup import NodeLimits
from penstock.node.links import Links
from penstock.node.monitor import DiscoveryState, FeedState, Monitor, Readiness
from penstock.node.operator import Operator
from penstock.node.publisher import Publisher
from penstock.node.rehashes import Rehashes
from penstock.node.settings import AgentSettings
from penstock.node.shipper import Shipper
from penstock.node.stats import AGENT
from penstock.node.supervisor import Desks, Supervisor
from penstock.node.telemetry.choice import connect_telemetry
from penstock.node.transport.choice import connect_store
from penstock.node.worker import Worker

_CONFIG_POLL_S = 1.0
_CREDENTIALS_PATIENCE_S = 0.5
"""How long a change waits for its credentials to open: a revocation must not wait for a KEK."""
_DISCOVERY_PATIENCE_S = 0.5
"""How long it waits for the endpoints of an upstream whose source was never asked."""
_SAME_SIGNAL_S = 1.0
"""Signals closer together are one wish to stop: some shells send each twice."""
_SHIP_SLACK_S = 5.0
_TELL_GRACE_S = 2.0
"""How long a stopping agent takes to tell of the last requests."""
_CALL_TIMEOUT_S = 10.0
"""Workers do not wait for so long; but what is held is known, and not asked for again."""


async def run_agent(settings: AgentSettings, clock: Clock) -> None:
    """Run an agent until SIGTERM or SIGINT, then drain, ship what is left, and return.

    When a part of the agent fails, its error is raised at once, and the workers live on for the
    next agent to adopt.

    Args:
        settings: How it is to run; paths are absolute.
        clock: Tells the time.

    Raises:
        AgentError: The agent cannot start.
        PlatformFileError: There is no valid configuration.
    """
    layout = Layout(Path(settings.data_path))
    layout.create()
    lock = AgentLock(layout.lock)
    try:
        await lock.acquire(clock)
        pepper = _read_peppers(layout.pepper.parent).active
        _read_secret(layout.node_token)
        publisher = Publisher(layout.snapshot, clock)
        kek = _read_kek(settings, layout)
        path = None if settings.config_path is None else Path(settings.config_path)
        configuration = Configuration(path, publisher, pepper, clock)
        await asyncio.to_thread(configuration.start)
        agent = _Agent(settings, layout, configuration, publisher, clock, kek=kek)
        await agent.run()
        publisher.close()
    finally:
        lock.release()


def _read_peppers(folder: Path) -> Peppers:
    try:
        return read_peppers(folder)
    except PenstockError as error:
        raise AgentError(SECRET_WEAK, str(error)) from None


def _read_secret(path: Path) -> bytes:
    secret = read_or_create_secret(path)
    fault = find_secret_fault(path, secret)
    if fault is not None:
        raise AgentError(SECRET_WEAK, fault)
    return secret


def _read_kek(settings: AgentSettings, layout: Layout) -> Kek:
    try:
        return configure_kek(settings.kek, layout.kek, os.environ)
    except (KekSettingError, KekUnavailableError) as error:
        raise AgentError(SETTINGS_INVALID, f"bad settings: {error}") from None


class _Agent:
    """The parts of an agent that holds its lock and has a configuration."""

    def __init__(
        self,
        settings: AgentSettings,
        layout: Layout,
        configuration: Configuration,
        publisher: Publisher,
        clock: Clock,
        *,
        kek: Kek,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._configuration = configuration
        self._publisher = publisher
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._reload = asyncio.Event()
        self._workers_gone = asyncio.Event()
        self._stop_wished_s = 0.0
        self._runtime = runtime_folder(layout.data)
        create_runtime_folder(self._runtime)
        node_id = read_or_create_node_id(layout.node_id)
        know(node=node_id)
        socket = self._runtime / "agent.sock"
        self._version = publisher.version
        """What workers are told to serve from: its credentials are open, as far as they do."""
        self._credentials = OpenCredentials(publisher, kek, clock, self._tell_credentials)
        self._rehashes = Rehashes(settings.control_url, layout.node_token, layout.pepper.parent)
        self._calls = ControlCalls(
            settings.control_url, layout.node_token, timeout_s=_CALL_TIMEOUT_S
        )
        self._limits = NodeLimits(settings, layout, self._calls, clock, node_id=node_id)
        self._holds = Holds(self._calls, node_id)
        self._claims = ControlCalls(
            settings.control_url, layout.node_token, timeout_s=MAX_WAIT_S + _CALL_TIMEOUT_S
        )
        self._operator = Operator(self._claims, node_id, publisher, self._credentials.find)
        self._health = Health(publisher, clock, self._tell, random=random.random)
        self._loads = EngineLoadsReader(
            publisher,
            self._tell,
            period_s=settings.engine_load_s,
            states=self._health.states,
            random=random.random,
        )
        self._caches = self._make_caches(node_id)
        self._contexts = Contexts(publisher, clock, self._credentials.find, self._tell)
        self._access_log = AccessLog(
            settings.access_log, settings.access_log_path, node_id, settings.log_format
        )
        self._telemetry = connect_telemetry(
            settings.otlp, os.environ, node_id, self._families, clock
        )
        self._finished = self._make_finished(layout)
        self._inspections = Inspections(settings, self._list_workers)
        self._debug = self._make_debug_door(layout)
        self._adapters = self._make_adapters()
        self._supervisor = self._make_supervisor(layout, node_id, socket)
        self._links = Links(socket, self._supervisor)
        self._store = connect_store(settings, layout, clock, node_id=node_id)
        self._shipper = self._make_shipper(layout, node_id)
        self._shipper.on_interrupted = self._finished.interrupted
        self._changed = asyncio.Event()
        self._feed = Feed(
            settings.control_url, layout.node_token, publisher, clock, self._changed.set
        )
        self._discovery = self._make_discovery()
        self._vitals = Vitals("agent")
        self._monitor = self._make_monitor()

    def _make_supervisor(self, layout: Layout, node_id: str, socket: Path) -> Supervisor:
        return Supervisor(
            self._settings,
            layout,
            node_id=node_id,
            socket=socket,
            clock=self._clock,
            current_version=lambda: self._version,
            desks=self._make_desks(),
        )

    def _make_caches(self, node_id: str) -> Caches:
        return Caches(
            self._settings,
            node_id,
            self._runtime / CACHES_SOCKET,
            self._publisher,
            clock=self._clock,
            tell=self._tell,
        )

    def _make_finished(self, layout: Layout) -> FinishedRequests:
        recipients: list[Recipient] = []
        if self._telemetry is not None and self._telemetry.traces is not None:
            recipients.append(self._telemetry.traces.take)
        if self._settings.access_log != "off":
            recipients.append(self._access_log.take)
        return FinishedRequests(layout.journal, recipients)

    def _make_desks(self) -> Desks:
        return Desks(
            self._credentials.messages,
            self._rehashes,
            self._limits.broker,
            self._holds,
            self._health.message,
            self._loads.message,
            self._contexts.message,
            self._finished,
            self._inspections,
            None if self._telemetry is None else self._telemetry.tracing,
            self._adapters,
        )

    def _make_monitor(self) -> Monitor:
        host, port = self._settings.metrics_host, self._settings.metrics_port
        return Monitor(self._families, self._readiness, host, port)

    def _make_debug_door(self, layout: Layout) -> DebugDoor:
        async def tell(change: LevelChange) -> None:
            self._supervisor.tell(LogLevel(change.now))

        routes = {**debug_routes(self._inspections.answer), **level_routes(tell)}
        return DebugDoor(socket_path(layout.data, "agent"), routes)

    def _make_adapters(self) -> Adapters:
        return Adapters(
            self._publisher,
            self._clock,
            self._credentials.find,
            self._tell,
            states=self._health.states,
            random=random.random,
        )

    def _make_shipper(self, layout: Layout, node_id: str) -> Shipper:
        return Shipper(
            journals=layout.journal,
            checkpoints=Checkpoints(layout.shipper),
            refused=layout.refused,
            node_id=node_id,
            store=self._store,
            clock=self._clock,
            random=random.random,
            retention_s=self._settings.journal_retention_s,
        )

    def _make_discovery(self) -> Discovery:
        settings = self._settings.discovery
        return Discovery(
            self._publisher,
            self._clock,
            make_follow(settings, self._calls),
            settings.parse_networks(),
            self._changed.set,
        )

    async def run(self) -> None:
        self._handle_signals()
        self._vitals.start(asyncio.get_running_loop())
        shipping = asyncio.create_task(
            self._shipper.run(self._workers_gone, self._settings.ship_grace_s), name="ship"
        )
        telling = asyncio.create_task(self._finished.run(), name="finished")
        parts = {
            shipping,
            telling,
            asyncio.create_task(self._monitor.run(), name="monitor"),
            asyncio.create_task(self._access_log.run(), name="access log"),
            asyncio.create_task(self._credentials.run(), name="credentials"),
        }
        if self._telemetry is not None:
            parts |= {
                asyncio.create_task(part, name=name) for name, part in self._telemetry.parts()
            }
        try:
            await self._credentials.look(_CREDENTIALS_PATIENCE_S)
            await self._discovery.look(_DISCOVERY_PATIENCE_S)
            await self._limits.start()
            await self._links.open()
            await self._debug.open()
            await self._supervisor.start()
            self._publisher.outdo(self._supervisor.newest_version)
            self._version = self._publisher.version
            parts |= {
                asyncio.create_task(self._supervisor.run(), name="supervise"),
                asyncio.create_task(self._watch(), name="watch"),
                asyncio.create_task(self._feed.run(), name="feed"),
                asyncio.create_task(self._offer(), name="offer"),
                asyncio.create_task(self._rehashes.run(), name="rehashes"),
                asyncio.create_task(self._holds.run(), name="holds"),
                *(asyncio.create_task(part, name=name) for name, part in self._asking_engines()),
                asyncio.create_task(self._discovery.run(), name="discovery"),
                *(asyncio.create_task(part, name=name) for name, part in self._limits.parts()),
            }
            log_events.AGENT_RUNNING.log(metrics_port=self._monitor.port)
            await self._until_stop(parts)
            log_events.AGENT_STOPPING.log()
            await self._supervisor.stop(self._settings.drain_grace_s, self._hurry)
            self._workers_gone.set()
            await asyncio.wait([shipping], timeout=self._settings.ship_grace_s + _SHIP_SLACK_S)
            self._finished.end()
            await asyncio.wait([telling], timeout=_TELL_GRACE_S)
            if self._telemetry is not None:
                await self._telemetry.flush(_TELL_GRACE_S)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await self._debug.close()
            self._vitals.stop()
            if self._telemetry is not None:
                await self._telemetry.close()
            await self._links.close()
            with contextlib.suppress(OSError):
                self._runtime.rmdir()
            await self._holds.close()
            await self._calls.close()
            await self._claims.close()
            await self._store.close()
            await self._limits.close()
            self._monitor.close()
        log_events.AGENT_STOPPED.log()

    def _asking_engines(self) -> "Iterator[tuple[str, Coroutine[Any, Any, None]]]":
        yield "health", self._health.run()
        yield "engine loads", self._loads.run()
        yield "contexts", self._contexts.run()
        yield "adapters", self._adapters.run()
        yield "caches", self._caches.run()
        yield "operator", self._operator.run()

    async def _until_stop(self, parts: "set[asyncio.Task[None]]") -> None:
        """Wait for the wish to stop; raise what goes wrong in a part until then."""
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([stopping, *parts], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        for part in parts:
            if part.done():
                part.result()
                message = f"the part {part.get_name()} ended by itself"
                raise RuntimeError(message)

    async def _watch(self) -> None:
        """Follow the configuration file, and see to it that workers follow, too."""
        while True:
            tell_repeats()
            self._supervisor.offer(self._version)
            try:
                async with asyncio.timeout(_CONFIG_POLL_S):
                    await self._reload.wait()
            except TimeoutError:
                if not self._configuration.has_changed():
                    continue
            is_wished = self._reload.is_set()
            self._reload.clear()
            await asyncio.to_thread(self._configuration.reload)
            await self._take_version()
            if is_wished:
                # Upstream credentials are not in the snapshot: workers must look at them again.
                self._supervisor.refresh(self._version)

    async def _offer(self) -> None:
        """Tell workers of what the feed brought, without waiting for the next look at the file."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._take_version()
            self._supervisor.offer(self._version)

    def _list_workers(self) -> list[Worker]:
        return self._supervisor.list_workers()

    def _tell_credentials(self) -> None:
        self._supervisor.tell_credentials()

    def _tell(
        self, message: NotReady | EngineLoads | ContextLengths | LoadedAdapters | CachesEmptied
    ) -> None:
        self._supervisor.tell(message)

    async def _take_version(self) -> None:
        """Let workers have what is published, once its credentials are open and endpoints found."""
        await self._discovery.look(_DISCOVERY_PATIENCE_S)
        version = self._publisher.version
        await self._credentials.look(_CREDENTIALS_PATIENCE_S)
        self._version = max(version, self._version)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._wish_stop)
        loop.add_signal_handler(signal.SIGINT, self._wish_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)

    def _wish_stop(self) -> None:
        """Stop in order; the second time, in a hurry."""
        now_s = self._clock.monotonic_s()
        if not self._stop.is_set():
            self._stop_wished_s = now_s
            self._stop.set()
        elif now_s - self._stop_wished_s >= _SAME_SIGNAL_S:
            self._hurry.set()

    def _readiness(self) -> Readiness:
        feed = self._feed
        followed_at_us = self._clock.wall_ns() // 1_000 - round(feed.age_s * 1e6)
        # The cursor first: what is published meanwhile makes it older than what is served.
        stamp, seq = self._publisher.cursor
        served_version = min(self._supervisor.oldest_version, self._version)
        return Readiness(
            workers=self._supervisor.connected_count,
            workers_ready=self._supervisor.stats.ready_count,
            snapshot_version=self._publisher.version,
            is_config_rejected=self._configuration.is_rejected,
            feed=FeedState(
                is_lost=feed.is_lost,
                age_s=round(feed.age_s, 3),
                lost_since=format_time(followed_at_us) if feed.is_lost else None,
                position=Position(seq, stamp),
                is_served=served_version >= self._publisher.seen_version,
            ),
            limits=self._limits.state,
            discovery=DiscoveryState(self._discovery.failing),
        )

    def _families(self) -> Iterator[Family]:
        """Yield all that `/metrics` shows."""
        stats = self._supervisor.stats
        histograms = tuple(each.sample() for each in self._vitals.histograms)
        stats.report(AGENT, Stats((), histograms, is_ready=False))
        yield from stats.families()
        for metric, value in self._own_figures():
            yield Family(metric, {(): value})
        yield from self._limits.families()
        states = self._health.states()
        yield Family(metrics.ENDPOINT_READY, {name: float(state) for name, state in states.items()})
        yield Family(metrics.ENDPOINT_STRAIN, self._loads.strains())
        yield from self._discovery.families()
        yield from self._adapters.families()
        yield from self._caches.families()
        caches = {} if self._caches.pid is None else {"caches": self._caches.pid}
        yield from show_processes({"agent": os.getpid(), **caches, **self._supervisor.pids})
        if self._telemetry is not None:
            yield from self._telemetry.families()

    def _own_figures(self) -> Iterator[tuple[Metric, float]]:
        supervisor, shipper = self._supervisor, self._shipper
        yield metrics.WORKERS, supervisor.connected_count
        yield metrics.WORKERS_READY, supervisor.stats.ready_count
        yield metrics.WORKER_RESTARTS, supervisor.restart_count
        yield metrics.SNAPSHOT_VERSION, self._publisher.version
        yield metrics.CONFIG_REJECTED, self._configuration.is_rejected
        yield metrics.FEED_AGE, self._feed.age_s
        yield metrics.FEED_LOST, self._feed.is_lost
        yield metrics.FEED_FAILURES, self._feed.failure_count
        credentials = self._credentials.figures
        yield metrics.CREDENTIALS_OPEN, credentials["open"]
        yield metrics.CREDENTIALS_UNREADABLE, credentials["unreadable"]
        yield metrics.CREDENTIALS_WAITING, credentials["waiting"]
        yield from self._limits.figures()
        yield metrics.HOLD_FAILURES, self._holds.failure_count
        yield metrics.UNSHIPPED_RECORDS, shipper.unshipped.records
        yield metrics.UNSHIPPED_BYTES, shipper.unshipped.size_bytes
        yield metrics.SHIPPED_EVENTS, shipper.totals.shipped
        yield metrics.SHIP_FAILURES, shipper.totals.failures
        yield metrics.SHIP_LAG, shipper.lag_s
        yield metrics.SHIP_REFUSED, shipper.totals.refused
        yield metrics.SHIP_SET_BACK, shipper.totals.set_back
        yield metrics.JOURNAL_DAMAGED, shipper.damaged_count
        yield metrics.FINISHED_DROPPED, self._finished.dropped
        yield metrics.ACCESS_LOG_DROPPED, self._access_log.dropped
