"""Money that the agent has held for workers: what is asked, answered and given back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.fakes.links import FakeWriter, make_link

from penstock.contract.money import (
    FreeRequest,
    Hold,
    HoldAnswer,
    HoldAsk,
    HoldRequest,
    HoldShortage,
)
from penstock.contract.node import FreeHolds, HoldsGranted, WantHolds
from penstock.node.calls import ControlCalls
from penstock.node.delivery import FREE_PATH
from penstock.node.holds import HOLD_PATH, Holds

ASKS = (HoldAsk("bud_1", "", 5, 100),)
HOLD = Hold("hold_1", 100, 900, 300_000)


class Plane:
    """A control plane: it holds once for each name, and may be away before or after that."""

    def __init__(self) -> None:
        """Begin with nothing held."""
        self.asked: list[HoldRequest] = []
        self.freed: list[FreeRequest] = []
        self.held: dict[str, HoldAnswer] = {}
        self.answer = HoldAnswer((HOLD,))
        self.fault: Callable[[], httpx.Response] | None = None
        """Happens instead of an answer, when all is done."""
        self.is_closed = False
        self.free_count = 0
        self.gate = asyncio.Event()
        """What is freed waits for it."""
        self.gate.set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        if self.is_closed:
            message = "refused"
            raise httpx.ConnectError(message)
        assert request.headers["authorization"] == "Bearer the-token"
        if request.url.path == FREE_PATH:
            self.free_count += 1
            await self.gate.wait()
            self.freed.append(msgspec.msgpack.decode(request.content, type=FreeRequest))
            content = b""
        else:
            assert request.url.path == HOLD_PATH
            asked = msgspec.msgpack.decode(request.content, type=HoldRequest)
            self.asked.append(asked)
            content = msgspec.msgpack.encode(self.held.setdefault(asked.take_id, self.answer))
        return httpx.Response(200, content=content) if self.fault is None else self.fault()


class Rig:
    """The agent's part, a control plane and a worker."""

    def __init__(self, folder: Path) -> None:
        """Begin with a worker that is connected."""
        (folder / "token").write_text("the-token")
        self.plane = Plane()
        self.calls = ControlCalls(
            "http://control",
            folder / "token",
            timeout_s=1,
            transport=httpx.MockTransport(self.plane),
        )
        self.holds = Holds(self.calls, "node-1")
        self.writer, self.link = make_link(0, 7)

    def want(self, take_id: str) -> None:
        """Have the worker want a hold."""
        self.holds.hear(self.link, WantHolds(take_id, "org", ASKS))

    async def answer(self, writer: FakeWriter | None = None) -> HoldsGranted:
        """Return what the worker is told next."""
        messages = (writer or self.writer).messages
        await until(lambda: messages)
        message = messages.pop(0)
        assert isinstance(message, HoldsGranted)
        return message


async def until(condition: Callable[[], object]) -> None:
    """Wait for something to be true."""
    for _ in range(2_000):
        if condition():
            return
        await asyncio.sleep(0.002)
    pytest.fail("waited in vain")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """Return a rig whose agent gives back what is free."""
    rig = Rig(tmp_path)
    running = asyncio.create_task(rig.holds.run())
    yield rig
    running.cancel()
    await rig.holds.close()
    await rig.calls.close()


async def test_what_is_held_is_told(rig: Rig) -> None:
    """A worker is told of its holds; they are asked for in the name of its life."""
    rig.want("1")
    assert await rig.answer() == HoldsGranted("1", (HOLD,))
    assert rig.plane.asked == [HoldRequest("node-1/0", 7, "1", "org", ASKS)]


async def test_a_shortage_is_told(rig: Rig) -> None:
    """A worker learns what is left, and until when."""
    rig.plane.answer = HoldAnswer(None, HoldShortage(0, 3, 60))
    rig.want("1")
    assert await rig.answer() == HoldsGranted("1", None, HoldShortage(0, 3, 60))


async def test_freed_holds_are_told_until_it_is_heard(rig: Rig) -> None:
    """What a worker gives back is told on while the control plane is away, the most of each."""
    rig.plane.is_closed = True
    rig.holds.hear(rig.link, FreeHolds((("hold_1", 40), ("hold_2", 7))))
    rig.holds.hear(rig.link, FreeHolds((("hold_1", 90),)))
    rig.holds.hear(rig.link, FreeHolds((("hold_1", 60),)))
    await until(lambda: rig.holds.failure_count)
    rig.plane.is_closed = False
    await until(lambda: rig.plane.freed)
    assert rig.plane.freed == [FreeRequest("node-1/0", 7, (("hold_1", 90), ("hold_2", 7)))]


async def test_without_a_control_plane_nothing_is_held(rig: Rig) -> None:
    """A worker is told at once when nobody can be asked, and nothing is asked for it later."""
    rig.plane.is_closed = True
    rig.want("1")
    assert await rig.answer() == HoldsGranted("1", None)
    rig.plane.is_closed = False
    rig.want("2")
    assert (await rig.answer()).holds == (HOLD,)
    assert [asked.take_id for asked in rig.plane.asked] == ["2"]


@pytest.mark.parametrize("fault", ["unread", "status", "garbage"])
async def test_what_nobody_knows_to_be_held_is_given_back(rig: Rig, fault: str) -> None:
    """When an answer is lost, it is asked for again until it is known, and then freed."""
    faults: dict[str, Callable[[], httpx.Response]] = {
        "unread": lambda: httpx.Response(200, stream=Broken()),
        "status": lambda: httpx.Response(503),
        "garbage": lambda: httpx.Response(200, content=b"\xc1"),
    }
    rig.plane.fault = faults[fault]
    rig.want("1")
    assert await rig.answer() == HoldsGranted("1", None)
    rig.plane.fault = None
    await until(lambda: rig.plane.freed)
    assert rig.plane.freed == [FreeRequest("node-1/0", 7, (("hold_1", 100),))]
    assert {asked.take_id for asked in rig.plane.asked} == {"1"}


async def test_a_worker_that_asks_again_keeps_what_is_held(rig: Rig) -> None:
    """A worker whose connection was lost asks again: what is held is its own, and not freed."""
    rig.plane.fault = lambda: httpx.Response(503)
    rig.link.close()
    rig.want("1")
    await until(lambda: rig.holds.failure_count >= 2)
    rig.plane.fault = None
    rig.writer, rig.link = make_link(0, 7)
    rig.want("1")
    assert (await rig.answer()).holds == (HOLD,)
    rig.want("2")
    await rig.answer()
    await asyncio.sleep(0.5)
    assert rig.plane.freed == []


async def test_what_is_being_freed_is_not_given_again(rig: Rig) -> None:
    """A worker that asks again while its hold is given back has nothing."""
    rig.plane.fault = lambda: httpx.Response(503)
    rig.want("1")
    await rig.answer()
    await until(lambda: rig.holds.failure_count >= 2)
    rig.plane.gate.clear()
    rig.plane.fault = None
    await until(lambda: rig.plane.free_count)
    count = len(rig.plane.asked)
    rig.want("1")
    assert await rig.answer() == HoldsGranted("1", None)
    assert len(rig.plane.asked) == count
    rig.plane.gate.set()
    await until(lambda: rig.plane.freed)


class Broken(httpx.AsyncByteStream):
    """An answer that breaks off."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Begin and break."""
        yield b"\x92"
        message = "broken"
        raise httpx.ReadError(message)
