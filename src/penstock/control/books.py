"""What else happens once for each usage event: it is rated, booked, and taken off budgets.

It stands here because rooms that rate, that book and that limit do not know each other.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from penstock.contract.series import Labels, Names
from penstock.control import log_events
from penstock.ledger.model import UsagePosting
from penstock.ledger.service import find_currencies, post_usage
from penstock.limits.budget_model import Life, RatedEvent
from penstock.limits.budget_settling import Faults, settle
from penstock.limits.prices import ATTO
from penstock.limits.wallet_model import WalletMove
from penstock.metering.model import Arrival
from penstock.rating.model import Rated, RatedBatch
from penstock.rating.service import list_unrated, rate_events, record_rated
from penstock.storage.sessions import WriteSession

_SHOWN = 100
"""Organizations whose amounts are shown by name; the others are shown together."""


@dataclass(slots=True)
class _Entered:
    """What was entered last: it counts when it is committed, for else it comes again."""

    postings: Sequence[UsagePosting] = ()
    faults: Faults = field(default_factory=Counter)
    unrated: Counter[str] = field(default_factory=Counter)


class UsageBooks:
    """Enters new usage into all books that it is in, in the transaction that stores it.

    Nothing here refuses an event: it would never be acknowledged.

    Args:
        currency: What organizations are charged in that have no billing terms of their own.
    """

    def __init__(self, currency: str) -> None:
        """See the class."""
        self._currency = currency
        self.faults: Counter[str] = Counter()
        """How often usage could not be settled in full since the start, by what was wrong."""
        self.unrated: Counter[str] = Counter({"unpriced": 0, "absurd": 0})
        """Events since the start that were rated at nothing, by why."""
        self.amounts = Amounts()
        """What was charged since the start."""
        self._entered = _Entered()

    async def __call__(self, session: WriteSession, arrivals: Sequence[Arrival]) -> None:
        """Rate, book and settle events that are stored for the first time.

        Rows are locked in this order, after those of `metering.service.record_events`: months of
        meters, grants, accounts, days of charges, budgets and what is theirs.

        Args:
            session: One of all organizations, in which they are stored.
            arrivals: At least one, each id once, in order of id.
        """
        self._entered = _Entered()
        events = await list_unrated(session, [one.event for one in arrivals])
        if not events:
            return
        organizations = {event.organization for event in events}
        currencies = await find_currencies(session, organizations, self._currency)
        batch = await rate_events(session, events, currencies)
        # An id is new once, so no other batch has this key.
        key, now_us = events[0].event_id, max(one.delivery.recorded_at_us for one in arrivals)
        postings = sum_up(batch.rated, now_us)
        posted = await post_usage(session, postings, key=key, recorded_at_us=now_us)
        await record_rated(session, batch.rated, posted.transfers, recorded_at_us=now_us)
        by_id = {one.event.event_id: one for one in arrivals}
        rated = [by_id[event.event_id] for event in events]
        faults = await _settle(session, rated, batch, now_us, posted.moves)
        unrated = Counter(unpriced=batch.unpriced, absurd=batch.absurd)
        self._entered = _Entered(postings, faults, unrated)

    def committed(self) -> None:
        """Take note that what was entered last is stored for good."""
        entered, self._entered = self._entered, _Entered()
        self.amounts.add(entered.postings)
        self.unrated.update(entered.unrated)
        for (life, fault), count in entered.faults.items():
            self.faults[fault] += count
            log_events.USAGE_NOT_SETTLED.log(
                producer=life.producer, epoch=life.epoch, fault=fault, count=count
            )


async def _settle(
    session: WriteSession,
    arrivals: Sequence[Arrival],
    batch: RatedBatch,
    now_us: int,
    moves: Sequence[WalletMove],
) -> Faults:
    rated = [
        RatedEvent(
            event_id=one.event.event_id,
            organization_id=one.event.organization,
            project_id=one.event.project,
            key_id=one.event.key_id,
            alias=one.event.model,
            at_us=one.used_at_us,
            charges_atto=charged,
            life=Life(*one.delivery.life),
            holds=one.event.holds,
        )
        for one, charged in zip(arrivals, batch.budget_charges, strict=True)
    ]
    return await settle(session, rated, now_us, moves)


class Amounts:
    """What usage was charged and cost, as graphs show it: in floats, and never less than before."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.charges: dict[Labels, float] = {}
        """By organization, those that are shown, and currency."""
        self.costs: dict[Labels, float] = {}
        self._names = Names(_SHOWN)

    def add(self, postings: Iterable[UsagePosting]) -> None:
        """Add what was posted."""
        for one in postings:
            labels = self._names.shown(one.organization), one.currency
            for sums, atto in ((self.charges, one.charge_atto), (self.costs, one.cost_atto)):
                if atto > 0:
                    sums[labels] = sums.get(labels, 0.0) + atto / ATTO


def sum_up(rated: Iterable[Rated], now_us: int) -> list[UsagePosting]:
    """Return what a batch cost each organization, and us, by currency."""
    sums: dict[tuple[str, str], dict[str, int]] = {}
    latest_us: dict[tuple[str, str], int] = {}
    for one in rated:
        place = (one.event.organization, one.currency)
        amounts = sums.setdefault(place, {"charge": 0, "cost": 0})
        amounts[one.kind] += one.amount_atto
        # A node whose clock is ahead must not count in a time that has not begun.
        used_at_us = min(one.event.started_at_ns // 1_000, now_us)
        latest_us[place] = max(latest_us.get(place, 0), used_at_us)
    return [
        UsagePosting(*place, amounts["charge"], amounts["cost"], latest_us[place])
        for place, amounts in sorted(sums.items())
    ]
