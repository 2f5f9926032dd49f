"""The feed when the control plane is away or answers nonsense: the node serves on, and says so."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from penstock.contract.feed import Position, make_page
from penstock.kit.clock import ManualClock
from penstock.node.feed import LOST_AFTER_S, Feed
from penstock.node.publisher import Publisher

KEY = b"k" + b"m" * 32
PAGE = make_page(Position(1, "stamp"), {KEY: b"record"}, set(), is_full=True)
NOTHING_NEW = httpx.Response(204)
NONSENSE: dict[str, httpx.Response | httpx.ConnectError] = {
    "no page": httpx.Response(200, content=b"<html>"),
    "a damaged page": httpx.Response(200, content=PAGE.replace(b"record", b"recorD")),
    "a part that never ends": httpx.Response(
        200, content=make_page(Position(2, "s"), {}, set(), is_full=True, next_after="a")
    ),
    "refused": httpx.Response(401),
    "broken": httpx.Response(500),
    "moved": httpx.Response(302, headers={"location": "http://elsewhere"}),
    "away": httpx.ConnectError("away"),
}


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to be true."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


class Control:
    """A control plane that answers what it is told to."""

    def __init__(self) -> None:
        """Answer with a page first."""
        self.answer: httpx.Response | httpx.ConnectError = httpx.Response(200, content=PAGE)

    async def respond(self, request: httpx.Request) -> httpx.Response:
        """Answer, soon: a question with nothing to tell would be left open."""
        await asyncio.sleep(0.01)
        if isinstance(self.answer, httpx.ConnectError):
            raise self.answer
        if request.url.params["after"]:
            return httpx.Response(500)
        return self.answer


class Rig:
    """A feed that is followed, and its control plane."""

    def __init__(self, folder: Path) -> None:
        """Follow nothing yet."""
        self.clock = ManualClock()
        self.control = Control()
        (folder / "token").write_text("token")
        self.publisher = Publisher(folder / "snapshot", self.clock)
        self.feed = Feed(
            "http://control",
            folder / "token",
            self.publisher,
            self.clock,
            lambda: None,
            transport=httpx.MockTransport(self.control.respond),
        )

    async def until_failed(self) -> None:
        """Wait for the next failure."""
        before = self.feed.failure_count
        await until(lambda: self.feed.failure_count > before)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """A feed that was followed once and has nothing new."""
    rig = Rig(tmp_path)
    following = asyncio.create_task(rig.feed.run())
    await until(lambda: rig.publisher.cursor == ("stamp", 1))
    rig.control.answer = NOTHING_NEW
    yield rig
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    rig.publisher.close()


@pytest.mark.parametrize("nonsense", list(NONSENSE))
async def test_a_lost_feed_is_said_and_nothing_is_forgotten(rig: Rig, nonsense: str) -> None:
    """Behind a named bound the feed is lost, keys stay, and the first good answer ends it."""
    rig.control.answer = NONSENSE[nonsense]
    await rig.until_failed()
    rig.clock.advance(LOST_AFTER_S)
    assert not rig.feed.is_lost
    rig.clock.advance(0.1)
    assert rig.feed.is_lost
    await rig.until_failed()
    assert rig.feed.is_lost, "nonsense is no sign of life"
    assert rig.feed.age_s == pytest.approx(LOST_AFTER_S + 0.1)
    assert rig.publisher.cursor == ("stamp", 1)
    rig.control.answer = NOTHING_NEW
    await until(lambda: not rig.feed.is_lost)
    assert rig.feed.age_s == 0


async def test_a_quiet_feed_is_not_lost(rig: Rig) -> None:
    """A control plane that has nothing new for hours is heard all the same."""
    for _ in range(4):
        rig.clock.advance(LOST_AFTER_S + 1)
        await until(lambda: not rig.feed.is_lost)
    assert rig.feed.failure_count == 0
