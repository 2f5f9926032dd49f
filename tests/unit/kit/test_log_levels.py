"""Levels while a process runs: changed at the debug door, said, and passed on."""

import io
import json
from collections.abc import Iterator

import pytest
from tests.fakes.own_log import log_in_memory

from penstock.kit.inspection import InspectionError
from penstock.kit.logs.setup import LevelName, change_level, get_level
from penstock.kit.logs.switch import PATH, LevelChange, level_routes


@pytest.fixture(autouse=True)
def log() -> Iterator[io.StringIO]:
    """Log into memory, and leave levels as they were."""
    with log_in_memory() as stream:
        yield stream


@pytest.mark.parametrize(("before", "now"), [("info", "error"), ("error", "debug")])
def test_a_change_is_always_said(log: io.StringIO, before: LevelName, now: LevelName) -> None:
    """Also a change from or to a level at which hardly anything is."""
    change_level(before)
    log.truncate(0)
    log.seek(0)
    change_level(now)
    said = json.loads(log.getvalue())
    assert (said["event"], said["before"], said["now"]) == ("kit.log_level_changed", before, now)
    assert get_level() == now


async def test_the_door_shows_and_changes_it() -> None:
    """PUT changes it and tells who must follow; GET shows it; what is no level changes nothing."""
    told: list[LevelChange] = []

    async def tell(change: LevelChange) -> None:
        told.append(change)

    before = get_level()
    routes = level_routes(tell)
    assert await routes["PUT", PATH]({"level": "debug"}, 4711) == {"level": "debug"}
    for wrong in ({}, {"level": "loud"}, {"level": "critical"}):
        with pytest.raises(InspectionError, match="debug, info, warning, error"):
            await routes["PUT", PATH](wrong, 4711)
    assert await routes["GET", PATH]({}, 4711) == {"level": "debug"}
    assert told == [LevelChange(before, "debug", 4711)]
