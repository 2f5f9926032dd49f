"""A dev instance's penstock.yaml on its way to the control plane."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.fakes.control_api import TOKEN, Answer, FakeControl, problem
from tests.fakes.reporter import RecordingReporter

from penstock.cli.errors import CommandError
from penstock.cli.instance import ControlPlane
from penstock.cli.launch.applier import Applier

GOOD = "version: 1\norganizations: [{name: dev}]\n"
OTHER = "version: 1\norganizations: [{name: other}]\n"
INVALID = "err:control:catalog:document_invalid"


class Rig:
    """A file, a control plane, and what was said."""

    def __init__(self, plane: FakeControl, folder: Path, *, patience_s: float = 60.0) -> None:
        """Write a good file."""
        self.plane = plane
        self.config = folder / "penstock.yaml"
        self.config.write_text(GOOD)
        self.said = RecordingReporter()
        self.asked = 0
        self.unserved = 0
        """How often it is asked in vain whether the file is served from."""
        self.applier = Applier(
            self.config,
            ControlPlane(plane.url, TOKEN),
            is_control_ready=self._is_ready,
            is_served=self._is_served,
            reporter=self.said,
            patience_s=patience_s,
        )

    @property
    def warnings(self) -> list[str]:
        """What it warned of."""
        return self.said.warnings

    async def _is_ready(self) -> bool:
        self.asked += 1
        return self.asked > 2

    async def _is_served(self) -> bool:
        self.unserved -= 1
        return self.unserved < 0

    @property
    def applied(self) -> list[tuple[str, bool]]:
        """Name of the organization that was sent, and whether with pruning, each time."""
        bodies = [asked.body or {} for asked in self.plane.state.changes()]
        assert all(body["set"] == "dev" for body in bodies)
        return [(body["document"]["organizations"][0]["name"], body["prune"]) for body in bodies]


@pytest.fixture
def rig(plane: FakeControl, tmp_path: Path) -> Rig:
    """A rig whose control plane takes documents."""
    return Rig(plane, tmp_path)


def refused(*path: str | int) -> Answer:
    """Return the answer that a document cannot be applied."""
    error = {
        "parameter": "organizations",
        "detail": "is in use; leave it",
        "path": list(path) or None,
    }
    return problem(400, INVALID, "One fault was found.", errors=[error])


async def until(said: Callable[[], Sequence[object]], count: int) -> None:
    """Wait until there are so many."""
    for _ in range(600):
        if len(said()) >= count:
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"there are only {said()}")


async def test_it_is_applied_once_control_is_there(rig: Rig) -> None:
    """The file is sent, with pruning, when control is ready, and not before."""
    await rig.applier.start()
    assert (rig.asked, rig.applied, rig.warnings) == (3, [("dev", True)], [])


async def test_it_waits_until_requests_meet_it(rig: Rig) -> None:
    """The start, and what is said of a change, wait until the node serves from what was applied."""
    rig.unserved = 3
    await rig.applier.start()
    assert rig.unserved == -1
    rig.unserved = 3
    following = asyncio.create_task(rig.applier.follow())
    rig.config.write_text(OTHER)
    await until(lambda: rig.said.lines, 1)
    following.cancel()
    assert rig.unserved == -1
    assert (rig.said.lines, rig.warnings) == ([f"{rig.config} was applied and is served from"], [])


async def test_a_node_that_does_not_follow_is_told_of(plane: FakeControl, tmp_path: Path) -> None:
    """A node that does not serve from it in time holds up neither the start nor a change."""
    rig = Rig(plane, tmp_path, patience_s=0.1)
    rig.unserved = 1_000_000
    await rig.applier.start()
    following = asyncio.create_task(rig.applier.follow())
    rig.config.write_text(OTHER)
    await until(lambda: rig.warnings, 2)
    following.cancel()
    assert (len(rig.applied), rig.said.lines) == (2, [])
    assert all("the gateway did not follow within 0.1 s" in warning for warning in rig.warnings)


async def test_a_change_is_applied_again(rig: Rig) -> None:
    """A change is sent; a bad file is said once, changes nothing, and a good one is sent again."""
    await rig.applier.start()
    following = asyncio.create_task(rig.applier.follow())
    rig.config.write_text(OTHER)
    await until(lambda: rig.applied, 2)
    rig.config.write_text("version: 1\nroutes: [{}]\n")
    await until(lambda: rig.warnings, 1)
    await asyncio.sleep(1.5)
    assert len(rig.applied) == 2
    assert len(rig.warnings) == 1
    assert "nothing was changed" in rig.warnings[0]
    assert f"{rig.config}:2:" in rig.warnings[0]
    rig.config.write_text(GOOD)
    await until(lambda: rig.applied, 3)
    following.cancel()
    assert rig.applied == [("dev", True), ("other", True), ("dev", True)]


async def test_what_is_in_use_stays(rig: Rig) -> None:
    """When something that left the file cannot be removed, all else is applied; that is said."""
    rig.plane.state.refused_changes.append(refused())
    await rig.applier.start()
    assert rig.applied == [("dev", True), ("dev", False)]
    assert "stays: (control):1:1: organizations: is in use" in rig.warnings[0]


async def test_a_file_that_control_refuses_ends_the_start(rig: Rig) -> None:
    """What control finds wrong at the start is the error of the start, with its line."""
    rig.plane.state.refused_changes.append(refused("organizations", 0, "name"))
    with pytest.raises(CommandError) as caught:
        await rig.applier.start()
    assert f"{rig.config}:2:24: organizations[0].name: is in use" in str(caught.value)
    assert "dev_api_key" in caught.value.remedy


async def test_it_is_tried_again_while_control_is_away(rig: Rig) -> None:
    """A change that could not be sent is sent later."""
    await rig.applier.start()
    following = asyncio.create_task(rig.applier.follow())
    away = problem(500, "err:control:internal:bug", "It failed.")
    rig.plane.state.refused_changes.append(away)
    rig.config.write_text(OTHER)
    await until(lambda: rig.applied, 3)
    following.cancel()
    assert rig.applied[-1] == ("other", True)
    assert "could not be applied" in rig.warnings[0]
