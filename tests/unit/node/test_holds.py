"""Money that the agent has held for workers: what is asked, answered and given back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from tests.fakes.holds_rig import ASKS, HOLD, HoldsRig, until
from tests.fakes.links import make_link

from penstock.contract.money import FreeRequest, HoldAnswer, HoldRequest, HoldShortage
from penstock.contract.node import CheckHolds, FreeHolds, HoldsChecked, HoldsGranted


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[HoldsRig]:
    """Return a rig whose agent gives back what is free."""
    rig = HoldsRig(tmp_path)
    running = asyncio.create_task(rig.holds.run())
    yield rig
    running.cancel()
    await rig.holds.close()
    await rig.calls.close()


async def test_what_is_held_is_told(rig: HoldsRig) -> None:
    """A worker is told of its holds; they are asked for in the name of its life."""
    rig.want("1")
    assert await rig.answer() == HoldsGranted("1", (HOLD,))
    assert rig.plane.asked == [HoldRequest("node-1/0", 7, "1", "org", ASKS)]


async def test_a_shortage_is_told(rig: HoldsRig) -> None:
    """A worker learns what is left, and until when."""
    rig.plane.answer = HoldAnswer(None, HoldShortage(0, 3, 60))
    rig.want("1")
    assert await rig.answer() == HoldsGranted("1", None, HoldShortage(0, 3, 60))


@pytest.mark.parametrize("fault", ["none", "refused", "status", "hung"])
async def test_a_worker_hears_whether_the_database_is_there(rig: HoldsRig, fault: str) -> None:
    """It is asked to change nothing, in the name of the worker's life, within a second."""
    rig.plane.is_closed = fault == "refused"
    if fault == "status":
        rig.plane.fault = lambda: httpx.Response(503)
    if fault == "hung":
        rig.plane.gate.clear()
    rig.holds.hear(rig.link, CheckHolds(5_000))
    await until(lambda: rig.writer.messages)
    assert rig.writer.messages == [HoldsChecked(5_000, is_there=fault == "none")]
    if fault == "none":
        assert rig.plane.freed == [FreeRequest("node-1/0", 7, ())]


async def test_freed_holds_are_told_until_it_is_heard(rig: HoldsRig) -> None:
    """What a worker gives back is told on while the control plane is away, the most of each."""
    rig.plane.is_closed = True
    rig.holds.hear(rig.link, FreeHolds((("hold_1", 40), ("hold_2", 7))))
    rig.holds.hear(rig.link, FreeHolds((("hold_1", 90),)))
    rig.holds.hear(rig.link, FreeHolds((("hold_1", 60),)))
    await until(lambda: rig.holds.failure_count)
    rig.plane.is_closed = False
    await until(lambda: rig.plane.freed)
    assert rig.plane.freed == [FreeRequest("node-1/0", 7, (("hold_1", 90), ("hold_2", 7)))]


async def test_without_a_control_plane_nothing_is_held(rig: HoldsRig) -> None:
    """A worker is told at once when nobody can be asked, and nothing is asked for it later."""
    rig.plane.is_closed = True
    rig.want("1")
    assert await rig.answer() == HoldsGranted("1", None)
    rig.plane.is_closed = False
    rig.want("2")
    assert (await rig.answer()).holds == (HOLD,)
    assert [asked.take_id for asked in rig.plane.asked] == ["2"]


@pytest.mark.parametrize("fault", ["unread", "status", "garbage"])
async def test_what_nobody_knows_to_be_held_is_given_back(rig: HoldsRig, fault: str) -> None:
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


async def test_a_worker_that_asks_again_keeps_what_is_held(rig: HoldsRig) -> None:
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


async def test_what_is_being_freed_is_not_given_again(rig: HoldsRig) -> None:
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


async def test_a_bug_in_answering_ends_all_of_it(tmp_path: Path) -> None:
    """It is raised where the agent sees it, and no worker waits for ever in silence."""
    rig = HoldsRig(tmp_path)

    def fail() -> httpx.Response:
        message = "a bug"
        raise RuntimeError(message)

    rig.plane.fault = fail
    rig.want("1")
    with pytest.raises(RuntimeError, match="a bug"):
        await asyncio.wait_for(rig.holds.run(), 20)
    await rig.holds.close()
    await rig.calls.close()
