"""What an invoice comes to. Pure, exact: rounding happens at its lines and nowhere before."""

from collections.abc import Iterable

from penstock.billing.model import Bill, Line, Paid, Usage, Vat
from penstock.ledger.money import PLACES, digits_of, round_half_up

_WHOLE_BPS = 10_000


def minor_unit(currency: str) -> int:
    """Return the smallest amount that a currency is paid in, in atto-units."""
    return int(10 ** (PLACES - digits_of(currency)))


def reckon(currency: str, usages: Iterable[Usage], paid: Paid, vat: Vat) -> Bill:
    """Return what an invoice comes to.

    Each line is rounded for itself, and what is taxed is what the rounded lines add up to. Where
    credit paid for something, it takes what is left of the lines beyond the rounded rest: so
    nothing is due for what credit paid whole, however many lines it has.

    Args:
        currency: Of all amounts.
        usages: What was charged.
        paid: By whom; adds up to the same.
        vat: How the organization is taxed.
    """
    unit = minor_unit(currency)
    lines = tuple(
        Line(one, round_half_up(one.amount_atto, unit))
        for one in sorted(usages, key=lambda one: (one.month, one.project, one.model))
    )
    net = total = sum(line.net for line in lines)
    if paid.promo_atto or paid.prepaid_atto:
        net = round_half_up(paid.accrued_atto, unit)
    return Bill(
        currency=currency,
        lines=lines,
        paid=paid,
        credit=total - net,
        net=net,
        vat=vat,
        tax=round_half_up(net * vat.rate_bps, _WHOLE_BPS),
        rounding_atto=net * unit - paid.accrued_atto,
    )


def is_balanced(bill: Bill) -> bool:
    """Return whether what lines were charged is what was booked on accounts."""
    paid = bill.paid
    return sum(line.usage.amount_atto for line in bill.lines) == (
        paid.promo_atto + paid.prepaid_atto + paid.accrued_atto
    )
