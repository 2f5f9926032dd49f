"""The agent's side of the process that follows engines' KV caches.

It runs while an upstream says where its engines tell of them, is started again when it dies, and
ends with the agent.
"""

import asyncio
import contextlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import msgspec

from penstock.catalog.kv_events import parse_kv_events
from penstock.contract.caches import (
    AgentSays,
    Emptied,
    EngineFigures,
    Follow,
    FollowedEngine,
    FollowedModel,
    decode_process_says,
    encode_said,
)
from penstock.contract.exposition import Family
from penstock.contract.node import CachesEmptied, Frames, LogLevel, MessageTooLongError
from penstock.contract.node_parts import Parts, split
from penstock.contract.snapshot import Deployment, Endpoint, Upstream
from penstock.kit.clock import Clock
from penstock.kit.logs.setup import LevelName, get_level
from penstock.kit.streams import write_if_open
from penstock.node import log_events, metrics
from penstock.node.backoff import RestartPauses
from penstock.node.caches.process import CachesSettings
from penstock.node.health import Store
from penstock.node.settings import AgentSettings

_LOOK_S = 1.0
_END_S = 2.0
_READ_BYTES = 64 * 1024
_PACKAGES = ("zmq", "tokenizers", "jinja2")


class Caches:
    """Keeps the process running, tells it what to follow, and passes on what it says.

    Args:
        settings: The agent's.
        node_id: The node's id.
        socket: Where workers ask the process.
        store: Where upstreams are.
        clock: Measures lives.
        tell: Passes on what workers need to know.
    """

    def __init__(
        self,
        settings: AgentSettings,
        node_id: str,
        socket: Path,
        store: Store,
        *,
        clock: Clock,
        tell: Callable[[CachesEmptied], None],
    ) -> None:
        """See the class."""
        self._settings = settings
        self._node_id = node_id
        self._socket = socket
        self._store = store
        self._clock = clock
        self._tell = tell
        self._version = -1
        self._follow = Follow(())
        self._figures: tuple[EngineFigures, ...] = ()
        self.pid: int | None = None
        """Of the process, while it runs."""

    async def run(self) -> None:
        """Keep it running until cancelled."""
        pauses, is_told = RestartPauses(), False
        while True:
            await self._look()
            if not self._follow.engines:
                await asyncio.sleep(_LOOK_S)
            elif not all(map(find_spec, _PACKAGES)):
                if not is_told:
                    log_events.KV_EVENTS_WANT_A_PACKAGE.log()
                is_told = True
                await asyncio.sleep(_LOOK_S)
            else:
                began_s = self._clock.monotonic_s()
                if not await self._live():
                    await asyncio.sleep(pauses.next_s(self._clock.monotonic_s() - began_s))

    def families(self) -> Iterator[Family]:
        """Yield what is known of each endpoint's caches."""
        figures = self._figures
        for metric, name in (
            (metrics.KV_CONNECTED, "is_connected"),
            (metrics.KV_BLOCKS, "blocks"),
            (metrics.KV_EVENTS, "events"),
            (metrics.KV_UNKNOWN, "unknown"),
            (metrics.KV_GAPS, "gaps"),
            (metrics.KV_RESETS, "resets"),
            (metrics.KV_FAILURES, "failures"),
            (metrics.KV_LAG, "lag_s"),
        ):
            values = ((each.upstream, each.url, getattr(each, name)) for each in figures)
            yield Family(
                metric,
                {(upstream, url): value for upstream, url, value in values if value is not None},
            )

    async def _look(self) -> bool:
        """Return whether there is something else to follow than the last time."""
        if self._store.version == self._version:
            return False
        self._version = self._store.version
        upstreams = await asyncio.to_thread(self._store.list_upstreams)
        engines = tuple(list_followed(upstreams))
        deployments = await asyncio.to_thread(self._store.list_deployments)
        follow = Follow(engines, tuple(list_models(deployments, engines)))
        is_new, self._follow = follow != self._follow, follow
        return is_new

    async def _live(self) -> bool:
        """Run one process until it ends; return whether it was us who ended it."""
        level = get_level()
        try:
            process = await self._start(level)
        except OSError as error:
            log_events.CACHES_CANNOT_BE_STARTED.log(error=error)
            return False
        self.pid = process.pid
        hearing = asyncio.create_task(self._hear(process), name="hear caches")
        feeding = asyncio.create_task(self._feed(process, level), name="feed caches")
        has_died = False
        try:
            await asyncio.wait((hearing, feeding), return_when=asyncio.FIRST_COMPLETED)
            has_died = not feeding.done()
            for task in (hearing, feeding):
                if task.done():
                    task.result()
            return not has_died
        finally:
            for task in (hearing, feeding):
                task.cancel()
            await asyncio.gather(hearing, feeding, return_exceptions=True)
            how = await _end(process)
            self.pid, self._figures = None, ()
            if has_died:
                log_events.CACHES_DIED.log(how=how)

    async def _start(self, level: LevelName) -> asyncio.subprocess.Process:
        settings = CachesSettings(
            self._node_id,
            str(self._socket),
            self._settings.kv_answer_ms / 1_000,
            self._settings.log_format,
            level,
        )
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "penstock.node.caches",
            msgspec.json.encode(settings).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )

    async def _feed(self, process: asyncio.subprocess.Process, level: LevelName) -> None:
        """Tell it what to follow, and from which level to log, until there is nothing to follow."""
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        is_new = True
        while self._follow.engines:
            said: list[AgentSays] = [*split(self._follow)] if is_new else []
            if level != get_level():  # an operator changed it
                level = get_level()
                said.append(LogLevel(level))
            for message in said:
                write_if_open(process.stdin, encode_said(message))
            with contextlib.suppress(OSError):
                await process.stdin.drain()
            await asyncio.sleep(_LOOK_S)
            is_new = await self._look()

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        frames, parts = Frames(), Parts()
        with contextlib.suppress(msgspec.DecodeError, MessageTooLongError):
            while content := await process.stdout.read(_READ_BYTES):
                for said in map(decode_process_says, frames.feed(content)):
                    if isinstance(said, Emptied):
                        self._tell(CachesEmptied(said.upstream, said.url))
                    elif (figures := parts.join(said)) is not None:
                        self._figures = figures.engines


def list_followed(upstreams: Iterable[Upstream]) -> Iterator[FollowedEngine]:
    """Yield the endpoints whose engines tell of their caches, and where.

    One endpoint of a host has all ports that its upstream says, a rank of its engine at each; of as
    many endpoints as there are ports each has its own, in their order. Else nobody could tell whose
    is whose.
    """
    for upstream in upstreams:
        if upstream.kv_events is None:
            continue
        try:
            ports = parse_kv_events(upstream.kv_events)
        except ValueError:
            continue
        by_host = defaultdict[str, list[Endpoint]](list)
        for endpoint in upstream.plain_endpoints:
            by_host[endpoint.host].append(endpoint)
        for host, endpoints in by_host.items():
            if len(endpoints) == 1:
                yield FollowedEngine(upstream.name, endpoints[0].url, host, *ports)
            elif len(endpoints) == len(ports.events):
                endpoints.sort(key=lambda each: each.port)
                for at, endpoint in enumerate(endpoints):
                    yield FollowedEngine(
                        upstream.name,
                        endpoint.url,
                        host,
                        ports.events[at : at + 1],
                        ports.replay[at : at + 1],
                    )


def list_models(
    deployments: Iterable[Deployment], engines: Iterable[FollowedEngine]
) -> Iterator[FollowedModel]:
    """Yield the models of followed engines that have a tokenizer."""
    followed = {engine.upstream for engine in engines}
    for each in deployments:
        if each.tokenizer is not None and each.upstream in followed:
            adapter = "" if each.adapter_of is None else each.model
            yield FollowedModel(each.upstream, each.model, each.tokenizer, adapter)


async def _end(process: asyncio.subprocess.Process) -> int:
    """End it, if it has not ended; return its exit code, or the signal below 0."""
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    process.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            return await process.wait()
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    return await process.wait()
