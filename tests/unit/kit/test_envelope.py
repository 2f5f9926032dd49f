"""Envelope encryption: the form of a ciphertext, and that secrets do not show themselves."""

import copy
import pickle
import traceback
from itertools import count

import msgspec
import pytest
from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from penstock.kit.envelope import (
    DecryptionError,
    Sealed,
    SecretBytes,
    bind,
    generate_key,
    seal,
    unseal,
)

SECRET = SecretBytes(b"canary-of-the-envelope")
KEY = SecretBytes(bytes(range(32)))


def counting_bytes(length: int) -> bytes:
    """Return bytes that are no secret."""
    return bytes(index % 256 for index in range(length))


def test_a_ciphertext_is_aes_256_gcm() -> None:
    """The form on disk is what NIST's test case 14 says, so that other programs can open it."""
    sealed = seal(SecretBytes(bytes(32)), SecretBytes(bytes(16)), b"", bytes)
    assert sealed.nonce == bytes(12)
    assert sealed.ciphertext.hex() == (
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    )


def test_a_secret_comes_back() -> None:
    """What was sealed opens with the same key and the same associated data."""
    assert unseal(KEY, seal(KEY, SECRET, b"a"), b"a") == SECRET


def test_every_nonce_is_fresh() -> None:
    """Sealing asks for twelve new random bytes every time."""
    asked: list[int] = []
    numbers = count()

    def random_bytes(length: int) -> bytes:
        asked.append(length)
        return next(numbers).to_bytes(length, "big")

    nonces = {seal(KEY, SECRET, b"", random_bytes).nonce for _ in range(10)}
    assert asked == [12] * 10
    assert len(nonces) == 10


@pytest.mark.parametrize("sealed", [Sealed(b"", b""), Sealed(bytes(12), b"x" * 15)])
def test_what_is_cut_off_does_not_open(sealed: Sealed) -> None:
    """A nonce or ciphertext that is too short is refused like any other that does not open."""
    with pytest.raises(DecryptionError):
        unseal(KEY, sealed, b"")


@pytest.mark.parametrize("length", [0, 16, 24, 31, 33])
def test_a_key_has_256_bits(length: int) -> None:
    """Keys of other lengths are refused, though AES would take some of them."""
    with pytest.raises(ValueError, match="a key has 32 bytes"):
        seal(SecretBytes(bytes(length)), SECRET, b"")


def test_generated_keys_are_random() -> None:
    """A generated key has 256 bits from the source that is given."""
    assert generate_key(counting_bytes).reveal() == bytes(range(32))
    assert generate_key() != generate_key()


def test_bound_parts_cannot_be_mistaken() -> None:
    """Parts that read the same in a row, absent parts and purposes give different bytes."""
    bound = [
        bind("p"),
        bind("p", None),
        bind("p", ""),
        bind("p", "", ""),
        bind("p", "ab", "c"),
        bind("p", "a", "bc"),
        bind("pa", "bc"),
        bind("p", "abc"),
        bind("p", "None"),
        bind("q", "abc"),
    ]
    assert len(set(bound)) == len(bound)


def test_a_secret_does_not_show_itself() -> None:
    """A secret is in no text that Python makes of it or of what holds it."""
    error = ValueError(SECRET)
    shown = "".join(traceback.format_exception(error)) + repr(error)
    shown += f"{SECRET} {SECRET!r} {[SECRET]} " + "%s" % SECRET  # noqa: UP031  # logging's way
    assert "canary" not in shown
    assert "SecretBytes(...)" in shown


@pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy, msgspec.json.encode])
def test_a_secret_is_not_written_by_accident(leak: object) -> None:
    """Pickling, copying and encoding a secret fail instead of spreading it."""
    assert callable(leak)
    with pytest.raises(TypeError) as caught:
        leak(SECRET)
    assert "canary" not in str(caught.value)


def test_pydantic_does_not_write_a_secret() -> None:
    """A secret in an answer's model is an error, never a field."""
    with pytest.raises(PydanticSerializationError) as caught:
        TypeAdapter(object).dump_json({"credential": SECRET})
    assert "canary" not in str(caught.value)


def test_secrets_compare_by_value_and_have_no_hash() -> None:
    """Equal secrets are equal, others are not, and none is a key of a dictionary."""
    assert SecretBytes(b"a") == SecretBytes(b"a")
    assert SecretBytes(b"a") != SecretBytes(b"b")
    assert SecretBytes(b"a") != b"a"
    with pytest.raises(TypeError):
        hash(SECRET)
