"""Adding up what workers report."""

import math
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from penstock.contract.metrics import IN_FLIGHT, INPUT_TOKENS, OVERHEAD, REQUESTS, Metric
from penstock.contract.node import HistogramSample, Sample, Stats
from penstock.contract.series import OTHER, Labels
from penstock.node.stats import StatsBook

OK = ("dev", "m", "chat", "ok")


def stats(
    requests: float = 0,
    *,
    in_flight: float = 0,
    first_bucket: int = 0,
    is_ready: bool = True,
    extra: tuple[Sample, ...] = (),
) -> Stats:
    """Return a worker's report."""
    counts = (first_bucket, *[0] * len(OVERHEAD.buckets))
    return Stats(
        (Sample(REQUESTS.name, OK, requests), Sample(IN_FLIGHT.name, (), in_flight), *extra),
        (HistogramSample(OVERHEAD.name, (), counts, first_bucket / 2),),
        is_ready,
    )


def values(book: StatsBook, metric: Metric) -> Mapping[Labels, float]:
    """Return the sums of a counter or gauge."""
    return next(family.values for family in book.families() if family.metric is metric)


def overhead(book: StatsBook) -> HistogramSample:
    """Return the sums of the only histogram that is reported here."""
    return next(f.histograms[()] for f in book.families() if f.metric is OVERHEAD)


def requests(book: StatsBook) -> float:
    """Return the sum of requests."""
    return values(book, REQUESTS)[OK]


def test_workers_are_added_up() -> None:
    """Counters, gauges and histograms of living workers are summed."""
    book = StatsBook()
    book.report((0, 1), stats(3, in_flight=1, first_bucket=2))
    book.report((1, 2), stats(4, in_flight=5, first_bucket=1))
    assert values(book, REQUESTS) == {OK: 7}
    assert values(book, IN_FLIGHT) == {(): 6}
    assert overhead(book).counts[0] == 3
    assert overhead(book).sum == 1.5
    assert book.ready_count == 2


def test_a_report_replaces_the_one_before() -> None:
    """A worker's reports are totals, not differences."""
    book = StatsBook()
    book.report((0, 1), stats(3))
    book.report((0, 1), stats(5, is_ready=False))
    assert requests(book) == 5
    assert book.ready_count == 0


def test_what_is_not_told_again_stays_as_it_was() -> None:
    """Only what changed is told; gauges that are not told any more are no more."""
    book = StatsBook()
    book.report((0, 1), stats(3, in_flight=2, first_bucket=1))
    book.report((0, 1), Stats((), (), is_ready=True, has_gauges=False))
    assert (requests(book), values(book, IN_FLIGHT)) == (3, {(): 2})
    book.report((0, 1), Stats((), (), is_ready=True))
    assert (requests(book), values(book, IN_FLIGHT)) == (3, {})
    assert overhead(book).counts[0] == 1


def test_the_dead_keep_their_counters_and_lose_their_gauges() -> None:
    """After a worker's death its counters and histograms stay and its gauges are gone."""
    book = StatsBook()
    book.report((0, 1), stats(3, in_flight=9, first_bucket=2))
    book.retire((0, 1))
    book.report((0, 2), stats(1, in_flight=1, first_bucket=1))
    assert values(book, REQUESTS) == {OK: 4}
    assert values(book, IN_FLIGHT) == {(): 1}
    assert overhead(book).counts[0] == 3
    assert book.ready_count == 1


def test_the_dead_do_not_speak() -> None:
    """A report that arrives after its worker was retired is not counted twice."""
    book = StatsBook()
    book.report((0, 1), stats(3))
    book.retire((0, 1))
    book.report((0, 1), stats(3))
    assert requests(book) == 3


def test_to_ask_changes_nothing() -> None:
    """Reading the totals twice gives the same totals."""
    book = StatsBook()
    book.report((0, 1), stats(3, first_bucket=4))
    book.retire((0, 1))
    book.report((0, 2), stats(2, first_bucket=4))
    assert list(book.families()) == list(book.families())
    assert requests(book) == 5


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["work", "die"]))))
def test_totals_never_go_down(life: list[tuple[int, str]]) -> None:
    """However workers work and die, a counter never falls and counts all that was reported."""
    book = StatsBook()
    epochs = [0, 1, 2]
    done = [0, 0, 0]
    all_done = 0
    for slot, act in life:
        if act == "work":
            done[slot] += 1
            all_done += 1
            book.report((slot, epochs[slot]), stats(done[slot]))
        else:
            book.retire((slot, epochs[slot]))
            epochs[slot] += 3
            done[slot] = 0
        assert values(book, REQUESTS).get(OK, 0) == all_done


def test_what_cannot_be_is_left_out() -> None:
    """Unknown names, wrong labels and buckets, and impossible figures change nothing."""
    bad = (
        Sample("penstock_unknown_total", (), 1),
        Sample(REQUESTS.name, ("too", "few"), 1),
        Sample(REQUESTS.name, OK, math.nan),
        Sample(REQUESTS.name, OK, math.inf),
        Sample(REQUESTS.name, OK, -1),
        Sample(OVERHEAD.name, (), 1),
    )
    book = StatsBook()
    book.report((0, 1), stats(2, extra=bad))
    bad_histograms = (
        HistogramSample(OVERHEAD.name, (), (1, 2), 1.0),
        HistogramSample(OVERHEAD.name, ("x",), (1,) * (len(OVERHEAD.buckets) + 1), 1.0),
        HistogramSample(OVERHEAD.name, (), (-1,) * (len(OVERHEAD.buckets) + 1), 1.0),
        HistogramSample(REQUESTS.name, OK, (1,), 1.0),
    )
    book.report((1, 2), Stats((), bad_histograms, is_ready=False))
    assert values(book, REQUESTS) == {OK: 2}
    assert sum(overhead(book).counts) == 0


def test_series_are_limited() -> None:
    """Series beyond the limit are added to one that says other, and none ever moves there."""
    book = StatsBook(most=2)

    def report(*organizations: str) -> None:
        samples = tuple(
            Sample(INPUT_TOKENS.name, (name, "m", "engine"), 1.0) for name in organizations
        )
        book.report((0, 1), Stats(samples, (), is_ready=True))

    report("a", "b", "c", "d")
    expected = {("a", "m", "engine"): 1.0, ("b", "m", "engine"): 1.0, (OTHER,) * 3: 2.0}
    assert values(book, INPUT_TOKENS) == expected
    report("d", "c", "b", "a")
    assert values(book, INPUT_TOKENS) == expected
