"""The client for streams: many sockets, one epoll, no parser but a count of the chunks."""

import contextlib
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_CHUNK = b"data: "
_LAST_CHUNK = b"data: [DONE]"
_END = b"0\r\n\r\n"
_TAIL_BYTES = 64
_WATCH_S = 0.25


def _no_watch(_: int) -> None:
    """See nothing."""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What to open, and how long to wait."""

    port: int
    request: bytes
    count: int
    """Streams, each on a connection of its own."""
    opens_per_s: float
    limit_s: float
    """After this the streams that are still open count as failed."""
    watch: Callable[[int], None] = _no_watch
    """Called four times a second with the number of streams that are open and have begun."""


@dataclass(slots=True)
class StreamsSeen:
    """What came."""

    chunks: int = 0
    """SSE events, the last `[DONE]` included."""
    reads: int = 0
    """Reads that they came in: as many as chunks when nothing was merged on the way."""
    complete: int = 0
    """Streams with status 200, `[DONE]` and a clean end."""
    failed: int = 0
    first_chunk_ms: list[float] = field(default_factory=list)
    """From the request sent to the first event, of each stream that had one; sorted."""
    seconds: float = 0.0

    def first_chunk_percentile_ms(self, percent: float) -> float:
        """Return a percentile of `first_chunk_ms`, 0.0 when there is none."""
        times = self.first_chunk_ms
        return times[min(len(times) - 1, int(len(times) * percent / 100))] if times else 0.0


class _Stream:
    """One open stream."""

    __slots__ = ("is_begun", "is_good", "sent_at_s", "sock", "tail")

    def __init__(self, sock: socket.socket, sent_at_s: float) -> None:
        self.sock = sock
        self.sent_at_s = sent_at_s
        self.tail = b""
        self.is_begun = False
        self.is_good = False


class _StreamClient:
    def __init__(self, plan: StreamPlan) -> None:
        self._plan = plan
        self._seen = StreamsSeen()
        self._epoll = select.epoll()
        self._open: dict[int, _Stream] = {}
        self._begun = 0
        self._opened = 0

    def run(self) -> StreamsSeen:
        plan, began_at_s = self._plan, time.monotonic()
        watch_at_s = began_at_s
        try:
            while self._open or self._opened < plan.count:
                now_s = time.monotonic()
                if now_s - began_at_s > plan.limit_s:
                    break
                self._open_due(now_s - began_at_s)
                if now_s >= watch_at_s:
                    plan.watch(self._begun)
                    watch_at_s = now_s + _WATCH_S
                for descriptor, _ in self._epoll.poll(0.005):
                    self._read(self._open[descriptor])
        finally:
            self._close_all()
        self._seen.seconds = time.monotonic() - began_at_s
        self._seen.failed = plan.count - self._seen.complete
        self._seen.first_chunk_ms.sort()
        return self._seen

    def _open_due(self, elapsed_s: float) -> None:
        due = min(self._plan.count, int(elapsed_s * self._plan.opens_per_s) + 1)
        # A few at a time: the streams that are open must be read meanwhile.
        for _ in range(min(16, due - self._opened)):
            self._opened += 1
            try:
                sock = socket.create_connection(("127.0.0.1", self._plan.port), timeout=5)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sent_at_s = time.monotonic()
                sock.sendall(self._plan.request)
            except OSError:
                continue
            sock.setblocking(False)  # noqa: FBT003  it has no other form
            self._open[sock.fileno()] = _Stream(sock, sent_at_s)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _read(self, stream: _Stream) -> None:
        try:
            content = stream.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            content = b""
        if not content:
            self._end(stream, is_complete=False)
            return
        seen = self._seen
        seen.reads += 1
        # Five bytes of the read before: a mark that was cut is counted, a whole one not twice.
        chunks = (stream.tail[-5:] + content).count(_CHUNK)
        seen.chunks += chunks
        if chunks and not stream.is_begun:
            stream.is_begun = True
            self._begun += 1
            seen.first_chunk_ms.append((time.monotonic() - stream.sent_at_s) * 1e3)
        if not stream.tail:
            stream.is_good = content.startswith(b"HTTP/1.1 200")
        stream.tail = (stream.tail + content)[-_TAIL_BYTES:]
        if stream.tail.endswith(_END) or not stream.is_good:
            self._end(stream, is_complete=stream.is_good and _LAST_CHUNK in stream.tail)

    def _end(self, stream: _Stream, *, is_complete: bool) -> None:
        self._seen.complete += is_complete
        self._begun -= stream.is_begun
        del self._open[stream.sock.fileno()]
        stream.sock.close()

    def _close_all(self) -> None:
        for stream in self._open.values():
            with contextlib.suppress(OSError):
                stream.sock.close()
        self._epoll.close()


def run_streams(plan: StreamPlan) -> StreamsSeen:
    """Open the streams of a plan, read each to its end, and return what came."""
    return _StreamClient(plan).run()
