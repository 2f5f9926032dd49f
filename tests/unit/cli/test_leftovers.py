"""Workers that nobody watches any more are told from all other processes."""

from pathlib import Path

import msgspec

from penstock.cli.launch.leftovers import end_workers, find_workers
from penstock.contract.node import WorkerSettings


def add_process(proc: Path, pid: int, *words: str) -> None:
    """Add a process to a picture of /proc."""
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "cmdline").write_text("\0".join(words) + "\0")


def settings(journal: Path) -> str:
    """Return a worker's settings."""
    made = WorkerSettings(
        slot=0,
        epoch=1,
        node_id="n",
        snapshot_path="s",
        journal_path=str(journal),
        pepper_path="p",
        agent_socket="a",
    )
    return msgspec.json.encode(made).decode()


def test_only_workers_of_the_folder_are_found(tmp_path: Path) -> None:
    """Found is a worker that journals into the folder, and no other process whatever its words."""
    proc, data = tmp_path / "proc", tmp_path / "data"
    worker = ("python", "-m", "penstock.gateway")
    add_process(proc, 1, *worker, settings(data / "journal"))
    add_process(proc, 2, *worker, settings(tmp_path / "data-of-another" / "journal"))
    add_process(proc, 3, "python", "-m", "penstock.node", settings(data / "journal"))
    add_process(proc, 4, *worker, '{"journal_path": "elsewhere"}')
    add_process(proc, 5, *worker)
    (proc / "6").mkdir()
    assert find_workers(data, proc) == [1]


def test_nothing_to_end(tmp_path: Path) -> None:
    """A folder without workers has none ended."""
    assert end_workers(tmp_path) == 0
