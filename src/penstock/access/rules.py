"""The form of an API key and its keyed hash: pure, no clock, no I/O.

`ps_live_<id: 12 base62>_<secret: 32 base62><crc: 6 base62>`. The checksum lets secret scanners
and typing errors be told from real keys without a look-up.
"""

import hmac
import re
import secrets
import zlib

from penstock.kit.base62 import ALPHABET, Choose, random_text

_SEALED = re.compile(r"ps_(?P<kind>[a-z]{3,4})_(?P<id>[0-9A-Za-z]{12})_[0-9A-Za-z]{38}")
_CALLERS = ("live", "test")


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = []
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def format_key(key_id: str, secret: str, *, is_live: bool = True) -> str:
    """Return the key that the caller is shown once.

    Args:
        key_id: 12 base62 characters.
        secret: 32 base62 characters.
        is_live: Whether it begins with `ps_live_` or `ps_test_`.
    """
    return _seal("live" if is_live else "test", key_id, secret)


def _seal(kind: str, name: str, secret: str) -> str:
    body = f"ps_{kind}_{name}_{secret}"
    return body + _checksum(body)


def find_key_id(key: str) -> str | None:
    """Return the id inside a well-formed key, or None when form or checksum is wrong."""
    return _find_id(key, _CALLERS)


def seal_secret(kind: str, name: str, choose: Choose = secrets.choice) -> str:
    """Return a new secret in the form of keys, for others than callers.

    Args:
        kind: What stands in the place of `live`.
        name: 12 base62 characters, as `create_key_id` makes.
        choose: Where chance comes from.
    """
    return _seal(kind, name, random_text(32, choose))


def find_sealed_id(kind: str, text: str) -> str | None:
    """Return the name inside a well-formed secret of that kind; None for everything else."""
    return _find_id(text, (kind,))


def _find_id(text: str, kinds: tuple[str, ...]) -> str | None:
    match = _SEALED.fullmatch(text)
    if match is None or match["kind"] not in kinds or _checksum(text[:-6]) != text[-6:]:
        return None
    return match["id"]


def create_key_id(choose: Choose = secrets.choice) -> str:
    """Return a new random id of a key."""
    return random_text(12, choose)


def create_key(*, is_live: bool = True, choose: Choose = secrets.choice) -> str:
    """Return a new random key."""
    return format_key(create_key_id(choose), random_text(32, choose), is_live=is_live)


def replace_secret(key_id: str, *, is_live: bool = True, choose: Choose = secrets.choice) -> str:
    """Return a key with the same id and a new random secret."""
    return format_key(key_id, random_text(32, choose), is_live=is_live)


def key_mac(pepper: bytes, key: bytes) -> bytes:
    """Return the keyed hash (HMAC-SHA256, 32 bytes) that stands for a key everywhere else.

    Looking a caller's key up by this hash tells an attacker nothing by its timing: without the
    pepper nobody can choose its bits.
    """
    return hmac.digest(pepper, key, "sha256")
