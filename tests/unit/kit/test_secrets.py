"""Secrets: what one looks like that somebody made up, and references to them."""

import secrets
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.kit.secrets import (
    SecretUnavailableError,
    find_secret_fault,
    resolve_secret,
)

PATH = Path("/data/secrets/admin_token")


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("", "is empty"),
        ("changeme", "fewer than 16"),
        ("sk-1234", "fewer than 16"),
        ("f3a91c07be524d8", "fewer than 16"),
        ("a" * 64, "pattern"),
        ("0" * 64, "pattern"),
        ("ab" * 16, "pattern"),
        ("deadbeef" * 8, "pattern"),
        ("secret-42-" * 4, "pattern"),
        ("aabbccaabbaaccbb", "pattern"),
        ("changeme12345678", "words"),
        ("ChangeMe-ChangeMe!", "words"),
        ("Penstock-Admin-Token", "words"),
        ("sk-1234567890abcdef", "words"),
        ("super_secret_password", "words"),
        ("your-secret-key-here-2024", "words"),
        ("0123456789abcdefghijklmnopqrstuvwxyz", "words"),
        ("please change me in production", "words"),
    ],
)
def test_what_everybody_tries_is_refused(secret: str, reason: str) -> None:
    """Defaults, patterns and short secrets have a fault: with place and way out, not the secret."""
    fault = find_secret_fault(PATH, secret.encode())
    assert fault is not None
    assert fault.startswith(f"{PATH} ")
    assert reason in fault
    assert fault.endswith(f"openssl rand -hex 32 > {PATH}")
    assert len(secret) < 6 or secret not in fault


@pytest.mark.parametrize("size", [16, 24, 32, 64])
def test_what_chance_makes_is_taken(size: int) -> None:
    """Random secrets are good in every usual form."""
    for _ in range(200):
        for secret in (secrets.token_hex(size), secrets.token_urlsafe(size)):
            assert find_secret_fault(PATH, secret.encode()) is None
        assert find_secret_fault(PATH, secrets.token_bytes(size)) is None


@given(st.binary(max_size=40), st.integers(2, 10))
def test_a_repeated_secret_is_refused(unit: bytes, times: int) -> None:
    """Whatever is written over and over is no secret."""
    assert find_secret_fault(PATH, unit * times) is not None


def test_control_characters_are_no_separators() -> None:
    """Bytes that chance made may hold many of them."""
    secret = b"<\x8b6=\x00D*\x15D=V\x1f\x7f\x1f\x12_"
    assert find_secret_fault(PATH, secret) is None


def test_a_reference_that_leads_nowhere_says_why(tmp_path: Path) -> None:
    """What is wrong is said in words, with the reference and nothing of what a file holds."""
    text = tmp_path / "text"
    text.write_bytes(b"canary\xff")
    for reference, why in (
        ("env:NOBODY_HAS_SET_THIS", "there is no such variable"),
        (f"file:{tmp_path / 'nothing'}", "No such file or directory"),
        (f"file:{text}", "it is no UTF-8 text"),
    ):
        with pytest.raises(SecretUnavailableError) as caught:
            resolve_secret(reference)
        assert str(caught.value) == f"cannot read the secret {reference}: {why}"
