"""Who is calling; pure."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.worker_process import KEY, OTHER_KEY, PEPPER, build_runtime, make_snapshot

from penstock.access.rules import create_key, key_mac
from penstock.contract.snapshot import Key
from penstock.gateway.authenticate import authenticate
from penstock.gateway.errors import KEY_INVALID, KEY_MISSING, KEYS_CONFLICT
from penstock.gateway.runtime import Principal, Runtime
from penstock.kit.errors import Refusal

_KEY, _OTHER = KEY.encode(), OTHER_KEY.encode()
_BEARER = b"Bearer " + _KEY
_NOW_S = 1_750_000_000.0

Headers = tuple[bytes | None, bytes | None, bytes | None]
"""Authorization, x-api-key, api-key."""


@pytest.fixture
def runtime() -> Runtime:
    """Return a runtime that knows two keys of two organizations."""
    return build_runtime(make_snapshot([1]), PEPPER)


@pytest.mark.parametrize(
    "headers",
    [
        (_BEARER, None, None),
        (b"bearer " + _KEY, None, None),
        (b"BEARER   " + _KEY + b" ", None, None),
        (None, _KEY, None),
        (None, None, _KEY),
        (_BEARER, _KEY, None),
        (_BEARER, _KEY, _KEY),
        (None, _KEY, _KEY),
    ],
)
def test_a_key_is_found(runtime: Runtime, headers: Headers) -> None:
    """A key in any of the headers, or the same in several, is its project's."""
    found = authenticate(runtime, *headers, _NOW_S)
    assert isinstance(found, Principal)
    assert (found.key_id, found.organization, found.project) == ("key-a", "org-a", "project-a")
    assert found.aliases == frozenset({"model-a"})


@pytest.mark.parametrize(
    "headers",
    [
        (_BEARER, _OTHER, None),
        (_BEARER, None, _OTHER),
        (None, _KEY, _OTHER),
        (_BEARER, _KEY, _OTHER),
        (b"Bearer x", _KEY, None),
        (_BEARER, b"", None),
    ],
)
def test_different_keys_conflict(runtime: Runtime, headers: Headers) -> None:
    """Two different keys are a conflict, whichever is valid."""
    found = authenticate(runtime, *headers, _NOW_S)
    assert isinstance(found, Refusal)
    assert found.error is KEYS_CONFLICT


@pytest.mark.parametrize(
    "headers",
    [(None, None, None), (b"Bearer", None, None), (b"Bearer ", None, None), (None, b"", None)],
)
def test_no_key_is_missing(runtime: Runtime, headers: Headers) -> None:
    """Headers without anything in them hold no key."""
    found = authenticate(runtime, *headers, _NOW_S)
    assert isinstance(found, Refusal)
    assert found.error is KEY_MISSING


@pytest.mark.parametrize(
    "authorization",
    [b"Bearer x", b"Basic " + _KEY, _KEY, b"", b"Bearer " + _KEY + b"x", b"Bearer " + _KEY[:-1],
     b"Bearer Bearer " + _KEY, b"Bearer " + key_mac(PEPPER, _KEY), b"Bearer \xff\x00"],
)  # fmt: skip
def test_other_keys_are_invalid(runtime: Runtime, authorization: bytes) -> None:
    """What is no known key under Bearer is invalid, and nothing more is told."""
    assert authenticate(runtime, authorization, None, None, _NOW_S) == Refusal(KEY_INVALID)


@given(st.binary(max_size=100))
def test_no_guess_is_a_key(guess: bytes) -> None:
    """Arbitrary bytes are nobody."""
    runtime = build_runtime(make_snapshot([1]), PEPPER)
    ways: tuple[Headers, ...] = (
        (b"Bearer " + guess, None, None),
        (None, guess, None),
        (None, None, guess),
    )
    for headers in ways:
        assert isinstance(authenticate(runtime, *headers, _NOW_S), Refusal)


def test_keys_expire_to_the_second() -> None:
    """A key counts until its time of expiry, found before or not, and not at it."""
    key = create_key().encode()
    snapshot = make_snapshot([1])
    expiring = Key("late", key_mac(PEPPER, key), "org-a", "project-a", None, int(_NOW_S))
    runtime = build_runtime(msgspec.structs.replace(snapshot, keys=(expiring,)), PEPPER)
    for _ in range(2):
        before = authenticate(runtime, None, key, None, _NOW_S - 0.001)
        assert isinstance(before, Principal)
        assert before.aliases is None
        assert authenticate(runtime, None, key, None, _NOW_S) == Refusal(KEY_INVALID)


def test_only_valid_keys_are_remembered(runtime: Runtime) -> None:
    """Guesses take no memory."""
    for number in range(1_000):
        authenticate(runtime, b"Bearer guess-%d" % number, None, None, _NOW_S)
    assert runtime._known == {}
    for _ in range(2):
        authenticate(runtime, _BEARER, None, None, _NOW_S)
    assert len(runtime._known) == 1


def test_another_pepper_knows_no_key() -> None:
    """Without the node's pepper the hashes of a snapshot open nothing."""
    runtime = build_runtime(make_snapshot([1]), b"another pepper")
    assert authenticate(runtime, _BEARER, None, None, _NOW_S) == Refusal(KEY_INVALID)
