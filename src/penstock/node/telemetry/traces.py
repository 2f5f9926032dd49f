"""Chooses which requests have their spans sent, and sends them: a batch at a time, bounded."""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from penstock import __version__
from penstock.contract.finished import FinishedRequest
from penstock.node.telemetry.door import TRACES
from penstock.node.telemetry.messages import write_request
from penstock.node.telemetry.sender import Sender
from penstock.node.telemetry.spans import write_spans

QUEUED_BYTES: Final = 32_000_000
"""Spans that wait to be sent; those that come while there is no room are lost, counted."""
MESSAGE_BYTES: Final = 2_000_000
"""What is sent at once, as soon as there is so much: collectors take 4 MB."""
_PIECE_BYTES: Final = 128_000
"""Spans are kept in pieces of so much, and a request's more: that has 0.1 MB at most."""
_WAIT_S: Final = 1.0
"""How long a span waits for others."""
_LOOK_S: Final = 0.1
_SERVER_ERROR: Final = 500
_FULL: Final = (TRACES.name, "full")


def is_noteworthy(request: FinishedRequest, *, slow_s: float | None, sends_refused: bool) -> bool:
    """Tell whether a request is sent whatever the sampler said: errors, and slow ones.

    Args:
        request: It has ended.
        slow_s: How long its answer may take to begin, or to end when none began; None for as long
            as it wants.
        sends_refused: Whether refusals by limits and budgets count.
    """
    if request.error_source in {"upstream", "internal"} or request.status >= _SERVER_ERROR:
        return True
    if sends_refused and request.refused_by is not None:
        return True
    begun_ns = request.first_byte_at_ns or request.finished_at_ns
    return slow_s is not None and begun_ns - request.received_at_ns > slow_s * 1e9


class Traces:
    """The spans of requests on their way to a collector.

    Args:
        sender: Who brings them there.
        resource: Who we are, as a message.
        slow_s: See `is_noteworthy`.
        sends_refused: See there.
    """

    def __init__(
        self, sender: Sender, resource: bytes, *, slow_s: float | None, sends_refused: bool
    ) -> None:
        """See the class."""
        self._sender = sender
        self._resource = resource
        self._slow_s = slow_s
        self._sends_refused = sends_refused
        self._waiting: deque[tuple[bytes, int]] = deque()
        """Pieces, each with how many spans are in it."""
        self._size_bytes = 0
        self._lock = threading.Lock()
        """Of these two: spans are taken in one thread, and sent by another."""
        # Counted in another thread than the rest of it: so it is there before somebody looks.
        sender.lost[_FULL] = 0

    def take(self, requests: Sequence[FinishedRequest]) -> None:
        """Have those sent that are to be, of all that have ended; in one thread at a time."""
        spans: list[bytes] = []
        count = size_bytes = 0
        has_room = self._size_bytes < QUEUED_BYTES
        for request in requests:
            trace = request.trace
            # Who shows no key decides nothing here, by errors either: it could fill a collector.
            if trace is None or not trace.span_id or not request.organization:
                continue
            if not trace.is_sampled and not is_noteworthy(
                request, slow_s=self._slow_s, sends_refused=self._sends_refused
            ):
                continue
            if not has_room:
                self._sender.lost[_FULL] += 3 + request.attempt_count  # about
                continue
            more = write_spans(request)
            count += len(more)
            written = b"".join(more)
            spans.append(written)
            size_bytes += len(written)
            if size_bytes >= _PIECE_BYTES:
                self._keep(b"".join(spans), count)
                spans, count, size_bytes = [], 0, 0
                has_room = self._size_bytes < QUEUED_BYTES
        if spans:
            self._keep(b"".join(spans), count)

    def _keep(self, spans: bytes, count: int) -> None:
        with self._lock:
            self._waiting.append((spans, count))
            self._size_bytes += len(spans)

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            waited_s = 0.0
            while waited_s < _WAIT_S and self._size_bytes < MESSAGE_BYTES:
                await asyncio.sleep(_LOOK_S)
                waited_s += _LOOK_S
            await self.flush()

    async def flush(self) -> None:
        """Send all that waits."""
        while self._waiting:
            pieces, count = self._next()
            content = write_request(self._resource, "penstock", __version__, pieces)
            await self._sender.send(TRACES, content, count)

    def _next(self) -> tuple[list[bytes], int]:
        """Take out as much as is sent at once; return pieces, and how many spans are in them."""
        pieces: list[bytes] = []
        count = size_bytes = 0
        with self._lock:
            while self._waiting and size_bytes < MESSAGE_BYTES:
                piece, more = self._waiting.popleft()
                pieces.append(piece)
                count += more
                size_bytes += len(piece)
            self._size_bytes -= size_bytes
        return pieces, count
