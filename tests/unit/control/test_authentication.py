"""Tokens."""

import base64
import logging
from pathlib import Path

import pytest

from penstock.control.authentication import find_token, read_token
from penstock.control.errors import TOKEN_WEAK
from penstock.kit.errors import PenstockError


def _basic(content: bytes) -> str:
    return "Basic " + base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("authorization", "token"),
    [
        ("Bearer abc", b"abc"),
        ("bearer  abc ", b"abc"),
        (_basic(b"anybody:abc"), b"abc"),
        (_basic(b":abc"), b"abc"),
        (_basic(b"anybody:a:b"), b"a:b"),
        (_basic("jemand:schlüssel".encode()), "schlüssel".encode()),
        ("", None),
        ("abc", None),
        ("Digest abc", None),
        ("Basic abc", None),
        ("Basic \xe4\xf6", None),
        (_basic(b"abc"), None),
    ],
)
def test_tokens_are_found_in_both_schemes(authorization: str, token: bytes | None) -> None:
    """A token comes as a Bearer or as a password, and every other header has none."""
    assert find_token(authorization) == token


def test_a_missing_token_is_made_for_its_owner_only(tmp_path: Path) -> None:
    """The first start makes a long token that nobody else can read, the second one keeps it."""
    path = tmp_path / "secrets" / "admin_token"
    token = read_token(path)
    assert len(token) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_token(path) == token


@pytest.mark.parametrize("content", ["", "\n", "short", "changeme-changeme", "a" * 64])
def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path, content: str) -> None:
    """An empty, short or well-known token lets nobody in: the error says where a good one goes."""
    path = tmp_path / "admin_token"
    path.write_text(content)
    with pytest.raises(PenstockError) as caught:
        read_token(path)
    assert caught.value.error is TOKEN_WEAK
    assert f"openssl rand -hex 32 > {path}" in str(caught.value)


def test_a_new_token_is_told_by_its_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The start that makes a token logs where it is, once, and never the token."""
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "secrets" / "admin_token"
    token = read_token(path)
    assert caplog.messages == [f"secret made path={path}"]
    assert read_token(path) == token
    assert len(caplog.messages) == 1
    path.write_text("0f1e2d3c4b5a69788796a5b4c3d2e1f0")
    assert read_token(path) == b"0f1e2d3c4b5a69788796a5b4c3d2e1f0"
    assert len(caplog.messages) == 1
