"""Requests of one kind, counted together: on the hot path plain lists, added up once a second.

A request counts on a dozen series. Those of one kind count on the same ones, so a request is
counted once, and each kind is added to its series when the agent is told.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Final, NamedTuple

from penstock.contract import metrics
from penstock.contract.metrics import Metric
from penstock.contract.series import Count, Histogram, SeriesBook
from penstock.contract.usage import UsageEvent

_NS: Final = 1e-9
_OPERATIONS: Final = {
    "completions": "text_completion",
    "messages": "chat",
    "responses": "chat",
}
"""Where OpenTelemetry has another word for an operation than we."""


def _in_ns(metric: Metric) -> tuple[int, ...]:
    return tuple(round(bound / _NS) for bound in metric.buckets)


DURATION_NS: Final = _in_ns(metrics.DURATION)
FIRST_NS: Final = _in_ns(metrics.FIRST_BYTE)
TOKEN_NS: Final = _in_ns(metrics.TOKEN_TIME)
TOKENS: Final = metrics.TOKEN_USAGE.buckets

Tally = list[int]
"""How many values fell into each bucket, and behind that their sum."""


class Traced(NamedTuple):
    """A request whose trace is kept."""

    duration_ns: int
    first_ns: int | None
    """To its first event, if there was one."""
    trace_id: str
    finished_at_ns: int


class Key(NamedTuple):
    """What requests of a kind have in common."""

    organization: str
    model: str
    upstream: str
    operation: str
    is_stream: bool
    outcome: str
    usage_source: str
    provider: str
    is_limited: bool


class Kind:
    """Requests of one kind.

    Args:
        book: Has their series.
        key: What they have in common, with names as they are shown.
    """

    __slots__ = (
        "_book",
        "_key",
        "_parts",
        "durations",
        "firsts",
        "has_changed",
        "inputs",
        "outputs",
        "slowest",
        "token_times",
    )

    def __init__(self, book: SeriesBook, key: Key) -> None:
        """See the class."""
        self._book = book
        self._key = key
        self._parts: dict[str, int] = {}
        self.has_changed = False
        self._clear()

    def _clear(self) -> None:
        self.inputs: Tally = [0] * (len(TOKENS) + 2)
        self.outputs: Tally = [0] * (len(TOKENS) + 2)
        self.durations: Tally = [0] * (len(DURATION_NS) + 2)
        self.firsts: Tally = [0] * (len(FIRST_NS) + 2)
        self.token_times: Tally = [0] * (len(TOKEN_NS) + 2)
        self.slowest: Traced | None = None
        """Of those whose traces are kept."""

    def add_parts(self, event: UsageEvent) -> None:
        """Count tokens that are among those of input or output."""
        for part, tokens in (
            ("cached_input", event.cached_input_tokens),
            ("cache_write_input", event.cache_write_input_tokens),
            ("audio_input", event.audio_input_tokens),
            ("reasoning_output", event.reasoning_output_tokens),
            ("audio_output", event.audio_output_tokens),
        ):
            if tokens:
                self._parts[part] = self._parts.get(part, 0) + tokens

    def move(self) -> Iterator[Count | Histogram]:
        """Add what was counted since the last time to the series, and yield those that changed."""
        self.has_changed = False
        yield from chain(self._move_counts(), self._move_tokens(), self._move_times())
        self._clear()

    def _move_counts(self) -> Iterator[Count]:
        key, book = self._key, self._book
        total = sum(self.durations[:-1])
        names = key.organization, key.model
        yield book.count(metrics.REQUESTS, *names, key.operation, key.outcome).add(total)
        yield book.count(metrics.UPSTREAM_REQUESTS, key.upstream, key.outcome).add(total)
        if key.is_limited:
            yield book.count(metrics.LIMIT_ALLOWED, key.organization).add(total)

    def _move_tokens(self) -> Iterator[Count | Histogram]:
        key, book = self._key, self._book
        names = key.organization, key.model
        yield book.count(metrics.INPUT_TOKENS, *names, key.usage_source).add(self.inputs[-1])
        yield book.count(metrics.OUTPUT_TOKENS, *names, key.usage_source).add(self.outputs[-1])
        for part, tokens in self._parts.items():
            yield book.count(metrics.TOKEN_PARTS, *names, part).add(tokens)
        self._parts.clear()
        if key.usage_source != "estimated":
            for tally, kind in ((self.inputs, "input"), (self.outputs, "output")):
                histogram = book.histogram(metrics.TOKEN_USAGE, *self._gen_ai, kind)
                yield histogram.add(tally[:-1], tally[-1])

    def _move_times(self) -> Iterator[Histogram]:
        key, book, gen_ai = self._key, self._book, self._gen_ai
        error = "" if key.outcome == "ok" else key.outcome
        durations = (
            book.histogram(metrics.DURATION, *gen_ai, error),
            book.histogram(metrics.ORGANIZATION_DURATION, key.organization),
            book.histogram(metrics.UPSTREAM_DURATION, key.upstream),
        )
        firsts = (
            book.histogram(metrics.FIRST_TOKEN, *gen_ai),
            book.histogram(metrics.ORGANIZATION_FIRST_TOKEN, key.organization),
        )
        slowest = self.slowest
        if slowest is not None:
            at_s = slowest.finished_at_ns * _NS
            for histogram in durations:
                histogram.exemplify(slowest.trace_id, slowest.duration_ns * _NS, at_s)
            if slowest.first_ns is not None and key.is_stream:
                for histogram in firsts:
                    histogram.exemplify(slowest.trace_id, slowest.first_ns * _NS, at_s)
        yield from _move(self.durations, *durations)
        yield from _move(self.firsts, book.histogram(metrics.FIRST_BYTE, key.upstream))
        if key.is_stream:  # other answers have all tokens at once
            yield from _move(self.firsts, *firsts)
            yield from _move(self.token_times, book.histogram(metrics.TOKEN_TIME, *gen_ai))

    @property
    def _gen_ai(self) -> tuple[str, str, str]:
        key = self._key
        return _OPERATIONS.get(key.operation, key.operation), key.provider, key.model


def _move(tally: Tally, *histograms: Histogram) -> Iterator[Histogram]:
    """Add a tally of nanoseconds to histograms of seconds."""
    counts, total_ns = tally[:-1], tally[-1]
    if any(counts):
        for histogram in histograms:
            yield histogram.add(counts, max(total_ns * _NS, 0.0))  # clocks may be set back
