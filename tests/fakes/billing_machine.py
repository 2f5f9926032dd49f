"""Usage, late usage, corrections, credit and invoices in any order, with crashes; and a model."""

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule
from tests.fakes.billing_rig import AUGUST_US, DAY_US, BillingRig, amounts_of, price_of, use
from tests.fakes.database_machine import DatabaseMachine
from tests.fakes.ingest_machine import CrashError, CrashingConnection
from tests.fakes.ledger_rig import add_grant
from tests.fakes.organizations import ALL, actor, create_organization

from penstock.billing import service
from penstock.billing.errors import INVOICE_EMPTY, INVOICE_EXISTS
from penstock.billing.model import Invoice
from penstock.billing.rules import minor_unit
from penstock.control.ratings import post_differences
from penstock.kit.errors import ErrorCode, PenstockError
from penstock.limits.prices import ATTO
from penstock.rating.corrections import correct_usage
from penstock.rating.model import NewCorrection

MONTHS = {
    "2026-07": AUGUST_US - 31 * DAY_US,
    "2026-08": AUGUST_US,
    "2026-09": AUGUST_US + 31 * DAY_US,
}
"""When they begin."""
NOVEMBER_US = AUGUST_US + 92 * DAY_US
HOUR_US = 3_600 * 10**6
_names = count(1)


@dataclass
class Charge:
    """What was charged for one event, or given back."""

    event_id: str
    month: str
    amount: Fraction
    invoice_id: str | None = None
    """The one that it is on and that is not taken back."""


@dataclass
class Issued:
    """An invoice as it was issued."""

    invoice: Invoice
    month: str
    is_open: bool = True
    charges: list[Charge] = field(default_factory=list)


class BillingMachine(DatabaseMachine):
    """One organization that pays afterwards."""

    @initialize()
    def begin(self) -> None:
        """Somebody is known who sends invoices, and somebody who gets them."""
        self.rig = BillingRig(self.database)
        self.now_us = NOVEMBER_US
        self.charges: list[Charge] = []
        self.issued: list[Issued] = []
        self.voidable: list[str] = []
        name = f"billed-{next(_names)}"
        self.owner = self.run(create_organization(self.database, name)).id
        self.run(self.rig.set_issuer())
        self.run(self.rig.set_recipient(self.owner))

    @rule(month=st.sampled_from(sorted(MONTHS)), tokens=st.integers(0, 9_999_999))
    def use_a_model(self, month: str, tokens: int) -> None:
        """Something is used, maybe long ago."""
        event = use(self.owner, MONTHS[month], input_tokens=tokens, output_tokens=tokens % 7)
        self.run(self.rig.deliver(event, recorded_at_us=self._later()))
        if tokens:
            self.charges.append(Charge(event.event_id, month, price_of(event)))
        self.voidable.append(event.event_id)

    @rule(cents=st.integers(1, 500), kind=st.sampled_from(("promo", "paid")))
    def grant(self, cents: int, kind: Any) -> None:
        """Credit is given that pays from then on."""
        at_us = MONTHS["2026-07"]
        name = f"crd_{self.owner}_{self._later()}"
        grant = add_grant(
            self.database,
            name,
            f"{cents // 100}.{cents % 100:02}",
            organization=self.owner,
            kind=kind,
            created_at_us=at_us,
        )
        self.run(grant)

    @rule(pick=st.integers(0, 99))
    def take_back(self, pick: int) -> None:
        """An event turns out never to have been."""
        if not self.voidable:
            return
        event_id = self.voidable.pop(pick % len(self.voidable))
        self.run(self._correct(event_id, self._later()))
        known = [one for one in self.charges if one.event_id == event_id]
        self.charges += [Charge("", one.month, -one.amount) for one in known]

    async def _correct(self, event_id: str, now_us: int) -> None:
        async with self.database.write(ALL) as session:
            new = NewCorrection(event_id=event_id, quantities=None, reason="", reference="")
            await correct_usage(session, actor(now_us), new, post_differences)

    @rule(month=st.sampled_from(sorted(MONTHS)), crash=st.none() | st.integers(0, 40))
    def bill(self, month: str, crash: int | None) -> None:
        """A month is billed; maybe everything ends in the middle, and nothing of it happened."""
        at_us = self._later()
        is_taken = any(one.month == month and one.is_open for one in self.issued)
        free = [one for one in self.charges if one.invoice_id is None and one.month <= month]
        refused: ErrorCode | None = None
        try:
            draft = self.run(self.rig.draft(self.owner, month, at_us=at_us))
            assert not is_taken
            invoice = self.run(self._finalize(draft.id, at_us, crash))
        except CrashError:
            return
        except PenstockError as error:
            refused = error.error
        if refused is not None:
            assert refused == (INVOICE_EXISTS if is_taken else INVOICE_EMPTY)
            assert is_taken or not free or any(one.amount < 0 for one in free)
            return
        assert free
        for one in free:
            one.invoice_id = invoice.id
        self.issued.append(Issued(invoice, month, charges=free))

    async def _finalize(self, invoice_id: str, at_us: int, crash: int | None) -> Invoice:
        async with self.database.write(ALL) as session:
            if crash is not None:
                session._connection = CrashingConnection(session._connection, crash)  # type: ignore[assignment]
            return await service.finalize_invoice(session, actor(at_us), invoice_id, grace_s=0)

    @rule(pick=st.integers(0, 99), how=st.sampled_from(("pay", "void")))
    def settle(self, pick: int, how: str) -> None:
        """An invoice is paid, or taken back; those over nothing nobody pays."""
        invoices = [one for one in self.issued if one.is_open and one.invoice.gross]
        if not invoices:
            return
        one = invoices[pick % len(invoices)]
        if one.invoice.paid_at_us is not None:
            return
        if how == "pay":
            one.invoice = self.run(self.rig.pay(one.invoice.id))
            return
        note = self.run(self.rig.void(one.invoice.id, self._later()))
        one.is_open = False
        for charge in one.charges:
            charge.invoice_id = None
        self.issued.append(Issued(note, one.month, is_open=False))

    @invariant()
    def invoices_are_what_they_were(self) -> None:
        """What was issued says what it said, exactly what was charged, and adds up (I24, I25)."""
        for one in getattr(self, "issued", ()):
            found, said = self.run(self.rig.read(one.invoice.id))
            assert (found.number, found.content) == (one.invoice.number, one.invoice.content)
            if one.charges:
                assert sum(amounts_of(said)) == sum(charge.amount for charge in one.charges)
            _expect_sums(said)

    def teardown(self) -> None:
        """No check finds anything, of numbers and of charges on invoices (I26, I27)."""
        assert self.run(self.rig.find_wrong()) == set()

    def _later(self) -> int:
        # Longer than any transaction takes: `verify` tells what was left out from what came late.
        self.now_us += 2 * HOUR_US
        return self.now_us


def _expect_sums(said: dict[str, Any]) -> None:
    lines = sum(Fraction(line["net"]) for line in said["lines"])
    net, tax, gross = (Fraction(said[name]) for name in ("net", "tax", "gross"))
    assert lines - Fraction(said["credit"]["net"]) == net
    assert net + tax == gross
    assert Fraction(said["rounding"]) == net - Fraction(said["accrued"])
    half = Fraction(minor_unit("EUR"), 2 * ATTO)
    for line in said["lines"]:
        assert abs(Fraction(line["net"]) - Fraction(line["amount"])) <= half
