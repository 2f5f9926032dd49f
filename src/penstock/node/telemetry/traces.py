"""Chooses which requests have their spans sent, and sends them: a batch at a time, bounded."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Final

from penstock import __version__
from penstock.contract.finished import FinishedRequest
from penstock.node.telemetry.door import TRACES
from penstock.node.telemetry.messages import write_request
from penstock.node.telemetry.sender import Sender
from penstock.node.telemetry.spans import write_spans

QUEUED: Final = 8_192
"""Requests whose spans wait to be sent; beyond it the oldest are lost, counted."""
BATCH: Final = 1_024
"""Requests whose spans are written at once, mostly as one message: to send one takes as long as to
write the spans of sixty."""
MESSAGE_BYTES: Final = 2_000_000
"""Beyond this the rest is another message; collectors take 4 MB, and a request has 0.1 at most."""
_WAIT_S: Final = 1.0
"""How long a message waits to be full."""
_SERVER_ERROR: Final = 500


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
        self._waiting: deque[FinishedRequest] = deque()
        self._is_full = asyncio.Event()

    def take(self, requests: Sequence[FinishedRequest]) -> None:
        """Have those sent that are to be; called with each request that has ended."""
        for request in requests:
            trace = request.trace
            # Who shows no key decides nothing here, by errors either: it could fill a collector.
            if trace is None or not trace.span_id or not request.organization:
                continue
            if trace.is_sampled or is_noteworthy(
                request, slow_s=self._slow_s, sends_refused=self._sends_refused
            ):
                self._waiting.append(request)
        while len(self._waiting) > QUEUED:
            self._lose(self._waiting.popleft())
        if len(self._waiting) >= BATCH:
            self._is_full.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_full.wait(), _WAIT_S)
            self._is_full.clear()
            await self.flush()

    async def flush(self) -> None:
        """Send all that waits."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH))]
            for content, count in await asyncio.to_thread(self._encode, batch):
                await self._sender.send(TRACES, content, count)

    def _encode(self, requests: Sequence[FinishedRequest]) -> list[tuple[bytes, int]]:
        """Return messages, each with how many spans are in it."""
        messages: list[tuple[bytes, int]] = []
        spans: list[bytes] = []
        size_bytes = 0
        for request in requests:
            more = write_spans(request)
            spans += more
            size_bytes += sum(map(len, more))
            if size_bytes > MESSAGE_BYTES:
                messages.append(self._message(spans))
                spans, size_bytes = [], 0
        if spans:
            messages.append(self._message(spans))
        return messages

    def _message(self, spans: Sequence[bytes]) -> tuple[bytes, int]:
        return write_request(self._resource, "penstock", __version__, spans), len(spans)

    def _lose(self, request: FinishedRequest) -> None:
        """Count the spans that a request would have had, about."""
        self._sender.lost[TRACES.name, "full"] += 3 + request.attempt_count
