"""Decimals in texts: exact, and nothing is guessed at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kit.decimals import format_decimal, parse_decimal


@given(number=st.integers(0, 10**27 - 1), places=st.integers(0, 18))
def test_what_is_written_is_read(number: int, places: int) -> None:
    """Any amount comes back as it was, in as many decimals as it needs."""
    text = format_decimal(number, places)
    if len(text.partition(".")[0]) <= 18:
        assert parse_decimal(text, places) == number
    assert not text.endswith(".")
    assert "." not in text or not text.endswith("0")
    assert format_decimal(-number, places) == (f"-{text}" if number else text)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", ".5", "5.", "-1", "+1", "1e3", " 1", "1 ", "1,5", "1_000", "0x1", "NaN"),
        *("Infinity", "\u0661", "1.\u0665", "1" * 19, "0." + "1" * 19, "1.5\n"),
    ],
)
def test_what_is_no_plain_decimal_is_refused(text: str) -> None:
    """No sign, exponent, space or other digit; nothing that is too long."""
    assert parse_decimal(text, 18) is None


def test_more_places_than_there_are_is_refused() -> None:
    """Nothing is rounded; zeros at the end say nothing."""
    assert parse_decimal("0.0000000001", 9) is None
    assert parse_decimal("0.1000000000", 9) == 100_000_000
