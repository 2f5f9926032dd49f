"""Which trace a request belongs to, and what its engine is told of it (W3C Trace Context).

A worker makes no spans and sends none: it writes into the journal which trace a request is part of,
and the agent makes spans of that.
"""

import re
from collections.abc import Callable
from typing import Final

from penstock.contract.finished import Trace, part_span_id
from penstock.contract.node import Tracing

_IDS: Final = 1 << 64
_SPAN_BITS: Final = 60
"""Of the id of a request's own span: its last digit is 0."""
_NEW_BITS: Final = 128 + _SPAN_BITS
"""Of a trace and its first span."""
_SAMPLED: Final = 1
_LENGTH: Final = 55
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_TRACESTATE: Final = re.compile(rb"[\x20-\x7e\t]{1,512}")


def read_traceparent(value: bytes) -> bytes | None:
    """Return a caller's `traceparent` as version 0 says it; None for one that is none.

    Args:
        value: The header field.
    """
    known, rest = value[:_LENGTH], value[_LENGTH:]
    if _TRACEPARENT.fullmatch(known) is None:
        return None
    if rest and (known.startswith(b"00") or not rest.startswith(b"-")):  # later ones may say more
        return None
    return b"00" + known[2:]


def is_tracestate(value: bytes) -> bool:
    """Tell whether a `tracestate` may be passed on: what is in it is for others to know."""
    return _TRACESTATE.fullmatch(value) is not None


class Tracer:
    """Names the spans of requests.

    Args:
        tracing: How; None for not at all.
        random_bits: Returns that many random bits.
    """

    __slots__ = ("_bound", "_is_on", "_is_parent_based", "_keeps_all", "_random_bits")

    def __init__(self, tracing: Tracing | None, random_bits: Callable[[int], int]) -> None:
        """See the class."""
        self._is_on = tracing is not None
        self._is_parent_based = tracing is not None and tracing.is_parent_based
        ratio = 0.0 if tracing is None else tracing.ratio
        self._keeps_all = ratio >= 1
        self._bound = f"{round(ratio * _IDS):017x}"
        self._random_bits = random_bits

    def begin(self, traceparent: bytes | None) -> Trace | None:
        """Return where a request belongs; None when nobody asks.

        Args:
            traceparent: What its caller says, as `read_traceparent` returned it.
        """
        if traceparent is None:
            if not self._is_on:
                return None
            # Both at once, the last digit 0: tracing costs a request little more than this.
            digits = (self._random_bits(_NEW_BITS) << 4).to_bytes(24, "big").hex()
            trace_id = digits[:32]
            return Trace(trace_id, digits[32:], "", self._keeps_all or self._chooses(trace_id))
        text = traceparent.decode("ascii")
        trace_id, parent_id = text[3:35], text[36:52]
        is_sampled = bool(int(text[53:55], 16) & _SAMPLED)
        if not self._is_on:
            return Trace(trace_id, "", parent_id, is_sampled)
        if not self._is_parent_based:
            is_sampled = self._chooses(trace_id)
        span_id = (self._random_bits(_SPAN_BITS) << 4).to_bytes(8, "big").hex()
        return Trace(trace_id, span_id, parent_id, is_sampled)

    def _chooses(self, trace_id: str) -> bool:
        """Decide by the lower half of the id, as samplers of OpenTelemetry do; text, for speed."""
        return "0" + trace_id[16:] < self._bound


def engine_traceparent(trace: Trace, attempt: int) -> bytes:
    """Return what an engine is told: its spans belong to ours of this attempt.

    Args:
        trace: Of the request; it has a span of ours.
        attempt: Which one, 1 for the first.
    """
    flags = "01" if trace.is_sampled else "00"
    return f"00-{trace.trace_id}-{part_span_id(trace.span_id, attempt)}-{flags}".encode()
