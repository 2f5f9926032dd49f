"""Envelope encryption of secrets that are kept: AES-256-GCM under data keys.

A data key encrypts secrets, a key-encryption key (`kit.kek`) encrypts data keys. What a ciphertext
belongs to is bound into it as associated data: in another place it does not open.
"""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16

RandomBytes: TypeAlias = Callable[[int], bytes]
"""Returns that many random bytes; `secrets.token_bytes` outside tests."""

_ABSENT = b"\x00"
_PRESENT = b"\x01"


class SecretBytes:
    """Bytes that show themselves only to who asks for them by name.

    They are not in `repr`, `str`, a log line or a traceback's arguments, compare in constant time,
    and refuse to be pickled or copied.

    Args:
        value: The secret.

    >>> SecretBytes(b"hunter2")
    SecretBytes(...)
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        """See the class."""
        self._value = value

    def reveal(self) -> bytes:
        """Return the secret. Whoever calls this answers for where it goes."""
        return self._value

    def __repr__(self) -> str:
        return "SecretBytes(...)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretBytes):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a hash would be a fingerprint of the secret

    def __reduce__(self) -> NoReturn:
        message = "a secret is not pickled or copied"
        raise TypeError(message)


class DecryptionError(Exception):
    """A ciphertext does not open.

    It was altered, or it belongs to another key, or to something else than what is asked for.
    Which of these, nobody can tell.
    """

    def __init__(self) -> None:
        """See the class."""
        super().__init__("the ciphertext was altered, or belongs to another key or another owner")


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted secret."""

    nonce: bytes
    """12 bytes, never used twice with one key."""
    ciphertext: bytes
    """As long as the secret, and a tag of 16 bytes."""


def bind(purpose: str, *parts: str | None) -> bytes:
    """Return associated data that stands for exactly these parts.

    Different parts never give the same bytes, whatever characters they hold; None is another part
    than every text.

    Args:
        purpose: What the ciphertext is for, so that ciphertexts of one kind never pass as another.
        parts: What it belongs to.

    >>> bind("p", "ab", "c") == bind("p", "a", "bc")
    False
    """
    encoded = [b"penstock"]
    for part in (purpose, *parts):
        if part is None:
            encoded.append(_ABSENT)
        else:
            text = part.encode()
            encoded.append(_PRESENT + len(text).to_bytes(4, "big") + text)
    return b"".join(encoded)


def generate_key(random_bytes: RandomBytes = secrets.token_bytes) -> SecretBytes:
    """Return a new random key of 256 bits."""
    return SecretBytes(random_bytes(KEY_BYTES))


def seal(
    key: SecretBytes,
    secret: SecretBytes,
    associated: bytes,
    random_bytes: RandomBytes = secrets.token_bytes,
) -> Sealed:
    """Encrypt a secret and bind it to what it belongs to.

    Args:
        key: 32 bytes. One key seals at most 2**32 secrets: nonces are random, and beyond that
            two of them may be the same.
        secret: What to encrypt.
        associated: From `bind`; the same is needed to open.
        random_bytes: Where the nonce comes from.

    Source: NIST SP 800-38D; docs/adr/0010-envelope-encryption.md.
    """
    nonce = random_bytes(NONCE_BYTES)
    return Sealed(nonce, _cipher(key).encrypt(nonce, secret.reveal(), associated))


def unseal(key: SecretBytes, sealed: Sealed, associated: bytes) -> SecretBytes:
    """Return the secret that was sealed with this key for this associated data.

    Raises:
        DecryptionError: The ciphertext, the nonce, the key or the associated data is another.
    """
    if len(sealed.nonce) != NONCE_BYTES or len(sealed.ciphertext) < TAG_BYTES:
        raise DecryptionError
    try:
        return SecretBytes(_cipher(key).decrypt(sealed.nonce, sealed.ciphertext, associated))
    except InvalidTag:
        raise DecryptionError from None


def _cipher(key: SecretBytes) -> AESGCM:
    if len(key.reveal()) != KEY_BYTES:
        # AESGCM would take 128 bits as well; here that is a mistake.
        message = f"a key has {KEY_BYTES} bytes"
        raise ValueError(message)
    return AESGCM(key.reveal())
