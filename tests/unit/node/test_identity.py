"""Ids, start numbers, locks and folders."""

from pathlib import Path

import pytest

from penstock.kit.clock import ManualClock
from penstock.node.errors import AgentError
from penstock.node.identity import (
    AgentLock,
    next_epoch,
    parse_journal_name,
    read_or_create_node_id,
)
from penstock.node.layout import create_runtime_folder, runtime_folder


def test_start_numbers_are_never_used_twice(tmp_path: Path) -> None:
    """Each is one larger, and larger than any that a journal or checkpoint shows."""
    journal, shipper = tmp_path / "journal", tmp_path / "shipper"
    journal.mkdir()
    shipper.mkdir()
    file = tmp_path / "epoch"
    assert [next_epoch(file, journal, shipper) for _ in range(3)] == [1, 2, 3]
    (journal / "0-00000007").mkdir()
    assert next_epoch(file, journal, shipper) == 8
    (shipper / "1-00000011.json").touch()
    (journal / "no journal").touch()
    file.write_text("damaged")
    assert next_epoch(file, journal, shipper) == 12


@pytest.mark.parametrize("name", ["", "1", "a-00000001", "0-1", "0-00000001x", "refused"])
def test_other_names_are_no_journals(name: str) -> None:
    """Only `<slot>-<epoch>` with eight digits or more is a journal's name."""
    assert parse_journal_name(name) is None


def test_a_node_keeps_its_id(tmp_path: Path) -> None:
    """The id is made once."""
    path = tmp_path / "id"
    assert read_or_create_node_id(path) == read_or_create_node_id(path)
    assert read_or_create_node_id(path).startswith("node-")


async def test_the_lock_is_held_by_one(tmp_path: Path) -> None:
    """The second does not get the lock before the first lets go, and says who has it."""
    clock = ManualClock()
    first, second = AgentLock(tmp_path / "lock"), AgentLock(tmp_path / "lock")
    await first.acquire(clock, patience_s=0)
    with pytest.raises(AgentError, match=r"another agent \(process \d+\) holds"):
        await second.acquire(clock, patience_s=0)
    first.release()
    first.release()
    await second.acquire(clock, patience_s=0)
    second.release()


def test_the_socket_s_folder_is_short_and_the_same_by_every_name(tmp_path: Path) -> None:
    """A data folder has one runtime folder, whichever way it is named and however long."""
    data = tmp_path / ("x" * 200)
    data.mkdir()
    link = tmp_path / "link"
    link.symlink_to(data)
    assert runtime_folder(data) == runtime_folder(link)
    assert len(runtime_folder(data).name) == len("penstock-") + 12


def test_the_socket_s_folder_is_ours_alone(tmp_path: Path) -> None:
    """It is closed to others, and what is no folder of ours is refused."""
    folder = tmp_path / "run"
    folder.mkdir(mode=0o777)
    create_runtime_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(AgentError, match="is not a folder of this user"):
        create_runtime_folder(link)
