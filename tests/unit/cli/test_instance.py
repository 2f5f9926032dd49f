"""Which Penstock a command talks to, and with which token."""

import fcntl
from pathlib import Path

import msgspec
import pytest

from penstock.cli.errors import CommandError
from penstock.cli.instance import (
    ControlPlane,
    Facts,
    data_folder,
    find_facts,
    get_control,
    is_running,
)


def write_facts(folder: Path, **changes: str) -> None:
    """Write what `penstock dev` would."""
    members = {
        "base_url": "http://127.0.0.1:8080",
        "control_url": "http://127.0.0.1:8081",
        "metrics_url": "http://127.0.0.1:9464",
        "api_key": "key",
        "admin_token": "token-of-the-folder",
        "data_dir": str(folder),
        "of_a_later_version": "ignored",
        **changes,
    }
    folder.mkdir(exist_ok=True)
    (folder / "dev.json").write_bytes(msgspec.json.encode(members))


@pytest.fixture
def running(tmp_path: Path) -> "Path":
    """A data folder on which `penstock dev` seems to run."""
    folder = tmp_path / "data"
    write_facts(folder)
    (folder / "dev.lock").touch()
    return folder


def test_the_data_folder_says_where_control_is(running: Path) -> None:
    """A dev instance is found by its data folder, from --data or from PENSTOCK_DATA."""
    expected = ControlPlane("http://127.0.0.1:8081", "token-of-the-folder")
    with (running / "dev.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert get_control(running, {}) == expected
        assert get_control(None, {"PENSTOCK_DATA": str(running)}) == expected
        # What is said on the command line wins over the environment.
        environment = {"PENSTOCK_URL": "http://other:1", "PENSTOCK_TOKEN": ""}
        assert get_control(running, environment) == expected


def test_the_environment_says_where_control_is(tmp_path: Path) -> None:
    """PENSTOCK_URL and PENSTOCK_TOKEN name any control plane, without a data folder."""
    environment = {"PENSTOCK_URL": "https://control.example/", "PENSTOCK_TOKEN": "t"}
    environment["PENSTOCK_DATA"] = str(tmp_path / "absent")
    assert get_control(None, environment) == ControlPlane("https://control.example", "t")


def test_a_token_goes_to_its_own_control_plane_only(running: Path) -> None:
    """The data folder's token is used for its own URL and sent to no other."""
    environment = {"PENSTOCK_DATA": str(running), "PENSTOCK_URL": "http://127.0.0.1:8081"}
    assert get_control(None, environment).token == "token-of-the-folder"

    environment["PENSTOCK_URL"] = "http://elsewhere.example"
    with pytest.raises(CommandError, match="PENSTOCK_TOKEN is not set") as caught:
        get_control(None, environment)
    assert caught.value.exit_code == 2


def test_an_instance_that_stopped_is_told(running: Path) -> None:
    """A data folder whose `penstock dev` has ended gives an error that says so."""
    assert not is_running(running)
    with pytest.raises(CommandError, match="does not run") as caught:
        get_control(running, {})
    assert caught.value.exit_code == 1
    assert f"penstock dev --data {running}" in caught.value.remedy


def test_no_instance_is_told(tmp_path: Path) -> None:
    """Without dev.json the error names the folder that was looked at."""
    with pytest.raises(CommandError, match=str(tmp_path)):
        get_control(tmp_path, {})


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    """A dev.json that is no JSON gives an error with a remedy, not a traceback."""
    (tmp_path / "dev.json").write_text("{")
    with pytest.raises(CommandError, match="damaged"):
        find_facts(tmp_path)


def test_a_url_must_be_one() -> None:
    """PENSTOCK_URL without a scheme is wrong usage."""
    with pytest.raises(CommandError, match="no http"):
        get_control(None, {"PENSTOCK_URL": "127.0.0.1:8081", "PENSTOCK_TOKEN": "t"})


def test_the_data_folder_is_absolute(tmp_path: Path) -> None:
    """Whatever names the data folder, the path is absolute, so that children agree on it."""
    assert data_folder(None, {}).is_absolute()
    assert data_folder(None, {"PENSTOCK_DATA": "x"}) == Path.cwd() / "x"
    assert data_folder(tmp_path, {"PENSTOCK_DATA": "x"}) == tmp_path


def test_facts_are_read_back() -> None:
    """What is written to dev.json is what is read from it."""
    facts = Facts("a", "b", "c", "d", "e", "f", pid=7, models=("m",), engines={"emulator": "u"})
    assert msgspec.json.decode(msgspec.json.encode(facts), type=Facts) == facts
