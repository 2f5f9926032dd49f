"""A prepaid organization under whatever happens to its money, beside a model in fractions."""

from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from tests.fakes.database_machine import DatabaseMachine
from tests.fakes.organizations import NOW_US
from tests.fakes.wallet_rig import WalletRig, open_rig

from penstock.contract.money import NANO
from penstock.ledger.prepaying import LAPSE_US
from penstock.limits.budget_model import Life
from penstock.limits.budget_rules import EXPIRY_S
from penstock.limits.prices import ATTO

Value = TypeVar("Value")
_NUMBERS = count()

PRICE = Fraction(1_000_000_000_003, 10**18)
"""Of an input token."""
HOUR_US = 3_600_000_000
MICRO = NANO // 1_000
"""A token costs a little more than a thousand of these, so amounts of a few euros are close."""
EUROS = st.integers(1, 6)
TOKENS = st.integers(1, 3_000_000)


@dataclass
class OpenHold:
    """What a worker may spend of the wallet, as it reckons."""

    id: str
    life: Life
    left: int


class WalletMachine(DatabaseMachine):
    """One organization. The model adds up what is in its wallet, and why something is missing."""

    def __init__(self) -> None:
        """See the class."""
        super().__init__()
        self.now_us = NOW_US
        self.number = 0
        self.paid = Fraction(0)
        """Top-ups and grants."""
        self.charged = Fraction(0)
        self.reasons = Fraction(0)
        """All that may have been taken beyond what was free."""
        self.is_prepaid = True
        self.holds: list[OpenHold] = []
        self.stored: list[tuple[str, Fraction]] = []
        """Events that can be corrected, and what each cost."""

    @initialize()
    def begin(self) -> None:
        """A prepaid organization with nothing in its wallet."""
        self.rig: WalletRig = self.run(open_rig(self.database, f"acme-{next(_NUMBERS)}"))
        self.run(self.rig.set_terms("prepaid"))

    @rule(euros=EUROS)
    def fill(self, euros: int) -> None:
        """The wallet is filled."""
        self.run(self.rig.top_up(euros, self.now_us))
        self.paid += euros

    @rule(euros=EUROS, kind=st.sampled_from(["promo", "paid"]), hours=st.none() | st.integers(1, 5))
    def grant(self, euros: int, kind: Any, hours: int | None) -> None:
        """Credit is given, for ever or for a while."""
        ends_us = None if hours is None else self.now_us + hours * HOUR_US
        self.run(self.rig.grant(euros, self.now_us, kind=kind, expires_at_us=ends_us))
        self.paid += euros

    @rule(epoch=st.integers(1, 2), least=st.integers(1, 3 * NANO), more=st.integers(0, 3 * NANO))
    def hold(self, epoch: int, least: int, more: int) -> None:
        """A worker asks for something: it never gets what is not there or about to end."""
        wallet = self.run(self.rig.find_wallet())
        if wallet is None:
            return
        free = self.run(self.rig.free_by_books(self.now_us + LAPSE_US))
        life = Life("node-1/0", epoch)
        answer = self.run(self.rig.ask(wallet, least, least + more, life, self.now_us))
        if answer.holds is None:
            assert free * NANO < least
            return
        (made,) = answer.holds
        assert least <= made.amount <= free * NANO
        self.holds.append(OpenHold(made.id, life, made.amount))

    @rule(place=st.integers(0, 9), tokens=TOKENS, late_hours=st.integers(0, 2), again=st.booleans())
    def use(self, place: int, tokens: int, late_hours: int, *, again: bool) -> None:
        """Usage arrives, perhaps late or twice: held for, or not at all, or not enough."""
        cost = tokens * PRICE
        hold = self.holds[place] if place < len(self.holds) else None
        amount = 0 if hold is None else min(hold.left, -(-cost * NANO // 1))
        if hold is not None:
            hold.left -= amount
        self.reasons += max(Fraction(0), cost - Fraction(amount, NANO))
        self.number += 1
        event = self.rig.usage(
            self.number,
            tokens,
            hold=None if hold is None else (hold.id, int(amount)),
            at_us=self.now_us - late_hours * HOUR_US,
        )
        life = Life("node-1/0", 1) if hold is None else hold.life
        for _ in range(1 + again):
            self.run(self.rig.deliver(event, life=life, now_us=self.now_us))
        self.charged += cost
        self.stored.append((event.event_id, cost))

    @rule(place=st.integers(0, 5), tokens=st.integers(-2_000_000, 2_000_000).filter(bool))
    def correct(self, place: int, tokens: int) -> None:
        """Usage was counted wrong, or does not count at all."""
        if place >= len(self.stored):
            return
        event_id, cost = self.stored.pop(place)
        delta = max(tokens * PRICE, -cost)
        self.run(self.rig.correct(event_id, int(delta / PRICE), self._tick()))
        self.charged += delta
        self.reasons += max(Fraction(0), delta)

    @rule(minutes=st.integers(1, 200))
    def pass_time(self, minutes: int) -> None:
        """Time passes, and grants end."""
        self.now_us += minutes * 60_000_000
        before = self.run(self.rig.amount_of("breakage"))
        self.run(self.rig.expire_grants(self.now_us))
        # What requests held on it is missing then.
        self.reasons += before - self.run(self.rig.amount_of("breakage"))

    @rule()
    def fall_silent(self) -> None:
        """Workers gave no sign for a day: what they hold is free, what they tell later counts."""
        self.now_us += EXPIRY_S * 1_000_000 + 1
        self.run(self.rig.expire(self.now_us))
        for one in self.holds:
            one.left = 0

    @rule()
    def change_terms(self) -> None:
        """It pays afterwards from now on, or ahead again."""
        self.is_prepaid = not self.is_prepaid
        if self.is_prepaid:
            # What is missing when it begins to count.
            self.reasons += max(Fraction(0), -self.run(self.rig.amount_in_wallet()))
        self.run(self.rig.set_terms("prepaid" if self.is_prepaid else "postpaid"))
        self.holds.clear()

    @invariant()
    def wallet_is_what_the_books_say(self) -> None:
        """Its balance is what was paid less what was used or ended, and nobody else's hold."""
        self.run(self.rig.check())
        inside = self.run(self.rig.amount_in_wallet())
        accrued = self.run(self.rig.amount_of("accrued_usage"))
        ended = -self.run(self.rig.amount_of("breakage"))
        assert inside == self.paid - self.charged - ended + accrued
        wallet = self.run(self.rig.find_wallet())
        assert (wallet is not None) == self.is_prepaid
        if wallet is not None:
            window = self.run(self.rig.window(wallet))
            assert Fraction(window.balance_atto, ATTO) == inside
            assert -inside <= self.reasons

    def teardown(self) -> None:
        """All checks of the books find nothing."""
        assert self.run(self.rig.violations()) == set()
        super().teardown()

    def _tick(self) -> int:
        self.number += 1
        return self.now_us + self.number
