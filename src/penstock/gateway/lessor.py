"""The worker's talk with its agent about limits and money: what it asks for and gives back."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TypeVar

from penstock.contract.limits import Ask
from penstock.contract.node import (
    CheckHolds,
    FreeHolds,
    Granted,
    HoldsGranted,
    PermitsHeld,
    Returned,
    Want,
    WantHolds,
    WorkerMessage,
)
from penstock.gateway.claim import Claim
from penstock.gateway.limits import CHECK_HOLDS_MS, MONEY_BELIEVED_MS, RETURNS_AT_ONCE
from penstock.gateway.money import Account, Purse
from penstock.gateway.quota import Terms
from penstock.limits.allowances import Allowance, Allowances, refill_of
from penstock.limits.rules import organization_of

Item = TypeVar("Item")


class Lessor:
    """Fills the worker's shares.

    Args:
        allowances: The shares of limits.
        purse: Those of budgets.
        name: Unique among all workers, ever: begins the names of takings.
        send: Tells the agent something; False when it is away.
    """

    def __init__(
        self,
        allowances: Allowances,
        purse: Purse,
        *,
        name: str,
        send: Callable[[WorkerMessage], bool],
    ) -> None:
        """See the class."""
        self._allowances = allowances
        self._purse = purse
        self._name = name
        self._send = send
        self._take_count = 0
        self._wants: dict[str, tuple[Sequence[Allowance], tuple[Ask, ...]]] = {}
        """Questions that are not answered."""
        self._hold_wants: dict[str, tuple[WantHolds, Sequence[Account], int]] = {}
        """The same about money, and when they were asked."""
        self._checked_at_ms = 0
        self._is_linked = False
        self._was_linked = False
        self.base_ms: int | None = None
        """What the authority's time is ahead of CLOCK_MONOTONIC; None before that is known."""

    def time_at(self, now_ms: int) -> int:
        """Return the authority's time at a moment of CLOCK_MONOTONIC."""
        return now_ms + (self.base_ms or 0)

    def ask(self, claims: Iterable[Claim], now_ms: int) -> bool:
        """Ask for what claims lack, and for what will soon run dry.

        Returns:
            False when nobody can be asked; then shares and accounts say so.
        """
        by_terms: dict[Terms, list[Claim]] = {}
        for claim in claims:
            by_terms.setdefault(claim.terms, []).append(claim)
        is_asked = True
        for terms, waiting in by_terms.items():
            for meters in terms.strict, terms.lenient:
                is_asked &= self._ask_leases(meters, waiting, now_ms)
            if terms.accounts:
                is_asked &= self._ask_holds(terms, waiting, now_ms)
        if self._allowances.low or self._purse.low:
            self._ask_early(now_ms)
        return is_asked

    def _ask_leases(
        self, meters: Iterable[Allowance], claims: Sequence[Claim], now_ms: int
    ) -> bool:
        """Ask for enough for the first claim, and welcome as much as all of them need."""
        asked, asks = [], []
        for meter in meters:
            needs = [claim.costs[meter.metric] for claim in claims if meter not in claim.passed]
            lack = sum(needs) - meter.left
            if lack > 0 and not meter.is_asked:
                asked.append(meter)
                least = max(0, needs[0] - meter.left)
                asks.append(refill_of(meter, least=least, needed=lack))
        return not asks or self._want(asked, tuple(asks), now_ms)

    def _want(self, meters: Sequence[Allowance], asks: tuple[Ask, ...], now_ms: int) -> bool:
        if self._is_linked and self.base_ms is None:
            return True  # the time will be told at any moment
        take_id = self._next_id()
        if not (self._is_linked and self._send(Want(take_id, asks))):
            for meter in meters:
                meter.is_away, meter.told_at_ms = True, now_ms
            return False
        self._wants[take_id] = (meters, asks)
        for meter, ask in zip(meters, asks, strict=True):
            if ask.is_ahead:
                meter.is_asked_ahead = True
            else:
                meter.is_asked = True
        return True

    def _ask_holds(self, terms: Terms, claims: Sequence[Claim], now_ms: int) -> bool:
        asked, asks = [], []
        for index, account in enumerate(terms.accounts):
            needs = [claim.amounts[index] for claim in claims]
            lack = sum(needs) - account.left
            if lack > 0 and not account.is_asked:
                asked.append(account)
                asks.append(account.ask(_first_of(needs, account, now_ms), lack, now_ms))
        if not asks:
            return True
        return self._want_holds(
            WantHolds(self._next_id(), terms.organization, tuple(asks)), asked, now_ms
        )

    def _want_holds(self, want: WantHolds, accounts: Sequence[Account], now_ms: int) -> bool:
        if not (self._is_linked and self._send(want)):
            for account in accounts:
                account.is_away, account.told_at_ms = True, now_ms
            return False
        self._hold_wants[want.take_id] = (want, accounts, now_ms)
        for account in accounts:
            account.is_asked = True
        return True

    def _ask_early(self, now_ms: int) -> None:
        """Ask for shares and accounts that will run dry soon, each on its own."""
        low, self._allowances.low = self._allowances.low, []
        self._ask_by_organization(low, now_ms, is_ahead=False)
        accounts = list(self._purse.low)
        self._purse.low.clear()
        for account in accounts:
            if not account.is_asked:
                asks = (account.ask(0, 0, now_ms),)
                want = WantHolds(self._next_id(), account.organization, asks)
                self._want_holds(want, [account], now_ms)

    def _ask_by_organization(
        self, meters: Iterable[Allowance], now_ms: int, *, is_ahead: bool
    ) -> None:
        """Ask for what shares use up, not for any request."""
        grouped: dict[str, dict[Allowance, Ask]] = {}
        for meter in meters:
            ask = refill_of(meter, is_ahead=is_ahead)
            if ask.want > 0 and not (meter.is_asked_ahead if is_ahead else meter.is_asked):
                organization = organization_of(meter.bucket.id)
                grouped.setdefault(organization, {})[meter] = ask
        if self._is_linked:
            for asks in grouped.values():
                self._want(list(asks), tuple(asks.values()), now_ms)

    # What the agent says

    def granted(self, message: Granted, now_ms: int) -> list[Allowance]:
        """Take in leases, or why there are none; return of which buckets there is little."""
        found = self._wants.pop(message.take_id, None)
        if found is None:
            return []
        meters, asks = found
        for meter, ask in zip(meters, asks, strict=True):
            if ask.is_ahead:
                meter.is_asked_ahead = False
            else:
                meter.is_asked = False
        if message.leases is not None:
            at_ms = self.time_at(now_ms)
            for meter, lease in zip(meters, message.leases, strict=True):
                self._allowances.granted(meter, lease, now_ms=at_ms)
            return [meter for meter in meters if meter.is_scarce]
        told = meters if message.shortage is None else meters[message.shortage.index :][:1]
        for meter, ask in zip(meters, asks, strict=True):
            if meter in told and not ask.is_ahead:
                meter.told_at_ms = now_ms
                meter.is_away = message.shortage is None
                if message.shortage is not None:
                    meter.remaining = message.shortage.remaining
                    meter.retry_at_ms = message.shortage.retry_at_ms
                    meter.is_scarce = True
        return [meter for meter in told if meter.is_scarce]

    def holds_granted(self, message: HoldsGranted, now_ms: int) -> None:
        """Take in holds, or why there are none."""
        found = self._hold_wants.pop(message.take_id, None)
        if found is None:
            return
        _, accounts, asked_at_ms = found
        for account in accounts:
            account.is_asked = False
        if message.holds is not None:
            for account, hold in zip(accounts, message.holds, strict=True):
                self._purse.granted(account, hold, asked_at_ms=asked_at_ms, now_ms=now_ms)
            return
        shortage = message.shortage
        for account in accounts if shortage is None else [accounts[shortage.index]]:
            account.told_at_ms = now_ms
            account.is_away = shortage is None
            if shortage is not None:
                account.remaining, account.heard_at_ms = shortage.remaining, now_ms
                account.reset_s = shortage.reset_s

    def connected(self, now_ms: int) -> None:
        """Say what is held, ask again what was not answered, and give back what waited for it."""
        self._is_linked = True
        if self._was_linked:
            self._tell_permits()
            for want, _, _ in list(self._hold_wants.values()):
                self._send(want)
            self._purse.repeat_freed()
        self._was_linked = True
        self.flush(now_ms)

    def lost(self) -> None:
        """Forget questions about leases: their answers are lost, and permits will be told anew."""
        self._is_linked = False
        for meters, asks in self._wants.values():
            for meter, ask in zip(meters, asks, strict=True):
                if ask.is_ahead:
                    meter.is_asked_ahead = False
                else:
                    meter.is_asked = False
        self._wants.clear()

    def _tell_permits(self) -> None:
        permits = self._allowances.list_permits()
        parts = list(_parts(permits)) or [()]
        for index, part in enumerate(parts):
            self._send(PermitsHeld(part, is_last=index == len(parts) - 1))

    # What goes back

    def sweep(self, now_ms: int) -> None:
        """Ask ahead for busy shares, and give back what nobody needs."""
        if self.base_ms is not None:
            at_ms = self.time_at(now_ms)
            self._allowances.turn(at_ms)
            self._ask_by_organization(self._allowances.list_busy(at_ms), now_ms, is_ahead=True)
        self._purse.sweep(now_ms)
        is_due = now_ms - self._checked_at_ms >= CHECK_HOLDS_MS
        if is_due and self._is_linked and self._purse.list_strict():
            self._checked_at_ms = now_ms
            self._send(CheckHolds(now_ms))
        self.flush(now_ms)

    def flush(self, now_ms: int) -> None:
        """Give back what has to go back, if there is anybody to take it."""
        returns = self._allowances.collect_returns()
        if not self._is_linked:
            self._allowances.keep_returns(returns)
            return
        for part in _parts(returns):
            self._send(Returned(part))
        for freed in _parts(self._purse.collect_freed(now_ms)):
            self._send(FreeHolds(freed))

    def _next_id(self) -> str:
        self._take_count += 1
        return f"{self._name}-{self._take_count}"


def _first_of(needs: Sequence[int], account: Account, now_ms: int) -> int:
    """Return what the first claim needs, or as many of them as there was just enough for.

    A question takes a while, so it is about as many as possible.
    """
    if now_ms - account.heard_at_ms >= MONEY_BELIEVED_MS:
        return needs[0]
    have = account.left + account.remaining
    return max((total for total in accumulate(needs) if total <= have), default=needs[0])


def _parts(whole: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    for at in range(0, len(whole), RETURNS_AT_ONCE):
        yield tuple(whole[at : at + RETURNS_AT_ONCE])
