"""The worker's end of the agent's socket: it reports, and does as it is told.

A worker outlives its agent: it calls again until a new one answers, and ends by itself when none
came for `orphan_grace_s`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from penstock.contract.node import (
    AgentMessage,
    Apply,
    CachesEmptied,
    ContextLengths,
    Credentials,
    Drain,
    EngineLoads,
    Frames,
    Granted,
    Hello,
    HoldsChecked,
    HoldsGranted,
    Inspect,
    Inspected,
    LimitsClock,
    LoadedAdapters,
    LogLevel,
    MessageTooLongError,
    NotReady,
    WorkerMessage,
    decode_agent_message,
    encode_message,
)
from penstock.contract.node_parts import Listing, Parts
from penstock.gateway import log_events
from penstock.gateway.limiter import Limiter
from penstock.gateway.limits import AGENT_UNSENT_BYTES, CREDENTIALS, STATS_S
from penstock.kit.logs.setup import change_level
from penstock.kit.streams import write_if_open

_RETRY_S = 0.15
_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Orders:
    """What is done when the agent says so."""

    apply: Callable[[], WorkerMessage]
    """There is a new snapshot to read; returns what to answer."""
    take_tokens: Callable[[dict[str, str]], None]
    """All opened credentials, by id: called once the last part of them came."""
    take_not_ready: Callable[[NotReady], None]
    """Endpoints that cannot be asked."""
    take_loads: Callable[[EngineLoads], None]
    """How busy engines say that they are."""
    take_contexts: Callable[[ContextLengths], None]
    """How many tokens requests may have."""
    take_adapters: Callable[[LoadedAdapters], None]
    """Which LoRA adapters are where."""
    take_emptied: Callable[[CachesEmptied], None]
    """An engine has no prompts any more."""
    drain: Callable[[float | None], None]
    """The worker shall end, with its grace in seconds."""
    inspect: Callable[[Inspect], Awaitable[Inspected]]
    """An operator wants to know something of it."""


class AgentLink:
    """Keeps the connection to the agent.

    Args:
        socket: Path of the agent's Unix socket.
        orphan_grace_s: How long to serve without an agent.
        hello: Makes the greeting; what is reported behind it is for one who knows nothing yet.
        report: Makes what is told every `STATS_S`.
        orders: What is done when the agent says so.
        limiter: Told what the agent says about limits and money, and whether there is one.
    """

    def __init__(
        self,
        socket: Path,
        *,
        orphan_grace_s: float,
        hello: Callable[[], Hello],
        report: Callable[[], Iterable[WorkerMessage]],
        orders: Orders,
        limiter: Limiter,
    ) -> None:
        """See the class."""
        self._socket = socket
        self._orphan_grace_s = orphan_grace_s
        self._hello = hello
        self._make_report = report
        self._orders = orders
        self._limiter = limiter
        self._writer: asyncio.StreamWriter | None = None
        self._inspecting: set[asyncio.Task[None]] = set()

    def send(self, message: WorkerMessage) -> bool:
        """Tell the agent something at once; False when it is away, or does not listen."""
        writer = self._writer
        if writer is None or writer.transport.get_write_buffer_size() > AGENT_UNSENT_BYTES:
            return False
        return write_if_open(writer, encode_message(message))

    async def run(self) -> None:
        """Connect, talk, connect again; until cancelled."""
        loop = asyncio.get_running_loop()
        alone_since_s = loop.time()
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    await self._talk(reader, writer)
                finally:
                    writer.close()
                alone_since_s = loop.time()
                log_events.AGENT_LOST.log(grace_s=self._orphan_grace_s)
            if loop.time() - alone_since_s > self._orphan_grace_s:
                log_events.AGENT_GONE.log()
                self._orders.drain(None)
                alone_since_s = float("inf")
            await asyncio.sleep(_RETRY_S)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        write_if_open(writer, encode_message(self._hello()))
        self._writer = writer
        self._limiter.connected()
        reporting = asyncio.create_task(self._report(writer), name="report")
        reporting.add_done_callback(lambda _: writer.close())  # who cannot report has no agent
        try:
            await self._listen(reader, writer)
        finally:
            self._writer = None
            self._limiter.lost()
            reporting.cancel()
            await asyncio.wait({reporting})
            # Nothing is awaited in here: the worker's own cancellation must come through.
            with contextlib.suppress(asyncio.CancelledError, OSError):
                reporting.result()

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        while True:
            for message in self._make_report():
                write_if_open(writer, encode_message(message))
                await writer.drain()
                await asyncio.sleep(0)  # requests have their turn between two parts
            await asyncio.sleep(STATS_S)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = Frames()
        parts = Parts()
        tokens: dict[str, str] = {}
        while content := await reader.read(_READ_BYTES):
            try:
                heard = [decode_agent_message(payload) for payload in frames.feed(content)]
                messages = [parts.join(one) if isinstance(one, Listing) else one for one in heard]
            except (msgspec.DecodeError, MessageTooLongError) as error:
                log_events.AGENT_NOT_UNDERSTOOD.log(error=error)
                return
            for message in messages:
                if message is None:  # more of it is to come
                    continue
                if not isinstance(message, Credentials):
                    self._hear(message, writer)
                    continue
                tokens |= message.tokens
                if len(tokens) > CREDENTIALS:
                    log_events.AGENT_NOT_UNDERSTOOD.log(credentials=CREDENTIALS)
                    return
                if message.is_last:
                    self._orders.take_tokens(tokens)
                    tokens = {}

    def _hear(self, message: AgentMessage, writer: asyncio.StreamWriter) -> None:  # noqa: C901 - flat
        match message:
            case Apply():
                write_if_open(writer, encode_message(self._orders.apply()))
            case NotReady():
                self._orders.take_not_ready(message)
            case EngineLoads():
                self._orders.take_loads(message)
            case ContextLengths():
                self._orders.take_contexts(message)
            case LoadedAdapters():
                self._orders.take_adapters(message)
            case CachesEmptied():
                self._orders.take_emptied(message)
            case Drain(grace_s):
                self._orders.drain(grace_s)
            case LogLevel(level):
                change_level(level)
            case Inspect():
                self._begin_inspection(message)
            case Granted() | HoldsGranted() | HoldsChecked() | LimitsClock():
                self._limiter.take(message)

    def _begin_inspection(self, question: Inspect) -> None:
        task = asyncio.create_task(self._inspect(question), name="inspect")
        self._inspecting.add(task)
        task.add_done_callback(self._inspecting.discard)

    async def _inspect(self, question: Inspect) -> None:
        self.send(await self._orders.inspect(question))
