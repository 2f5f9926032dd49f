"""Series of metrics as they are counted: plain numbers, and names that are bounded in number.

Whoever counts may know a million organizations; Prometheus is shown the large ones, and the rest
added up as `other`.
"""

from bisect import bisect_left
from collections.abc import Iterable
from itertools import islice

from penstock.contract.metrics import Metric
from penstock.contract.node import Exemplar, HistogramSample, Sample

OTHER = "other"
_OFTEN = 20
_LONGEST = 128
"""Characters of a name that are shown."""

Labels = tuple[str, ...]


class Count:
    """A counter."""

    __slots__ = ("labels", "metric", "value")

    def __init__(self, metric: Metric, labels: Labels = ()) -> None:
        """Start at 0."""
        self.metric = metric
        self.labels = labels
        self.value: float = 0

    def add(self, amount: float) -> "Count":
        """Count this much more, and return itself."""
        self.value += amount
        return self

    def sample(self) -> Sample:
        """Return how much it counted so far."""
        return Sample(self.metric.name, self.labels, self.value)


class Histogram:
    """A histogram. Where several have the same buckets, the hot path looks for the place once."""

    __slots__ = ("_exemplars", "counts", "labels", "metric", "sum")

    def __init__(self, metric: Metric, labels: Labels = ()) -> None:
        """Start with nothing observed."""
        self.metric = metric
        self.labels = labels
        self.counts = [0] * (len(metric.buckets) + 1)
        """By bucket, not cumulative; the last is that of all larger values."""
        self.sum: float = 0
        self._exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.metric.buckets, value)] += 1
        self.sum += value

    def add(self, counts: Iterable[int], total: float) -> "Histogram":
        """Count values by bucket, and return itself.

        Args:
            counts: How many fell into each.
            total: Their sum.
        """
        self.counts = list(map(int.__add__, self.counts, counts))
        self.sum += total
        return self

    def sample(self) -> HistogramSample:
        """Return what was observed so far."""
        return HistogramSample(
            self.metric.name,
            self.labels,
            tuple(self.counts),
            self.sum,
            tuple(self._exemplars.values()),
        )

    def exemplify(self, trace_id: str, value: float, at_s: float) -> None:
        """Have a value stand for its bucket.

        Args:
            trace_id: What shows how it came about.
            value: One that was observed.
            at_s: When, seconds since the Unix epoch.
        """
        bucket = bisect_left(self.metric.buckets, value)
        self._exemplars[bucket] = Exemplar(bucket, trace_id, value, at_s)


class Names:
    """Which values of a label have series of their own; all others are `other`.

    A name that is shown stays shown: a counter must not go down, nor `other` take up at once what
    somebody had before. So half of the places are for whoever comes first, and the others for the
    large: those that had at least one in `most` of the last requests of names that are not shown.
    Which they are depends on nothing but the order of requests.

    Args:
        most: How many are shown, >= 2.
    """

    def __init__(self, most: int) -> None:
        """See the class."""
        self._most = most
        self._shown: dict[str, str] = {OTHER: OTHER}
        self._tried: dict[str, int] = {}
        """How often names came that are not shown, among the last `most * _OFTEN` such."""
        self._tries = 0

    def shown(self, name: str) -> str:
        """Return what a name is counted under."""
        return self._shown.get(name) or self._consider(name)

    def _consider(self, name: str) -> str:
        count = len(self._shown) - 1
        if count * 2 < self._most:
            return self._show(name)
        if count >= self._most:
            return OTHER
        if self._tries == self._most * _OFTEN:
            self._tried.clear()
            self._tries = 0
        self._tries += 1
        tried = self._tried[name] = self._tried.get(name, 0) + 1
        if tried < _OFTEN:
            return OTHER
        del self._tried[name]
        return self._show(name)

    def _show(self, name: str) -> str:
        shown = self._shown[name] = printable(name)
        return shown


def printable(name: str) -> str:
    """Return a name that terminals show as it is: no control characters, and not too long."""
    name = name[:_LONGEST]
    return name if name.isprintable() else "".join(c if c.isprintable() else "_" for c in name)


class Places:
    """Which labels of a metric have a series of their own: the first that came, and they stay.

    Args:
        most: Series of one metric; all further ones are counted as one, with `other` everywhere.
    """

    def __init__(self, most: int) -> None:
        """See the class."""
        self._most = most
        self._taken: dict[str, set[Labels]] = {}

    def labels_for(self, name: str, labels: Labels) -> Labels:
        """Return the labels to count under: the same, or `other` everywhere."""
        taken = self._taken.setdefault(name, set())
        if labels in taken:
            return labels
        if len(taken) < self._most:
            taken.add(labels)
            return labels
        return (OTHER,) * len(labels)


class SeriesBook:
    """All series of a process, each made when it is first asked for; and which have changed.

    Args:
        most: Series of one metric.
    """

    def __init__(self, most: int) -> None:
        """See the class."""
        self._places = Places(most)
        self._counts: dict[tuple[str, Labels], Count] = {}
        self._histograms: dict[tuple[str, Labels], Histogram] = {}
        self._changed: dict[Count | Histogram, None] = {}

    def count(self, metric: Metric, *labels: str) -> Count:
        """Return a counter of these labels."""
        key = metric.name, self._places.labels_for(metric.name, labels)
        found = self._counts.get(key)
        if found is None:
            found = self._counts[key] = Count(metric, key[1])
        return found

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """Return a histogram of these labels."""
        key = metric.name, self._places.labels_for(metric.name, labels)
        found = self._histograms.get(key)
        if found is None:
            found = self._histograms[key] = Histogram(metric, key[1])
        return found

    def add(self, metric: Metric, *labels: str) -> None:
        """Count one more."""
        self._changed[self.count(metric, *labels).add(1)] = None

    def note(self, series: Iterable[Count | Histogram]) -> None:
        """Take note that these may have changed."""
        self._changed.update(dict.fromkeys(series))

    def note_all(self) -> None:
        """Have everything told again: whoever was told is gone."""
        self.note([*self._counts.values(), *self._histograms.values()])

    def take_changed(self, most: int) -> list[Count | Histogram]:
        """Return what has changed and was not returned since; of many, some."""
        changed = list(islice(self._changed, most))
        for series in changed:
            del self._changed[series]
        return changed
