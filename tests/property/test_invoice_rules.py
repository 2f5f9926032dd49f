"""What invoices come to, beside a model in fractions: I24."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from penstock.billing.model import Paid, Usage, Vat
from penstock.billing.rules import is_balanced, minor_unit, reckon
from penstock.ledger.money import digits_of
from penstock.limits.prices import ATTO

AMOUNTS = st.one_of(
    st.integers(-(10**20), 10**22),
    # Halves of a cent and their neighbours.
    st.builds(lambda half, beside: half * 5 * 10**15 + beside, st.integers(-99, 999),
              st.integers(-1, 1)),
)  # fmt: skip
VATS = st.one_of(
    st.builds(lambda rate: Vat(category="S", rate_bps=rate), st.integers(1, 10_000)),
    st.just(Vat(category="AE", rate_bps=0, reason="reverse charge")),
)


def _usage(place: int, amount_atto: int) -> Usage:
    return Usage(project=f"p{place % 3}", model=f"m{place}", month="2026-05",
                 amount_atto=amount_atto)  # fmt: skip


@st.composite
def _paid(draw: st.DrawFn, total: int) -> Paid:
    if draw(st.booleans()):
        return Paid(accrued_atto=total)
    promo = draw(st.integers(min(total, 0), max(total, 0)))
    accrued = draw(st.sampled_from([0, (total - promo) // 3]))
    return Paid(promo, total - promo - accrued, accrued)


def _half_up(amount: Fraction, digits: int) -> Fraction:
    scaled = abs(amount) * 10**digits
    whole = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return Fraction(whole if amount >= 0 else -whole, 10**digits)


@given(st.data(), st.lists(AMOUNTS, min_size=1, max_size=8), VATS,
       st.sampled_from(["EUR", "JPY", "KWD"]))  # fmt: skip
def test_an_invoice_adds_up(data: st.DataObject, amounts: list[int], vat: Vat, name: str) -> None:
    """Lines less credit are net, net and tax gross; what rounding took is told to the last bit."""
    paid = data.draw(_paid(sum(amounts)))
    bill = reckon(name, [_usage(*one) for one in enumerate(amounts)], paid, vat)
    assert is_balanced(bill)
    digits = digits_of(name)
    minor = Fraction(1, 10**digits)
    for line in bill.lines:
        assert line.net * minor == _half_up(Fraction(line.usage.amount_atto, ATTO), digits)
    assert sum(line.net for line in bill.lines) - bill.credit == bill.net
    assert bill.tax * minor == _half_up(bill.net * minor * Fraction(vat.rate_bps, 10_000), digits)
    assert bill.gross == bill.net + bill.tax
    exact = Fraction(paid.accrued_atto, ATTO)
    assert Fraction(bill.rounding_atto, ATTO) == bill.net * minor - exact
    # Half a unit a line; with credit, which takes the rest, half a unit in all.
    bound = 1 if paid.promo_atto or paid.prepaid_atto else len(amounts)
    assert abs(bill.rounding_atto) <= bound * minor_unit(name) // 2


@given(st.lists(AMOUNTS, min_size=1, max_size=8), VATS)
def test_nothing_is_due_for_what_credit_paid(amounts: list[int], vat: Vat) -> None:
    """An organization that paid before gets an invoice over nothing, however lines are rounded."""
    usages = [_usage(*one) for one in enumerate(amounts)]
    total = sum(amounts)
    bill = reckon("EUR", usages, Paid(prepaid_atto=total) if total else Paid(1, -1, 0), vat)
    assert (bill.net, bill.tax, bill.gross, bill.rounding_atto) == (0, 0, 0, 0)
