"""Exact decimals: whole numbers of a small unit inside, plain decimal text outside."""

import re

_DECIMAL = re.compile(r"(?P<whole>[0-9]{1,18})(?:\.(?P<part>[0-9]{1,18}))?")


def parse_decimal(text: str, places: int) -> int | None:
    """Return a decimal as a whole number of its last place; None when it is none.

    No sign, no exponent, no space: what is not written plainly is not guessed at.

    Args:
        text: E.g. `0.05`.
        places: Most decimals, 0..18; more of them are refused, never rounded.

    >>> parse_decimal("0.05", 9)
    50000000
    >>> parse_decimal("1e3", 9) is parse_decimal("-1", 9) is parse_decimal("0.001", 2) is None
    True
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        return None
    part = (match["part"] or "").rstrip("0")
    if len(part) > places:
        return None
    scale: int = 10**places
    return int(match["whole"]) * scale + int(part.ljust(places, "0") or 0)


def format_decimal(number: int, places: int) -> str:
    """Return a whole number of the last place as a decimal, without zeros that say nothing.

    >>> format_decimal(50_000_000, 9), format_decimal(-7, 1), format_decimal(3_000, 3)
    ('0.05', '-0.7', '3')
    """
    whole, part = divmod(abs(number), 10**places)
    text = f"{whole}.{part:0{places}}".rstrip("0").rstrip(".") if part else str(whole)
    return f"-{text}" if number < 0 else text
