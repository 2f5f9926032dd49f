"""The chain of money: usage events, what each was rated at, and where that is booked.

Here it is looked at link by link. What journals on nodes say is compared by whoever can read them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.ledger import chain_store as store
from penstock.metering.bucket_rules import DAY_US, advance, bucket_start
from penstock.metering.figure_rules import EMBEDDINGS
from penstock.metering.tables import UsageDays, UsageEmbeddingHours, UsageLatencyHours, UsageMonths
from penstock.storage.sessions import ReadSession

MAX_DIFFERENCES = 100
"""Most that are told of a day."""


@dataclass(slots=True)
class Link:
    """What is stored of one producer and day. A day is that of the events' ids."""

    producer: str
    events: int = 0
    rated: int = 0
    """Of them: those that have a charge, were it none."""
    unpriced: int = 0
    """Of the rated ones: those whose model had no price."""
    unbooked: int = 0
    """Of the rated ones: those that cost something and are in no transfer."""
    charges_atto: dict[str, int] = field(default_factory=dict)
    """By currency; what rating anew and corrections have changed is not in it."""

    @property
    def is_whole(self) -> bool:
        """Whether every event is rated, and all of it booked."""
        return self.events == self.rated and not self.unbooked


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure that does not say what the events say."""

    figure: str
    of: Mapping[str, str]
    """Whose figure it is, by name."""
    expected: int
    found: int


@dataclass(frozen=True, slots=True)
class Chain:
    """What one day is made of."""

    links: Sequence[Link]
    differences: Sequence[Difference]


async def read_chain(session: ReadSession, day: int) -> Chain:
    """Look at the events of one day, at what they were rated at and where that is booked.

    Args:
        session: One state of the database.
        day: Days since the Unix epoch, as in the events' ids; 0 for those that have none.
    """
    scope = session.scope
    links: dict[str, Link] = {}
    for row in await store.list_links(session, scope, day):
        link = links.setdefault(row.producer, Link(row.producer))
        link.events += row.events
        link.rated += row.rated
        link.unpriced += row.unpriced
        link.unbooked += row.unbooked
        if row.currency is not None:
            link.charges_atto[row.currency] = row.charge_atto
    return Chain(
        sorted(links.values(), key=lambda link: link.producer),
        await _compare_figures(session, day),
    )


async def _compare_figures(session: ReadSession, day: int) -> list[Difference]:
    """Compare the figures of a day with the events that started in it, as they were corrected.

    Those of its month are compared with those of the month's days, each of which has its own turn.
    """
    scope = session.scope
    used, id_days = await store.list_used(session, scope, day)
    charged = await store.list_charged(session, scope, day, id_days)
    start_us, end_us = day * DAY_US, (day + 1) * DAY_US
    found: list[Difference] = []
    for uses, tables in ((used, store.USAGE_FIGURES), (charged, store.CHARGE_FIGURES)):
        for table in tables:
            kept = await store.list_figures(session, scope, table, start_us, end_us)
            embeddings = [one for one in uses if one.names.get("operation") == EMBEDDINGS]
            meant = embeddings if table is UsageEmbeddingHours else uses
            found += _compare(table, meant, kept)
    found += _compare(UsageLatencyHours, *await store.list_ended(session, scope, day))
    start_us = bucket_start("month", start_us)
    month = (start_us, advance("month", start_us, 1))
    days = await store.list_figures(session, scope, UsageDays, *month)
    months = await store.list_figures(session, scope, UsageMonths, *month)
    return [*found, *_compare(UsageMonths, days, months)][:MAX_DIFFERENCES]


def _compare(
    table: Any, uses: Sequence[store.Use], kept: Sequence[store.Use]
) -> Iterator[Difference]:
    """Yield what a table does not say of what was used, cell by cell."""
    names = store.names_of(table)
    if "value" in names and any(one.names["project"] == "" for one in kept):
        # Labels of before they were kept by project.
        names = tuple(name for name in names if name != "project")
    expected, figures = _fold(uses, names), _fold(kept, names)
    for cell, figure in sorted({*expected, *figures}):
        place = cell, figure
        if expected[place] != figures[place]:
            of = dict(zip(names, cell, strict=True))
            name = f"{table.__tablename__}.{figure}"
            yield Difference(name, of, expected[place], figures[place])


def _fold(uses: Iterable[store.Use], names: Sequence[str]) -> Counter[tuple[tuple[str, ...], str]]:
    """Return sums by some names, and figure; what has several labels is in each of theirs."""
    sums: Counter[tuple[tuple[str, ...], str]] = Counter()
    for use in uses:
        cells: Iterable[Mapping[str, str]] = [use.names]
        if "value" in names and "value" not in use.names:
            cells = [{**use.names, "name": name, "value": value} for name, value in {*use.labels}]
        for cell in cells:
            key = tuple(cell[name] for name in names)
            for figure, amount in use.amounts.items():
                sums[key, figure] += amount
    return sums
