"""What the emulator saw: the ground truth that tests hold a gateway's records against."""

import os
import time
from collections import deque
from collections.abc import Callable

import msgspec

RECORDED = 100
"""Requests whose headers and bodies are kept."""


class Abort(msgspec.Struct, frozen=True):
    """A request whose connection the peer ended before the answer was complete."""

    request_id: str
    at_monotonic_s: float
    """By the machine's monotonic clock, so that other processes can compare it with theirs."""
    step_count: int
    """Writes of the answer's body before it; 0 also for a request still queued."""


class Recorded(msgspec.Struct, frozen=True):
    """A request as it came."""

    request_id: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, in the order sent."""
    body: str
    """As UTF-8; what is none is replaced."""


class Report(msgspec.Struct, frozen=True):
    """The answer to `GET /emulator/stats`. Counts are since the start or the last reset."""

    now_monotonic_s: float
    request_count: int
    """POSTs to `/v1/...` that came whole, refused ones included."""
    aborted_count: int
    connection_count: int
    """Connections now open."""
    active_count: int
    """Answers now on their way, plain ones and streams."""
    active_stream_count: int
    peak_active_count: int
    request_ids: list[str]
    """Of the last requests, oldest first, "" for one without an id."""
    aborted: list[Abort]
    """The last ones, oldest first."""
    recorded: list[Recorded]
    """The last ones, oldest first; empty unless the emulator records."""


class Statistics:
    """Counts requests and remembers the last.

    Args:
        keep: How many request ids and aborts to remember.
        log_path: File to append request ids to, "" for none.
        monotonic_s: The clock of aborts.

    Raises:
        OSError: The log cannot be opened.
    """

    def __init__(
        self, keep: int, log_path: str = "", monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        """See the class."""
        self._monotonic_s = monotonic_s
        self._log = -1
        if log_path:
            self._log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._request_ids: deque[bytes] = deque(maxlen=keep)
        self._aborted: deque[Abort] = deque(maxlen=keep)
        self._recorded: deque[Recorded] = deque(maxlen=RECORDED)
        self.request_count = 0
        """Since the start or the last reset."""
        self._aborted_count = 0
        self.active_count = 0
        """Answers now on their way."""
        self._active_stream_count = 0
        self._peak_active_count = 0
        self.connection_count = 0
        """Connections now open."""

    def record_request(self, request_id: bytes) -> None:
        """Count a request; its line is in the log when this returns, whatever comes then."""
        self.request_count += 1
        self._request_ids.append(request_id)
        if self._log >= 0:
            os.write(self._log, (request_id or b"-") + b"\n")

    def record_content(
        self,
        request_id: bytes,
        method: bytes,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
    ) -> None:
        """Remember a request as it came."""
        recorded = Recorded(
            request_id=request_id.decode("latin-1"),
            method=method.decode("latin-1"),
            target=target.decode("latin-1"),
            headers=tuple(
                (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers
            ),
            body=body.decode(errors="replace"),
        )
        self._recorded.append(recorded)

    def record_start(self, *, is_stream: bool) -> None:
        """Count an answer that is not written at once."""
        self.active_count += 1
        self._active_stream_count += is_stream
        self._peak_active_count = max(self._peak_active_count, self.active_count)

    def record_end(self, *, is_stream: bool) -> None:
        """Take an answer back that `record_start` counted."""
        self.active_count -= 1
        self._active_stream_count -= is_stream

    def record_abort(self, request_id: bytes, step_count: int) -> None:
        """Remember that the peer left before the answer was complete."""
        self._aborted_count += 1
        self._aborted.append(
            Abort(
                request_id=request_id.decode("latin-1"),
                at_monotonic_s=self._monotonic_s(),
                step_count=step_count,
            )
        )

    def report(self) -> Report:
        """Return what was seen."""
        return Report(
            now_monotonic_s=self._monotonic_s(),
            request_count=self.request_count,
            aborted_count=self._aborted_count,
            connection_count=self.connection_count,
            active_count=self.active_count,
            active_stream_count=self._active_stream_count,
            peak_active_count=self._peak_active_count,
            request_ids=[request_id.decode("latin-1") for request_id in self._request_ids],
            aborted=list(self._aborted),
            recorded=list(self._recorded),
        )

    def reset(self) -> None:
        """Forget all but what is going on now."""
        self._request_ids.clear()
        self._aborted.clear()
        self._recorded.clear()
        self.request_count = 0
        self._aborted_count = 0
        self._peak_active_count = self.active_count

    def close(self) -> None:
        """Close the log."""
        if self._log >= 0:
            os.close(self._log)
            self._log = -1
