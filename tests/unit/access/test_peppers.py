"""Peppers and their files."""

from pathlib import Path

import pytest

from penstock.access.errors import PEPPER_INVALID
from penstock.access.peppers import Peppers, read_peppers
from penstock.access.rules import key_mac
from penstock.kit.errors import PenstockError

OLD = b"1f7c0a94d2e8b36551ac9e0477f3d21b"
NEW = b"8be4019d6a72c5f3e0d8174b92a6c35f"


def test_the_first_pepper_is_made(tmp_path: Path) -> None:
    """Where there is none, one is made, readable by its owner only, and found again."""
    folder = tmp_path / "secrets"
    peppers = read_peppers(folder)
    assert peppers.active_id == 1
    assert (folder / "pepper").stat().st_mode & 0o777 == 0o600
    assert read_peppers(folder) == peppers


def test_the_highest_pepper_is_the_active_one(tmp_path: Path) -> None:
    """New hashes are made under the newest pepper, old ones are found under both."""
    (tmp_path / "pepper").write_bytes(OLD)
    (tmp_path / "pepper.2").write_bytes(NEW)
    peppers = read_peppers(tmp_path)
    assert peppers.active_id == 2
    assert peppers.mac("key") == key_mac(NEW, b"key")
    assert peppers.macs("key") == {1: key_mac(OLD, b"key"), 2: key_mac(NEW, b"key")}
    (tmp_path / "pepper").unlink()
    assert read_peppers(tmp_path).values == {2: NEW}
    assert not (tmp_path / "pepper").exists()


def test_a_pepper_that_is_none_stops_the_start(tmp_path: Path) -> None:
    """A short or patterned pepper, and a third one, are errors before any key is hashed."""
    for content in ("short", "a" * 32, "0f1e2d3c4b5a6978"):
        (tmp_path / "pepper").write_text(content)
        with pytest.raises(PenstockError) as caught:
            read_peppers(tmp_path)
        assert caught.value.error is PEPPER_INVALID
    for name in ("pepper", "pepper.2", "pepper.3"):
        (tmp_path / name).write_bytes(OLD)
    with pytest.raises(PenstockError):
        read_peppers(tmp_path)


def test_a_pepper_is_not_shown() -> None:
    """No pepper is in what logs and tracebacks show."""
    assert "aaaa" not in repr(Peppers({1: b"a" * 32}))
