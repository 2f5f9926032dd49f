"""Random identifiers of letters and digits: safe in URLs, one word to a double click."""

import secrets
from collections.abc import Callable

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_CHARS = 12
"""71 bits: with a thousand million ids of a kind, two are equal once in 5,000 such worlds."""

Choose = Callable[[str], str]
"""Returns one character of a text; `secrets.choice` outside of tests."""


def random_text(length: int, choose: Choose = secrets.choice) -> str:
    """Return that many random characters of the alphabet."""
    return "".join(choose(ALPHABET) for _ in range(length))


def create_id(prefix: str, choose: Choose = secrets.choice) -> str:
    """Return a new id of a kind of object, e.g. `org_4fZk9QmT0aXb`."""
    return f"{prefix}_{random_text(ID_CHARS, choose)}"
