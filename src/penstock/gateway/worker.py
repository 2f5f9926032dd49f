"""Composition root of the worker: makes its parts, starts, sweeps, drains and ends it."""

import asyncio
import gc
import os
import random
import signal
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb
import msgspec

from penstock.access.peppers import read_peppers
from penstock.contract import metrics
from penstock.contract.node import (
    Applied,
    CachesEmptied,
    ContextLengths,
    EngineLoads,
    Hello,
    Inspect,
    Inspected,
    LoadedAdapters,
    NotReady,
    Sample,
    WorkerMessage,
    WorkerSettings,
)
from penstock.contract.snapshot import Endpoint, SnapshotFormatError, Upstream
from penstock.contract.snapshot_store import SnapshotReader
from penstock.contract.vitals import Vitals
from penstock.gateway import log_events
from penstock.gateway.adapters import Adapters
from penstock.gateway.agent_link import AgentLink, Orders
from penstock.gateway.caches import Caches
from penstock.gateway.endpoint import AnyEndpoint, Endpoints
from penstock.gateway.engine_load import ToldLoads, weigh
from penstock.gateway.errors import DRAINING, JOURNAL_FULL
from penstock.gateway.forward import Pool
from penstock.gateway.health import Told
from penstock.gateway.http2.client import Http2Pool
from penstock.gateway.http2.server import Http2Downstream
from penstock.gateway.journal import Journal
from penstock.gateway.limiter import Limiter
from penstock.gateway.limits import CREDENTIALS_WAIT_S, SWEEP_S
from penstock.gateway.listeners import Door, listen
from penstock.gateway.offer import Contexts, ServedUpstream
from penstock.gateway.prefixes import Prefixes
from penstock.gateway.refusals import Refusals
from penstock.gateway.rehash import OldHashes
from penstock.gateway.request import Request
from penstock.gateway.retries import RetryBudget
from penstock.gateway.runtime import Runtime
from penstock.gateway.select import Turns
from penstock.gateway.server import Downstream
from penstock.gateway.stats import Stats
from penstock.gateway.tokens import Tokens
from penstock.gateway.trace import Tracer
from penstock.kit.errors import PenstockError, Refusal
from penstock.kit.ids import EventIds
from penstock.kit.logs.setup import tell_repeats
from penstock.kit.running_time import call_when_read, when_read

if TYPE_CHECKING:
    from penstock.gateway.inspection import Inspection

_DRAINING = Refusal(DRAINING)
_JOURNAL_FULL = Refusal(JOURNAL_FULL)
_DRAIN_POLL_S = 0.02
_EXIT_BROKEN = 70
_PoolName = tuple[str, bool]
"""An upstream's name, and whether it is asked by gRPC."""


class Worker:
    """One worker.

    Args:
        settings: How it was started.
        loop: The running loop.
        journal_type: Makes its journal.

    Raises:
        PenstockError, SnapshotFormatError, OSError, lmdb.Error: It cannot be started.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        loop: asyncio.AbstractEventLoop,
        journal_type: type[Journal] = Journal,
    ) -> None:
        """See the class."""
        self._settings = settings
        self._loop = loop
        self.now_s = loop.time
        self.wall_ns = time.time_ns
        random_bits = random.Random(os.urandom(32)).getrandbits  # noqa: S311 - ids are unique, not secret
        self.event_ids = EventIds(time.time_ns, random_bits)
        self.tracer = Tracer(settings.tracing, random_bits)
        self.stats = Stats(
            settings.organizations_shown, settings.models_shown, settings.upstreams_shown
        )
        self._vitals = Vitals(f"worker-{settings.slot}")
        self.stats.tell_always(self._vitals.histograms)
        self.refusals = Refusals(
            is_wanted=settings.tells_refused,
            slot=settings.slot,
            wall_ns=time.time_ns,
            tracer=self.tracer,
        )
        self.is_draining = False
        self.labels = frozenset(settings.labels)
        """Names of the labels that requests may have."""
        self.metadata_labels = frozenset(settings.metadata_labels)
        """Those that are taken from their `metadata`, too."""
        self.form_bytes = settings.form_bytes
        """How large a form may be."""
        self.keep_alive_s = settings.stream_keep_alive_s
        """After how much silence callers of streams get a comment; never when 0."""
        self.overloaded_status = settings.overloaded_status
        """Of answers that say that engines have no room."""
        self._ended: asyncio.Future[int] = loop.create_future()
        self._end: asyncio.Task[None] | None = None
        """What drains the worker."""
        self._connections: set[Downstream | Http2Downstream] = set()
        self._pools: dict[_PoolName, tuple[ServedUpstream, Endpoints]] = {}
        self._doors: list[Door] = []
        self._told = Told(loop.time)
        self._told_loads = ToldLoads(loop.time)
        self.adapters = Adapters(loop.time, self._tell_agent)
        self.contexts: Contexts = {}
        """How many tokens requests may have, as far as engines say it."""
        self.prefixes = Prefixes(settings.prefix_index_bytes, loop.time)
        self.caches = Caches(settings, loop, self.stats.cache_asked)
        self._tokens = Tokens()
        self._has_tokens = asyncio.Event()
        self._old_hashes = OldHashes()
        self._link: AgentLink | None = None
        self._inspection: Inspection | None = None
        self.limiter = Limiter(
            loop,
            monotonic_ns=time.monotonic_ns,
            name=f"{settings.node_id}/{settings.slot}-{settings.epoch}",
            send=self._tell_agent,
            stats=self.stats,
        )
        # Which engine goes first is no secret.
        self._turns = Turns(random.random())  # noqa: S311
        self.endpoint_turn = Turns(random.random()).next  # noqa: S311
        """Returns numbers by which some of very many endpoints are drawn."""
        self._records = SnapshotReader(Path(settings.snapshot_path))
        self._serve_from(self._read_runtime())
        self.journal = self._make_journal(journal_type)
        self.journal.on_broken = lambda: self._finish(_EXIT_BROKEN)
        self.journal.on_synced = self.stats.journal_synced

    def _make_journal(self, journal_type: type[Journal]) -> Journal:
        settings = self._settings
        return journal_type(
            Path(settings.journal_path),
            node_id=settings.node_id,
            slot=settings.slot,
            epoch=settings.epoch,
            loop=self._loop,
            wall_ns=time.time_ns,
            segment_bytes=settings.journal_segment_bytes,
            is_strict=settings.journal_strict,
        )

    # Configuration

    def _read_runtime(self) -> Runtime:
        return Runtime(
            self._records,
            read_peppers(Path(self._settings.pepper_path).parent, may_create=False),
            tokens=self._tokens,
            turn=self._turns.next,
            old_hashes=self._old_hashes,
            now_s=time.time,
            heeds_prefixes=self._settings.prefix_index_bytes > 0,
        )

    def _serve_from(self, runtime: Runtime) -> None:
        """Serve from `runtime` on: one assignment, so no request sees half of it."""
        self.runtime = runtime
        self.forwards_headers = bool(runtime.forward_names or runtime.forward_prefixes)
        names = runtime.list_upstream_names()
        for name in [name for name in self._pools if name[0] not in names]:
            self._close_pools(self._pools.pop(name)[1])

    @staticmethod
    def _close_pools(pools: Iterable[AnyEndpoint]) -> None:
        for pool in pools:
            pool.close()

    def _apply(self) -> Applied:
        """Look at the snapshot and the secrets again; what cannot be read changes nothing."""
        try:
            self._records.refresh()
            self._serve_from(self._read_runtime())
        except (
            OSError,
            PenstockError,
            SnapshotFormatError,
            lmdb.Error,
            msgspec.DecodeError,
        ) as error:
            log_events.SNAPSHOT_REJECTED.log(error=error)
            return Applied(self.runtime.version, str(error))
        return Applied(self.runtime.version)

    def _take_tokens(self, tokens: dict[str, str]) -> None:
        """Use these credentials for every request from now on."""
        self._tokens.replace(tokens)
        self.runtime.forget_offers()
        self._has_tokens.set()

    def _take_not_ready(self, message: NotReady) -> None:
        """Ask these endpoints no more while there are others."""
        self._told.take(message)
        for upstream, pools in self._pools.values():
            for pool in pools:
                pool.health.told(self._told.until_s(upstream.name, pool.endpoint))

    def _take_loads(self, message: EngineLoads) -> None:
        """Send less to endpoints whose engines say that they are busy, from the next look on."""
        self._told_loads.take(message)
        for name, pool in self._all_pools():
            self._told_loads.tell(name, pool)

    def _take_contexts(self, message: ContextLengths) -> None:
        """Know these from now on."""
        self.contexts = {(upstream, model): tokens for upstream, model, tokens in message.lengths}

    def _take_adapters(self, message: LoadedAdapters) -> None:
        """Send requests for adapters to those that have them."""
        self.adapters.take(message)
        for upstream, pools in self._pools.values():
            for pool in pools:
                pool.adapters = self.adapters.find_loaded(upstream.name, pool.endpoint)
        self.adapters.wake()

    def _take_emptied(self, message: CachesEmptied) -> None:
        """Send this endpoint no prompt any more for what it had."""
        for (name, _), (_, pools) in self._pools.items():
            if name == message.upstream:
                for pool in pools.find([message.url]):
                    pool.emptied_count += 1

    def pools_of(self, upstream: ServedUpstream) -> Endpoints:
        """Return the connection pools of an upstream's endpoints.

        All organizations share them: what is one's own is in each request and not in a connection.
        Pools are kept as long as nothing about the upstream changes but which endpoints it has. A
        request that was admitted under an older version, of an upstream that is gone or another
        now, gets pools of its own.
        """
        name = upstream.name, upstream.is_by_grpc
        found = self._pools.get(name)
        kept: dict[Endpoint, AnyEndpoint] = {}
        if found is not None:
            served, pools = found
            if served is upstream:
                return pools
            if served.settings == upstream.settings:
                if upstream.version >= served.version:  # the next one is found at once
                    self._pools[name] = (upstream, pools)
                return pools
            if _but_endpoints(served.settings) == _but_endpoints(upstream.settings):
                kept = {pool.endpoint: pool for pool in pools}
        pools = self._make_pools(upstream, kept)
        is_older = upstream.version < (self.runtime.version if found is None else found[0].version)
        if is_older:  # nothing of them is kept for a next request
            self._close_pools(pool for pool in pools if pool not in kept.values())
            return pools
        if found is not None:
            self._close_pools(pool for pool in found[1] if pool not in pools)
        for position, pool in enumerate(pools):
            pool.position = position
        self._pools[name] = (upstream, pools)
        return pools

    def _make_pools(self, upstream: ServedUpstream, kept: dict[Endpoint, AnyEndpoint]) -> Endpoints:
        retries = next((pool.retries for pool in kept.values()), None) or RetryBudget(self.now_s)
        pools = []
        for endpoint in upstream.endpoints:
            pool = kept.get(endpoint)
            if pool is None:
                pool = self._make_pool(endpoint, upstream, retries)
                pool.health.told(self._told.until_s(upstream.name, endpoint))
                pool.adapters = self.adapters.find_loaded(upstream.name, endpoint)
                self._told_loads.tell(upstream.name, pool)
            pools.append(pool)
        return Endpoints(pools)

    def _make_pool(
        self, endpoint: Endpoint, upstream: ServedUpstream, retries: RetryBudget
    ) -> AnyEndpoint:
        if not upstream.is_by_grpc:
            return Pool(endpoint, upstream, self._loop, retries)
        tls = upstream.tls if endpoint.scheme == "grpcs" else None
        return Http2Pool(endpoint, upstream, self._loop, retries, tls)

    # What connections ask

    def join(self, downstream: Downstream | Http2Downstream) -> bool:
        """Count a connection in; False when there are too many."""
        if len(self._connections) >= self._settings.max_connections:
            return False
        self._connections.add(downstream)
        return True

    def leave(self, downstream: Downstream | Http2Downstream) -> None:
        """Count a connection out."""
        self._connections.discard(downstream)

    def note_refusal(self, request: Request, refusal: Refusal) -> None:
        """Count a request that was not admitted, and tell the agent of it."""
        self.stats.refused(refusal.error)
        self.refusals.note(request, refusal)

    def refusal(self) -> Refusal | None:
        """Return why nothing is admitted at the moment, if so."""
        return None if self.journal.can_admit else _JOURNAL_FULL

    def unreadiness(self) -> Refusal | None:
        """Return why callers had better go elsewhere, if so.

        What comes all the same while the worker drains is served.
        """
        return _DRAINING if self.is_draining else self.refusal()

    def keep_forwarded(self, request: Request, name: bytes, value: bytes) -> None:
        """Keep a header field that some upstream wants passed on."""
        lower = name.lower()
        runtime = self.runtime
        if lower in runtime.forward_names or lower.startswith(runtime.forward_prefixes):
            if request.forwarded is None:
                request.forwarded = []
            request.forwarded.append((lower, value))

    # Life

    async def run(self) -> int:
        """Serve until told to end; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.drain, None)
        self._loop.call_later(SWEEP_S, self._begin_sweep)
        link = None
        if self._settings.agent_socket:
            self._link = self._agent_link()
            link = self._loop.create_task(self._link.run(), name="link")
            link.add_done_callback(self._link_ended)
            await self._await_tokens()
        if not self.is_draining:
            self._doors += await listen(self, self._settings)
        gc.collect()
        gc.freeze()
        self._vitals.start(self._loop)
        log_events.WORKER_READY.log(slot=self._settings.slot, epoch=self._settings.epoch)
        code = await self._ended
        self._vitals.stop()
        if link is not None:
            link.cancel()
        if code == 0:
            self.journal.finish()
        return code

    async def _await_tokens(self) -> None:
        """Take no request before the credentials came that the agent opens, if there are any."""
        if self._records.has_sealed():
            try:
                async with asyncio.timeout(CREDENTIALS_WAIT_S):
                    await self._has_tokens.wait()
            except TimeoutError:
                log_events.CREDENTIALS_MISSING.log()

    def _agent_link(self) -> AgentLink:
        return AgentLink(
            Path(self._settings.agent_socket),
            orphan_grace_s=self._settings.orphan_grace_s,
            hello=self._hello,
            report=self._report,
            orders=Orders(
                self._apply,
                self._take_tokens,
                self._take_not_ready,
                self._take_loads,
                self._take_contexts,
                self._take_adapters,
                self._take_emptied,
                self.drain,
                self._inspect,
            ),
            limiter=self.limiter,
        )

    def _tell_agent(self, message: WorkerMessage) -> bool:
        return self._link is not None and self._link.send(message)

    def _link_ended(self, link: "asyncio.Task[None]") -> None:
        """End with the link: a worker that does not hear its agent is of no use for long."""
        if not link.cancelled() and link.exception() is not None:
            log_events.AGENT_LINK_BROKE.log(bug=link.exception())
            self._finish(_EXIT_BROKEN)

    def _hello(self) -> Hello:
        settings = self._settings
        self.stats.forget_told()
        return Hello(
            settings.slot, settings.epoch, os.getpid(), self.runtime.version, self.is_draining
        )

    def _report(self) -> Iterator[WorkerMessage]:
        is_ready = bool(self._doors) and self.unreadiness() is None
        yield from self.stats.reports(self._figures(), is_ready=is_ready)
        told = (self._old_hashes.take(), self.refusals.take(), self.adapters.report())
        yield from (message for message in told if message is not None)

    def _figures(self) -> Iterator[Sample]:
        """Yield what is not counted request by request."""
        journal = self.journal
        of_upstreams: dict[tuple[str, str], int] = {}
        in_flight = 0
        for upstream, pool in self._all_pools():
            name = self.stats.upstreams.shown(upstream)
            in_flight += pool.in_flight
            for metric, value in (
                (metrics.UPSTREAM_CONNECTIONS, pool.connection_count),
                (metrics.UPSTREAM_IN_FLIGHT, pool.in_flight),
                (metrics.UPSTREAM_WAITING, pool.waiting_count),
            ):
                series = metric.name, name
                of_upstreams[series] = of_upstreams.get(series, 0) + value
        for metric, value in (
            (metrics.IN_FLIGHT, in_flight),
            (metrics.CONNECTIONS, len(self._connections)),
            (metrics.JOURNAL_RECORDS, journal.record_count),
            (metrics.JOURNAL_BYTES, journal.byte_count),
            (metrics.JOURNAL_SYNCS, journal.sync_count),
            (metrics.JOURNAL_WAITING, journal.waiting_bytes),
            (metrics.JOURNAL_FULL, 0 if journal.can_admit else 1),
            (metrics.LIMIT_WAITING, self.limiter.waiting_count),
        ):
            yield Sample(metric.name, (), value)
        for (metric_name, name), value in of_upstreams.items():
            yield Sample(metric_name, (name,), value)
        for name, count in self.stats.count_models().items():
            yield Sample(metrics.MODEL_IN_FLIGHT.name, (name,), count)

    async def _inspect(self, question: Inspect) -> Inspected:
        if self._inspection is None:
            from penstock.gateway.inspection import Inspection  # noqa: PLC0415 - most never need it

            self._inspection = Inspection(self._settings, self._connections, self._all_pools)
        return await self._inspection.answer(question)

    def _all_pools(self) -> list[tuple[str, AnyEndpoint]]:
        """Return every connection pool, with the name of its upstream."""
        return [(name, pool) for (name, _), (_, pools) in self._pools.items() for pool in pools]

    def _begin_sweep(self) -> None:
        """Look at deadlines once what came in time is read: it may be this worker that was late."""
        # First: whatever goes wrong in this sweep, deadlines are looked at again.
        self._loop.call_later(SWEEP_S, self._begin_sweep)
        call_when_read(self._loop, partial(self._sweep, self._loop.time()))

    def _sweep(self, now: float) -> None:
        for downstream in list(self._connections):
            try:
                downstream.sweep(now)
            except Exception as error:  # noqa: BLE001  # one caller's bug must not hold the others
                log_events.SWEEP_FAILED.log(bug=error)
        for _, pools in self._pools.values():
            for pool in pools:
                pool.sweep(now)
            if len(pools) > 1 and self._settings.heeds_load:
                weigh(pools, now)
        self.limiter.sweep()
        self.runtime.sweep()
        tell_repeats()

    # The end

    def drain(self, grace_s: float | None) -> None:
        """Say that callers had better go elsewhere, let what there is finish, then end.

        Args:
            grace_s: Seconds for all of it; the settings' when None.
        """
        if self.is_draining:
            return
        self.is_draining = True
        grace = self._settings.drain_grace_s if grace_s is None else grace_s
        log_events.DRAINING.log(grace_s=grace, connections=len(self._connections))
        self._end = self._loop.create_task(self._drain(grace), name="drain")

    async def _drain(self, grace_s: float) -> None:
        deadline_s = self._loop.time() + grace_s
        try:
            await asyncio.sleep(min(self._settings.drain_delay_s, grace_s))
            await asyncio.gather(*(door.close() for door in self._doors))
            await when_read()
            while self._connections and self._loop.time() < deadline_s:
                for downstream in list(self._connections):
                    downstream.drain()
                await asyncio.sleep(_DRAIN_POLL_S)
                await when_read()  # no connection is idle, and nothing is late, that was not read
            if self._connections:
                for downstream in list(self._connections):
                    downstream.interrupt()
                # What was interrupted is journaled and told to the callers in the coming turns.
                await asyncio.sleep(_DRAIN_POLL_S * 5)
        finally:
            self._finish(0)

    def _finish(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)


def _but_endpoints(settings: Upstream) -> Upstream:
    return msgspec.structs.replace(settings, endpoints=())
