"""The caller's side of gRPC: HTTP/2 connections, their deadlines and their end."""

import asyncio
from typing import TYPE_CHECKING, Final, Protocol, cast

from penstock.gateway.http2.ends import Accept, CallersConnection
from penstock.gateway.http2.frames import ErrorCode
from penstock.gateway.http2.link import Link
from penstock.gateway.http2.stream import Receiver
from penstock.gateway.limits import ARRIVAL_S, H2_IDLE_S, HEADER_DEADLINE_S, WRITE_STALL_S

if TYPE_CHECKING:
    from penstock.gateway.worker import Worker

_NEVER: Final = float("inf")


class Call(Receiver, Protocol):
    """Who serves a request: what `Receiver` says, and what a worker asks of it besides."""

    @property
    def is_watching(self) -> bool:
        """Whether it only waits to be told how this server is, as long as its caller likes."""

    def sweep(self, now_s: float) -> None:
        """Look at the deadlines."""

    def interrupt(self) -> None:
        """End: the worker ends."""


class Http2Downstream(Link[CallersConnection]):
    """One connection of a caller: many requests at a time.

    Args:
        worker: What it runs in.
        accept: Takes each request; the receivers that it sets are `Call`s.
    """

    def __init__(self, worker: "Worker", accept: Accept) -> None:
        """See the class."""
        super().__init__(asyncio.get_running_loop())
        self._worker = worker
        self._accept = accept
        self._seen = -1
        """Frames that the last sweep found read."""
        self._wait_until_s = _NEVER
        self._idle_until_s = _NEVER
        self._arrives_until_s = _NEVER
        """Until when it may greet yet, since the worker drains."""
        self._unsent_bytes = 0
        """What the last sweep found unsent."""
        self._stalled_at_s = _NEVER

    def make_connection(self) -> CallersConnection:
        """Make the end at which requests come in."""
        return CallersConnection(self.wake, self._accept)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the worker's connections, or be told that there are too many."""
        super().connection_made(transport)
        self._note_life(self._worker.now_s())
        if not self._worker.join(self):
            self.connection.fail(ErrorCode.ENHANCE_YOUR_CALM, "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop what was under way for the caller."""
        super().connection_lost(exc)
        self._worker.leave(self)  # last: what is left of it by a bug is swept

    # What the worker calls

    def sweep(self, now_s: float) -> None:
        """Look at the deadlines: of frames that are not finished, of silence, of what is unread."""
        connection = self.connection
        calls = [cast("Call", stream.receiver) for stream in connection.streams.values()]
        for call in calls:
            call.sweep(now_s)
        connection.sweep(now_s)
        if self._is_stalled(now_s):
            self.transport.abort()
            return
        if connection.frame_count != self._seen:
            self._note_life(now_s)
        # Who watches needs no key, and may be gone without a word.
        if self._unsent_bytes or not all(call.is_watching for call in calls):
            self._idle_until_s = now_s + H2_IDLE_S
        if not connection.is_waiting:
            self._wait_until_s = now_s + HEADER_DEADLINE_S
        if now_s >= self._wait_until_s:
            connection.fail(ErrorCode.PROTOCOL_ERROR, "a frame did not end in time")
        elif now_s >= self._idle_until_s:
            connection.fail(ErrorCode.NO_ERROR, "idle")

    def _note_life(self, now_s: float) -> None:
        self._seen = self.connection.frame_count
        self._wait_until_s = now_s + HEADER_DEADLINE_S
        self._idle_until_s = now_s + H2_IDLE_S

    def _is_stalled(self, now_s: float) -> bool:
        """Return whether the caller took nothing of what waits for it for too long."""
        unsent, before = self.transport.get_write_buffer_size(), self._unsent_bytes
        self._unsent_bytes = unsent
        if not unsent:
            self._stalled_at_s = _NEVER
        elif unsent < before or self._stalled_at_s == _NEVER:
            self._stalled_at_s = now_s + WRITE_STALL_S
        return now_s >= self._stalled_at_s

    def drain(self) -> None:
        """Have the caller begin no more; one that is new has its time to greet, and to ask."""
        now_s = self._worker.now_s()
        if self.connection.is_greeted or now_s >= self._arrives_until_s:
            self.connection.drain()
            self.wake()
        elif self._arrives_until_s == _NEVER:
            self._arrives_until_s = now_s + ARRIVAL_S

    def interrupt(self) -> None:
        """End what is under way: the worker ends.

        Callers are told how their requests ended once that is recorded; then it is closed.
        """
        self.connection.leave()
        for stream in list(self.connection.streams.values()):
            cast("Call", stream.receiver).interrupt()
        self.wake()
