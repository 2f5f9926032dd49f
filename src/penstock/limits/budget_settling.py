"""Settling: what usage really cost is taken off holds and counted in windows, once.

Whatever an event says, it is counted as far as it can be and never refused: a hold that is not
known or an alias without a price is somebody's fault, and the usage is a fact.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from penstock.access.store import find_labels
from penstock.contract.money import HoldUse
from penstock.limits import budget_store as store
from penstock.limits.budget_holds import ends_of, window_of
from penstock.limits.budget_model import (
    Budget,
    BudgetCharge,
    BudgetHold,
    BudgetWindow,
    Life,
    RatedEvent,
    WindowKey,
)
from penstock.limits.budget_notices import notices_of
from penstock.limits.budget_rules import counts_for, is_usable, subject_of
from penstock.limits.prices import ATTO_IN_NANO
from penstock.limits.wallet_model import Cause, Overdraft, WalletMove
from penstock.limits.wallet_store import insert_overdrafts
from penstock.limits.wallets import blame, moved, overdrawn, window_of_wallet
from penstock.notices.model import Notice
from penstock.notices.service import record_notices
from penstock.storage.sessions import WriteSession

Faults: TypeAlias = Counter[tuple[Life, str]]
"""How often something was wrong, by whose usage it is and what it was."""


class _Key(NamedTuple):
    """What decides, besides its id, which budgets a key's events count for."""

    member_id: str
    labels: Collection[str]


@dataclass(slots=True)
class _Books:
    """What is locked, and how it is to be when all events are counted."""

    windows: dict[WindowKey, BudgetWindow]
    holds: dict[str, BudgetHold]
    faults: Faults
    wallets: Mapping[tuple[str, str], WindowKey]
    """By organization and currency."""
    uncovered: dict[WindowKey, Counter[Cause]] = field(default_factory=dict)
    """What events cost beyond what was held for them, of wallets."""

    def take_all(self, event: RatedEvent) -> None:
        """Take what was held for an event off its holds, and note what wallets pay besides."""
        taken: Counter[WindowKey] = Counter()
        causes: dict[WindowKey, Cause] = {}
        for use in event.holds:
            if not use.hold:
                continue
            amount = self.take(use, event)
            hold = self.holds.get(use.hold)
            if hold is not None and hold.is_of(event):
                taken[hold.window] += amount
                causes[hold.window] = "hold_expired" if hold.state == "expired" else "overrun"
        for currency, charged_atto in event.charges_atto.items():
            key = self.wallets.get((event.organization_id, currency))
            if key is not None:
                beyond_atto = max(0, charged_atto - taken[key] * ATTO_IN_NANO)
                causes_of = self.uncovered.setdefault(key, Counter())
                causes_of[causes.get(key, "unheld")] += beyond_atto

    def take(self, use: HoldUse, event: RatedEvent) -> int:
        """Take what was held for an event off its hold, and return how much that was."""
        hold = self.holds.get(use.hold)
        if hold is None or not hold.is_of(event):
            self.faults[event.life, "hold_unknown"] += 1
            return 0
        if hold.state == "expired":
            self.faults[event.life, "hold_expired"] += 1
            return 0
        taken = min(max(use.amount, 0), hold.outstanding)
        if taken != use.amount:
            self.faults[event.life, "hold_exceeded"] += 1
        if taken == 0:
            return 0
        used = hold.used + taken
        state = "closed" if used + hold.freed == hold.amount else hold.state
        self.holds[hold.id] = dataclasses.replace(hold, used=used, state=state)
        self.windows[hold.window] = self.windows[hold.window].release(taken)
        return taken

    def tell(self, budgets: Mapping[str, Budget]) -> list[Notice]:
        """Return what there is to be told of the windows, and note that it is."""
        told: list[Notice] = []
        for key, window in self.windows.items():
            notices, self.windows[key] = notices_of(budgets[key.budget_id], window)
            told += notices
        return told

    def charge(self, charge: BudgetCharge) -> None:
        """Count a charge in its window."""
        window = self.windows[charge.window]
        settled_atto = window.settled_atto + charge.amount_atto
        self.windows[charge.window] = dataclasses.replace(window, settled_atto=settled_atto)

    def move(self, move: WalletMove, before: Mapping[WindowKey, BudgetWindow]) -> list[Overdraft]:
        """Move a wallet by what was booked, and return what was not free of it."""
        key = self.wallets.get((move.organization_id, move.currency))
        if key is None:
            return []
        self.windows[key] = moved(self.windows[key], move.amount_atto)
        causes: Mapping[Cause, int] = self.uncovered.get(key) or {"unheld": 0}
        return [*blame(move, overdrawn(before[key], self.windows[key]), causes)]


async def settle(
    session: WriteSession,
    events: Sequence[RatedEvent],
    now_us: int,
    moves: Sequence[WalletMove],
) -> Faults:
    """Count what events cost in every budget that they count for, and free what was held for them.

    An event counts in the window that it was held of; without a hold, in that of its admission.
    In wallets it does not count by itself: what was booked does.

    Args:
        session: One of all organizations, in which the events are stored for the first time.
        events: What they cost, each id once.
        now_us: The time.
        moves: What was booked of these events in wallets.
    """
    scope = session.scope
    await store.see_lives(session, {event.life for event in events}, now_us)
    owners = await store.find_key_owners(session, scope, {event.key_id for event in events})
    uses = [(event, use) for event in events for use in event.holds if use.hold]
    # No database finds a text with NUL, and one of them refuses to look for it.
    held_ids = {use.hold for _, use in uses if "\0" not in use.hold}
    known = await store.list_holds(session, scope, held_ids) if held_ids else []
    of_hold = {hold.id: hold for hold in known}
    own = {use.hold for event, use in uses if _is_own(of_hold.get(use.hold), event)}
    holds = [hold for hold in known if hold.id in own]
    condition = store.of_owners(_owner_ids(events, owners))
    if holds:
        condition |= store.with_ids({hold.window.budget_id for hold in holds})
    locked = await store.lock_budgets(session, scope, condition)
    budgets = {budget.id: budget for budget in locked if is_usable(budget)}
    if not budgets:
        return Counter((event.life, "hold_unknown") for event, _ in uses)
    holds = [hold for hold in holds if hold.window.budget_id in budgets]
    of_hold = {hold.id: hold for hold in holds}
    by_owner: dict[str, list[Budget]] = {}
    for budget in budgets.values():
        by_owner.setdefault(budget.owner_id, []).append(budget)
    faults: Faults = Counter()
    charges: list[BudgetCharge] = []
    ends = ends_of(holds)
    labels: Mapping[str, list[str]] = {}
    if any(one.label is not None for one in budgets.values()):
        labels = await find_labels(session, scope, {event.key_id for event in events})
    for event in events:
        caller = _Key(owners.get(event.key_id, ""), labels.get(event.key_id, ()))
        found = _windows_of(event, by_owner, of_hold, caller)
        ends |= found
        for key in found:
            charge = _charge(event, key, budgets[key.budget_id], faults)
            charges += [] if charge is None else [charge]
    wallets = {
        (one.organization_id, one.currency): window_of_wallet(one)
        for one in budgets.values()
        if one.is_wallet
    }
    # Others wait for windows that are locked: what takes long is done before.
    await store.make_windows(session, scope, ends)
    await store.insert_charges(session, scope, charges)
    windows = await store.lock_windows(session, scope, ends)
    locked_holds = await store.lock_holds(session, scope, list(of_hold))
    books = _Books(dict(windows), {hold.id: hold for hold in locked_holds}, faults, wallets)
    for event in events:
        books.take_all(event)
    for charge in charges:
        books.charge(charge)
    overdrafts = [one for move in moves for one in books.move(move, windows)]
    await record_notices(session, books.tell(budgets), now_us)
    await store.write_windows(session, books.windows.values())
    await store.write_holds(session, books.holds.values())
    await insert_overdrafts(session, scope, overdrafts, now_us)
    return faults


def _charge(
    event: RatedEvent, key: WindowKey, budget: Budget, faults: Faults
) -> BudgetCharge | None:
    if budget.is_wallet:
        return None
    amount_atto = event.charges_atto.get(budget.currency)
    if amount_atto is None:
        faults[event.life, "price_unknown"] += 1
        return None
    return BudgetCharge(event.event_id, key, budget.organization_id, amount_atto)


def _owner_ids(events: Iterable[RatedEvent], owners: Mapping[str, str]) -> set[str]:
    ids: set[str] = set()
    for event in events:
        ids |= {*_owners_of(event, owners.get(event.key_id, ""))}
    return ids - {""}


def _owners_of(event: RatedEvent, member_id: str) -> tuple[str, ...]:
    return event.organization_id, event.project_id, event.key_id, member_id


def _is_own(hold: BudgetHold | None, event: RatedEvent) -> bool:
    return hold is not None and hold.is_of(event)


def _windows_of(
    event: RatedEvent,
    by_owner: Mapping[str, list[Budget]],
    holds: Mapping[str, BudgetHold],
    caller: _Key,
) -> dict[WindowKey, tuple[str, int | None]]:
    """Return the windows that an event counts in, one of a budget, and when each ends."""
    of_holds = {
        holds[use.hold].window.budget_id: holds[use.hold]
        for use in event.holds
        if _is_own(holds.get(use.hold), event)
    }
    found = ends_of(of_holds.values())
    place = (event.organization_id, event.alias, caller.labels)
    for owner_id in _owners_of(event, caller.member_id):
        for budget in by_owner.get(owner_id, ()):
            if budget.id in of_holds or not counts_for(budget, *place):
                continue
            subject = subject_of(budget.per, event.key_id, caller.member_id)
            window = window_of(budget, event.at_us)
            if window is not None:
                key = WindowKey(budget.id, subject, window.starts_at_us)
                found[key] = (budget.organization_id, window.ends_at_us)
    return found
