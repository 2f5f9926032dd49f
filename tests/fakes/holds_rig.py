"""The agent's part in money, with a control plane that holds once for each name, and a worker."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.fakes.links import FakeWriter, make_link

from penstock.contract.money import FreeRequest, Hold, HoldAnswer, HoldAsk, HoldRequest
from penstock.contract.node import HoldsGranted, WantHolds
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
        await asyncio.sleep(0)  # it is under way, and so is its answer
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
        await asyncio.sleep(0)
        return httpx.Response(200, content=content) if self.fault is None else self.fault()


class HoldsRig:
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

    def restart(self) -> None:
        """Have another agent go on, which knows nothing of what the one before it did."""
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
