"""Asks the node's process that knows engines' KV caches where a prompt is (ADR 50).

Nobody waits long: an answer has 20 ms, if nothing else is set, and who gets none goes by what the
worker itself sent where. After some that came late nobody is asked for a while.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, cast

import msgspec

from penstock.contract.caches import Ask, Found, decode_found, encode_said
from penstock.contract.node import Frames, MessageTooLongError, WorkerSettings
from penstock.gateway.limits import CACHES_ASKED, CACHES_LATE, CACHES_REST_S, CACHES_UNSENT_BYTES

if TYPE_CHECKING:
    from penstock.gateway.offer import Target

NOTHING: Final = Found(0)
"""What is known where nobody answered."""


class Caches(asyncio.Protocol):
    """The connection to the process; made when it is needed.

    Args:
        settings: The worker's: where it listens, and how long an answer may take.
        loop: The running loop.
        count: Told of each question, by upstream, what became of it.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        loop: asyncio.AbstractEventLoop,
        count: Callable[[str, str], None],
    ) -> None:
        """See the class."""
        self._socket = settings.caches_socket
        self._wait_s = settings.caches_wait_s
        self._loop = loop
        self._count = count
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._frames = Frames()
        self._number = 0
        self._asked: dict[int, tuple[str, asyncio.TimerHandle, Callable[[Found], None]]] = {}
        self._late_count = 0
        """How many had no answer in time since one had."""
        self._rests_until_s = 0.0

    def ask(
        self, target: "Target", body: bytes, sent: Iterable[str], then: Callable[[Found], None]
    ) -> bool:
        """Ask which endpoints of a target have a prompt.

        Args:
            target: Where it is to go.
            body: As the engine is sent it.
            sent: URLs of its endpoints that were sent the prompt, or its beginning.
            then: Called once, not at once, with what is known, which may be nothing.

        Returns:
            False when nobody can be asked: it is not called then.
        """
        transport, upstream = self._transport, target.upstream.name
        if transport is None:
            self._connect()
            self._count(upstream, "unasked")
            return False
        is_full = (
            len(self._asked) >= CACHES_ASKED
            or transport.get_write_buffer_size() > CACHES_UNSENT_BYTES
        )
        if is_full or self._loop.time() < self._rests_until_s:
            self._count(upstream, "unasked")
            return False
        self._number = number = self._number + 1
        ask = Ask(number, upstream, target.deployment.model, body, tuple(sent))
        transport.write(encode_said(ask))
        timer = self._loop.call_later(self._wait_s, self._late, number)
        self._asked[number] = upstream, timer, then
        return True

    def _connect(self) -> None:
        now_s = self._loop.time()
        if self._socket and self._connecting is None and now_s >= self._rests_until_s:
            self._rests_until_s = now_s + CACHES_REST_S
            self._connecting = self._loop.create_task(self._open(), name="caches")

    async def _open(self) -> None:
        try:
            await self._loop.create_unix_connection(lambda: self, self._socket)
        except OSError:
            pass  # it is not there yet; the next one who asks tries again
        finally:
            self._connecting = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask there from now on."""
        # uvloop's are of a class of its own.
        self._transport, self._frames = cast("asyncio.Transport", transport), Frames()
        self._rests_until_s, self._late_count = 0.0, 0

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """Leave nobody waiting."""
        self._transport = None
        for number in [*self._asked]:
            self._late(number)

    def data_received(self, data: bytes) -> None:
        """Pass answers on."""
        try:
            for payload in self._frames.feed(data):
                self._tell(decode_found(payload))
        except (msgspec.DecodeError, MessageTooLongError):
            if self._transport is not None:
                self._transport.abort()

    def _tell(self, found: Found) -> None:
        asked = self._asked.pop(found.number, None)
        if asked is None:
            return  # it came too late
        upstream, timer, then = asked
        timer.cancel()
        self._late_count = 0
        self._count(upstream, "told" if found.endpoints else "none")
        then(found)

    def _late(self, number: int) -> None:
        upstream, timer, then = self._asked.pop(number)
        timer.cancel()
        self._late_count += 1
        if self._late_count >= CACHES_LATE:
            self._late_count = 0
            self._rests_until_s = self._loop.time() + CACHES_REST_S
        self._count(upstream, "late")
        then(NOTHING)
