"""The KEK in a file: its versions, its permissions, and moving from one to another."""

import os
import threading
from pathlib import Path

import pytest

from penstock.kit.envelope import SecretBytes
from penstock.kit.kek.file import (
    MAX_FILE_BYTES,
    FileKek,
    add_key_version,
    create_key_file,
    read_key_file,
    remove_key_version,
)
from penstock.kit.kek.model import (
    Context,
    KekRing,
    KekUnavailableError,
    KekVersion,
    UnwrapError,
    WrappedKey,
    is_outdated,
    rewrap,
)

ACME = {"organization": "org_acme", "dek": "dek_1"}
OTHER = {"organization": "org_other", "dek": "dek_1"}
KEY = SecretBytes(b"canary-canary-canary-canary-cana")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a new key file."""
    create_key_file(tmp_path / "secrets" / "kek")
    return tmp_path / "secrets" / "kek"


def test_a_key_comes_back(path: Path) -> None:
    """What was wrapped for an organization unwraps for it, and says what it was wrapped with."""
    kek = FileKek(path)
    wrapped = kek.wrap(KEY, ACME)
    assert wrapped.kek == kek.current() == KekVersion(f"file:{read_key_file(path).id}", 1)
    assert kek.unwrap(wrapped, ACME) == KEY
    assert KEY.reveal() not in wrapped.ciphertext


def test_a_key_file_is_its_owners(path: Path) -> None:
    """Folder and file are made for their owner alone, and a second one is never made over it."""
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="is there already"):
        create_key_file(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610])
def test_a_key_file_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    """Nothing is wrapped with a key that others may know."""
    path.chmod(mode)
    with pytest.raises(KekUnavailableError, match=r"can be read by others .* chmod it to 0600"):
        FileKek(path).wrap(KEY, ACME)


def test_a_key_does_not_open_for_another_owner(path: Path) -> None:
    """Another organization, another data key's id or an altered bit is an error."""
    kek = FileKek(path)
    wrapped = kek.wrap(KEY, ACME)
    altered = WrappedKey(wrapped.kek, bytes([wrapped.ciphertext[0] ^ 1]) + wrapped.ciphertext[1:])
    for key, context in (
        (wrapped, OTHER),
        (wrapped, ACME | {"dek": "dek_2"}),
        (wrapped, {}),
        (altered, ACME),
        (WrappedKey(wrapped.kek, b""), ACME),
    ):
        with pytest.raises(UnwrapError, match="does not open"):
            kek.unwrap(key, context)


def test_versions_live_side_by_side(path: Path) -> None:
    """A new version wraps from then on, in every process, and old ones still unwrap."""
    kek = FileKek(path)
    first = kek.wrap(KEY, ACME)
    assert add_key_version(path) == 2
    second = kek.wrap(KEY, ACME)
    assert (first.kek.number, second.kek.number, kek.current().number) == (1, 2, 2)
    assert is_outdated(first, kek.current())
    assert not is_outdated(second, kek.current())
    assert kek.unwrap(first, ACME) == kek.unwrap(second, ACME) == KEY


def test_a_version_cannot_be_passed_off_as_another(path: Path) -> None:
    """A wrapped key that claims another version does not open."""
    kek = FileKek(path)
    wrapped = kek.wrap(KEY, ACME)
    add_key_version(path)
    with pytest.raises(UnwrapError):
        kek.unwrap(WrappedKey(KekVersion(wrapped.kek.uri, 2), wrapped.ciphertext), ACME)


def test_rewrapping_lets_the_old_version_go(path: Path) -> None:
    """After rewrapping, the old version can be destroyed, and what was left under it is named."""
    kek = FileKek(path)
    left, kept = kek.wrap(KEY, OTHER), kek.wrap(KEY, ACME)
    assert rewrap(kept, ACME, kek) is kept
    add_key_version(path)
    fresh = rewrap(kept, ACME, kek)
    assert fresh.kek.number == 2
    remove_key_version(path, 1)
    assert kek.unwrap(fresh, ACME) == KEY
    with pytest.raises(UnwrapError, match=r"version 1 .* has 2; restore a newer copy"):
        kek.unwrap(left, OTHER)


@pytest.mark.parametrize("number", [0, 2, 7])
def test_the_current_version_is_not_removed(path: Path, number: int) -> None:
    """Neither the version that wraps nor one that is not there can be removed."""
    add_key_version(path)
    with pytest.raises(ValueError, match="current or not there"):
        remove_key_version(path, number)
    assert sorted(read_key_file(path).keys) == [1, 2]


def test_versions_added_at_once_are_all_kept(path: Path) -> None:
    """Processes that rotate at the same time do not overwrite each other's version."""
    numbers: list[int] = []
    threads = [
        threading.Thread(target=lambda: numbers.append(add_key_version(path))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(2, 10))
    assert sorted(read_key_file(path).keys) == list(range(1, 10))


def test_another_key_file_is_told_from_a_broken_one(path: Path, tmp_path: Path) -> None:
    """A key of another file is refused by that file's name, not as an altered one."""
    create_key_file(tmp_path / "other")
    wrapped = FileKek(tmp_path / "other").wrap(KEY, ACME)
    with pytest.raises(UnwrapError, match=r"wrapped with file:\w+, which is not configured"):
        FileKek(path).unwrap(wrapped, ACME)


def test_keys_move_from_one_keeper_to_another(path: Path, tmp_path: Path) -> None:
    """In a ring, keys of the former KEK open, and rewrapping moves them to the new one."""
    create_key_file(tmp_path / "new")
    old, new = FileKek(path), FileKek(tmp_path / "new")
    wrapped = old.wrap(KEY, ACME)
    ring = KekRing(new, old)
    assert ring.serves(wrapped.kek.uri)
    assert ring.unwrap(wrapped, ACME) == KEY
    fresh = rewrap(wrapped, ACME, ring)
    assert fresh.kek == new.current() == ring.current()
    assert new.unwrap(fresh, ACME) == KEY
    stranger = WrappedKey(KekVersion("vault:transit/k", 1), b"")
    assert not ring.serves("vault:transit/k")
    with pytest.raises(UnwrapError, match="vault:transit/k, which is not configured"):
        ring.unwrap(stranger, ACME)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 50_000,
        b'{"format": 2, "id": "a", "keys": {"1": "%s"}}',
        b'{"format": 1, "id": "a/b", "keys": {"1": "%s"}}',
        b'{"format": 1, "id": "a", "keys": {}}',
        b'{"format": 1, "id": "a", "keys": {"0": "%s"}}',
        b'{"format": 1, "id": "a", "keys": {"1": "%s", "01": "%s"}}',
        b'{"format": 1, "id": "a", "keys": {"one": "%s"}}',
        b'{"format": 1, "id": "a", "keys": {"1": "Y2FuYXJ5"}}',
        b'{"format": 1, "id": "a", "keys": {"1": 5}}',
        b'{"format": 1, "id": "a", "keys": ["%s"]}',
        b"%s" * (MAX_FILE_BYTES // 40),
    ],
)
def test_a_damaged_file_is_named_and_not_shown(path: Path, content: bytes) -> None:
    """Whatever is wrong with a key file, the message names the file and nothing in it."""
    path.write_bytes(content.replace(b"%s", b"Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5YTA="))
    with pytest.raises(KekUnavailableError) as caught:
        FileKek(path).current()
    assert str(path) in str(caught.value)
    assert "restore" in str(caught.value)
    assert "Y2FuY" not in str(caught.value)


def test_a_file_that_is_no_file_is_named(tmp_path: Path) -> None:
    """An absent file, a folder or a pipe is an error with a reason, and none makes it hang."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, words in (
        (tmp_path / "absent", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "pipe", "is no regular file"),
    ):
        with pytest.raises(KekUnavailableError, match=words):
            FileKek(path).current()


class OtherKey(FileKek):
    """Wraps another key than it is given."""

    def wrap(self, key: SecretBytes, context: Context) -> WrappedKey:
        """See `Kek`."""
        return super().wrap(SecretBytes(key.reveal()[::-1]), context)


class OtherOwner(FileKek):
    """Wraps for another owner."""

    def wrap(self, key: SecretBytes, context: Context) -> WrappedKey:
        """See `Kek`."""
        return super().wrap(key, {**context, "more": ""})


@pytest.mark.parametrize("keeper", [OtherKey, OtherOwner])
def test_a_keeper_that_is_wrong_is_found_out(path: Path, keeper: type[FileKek]) -> None:
    """Rewrapping changes nothing when the new wrapping does not give the key back."""
    wrapped = FileKek(path).wrap(KEY, ACME)
    add_key_version(path)
    with pytest.raises(KekUnavailableError, match="did not give back the key"):
        rewrap(wrapped, ACME, keeper(path))


def test_no_key_is_in_a_text(path: Path) -> None:
    """Neither the key file nor a keeper shows a key in its text form."""
    file = read_key_file(path)
    shown = repr(file) + repr(FileKek(path)) + str(file.keys)
    assert file.keys[1].reveal().hex() not in shown
    assert repr(file.keys[1].reveal()) not in shown
