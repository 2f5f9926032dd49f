"""Ids that follow from what they name: what is said twice has one id, and is found again."""

import hashlib

_HEX_CHARS = 24


def derive_id(prefix: str, *parts: str) -> str:
    """Return the id of a kind of object that these parts make.

    >>> derive_id("cor", "ab", "c") == derive_id("cor", "a", "bc")
    False
    """
    # A length before each part: no two lists of parts read alike.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return f"{prefix}_{hashlib.sha256(text.encode()).hexdigest()[:_HEX_CHARS]}"
