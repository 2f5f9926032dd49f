"""Who changed what the control plane logs is in its audit log."""

import asyncio
import io
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.fakes.admin_rig import run_admin_rig
from tests.fakes.own_log import log_in_memory
from tests.fakes.ports import free_port

from penstock.cli.debug import ask
from penstock.control.log_levels import record_level
from penstock.kit.clock import ManualClock
from penstock.kit.debug_door import DebugDoor, socket_path
from penstock.kit.logs.setup import get_level
from penstock.kit.logs.switch import PATH, LevelChange, level_routes
from penstock.storage.database import Database


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Log into memory, and leave levels as they were."""
    with log_in_memory() as stream:
        yield stream


async def _change(folder: Path, tell: Callable[[LevelChange], Awaitable[None]], level: str) -> None:
    """Ask at a control plane's door for a level, as its operator does."""
    door = DebugDoor(socket_path(folder, "control"), level_routes(tell))
    await door.open()
    parameters = {"level": level}
    answer = await asyncio.to_thread(ask, folder, "control", PATH, parameters, 60, method="PUT")
    assert answer == parameters
    await door.close()


@pytest.mark.usefixtures("log")
async def test_who_changed_it_from_what_to_what(sqlite_template: Path, tmp_path: Path) -> None:
    """The platform's chain says which user of the machine it was, and both levels."""
    async with run_admin_rig(sqlite_template, tmp_path) as rig:
        before = get_level()
        now = "error" if before == "debug" else "debug"
        await _change(tmp_path, rig.app.state.record_level, now)
        (entry,) = (await rig.call("GET", "/audit?action=log_level.change")).json()["data"]
    assert (entry["actor_kind"], entry["actor_id"]) == ("local_user", str(os.geteuid()))
    assert (entry["before"], entry["after"]) == ({"level": before}, {"level": now})


async def test_a_database_that_is_away_keeps_nobody_from_it(
    log: io.StringIO, tmp_path: Path
) -> None:
    """The level is changed, and the log says by whom and that the audit log lacks it."""
    database = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none")

    async def tell(change: LevelChange) -> None:
        await record_level(database, ManualClock(), change)

    await _change(tmp_path, tell, "debug")
    await database.close()
    assert get_level() == "debug"
    said = {line["event"]: line for line in map(json.loads, log.getvalue().splitlines())}
    assert said["kit.log_level_changed"]["user"] == os.geteuid()
    assert "control.log_level_not_audited" in said
