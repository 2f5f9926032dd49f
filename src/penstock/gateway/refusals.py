"""Requests that no engine was asked for: no journal has them, so the agent is told, if it asks.

As many as fit between two reports; what comes beyond that is counted and not told. So whoever is
refused often costs little.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Final

from penstock.contract.finished import Course, FinishedRequest, finished_request
from penstock.contract.node import RefusedRequests
from penstock.contract.usage import UsageEvent
from penstock.gateway.limits import REFUSALS_KEPT
from penstock.gateway.request import Request
from penstock.gateway.trace import Tracer
from penstock.kit.errors import Refusal

_NOBODY: Final = ("", "", "")


class Refusals:
    """What is told of them.

    Args:
        is_wanted: Whether the agent asks.
        slot: The worker's.
        wall_ns: Wall clock, nanoseconds.
        tracer: Names their spans.
    """

    def __init__(
        self, *, is_wanted: bool, slot: int, wall_ns: Callable[[], int], tracer: Tracer
    ) -> None:
        """See the class."""
        self._is_wanted = is_wanted
        self._slot = slot
        self._wall_ns = wall_ns
        self._tracer = tracer
        self._waiting: list[FinishedRequest] = []
        self._dropped = 0

    def take_another(self) -> bool:
        """Return whether one more is taken note of; where only the room lacks, count it."""
        if not self._is_wanted:
            return False
        is_full = len(self._waiting) >= REFUSALS_KEPT
        self._dropped += is_full
        return not is_full

    def note(self, request: Request, refusal: Refusal) -> None:
        """Take note of a request that was not admitted, if one more is taken.

        Args:
            request: As far as it came; with the id that its caller is told.
            refusal: What its caller is told.
        """
        if not self.take_another():
            return
        now_ns = self._wall_ns()
        took_s = perf_counter() - request.received_s if request.received_s else 0.0
        principal, operation, error = request.principal, request.operation, refusal.error
        who = _NOBODY
        if principal is not None:
            who = (principal.organization, principal.project, principal.key_id)
        event = UsageEvent(
            "",
            request.request_id or "",
            *who,
            model="",
            served_model="",
            upstream="",
            operation="" if operation is None else operation.name,
            is_stream=False,
            outcome="refused",
            status=error.status,
            error_code=error.code,
            usage_source="estimated",
            input_tokens=0,
            output_tokens=0,
            cached_input_tokens=None,
            reasoning_output_tokens=None,
            attempt_count=0,
            started_at_ns=now_ns,
            first_byte_at_ns=None,
            finished_at_ns=now_ns,
        )
        course = Course(
            self._tracer.begin(request.traceparent),
            now_ns - int(took_s * 1e9),
            request_bytes=request.body_bytes,
            error_source=error.source,
        )
        self._waiting.append(finished_request(event, course, self._slot))

    def add(self, event: UsageEvent, course: Course) -> None:
        """Take note of a request that was admitted, and ended before an engine was asked.

        It is made only when `take_another` was asked, and said so: making it is the dear part.

        Args:
            event: What would have been its usage event.
            course: How it went.
        """
        self._waiting.append(finished_request(event, course, self._slot))

    def take(self) -> RefusedRequests | None:
        """Return what is to be told now; None when there is nothing."""
        if not self._waiting and not self._dropped:
            return None
        told = RefusedRequests(tuple(self._waiting), self._dropped)
        self._waiting.clear()
        self._dropped = 0
        return told
