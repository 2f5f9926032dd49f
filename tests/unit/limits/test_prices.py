"""What tokens are charged: exact, and never more than the worst case."""

from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from penstock.contract.money import NANO, PRICE_SCALE, Price
from penstock.limits.prices import (
    ATTO,
    exact_charge,
    join_large,
    price_at,
    split_large,
    to_nano,
    worst_charge,
)
from penstock.storage.bulk import HIGH, REST

FIGURES = st.integers(0, 10**18)
TOKENS = st.integers(0, 10**9)


def _price(figures: tuple[int, int, int], valid_from_s: int = 0, **members: Any) -> Price:
    return Price("EUR", valid_from_s, *figures, **members)


@given(
    figures=st.tuples(FIGURES, FIGURES, FIGURES),
    tokens=st.tuples(TOKENS, TOKENS, TOKENS),
    request=st.just(0) | FIGURES,
)
def test_a_charge_is_exact_and_within_the_worst_case(
    figures: tuple[int, int, int], tokens: tuple[int, int, int], request: int
) -> None:
    """It is tokens times prices, to the last decimal; the worst case is the next nano-unit."""
    price = _price(figures, request=request)
    total, cached, output = tokens
    cached_part = min(cached, total)
    amount = (
        (total - cached_part) * Fraction(price.input, PRICE_SCALE)
        + cached_part * Fraction(price.cached_input, PRICE_SCALE)
        + output * Fraction(price.output, PRICE_SCALE)
    ) / 1_000_000 + Fraction(request, PRICE_SCALE)
    charge = exact_charge(price, total, cached, output)
    assert Fraction(charge, ATTO) == amount
    worst = worst_charge(price, total, output)
    assert Fraction(worst, NANO) >= amount
    assert to_nano(charge) <= worst
    if cached_part == 0 and price.cached_input <= price.input:
        assert worst == to_nano(charge)


@given(st.lists(st.integers(-(10**40), 10**40), max_size=5))
def test_three_columns_hold_any_amount(amounts: list[int]) -> None:
    """Whatever its size, an amount is in three small columns, and a sum in those of theirs."""
    columns = [split_large(amount) for amount in amounts]
    assert all(abs(nano) < HIGH and 0 <= rest < REST for _, nano, rest in columns)
    assert join_large(*(sum(column) for column in zip((0, 0, 0), *columns, strict=True))) == sum(
        amounts
    )


def test_the_price_that_began_last_holds() -> None:
    """Of one currency; before the first there is none."""
    prices = [_price((3, 3, 3), 30), _price((1, 1, 1), 10), Price("USD", 0, 9, 9, 9)]
    assert price_at(prices, "EUR", 9) is None
    assert price_at(prices, "EUR", 10) == prices[1]
    assert price_at(prices, "EUR", 29) == prices[1]
    assert price_at(prices, "EUR", 30) == prices[0]
    assert price_at(prices, "CHF", 30) is None
    prices.append(_price((0, 0, 0), 40, is_none=True))
    assert price_at(prices, "EUR", 39) == prices[0]
    assert price_at(prices, "EUR", 40) is None
