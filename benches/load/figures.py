"""The figures of a run: what is measured, the samples of the rounds, and what is required."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

DIRECT = "direct"
"""The emulator without a gateway before it."""
OURS = "penstock"
REFERENCE = "nginx"
LEAST_CORE_PERCENT = 90
"""A gateway that used less of its core was not what bounded the rate."""

DISTURBED_PERCENT = 5
"""Of one core, in the median: with more work of others a run says little."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One column of the table."""

    key: str
    title: str
    unit: str
    digits: int = 0
    is_better_high: bool = False


CHAT_RATE = Figure("chat_rate", "chat 200 B, c=64", "req/s", is_better_high=True)
CHAT_P99 = Figure("chat_p99", "p99, c=64", "ms", 2)
CHAT_CPU = Figure("chat_cpu", "CPU a request", "us", 1)
CORE_OWN = Figure("core_own", "core used by it, c=64", "%")
SINGLE_P50 = Figure("single_p50", "p50, c=1", "us")
ADDED_P50 = Figure("added_p50", "added p50, c=1", "us")
LARGE_RATE = Figure("large_rate", "chat 64 KB, c=64", "req/s", is_better_high=True)
LARGE_CPU = Figure("large_cpu", "CPU a request of 64 KB", "us", 1)
HUGE_RATE = Figure("huge_rate", "chat 400 KB, c=64", "req/s", is_better_high=True)
HUGE_CPU = Figure("huge_cpu", "CPU a request of 400 KB", "us", 1)
CHUNK_CPU = Figure("chunk_cpu", "CPU a chunk", "us", 1)
IDLE_RSS = Figure("idle_rss", "idle RSS", "MB", 1)
STREAM_RSS = Figure("stream_rss", "memory a stream", "KB", 1)
FIRST_P50 = Figure("first_p50", "first chunk p50, many streams", "ms", 2)
FIRST_P99 = Figure("first_p99", "first chunk p99, many streams", "ms", 1)
CHUNKS_A_READ = Figure("chunks_a_read", "chunks a read", "", 2)
OTHERS = Figure("others", "work of others meanwhile", "% of a core")
FAILED = Figure("failed", "failed", "")

TABLE = (
    CHAT_RATE,
    CHAT_P99,
    CHAT_CPU,
    CORE_OWN,
    SINGLE_P50,
    ADDED_P50,
    LARGE_RATE,
    LARGE_CPU,
    HUGE_RATE,
    HUGE_CPU,
    CHUNK_CPU,
    IDLE_RSS,
    STREAM_RSS,
    FIRST_P50,
    FIRST_P99,
    CHUNKS_A_READ,
    OTHERS,
    FAILED,
)
"""In the order of the columns."""


Values = dict[Figure, float]
"""What one measure of one gateway gave."""


class Samples:
    """What the rounds gave, by gateway and figure."""

    def __init__(self) -> None:
        """Start without any."""
        self._samples: dict[str, dict[str, list[float]]] = {}

    def record(self, name: str, figure: Figure, value: float) -> None:
        """Append a round's value."""
        self._samples.setdefault(name, {}).setdefault(figure.key, []).append(value)

    def record_all(self, name: str, values: Values) -> None:
        """Append what a measure gave."""
        for figure, value in values.items():
            self.record(name, figure, value)

    def names(self) -> list[str]:
        """Return who has samples, in the order of their first."""
        return list(self._samples)

    def rounds(self, name: str, figure: Figure) -> list[float]:
        """Return the values of the rounds in order; empty when it was not measured."""
        return self._samples.get(name, {}).get(figure.key, [])

    def find(self, name: str, figure: Figure) -> float | None:
        """Return the median of the rounds (failures: their sum), None when not measured."""
        values = self.rounds(name, figure)
        if not values:
            return None
        return sum(values) if figure is FAILED else statistics.median(values)

    def find_ratio(self, figure: Figure, to: str = REFERENCE) -> float | None:
        """Return our figure in units of another's."""
        ours, theirs = self.find(OURS, figure), self.find(to, figure)
        return ours / theirs if ours is not None and theirs else None

    def export(self) -> dict[str, dict[str, dict[str, float | list[float]]]]:
        """Return medians and rounds as plain data."""
        return {
            name: {
                figure.key: {"median": median, "rounds": self.rounds(name, figure)}
                for figure in TABLE
                if (median := self.find(name, figure)) is not None
            }
            for name in self._samples
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """A requirement and what was measured."""

    text: str
    limit: float
    value: float | None
    is_floor: bool
    """Whether the value must be at least the limit; otherwise at most."""
    is_required: bool = True

    @property
    def word(self) -> str:
        """`pass`, `FAIL`, `for information` or `not measured`."""
        if self.value is None:
            return "not measured"
        if not self.is_required:
            return "for information"
        passes = self.value >= self.limit if self.is_floor else self.value <= self.limit
        return "pass" if passes else "FAIL"

    def sentence(self) -> str:
        """Return the limit with its direction, as in `<= 1.5`."""
        return f"{'>=' if self.is_floor else '<='} {self.limit:g}"


def judge(samples: Samples) -> list[Verdict]:
    """Hold the figures against what the project promises (issues 2 and 6)."""
    ratio = samples.find_ratio
    return [
        Verdict("requests/s, chat of 200 bytes, x nginx", 0.35, ratio(CHAT_RATE), is_floor=True),
        Verdict(
            "the same by CPU a request alone, x nginx",
            0.35,
            1 / cpu if (cpu := ratio(CHAT_CPU)) else None,
            is_floor=True,
            is_required=False,
        ),
        Verdict("requests/s, chat of 64 KB, x nginx", 0.8, ratio(LARGE_RATE), is_floor=True),
        Verdict("requests/s, chat of 400 KB, x nginx", 0.8, ratio(HUGE_RATE), is_floor=True),
        Verdict("streaming CPU a chunk, x nginx", 1.5, ratio(CHUNK_CPU), is_floor=False),
        Verdict("added p50 at one connection, x nginx", 1.4, ratio(ADDED_P50), is_floor=False),
        Verdict(
            "p50 through the gateway at one connection, x nginx",
            1.4,
            ratio(SINGLE_P50),
            is_floor=False,
            is_required=False,
        ),
        Verdict("idle worker, MB", 60, samples.find(OURS, IDLE_RSS), is_floor=False),
        Verdict("memory a stream, KB", 16, samples.find(OURS, STREAM_RSS), is_floor=False),
        Verdict("failed requests and streams", 0, samples.find(OURS, FAILED), is_floor=False),
    ]


def _names_where(samples: Samples, figure: Figure, test: Callable[[float], bool]) -> str:
    values = {name: samples.find(name, figure) for name in samples.names()}
    return ", ".join(name for name, value in values.items() if value is not None and test(value))


def warnings(samples: Samples) -> list[str]:
    """Return what a reader must know before believing the figures."""
    found = []
    direct = samples.find(DIRECT, CHAT_RATE)
    rates = {name: samples.find(name, CHAT_RATE) for name in samples.names() if name != DIRECT}
    best = max(((rate, name) for name, rate in rates.items() if rate is not None), default=None)
    if direct is not None and best is not None and direct < 1.3 * best[0]:
        found.append(
            f"the emulator alone answers {direct:,.0f} req/s, less than 1.3 x {best[1]}:"
            " emulator and client bound the fastest gateways, whose req/s are too low here"
        )
    slack = _names_where(samples, CORE_OWN, lambda percent: percent < LEAST_CORE_PERCENT)
    if slack:
        found.append(
            f"{slack} used less than {LEAST_CORE_PERCENT} % of the core at c=64: the client was"
            " the bound, or others were at work; trust CPU a request instead"
        )
    disturbed = _names_where(samples, OTHERS, lambda percent: percent > DISTURBED_PERCENT)
    if disturbed:
        found.append(
            f"others were at work on the cores while {disturbed} was measured (more than"
            f" {DISTURBED_PERCENT} % of a core): take the run again on a quiet machine"
        )
    for name in samples.names():
        failures = samples.find(name, FAILED)
        if failures:
            found.append(f"{name}: {failures:,.0f} requests or streams failed")
    return found
