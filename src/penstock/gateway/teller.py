"""Fills tills, and settles what requests drew from them.

A request would take from a dozen meters and a hold, and give most of it back a moment later. Where
requests are frequent and there is plenty of everything, as much as several of them may use is taken
at once, and they draw it from a `Till`. See docs/adr/0023.
"""

from collections.abc import Callable, Container

from penstock.contract.money import HoldUse
from penstock.gateway.claim import Claim, cap_line, lines_of
from penstock.gateway.demand import largest_of
from penstock.gateway.limits import TILL_FEWEST, TILL_MOST, TILL_RESTS_MS, TOLD_MS
from penstock.gateway.money import Account, Purse
from penstock.gateway.quota import Terms
from penstock.gateway.till import Till
from penstock.limits.allowances import Allowance, Allowances, Costs, Held
from penstock.limits.prices import reduced_factors
from penstock.limits.rules import STEP_MS


class Teller:
    """All tills of a worker.

    Args:
        allowances: What they are filled from.
        purse: The same for money.
        time_at: Returns the authority's time at a moment of the monotonic clock.
    """

    def __init__(self, allowances: Allowances, purse: Purse, time_at: Callable[[int], int]) -> None:
        """See the class."""
        self._allowances = allowances
        self._purse = purse
        self._time_at = time_at
        self._active: dict[str, dict[Till, None]] = {}
        """By organization: those that have something to settle, now or later."""

    def fill(self, terms: Terms, kind: int, most: int, now_ms: int) -> Till | None:
        """Return a till with units for requests of a kind.

        Args:
            terms: What decides about them.
            kind: Which, see `kind_of`; 0 for odd requests.
            most: Output tokens that their deployment gives at most.
            now_ms: The time.

        Returns:
            None when each has to take what it needs itself: they are odd, or rare, or somewhere
            there is not plenty.
        """
        if kind == 0 or len(terms.accounts) > 1 or terms.unpriced is not None:
            return None
        before = terms.tills.get(kind)
        if before is None or before.most != most:
            terms.tills[kind] = before = Till(terms, most)
        if now_ms < before.rests_until_ms:
            return None
        idle = before.units
        if idle:
            self._close(before)
        late_ms = now_ms - before.until_ms
        size = 1
        if late_ms < 0:  # they were drawn in time: more would have been
            size = min(TILL_MOST, before.size * 2)
        elif late_ms < TOLD_MS:
            size = max(1, before.size - idle)
        before.size, before.until_ms = size, now_ms + TOLD_MS
        if size < TILL_FEWEST:
            return None
        till = self._take(terms, kind, most, size, now_ms)
        if till is None:
            before.rests_until_ms = now_ms + TILL_RESTS_MS
            return None
        terms.tills[kind] = till
        return till

    def settle(self, till: Till) -> None:
        """Settle meters and hold with what requests used since it was done last."""
        count, till.taken = till.taken - till.open, till.open
        if not count:
            return
        terms, inputs, outputs = till.terms, till.inputs, till.outputs
        held = Held(terms.meters, _times(till.costs, count), till.at_ms)
        used = (count - till.unsent, inputs, outputs, inputs + outputs, 0)
        self._allowances.settle(held, used)
        if till.hold is not None:
            self._purse.put_back(till.hold, till.part * count - till.spent)
        till.unsent = till.inputs = till.outputs = till.spent = 0
        if not till.open:
            tills = self._active[terms.organization]
            del tills[till]
            if not tills:
                del self._active[terms.organization]

    def give_back(self, organization: str, wanted: Container[Allowance | Account]) -> bool:
        """Settle all that an organization's tills have of what somebody lacks; False for nothing.

        What is drawn from them already is settled as soon as it ends.
        """
        is_any = False
        for till in list(self._active.get(organization, ())):
            terms = till.terms
            if any(each in wanted for each in (*terms.meters, *terms.accounts)):
                is_any |= till.taken > till.open or till.units > 0
                till.is_prompt = True
                self._close(till)
        return is_any

    def sweep(self, now_ms: int) -> None:
        """Settle what has ended, and give back units whose time is up."""
        for tills in list(self._active.values()):
            for till in list(tills):
                if now_ms >= till.until_ms:
                    self._close(till)
                else:
                    self.settle(till)

    def close(self) -> None:
        """Give back all units that nobody drew."""
        for tills in list(self._active.values()):
            for till in list(tills):
                self._close(till)

    def _close(self, till: Till) -> None:
        till.open -= till.units
        till.unsent += till.units
        till.units = 0
        self.settle(till)

    def _take(self, terms: Terms, kind: int, most: int, size: int, now_ms: int) -> Till | None:
        """Take as much as several requests of a kind may, `size` of them at most, or nothing."""
        lines, is_plenty = lines_of(terms)
        if not is_plenty:
            return None
        demand = largest_of(kind)
        claim = Claim(None, terms, demand, most)
        at_ms = self._time_at(now_ms)
        size = self._allowances.count_plenty(terms.meters, claim.costs, size, at_ms)
        hold, part = None, sum(claim.amounts)
        if part:
            hold = self._purse.find_hold(terms.accounts[0], now_ms)
            size = 0 if hold is None else min(size, hold.left // part)
        if size < TILL_FEWEST:
            return None
        held = self._allowances.take(terms.meters, _times(claim.costs, size), at_ms)
        if held is None:
            return None
        till = Till(terms, most)
        until_ms = now_ms + min(TOLD_MS, STEP_MS - at_ms % STEP_MS)
        if hold is not None:
            self._purse.take_of(hold, part * size, now_ms)
            until_ms = min(until_ms, hold.until_ms)
            till.hold, till.part, till.factors = hold, part, reduced_factors(terms.prices[0])
            till.hold_uses = (HoldUse(hold.id, part),)
        till.costs, till.at_ms, till.until_ms = claim.costs, held.at_ms, until_ms
        till.size = till.units = till.open = till.taken = size
        till.lines = lines
        if demand.cap is None and claim.written_cap is not None:
            till.cap = claim.written_cap
            till.lines += cap_line(till.cap)
        self._active.setdefault(terms.organization, {})[till] = None
        return till


def _times(costs: Costs, count: int) -> Costs:
    requests, inputs, outputs, tokens, flying = costs
    return requests * count, inputs * count, outputs * count, tokens * count, flying * count
