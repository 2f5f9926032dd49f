"""What usage would have been charged by another book: rated in memory, and not booked."""

from dataclasses import dataclass

from penstock.kit.errors import PenstockError
from penstock.metering.bucket_rules import bucket_start
from penstock.rating import run_store, store
from penstock.rating.choices import Choice, read_choice
from penstock.rating.errors import RUN_INVALID
from penstock.rating.model import RatedKind
from penstock.rating.rerating import Known, read_known
from penstock.rating.rules import MeterKey, Running, is_absurd, meter_keys, rate_quantities
from penstock.rating.run_store import Place
from penstock.rating.service import PLATFORM, admitted_us
from penstock.storage.sessions import ReadSession

EVENTS = 2_000
"""How many are read at a time."""
MAX_DAYS = 93


@dataclass(slots=True)
class Simulated:
    """What one organization's usage of one model is charged, and what it would have been."""

    organization: str
    model: str
    currency: str
    """Of the charges."""
    events: int = 0
    unpriced: int = 0
    """Events that the book has no price for: as they are charged, they count in neither sum."""
    charged_atto: int = 0
    simulated_atto: int = 0
    """In the book's currency."""


async def simulate(
    session: ReadSession,
    *,
    book_id: str,
    since_us: int,
    until_us: int,
    organization: str | None,
) -> list[Simulated]:
    """Return what usage would have cost by a book, by organization, model and currency.

    Steps begin with the first event that is looked at, and with each month.

    Args:
        session: Where from: all is read in one state of the database.
        book_id: By which book.
        since_us: When the first request was let in.
        until_us: All were let in before.
        organization: Whose usage; everybody's when None.

    Raises:
        PenstockError: `RUN_INVALID`, `OBJECT_UNKNOWN` for the book.
    """
    if not 0 <= since_us < until_us <= since_us + MAX_DAYS * 86_400 * 1_000_000:
        raise PenstockError(RUN_INVALID, f"`until` is not within {MAX_DAYS} days behind `since`.")
    book = await store.books.get(session, session.scope, book_id)
    kind: RatedKind = "cost" if book.kind == "cost" else "charge"
    sums: dict[tuple[str, str, str], Simulated] = {}
    running: dict[MeterKey, Running] = {}
    place = Place()
    while True:
        events = await run_store.list_events(
            session,
            session.scope,
            since_us,
            until_us,
            organization=organization,
            after=place,
            limit=EVENTS,
        )
        choice = await read_choice(session, book_id, events)
        for known in await read_known(session, events):
            head = known.heads.get(kind)
            currency = book.currency if head is None else head.currency
            key = (known.event.organization, known.event.model, currency)
            into = sums.setdefault(key, Simulated(*key))
            _add(into, known, choice, running, 0 if head is None else head.amount_atto)
        if len(events) < EVENTS:
            return [sums[key] for key in sorted(sums)]
        place = Place(admitted_us(events[-1]), events[-1].event_id)


def _add(
    into: Simulated,
    known: Known,
    choice: Choice,
    running: dict[MeterKey, Running],
    charged_atto: int,
) -> None:
    into.events += 1
    read = choice.find(known.event)
    if read is None or is_absurd(read, known.used):
        into.unpriced += 1
        return
    is_cost = choice.book is not None and choice.book.kind == "cost"
    organization = PLATFORM if is_cost else known.event.organization
    period_us = bucket_start("month", admitted_us(known.event))
    for key in meter_keys(read, known.used, organization, period_us):
        running.setdefault(key, Running())
    into.charged_atto += charged_atto
    into.simulated_atto += rate_quantities(read, known.used, running, organization, period_us)
