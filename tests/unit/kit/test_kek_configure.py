"""The setting that names keepers of KEKs."""

import importlib.util
from pathlib import Path

import pytest

from penstock.kit.envelope import SecretBytes
from penstock.kit.kek.configure import KekSettingError, configure_kek, list_key_files
from penstock.kit.kek.file import FileKek, create_key_file
from penstock.kit.kek.model import KekRing, KekUnavailableError

CONTEXT = {"organization": "org_acme"}
VAULT = {"VAULT_ADDR": "https://127.0.0.1:1", "VAULT_TOKEN": "t"}


def test_without_a_setting_it_is_a_file(tmp_path: Path) -> None:
    """The default is a key file, and none is made by looking at it."""
    path = tmp_path / "kek.json"
    assert isinstance(configure_kek(None, path, {}), FileKek)
    assert list_key_files(None, path) == [path]
    assert not path.exists()


def test_the_first_one_wraps_and_all_unwrap(tmp_path: Path) -> None:
    """Of several keepers the first is the current one; what the others wrapped still opens."""
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        create_key_file(path)
    kek = configure_kek(f"file:{new}, file:{old}", tmp_path / "unused", {})
    assert isinstance(kek, KekRing)
    assert kek.current() == FileKek(new).current()
    key = SecretBytes(bytes(32))
    assert kek.unwrap(FileKek(old).wrap(key, CONTEXT), CONTEXT) == key
    assert list_key_files(f"file:{new},file:{old}", tmp_path) == [new, old]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("", "write file:PATH"),
        ("file:", "write file:PATH"),
        ("hsm:slot", "write file:PATH"),
        ("/etc/kek.json", "write file:PATH"),
        ("file:a,,file:b", "write file:PATH"),
        ("vault:penstock", "write vault:MOUNT/KEY"),
        ("vault:/penstock", "write vault:MOUNT/KEY"),
        ("vault:transit/", "write vault:MOUNT/KEY"),
        ("vault:transit/penstock", "needs VAULT_ADDR and VAULT_TOKEN"),
    ],
)
def test_what_is_no_setting_is_explained(tmp_path: Path, setting: str, words: str) -> None:
    """A setting that names no keeper is refused with what to write, and not repeated."""
    with pytest.raises(KekSettingError, match=words) as caught:
        configure_kek(setting, tmp_path, {})
    assert "penstock" not in str(caught.value).replace("transit/penstock", "")


@pytest.mark.parametrize(
    ("setting", "package"),
    [("vault:a/b/penstock", "hvac"), ("aws:alias/penstock", "boto3")],
)
def test_packages_are_asked_for_when_needed(tmp_path: Path, setting: str, package: str) -> None:
    """A keeper whose package is not installed says what to install."""
    if importlib.util.find_spec(package) is None:
        with pytest.raises(KekUnavailableError, match=r"install penstock\["):
            configure_kek(setting, tmp_path, VAULT)
    else:
        assert configure_kek(setting, tmp_path, VAULT) is not None
