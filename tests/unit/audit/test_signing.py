"""Signatures under checkpoints."""

import dataclasses
from pathlib import Path

import pytest

from penstock.audit.errors import SIGNING_KEY_INVALID
from penstock.audit.signing import CheckpointSigner, PublicKeys
from penstock.kit.errors import PenstockError


def test_a_signature_covers_everything() -> None:
    """Whatever member of a checkpoint is edited, the signature does not hold."""
    signer = CheckpointSigner(b"s" * 32)
    signed = signer.sign("org_a", 3, b"h" * 32, 7)
    keys = signer.public_keys
    assert keys.is_signed(signed)
    for edit in (
        {"chain": "org_b"},
        {"number": 4},
        {"hash": b"i" * 32},
        {"signed_at_us": 8},
        {"signature": bytes(64)},
        {"signature": b""},
        {"signer": "0" * 16},
    ):
        assert not keys.is_signed(dataclasses.replace(signed, **edit))


def test_only_our_keys_count() -> None:
    """A signature of somebody else does not count, one of a former key of ours does."""
    ours, former, theirs = (CheckpointSigner(seed * 32) for seed in (b"a", b"b", b"c"))
    keys = PublicKeys([ours.public_key, former.public_key])
    assert keys.is_signed(ours.sign("org_a", 1, b"h" * 32, 1))
    assert keys.is_signed(former.sign("org_a", 1, b"h" * 32, 1))
    assert not keys.is_signed(theirs.sign("org_a", 1, b"h" * 32, 1))


def test_the_key_is_in_a_file(tmp_path: Path) -> None:
    """The first start makes a key that only its owner can read, later ones use it."""
    path = tmp_path / "secrets" / "audit_signing_key"
    first = CheckpointSigner.from_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert CheckpointSigner.from_file(path).public_key == first.public_key


@pytest.mark.parametrize("content", ["", "abc", "zz" * 32, "00" * 31, "é"])
def test_a_damaged_key_is_refused(tmp_path: Path, content: str) -> None:
    """A file that is no key stops the start instead of signing with something else."""
    path = tmp_path / "audit_signing_key"
    path.write_text(content)
    with pytest.raises(PenstockError) as caught:
        CheckpointSigner.from_file(path)
    assert caught.value.error is SIGNING_KEY_INVALID
