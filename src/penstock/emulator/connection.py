"""One connection: requests in, answers out in their order."""

import asyncio
import os
import socket
import struct
from collections import deque
from typing import cast

from penstock.emulator.answers import error_script
from penstock.emulator.playback import Playback
from penstock.emulator.requests import BadFramingError, Request, RequestReader
from penstock.emulator.script import Ending, Script
from penstock.emulator.service import Service
from penstock.emulator.ticker import Ticker
from penstock.emulator.wire import closing_head

MAX_QUEUED_REQUESTS = 64
"""Requests read ahead on one connection; then reading pauses."""
RESET_DELAY_S = 0.002
"""Between looks whether what was written before a reset has left."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Connections:
    """The open connections of a server."""

    def __init__(self) -> None:
        """Start with none."""
        self._open: set[Connection] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def add(self, connection: "Connection") -> None:
        """Count a connection that opened."""
        self._open.add(connection)
        self._is_empty.clear()

    def remove(self, connection: "Connection") -> None:
        """Count a connection that is no more."""
        self._open.remove(connection)
        if not self._open:
            self._is_empty.set()

    async def abort(self) -> None:
        """End all from this side, and wait until they are no more."""
        for connection in list(self._open):
            connection.abort()
        await self._is_empty.wait()


class Connection(asyncio.Protocol):
    """Speaks HTTP/1.1 with one peer.

    Args:
        service: Finds the answers.
        ticker: Times them.
        connections: The server's; this puts itself in and takes itself out.
    """

    __slots__ = (
        "_accepted_count",
        "_answered_count",
        "_connections",
        "_is_accepting",
        "_is_ended",
        "_is_pumping",
        "_playback",
        "_queue",
        "_reader",
        "_request",
        "_service",
        "_ticker",
        "_transport",
        "is_paused",
    )

    _transport: asyncio.Transport
    _request: Request

    def __init__(self, service: Service, ticker: Ticker, connections: Connections) -> None:
        """See the class."""
        self._service = service
        self._ticker = ticker
        self._connections = connections
        self._reader = RequestReader(
            self._on_request, self._on_expectation, is_recording=service.settings.record
        )
        self._queue: deque[Request] = deque()
        self._playback: Playback | None = None
        """Of the answer on its way; `_request` is what it answers."""
        self._accepted_count = 0
        self._answered_count = 0
        self._is_accepting = True
        """False behind the last request of the connection."""
        self._is_pumping = False
        self._is_ended = False
        """Nothing more is read, and the peer's leaving is no abort."""
        self.is_paused = False
        """Whether the peer reads too slowly for more to be written."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Loop: the peer has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self._service.statistics.connection_count += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """Loop: the connection is no more."""
        del exc
        self._record_aborts()
        self._is_ended = True
        self._reader.close()
        self._connections.remove(self)
        self._service.statistics.connection_count -= 1

    def eof_received(self) -> None:
        """Loop: the peer sends no more. It is taken to be gone, and the connection closed."""
        if self._playback is not None or self._queue:
            self._record_aborts()
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Loop: bytes came."""
        if self._is_ended:
            return
        try:
            self._reader.feed(data)
        except BadFramingError as error:
            self._refuse(error)

    def pause_writing(self) -> None:
        """Loop: the peer does not read."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """Loop: the peer has caught up."""
        self.is_paused = False
        if self._playback is not None:
            self._playback.resume()
        self._pump()

    def write(self, content: bytes) -> None:
        """Send, or queue to send."""
        self._transport.write(content)

    def abort(self) -> None:
        """End the connection from this side, whatever it was doing."""
        self._is_ended = True
        self._stop_playing()
        self._transport.abort()

    def _on_request(self, request: Request) -> None:
        if not self._is_accepting or self._is_ended:
            return
        self._accepted_count += 1
        if request.is_last or self._accepted_count == self._service.settings.keep_alive_requests:
            self._is_accepting = False
        if request.method == b"POST" and request.target.startswith(b"/v1/"):
            statistics = self._service.statistics
            statistics.record_request(request.request_id)
            if self._service.settings.record:
                statistics.record_content(
                    request.request_id,
                    request.method,
                    request.target,
                    request.all_headers,
                    request.body,
                )
        if self._playback is None and not self._queue and not self.is_paused:
            self._answer(request)
            return
        self._queue.append(request)
        if len(self._queue) == MAX_QUEUED_REQUESTS:
            self._transport.pause_reading()

    def _on_expectation(self) -> None:
        if self._playback is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, request: Request) -> None:
        prepared = self._service.answer(
            request.method, request.target, request.headers, request.body
        )
        settings = self._service.settings
        self._answered_count += 1
        is_last = self._answered_count == settings.keep_alive_requests
        script = prepared.script
        report = self._report_load(request, script) if request.load_format else b""
        if prepared.whole is not None and not request.is_last and not is_last and not report:
            self._transport.write(prepared.whole)
            return
        if script.is_stream and request.is_old:
            script = error_script(settings.kind, 400, "a stream needs HTTP/1.1")
        head = script.head
        if head and (request.is_last or (is_last and settings.keep_alive_announced)):
            head = closing_head(head)
        if head and report:
            head = head[:-2] + report + head[-2:]
        self._play(request, script, head)

    def _report_load(self, request: Request, script: Script) -> bytes:
        if script.is_stream or request.method != b"POST":
            return b""
        return self._service.report_load(request.load_format)

    def _play(self, request: Request, script: Script, head: bytes) -> None:
        self._request = request
        self._playback = Playback(script, head, sink=self, ticker=self._ticker, on_end=self._on_end)
        self._service.statistics.record_start(is_stream=script.is_stream)
        self._playback.start()

    def _on_end(self, ending: Ending) -> None:
        self._stop_playing()
        settings = self._service.settings
        if ending is Ending.RESET:
            self._is_ended = True
            self._reset()
        elif (
            ending is Ending.FIN
            or self._request.is_last
            or self._answered_count == settings.keep_alive_requests
        ):
            self._is_ended = True
            self._transport.close()
        else:
            self._pump()

    def _pump(self) -> None:
        """Answer what waits, until an answer takes time. An answer's end comes back here."""
        if self._is_pumping:
            return
        self._is_pumping = True
        while self._queue and self._playback is None and not self.is_paused and not self._is_ended:
            self._answer(self._queue.popleft())
            if len(self._queue) == MAX_QUEUED_REQUESTS - 1:
                self._transport.resume_reading()
        self._is_pumping = False

    def _refuse(self, error: BadFramingError) -> None:
        """Answer bytes that make no sense, unless an answer is under way, and close."""
        if self._playback is None:
            kind = self._service.settings.kind
            script = error_script(kind, 400, f"bad request: {error}")
            whole = script.find_whole() or b""
            head_bytes = len(script.head)
            self._transport.write(closing_head(script.head) + whole[head_bytes:])
        self._record_aborts()
        self._is_ended = True
        self._transport.close()

    def _reset(self) -> None:
        """Reset the connection as soon as all that was written has left this process."""
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(RESET_DELAY_S, self._reset)
            return
        # Loops may keep the socket to themselves, but not its options: a duplicate shares them.
        descriptor = self._transport.get_extra_info("socket").fileno()
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    def _stop_playing(self) -> None:
        if self._playback is None:
            return
        self._playback.cancel()
        self._service.statistics.record_end(is_stream=self._playback.is_stream)
        self._playback = None

    def _record_aborts(self) -> None:
        if self._is_ended:
            return
        statistics = self._service.statistics
        if self._playback is not None:
            statistics.record_abort(self._request.request_id, self._playback.step_count)
            self._stop_playing()
        for request in self._queue:
            statistics.record_abort(request.request_id, 0)
        self._queue.clear()
