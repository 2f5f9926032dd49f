"""What an operator asks of an agent and its workers."""

import asyncio
from typing import cast

import msgspec
import pytest
from tests.fakes.links import FakeWriter, make_link

from penstock.contract.node import Inspect, Inspected
from penstock.kit.inspection import InspectionError, Question
from penstock.node.inspections import Inspections
from penstock.node.process import Process
from penstock.node.settings import AgentSettings
from penstock.node.worker import Worker

SETTINGS = AgentSettings(data_path="/data", control_url="http://127.0.0.1:1")


class FakeProcess:
    """A process that nobody looks at but for its number."""

    pid = 77


class Team:
    """Workers with links, and an operator who asks."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.workers: list[Worker] = []
        self.writers: list[FakeWriter] = []
        self.inspections = Inspections(SETTINGS, lambda: self.workers)

    def add(self, slot: int, epoch: int) -> FakeWriter:
        """Have a worker that is connected."""
        worker = Worker(slot, epoch, cast("Process", FakeProcess()), 0.0)
        writer, link = make_link(slot, epoch)
        worker.attach(link)
        self.workers.append(worker)
        return writer

    async def ask(self, writer: FakeWriter, slot: str) -> tuple["asyncio.Task[object]", Inspect]:
        """Ask a worker; return what is answered in the end, and what the worker was asked."""
        asking: asyncio.Task[object] = asyncio.create_task(
            self.inspections.answer(Question("tasks", 7), {"worker": slot})
        )
        await asyncio.sleep(0)
        (asked,) = writer.messages
        writer.messages.clear()
        assert isinstance(asked, Inspect)
        return asking, asked


@pytest.fixture
def team() -> Team:
    """Return one without workers."""
    return Team()


async def test_a_worker_is_asked_over_its_link(team: Team) -> None:
    """The newest worker of the slot is asked, and its answer is told as it is."""
    team.add(0, 1)
    writer = team.add(0, 3)
    team.add(1, 2)
    asking, asked = await team.ask(writer, "0")
    assert asked == Inspect(asked.number, "tasks", 7)
    team.inspections.hear(Inspected(asked.number + 1, b'{"other": 1}'))
    team.inspections.hear(Inspected(asked.number, b'{"count": 2}'))
    team.inspections.hear(Inspected(asked.number, b'{"late": 1}'))
    assert await asking == {"count": 2}
    team.inspections.hear(Inspected(asked.number, b'{"later": 1}'))


async def test_what_a_worker_cannot_answer_is_told(team: Team) -> None:
    """Its words come to who asked."""
    writer = team.add(0, 1)
    asking, asked = await team.ask(writer, "0")
    team.inspections.hear(Inspected(asked.number, b"", "too many blocks"))
    with pytest.raises(InspectionError, match="too many blocks"):
        await asking


async def test_a_worker_that_says_nothing_is_not_waited_for(team: Team) -> None:
    """After a while it is said that it does not answer."""
    team.add(0, 1)
    impatient = Inspections(SETTINGS, lambda: team.workers, slack_s=0.01)
    with pytest.raises(InspectionError, match="busy or stuck"):
        await impatient.answer(Question("tasks"), {"worker": "0"})


async def test_only_workers_that_are_there_are_asked(team: Team) -> None:
    """A slot without a connected worker is refused, with those that there are."""
    team.add(1, 2)
    with pytest.raises(InspectionError, match="there are: 1"):
        await team.inspections.answer(Question("tasks"), {"worker": "0"})


async def test_the_agent_shows_itself(team: Team) -> None:
    """Without a worker the agent says how it was started, and whom it talks to."""
    team.add(1, 2)
    settings = await team.inspections.answer(Question("settings"), {})
    assert settings["data_path"] == "/data"
    assert settings.keys() == msgspec.to_builtins(SETTINGS).keys()
    found = await team.inspections.answer(Question("connections"), {})
    (row,) = found["workers"]
    assert (row["slot"], row["epoch"], row["pid"], row["is_connected"]) == (1, 2, 77, True)
