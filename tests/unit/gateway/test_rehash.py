"""Two peppers: keys under the old one are found, and reported."""

import msgspec
from tests.fakes.worker_process import KEY, PEPPER, build_runtime, make_snapshot

from penstock.access.rules import key_mac
from penstock.contract.node import Rehashed
from penstock.gateway.limits import REHASHED_BATCH, REHASHED_WAITING
from penstock.gateway.rehash import OldHashes

_NEW_PEPPER = b"a new pepper, as long as it has to be"
_KEY = KEY.encode()
_PAIR = (key_mac(PEPPER, _KEY), key_mac(_NEW_PEPPER, _KEY))


def test_a_key_under_the_old_pepper_is_found_and_reported_once() -> None:
    """It is the same key, and one version of the snapshot reports it once."""
    old_hashes = OldHashes()
    runtime = build_runtime(
        make_snapshot([1]), _NEW_PEPPER, old_pepper=PEPPER, old_hashes=old_hashes
    )
    for _ in range(3):
        principal = runtime.find_principal(_KEY)
        assert principal is not None
        assert principal.key_id == "key-a"
    assert old_hashes.take() == Rehashed((_PAIR,))
    runtime._known.clear()  # as it happens when it is full
    assert runtime.find_principal(_KEY) is not None
    assert old_hashes.take() is None


def test_a_key_under_the_active_pepper_is_found_there() -> None:
    """A key that is stored under both is the new one, and nothing is to be reported."""
    snapshot = make_snapshot([1])
    moved = msgspec.structs.replace(snapshot.keys[0], mac=_PAIR[1], secret="moved")
    old_hashes = OldHashes()
    runtime = build_runtime(
        msgspec.structs.replace(snapshot, keys=(*snapshot.keys, moved)),
        _NEW_PEPPER,
        old_pepper=PEPPER,
        old_hashes=old_hashes,
    )
    principal = runtime.find_principal(_KEY)
    assert principal is not None
    assert principal.secret_id == "moved"
    assert old_hashes.take() is None


def test_a_key_under_neither_is_unknown() -> None:
    """Guesses are nobody's under two peppers as under one, and nothing is remembered of them."""
    old_hashes = OldHashes()
    runtime = build_runtime(
        make_snapshot([1]), _NEW_PEPPER, old_pepper=b"another", old_hashes=old_hashes
    )
    assert runtime.find_principal(_KEY) is None
    assert runtime._known == {}
    assert old_hashes.take() is None


def test_reports_are_bounded() -> None:
    """Many keys go out in batches, and with too many waiting more are not noted."""
    old_hashes = OldHashes()
    for number in range(REHASHED_WAITING + 5):
        old_hashes.note(number.to_bytes(32), b"new")
    sizes = []
    while (message := old_hashes.take()) is not None:
        sizes.append(len(message.hashes))
    assert set(sizes) == {REHASHED_BATCH}
    assert sum(sizes) == REHASHED_WAITING
