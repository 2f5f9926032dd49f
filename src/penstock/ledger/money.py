"""Amounts as people read them: exact decimals, and rounded ones that say what was rounded."""

from dataclasses import dataclass

from penstock.kit.decimals import format_decimal

PLACES = 18
"""Decimals of an atto-unit."""
MAX_AMOUNT_ATTO = 10**9 * 10**PLACES
"""Most that is put into a wallet, or granted, at once."""
_DEFAULT_DIGITS = 2
_DIGITS = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF"), 0),
    **dict.fromkeys(("UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
"""Decimals that a currency is paid in (ISO 4217), where they are not two."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An amount as it is shown beside the exact one."""

    amount: str
    shown: str
    """Rounded to what the currency is paid in; halves away from zero."""
    rounding: str
    """Shown less exact."""


def show_exact(atto: int) -> str:
    """Return an amount as a decimal.

    >>> show_exact(1_500_000_000_000_000_001)
    '1.500000000000000001'
    """
    return format_decimal(atto, PLACES)


def digits_of(currency: str) -> int:
    """Return how many decimals a currency is paid in."""
    return _DIGITS.get(currency, _DEFAULT_DIGITS)


def round_half_up(number: int, unit: int) -> int:
    """Return how many units a number is, rounded; halves away from zero.

    >>> round_half_up(15, 10), round_half_up(-15, 10), round_half_up(14, 10)
    (2, -2, 1)
    """
    whole = (2 * abs(number) + unit) // (2 * unit)
    return whole if number >= 0 else -whole


def show(atto: int, currency: str) -> Shown:
    """Return an amount rounded for a currency, and by how much.

    >>> show(-1_005_000_000_000_000_000, "EUR")
    Shown(amount='-1.005', shown='-1.01', rounding='-0.005')
    """
    digits = digits_of(currency)
    unit = 10 ** (PLACES - digits)
    rounded = round_half_up(atto, unit)
    return Shown(
        show_exact(atto), format_decimal(rounded, digits), show_exact(rounded * unit - atto)
    )
