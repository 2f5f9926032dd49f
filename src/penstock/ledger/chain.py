"""The chain of money: usage events, what each was rated at, and where that is booked.

Here it is looked at link by link. What journals on nodes say is compared by whoever can read them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.contract.usage import METERS
from penstock.ledger import chain_store as store
from penstock.storage.sessions import ReadSession


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
    """Compare the figures of a day with the events that started in it, as they were corrected."""
    scope = session.scope
    events = await store.sum_events(session, scope, day)
    changed = await store.sum_corrections(session, scope, day)
    found: list[Difference] = []
    for table in store.FIGURES:
        figures = await store.sum_figures(session, scope, table, day)
        for name, counted, suffix in (
            ("requests", events.requests, "requests"),
            ("input_tokens", events.input_tokens, "input"),
            ("output_tokens", events.output_tokens, "output"),
        ):
            meters = [meter for meter in METERS if meter.endswith(suffix)]
            expected = counted + sum(changed.get(meter, 0) for meter in meters)
            sum_found = sum(figures[meter] for meter in meters)
            if expected != sum_found:
                found.append(Difference(f"{table.__tablename__}.{name}", expected, sum_found))
    return found
