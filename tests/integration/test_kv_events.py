"""Engines that tell of their KV caches over ZeroMQ: lines to them that break, and what is known."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import zmq.asyncio
from msgspec.structs import replace
from tests.fakes.agent_process import until
from tests.fakes.ports import free_port
from tests.fakes.telling_engine import BLOCK, TellingEngine, telling_engine

from penstock.catalog.kv_events import parse_kv_events
from penstock.contract.caches import EngineFigures, FollowedEngine
from penstock.contract.snapshot import Endpoint, Upstream
from penstock.engines.kv_events import END
from penstock.node.caches.follower import Follower, Heard
from penstock.node.caches.index import Index, count_lines
from penstock.node.caches.shelves import Room, Shelves
from penstock.node.caches.subscription import Subscription
from penstock.node.caches.supervision import list_followed


def _followed(engine: TellingEngine) -> FollowedEngine:
    return FollowedEngine("u", engine.url, "127.0.0.1", *parse_kv_events(engine.ports))


@asynccontextmanager
async def _following(
    *engines: FollowedEngine, most_lines: int = 9
) -> AsyncIterator[tuple[Index, list[str]]]:
    """Follow engines; return the index, and whose caches it said to be empty."""
    emptied: list[str] = []
    index = Index(lambda engine: emptied.append(engine.url), most_lines, lambda: 0.5)
    try:
        await index.follow(engines)
        yield index, emptied
    finally:
        await index.close()


def _has(index: Index, **wanted: object) -> Callable[[], bool]:
    def has() -> bool:
        (figures,) = index.figures()
        return all(getattr(figures, name) == value for name, value in wanted.items())

    return has


async def _connected(index: Index) -> None:
    await until(_has(index, is_connected=True), "it is heard")


@pytest.mark.parametrize("form", ["map", "array"])
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
async def test_what_was_told_before_is_known(kind: str, form: str) -> None:
    """Who comes late asks for what it missed, and hears the rest; cleared is cleared."""
    with telling_engine(kind, "--kv-events-form", form) as engine:
        await engine.read(BLOCK * 2)
        async with _following(_followed(engine)) as (index, emptied):
            await until(_has(index, blocks=2), "what was before")
            await engine.read(BLOCK * 3)
            await until(_has(index, blocks=3), "what comes")
            assert emptied == []
            await engine.clear()
            await until(_has(index, blocks=0), "it is empty")
            assert emptied == [engine.url]
        (figures,) = index.figures() or (None,)
        assert figures is None


async def test_an_engine_that_is_killed_has_nothing() -> None:
    """Its blocks are forgotten when the line breaks; the next life is known from its beginning."""
    with telling_engine() as engine:
        await engine.read(BLOCK * 2)
        async with _following(_followed(engine)) as (index, emptied):
            await until(_has(index, blocks=2), "what it has")
            engine.kill()
            await until(_has(index, blocks=0, is_connected=False, resets=1), "it is gone")
            assert emptied == []
            engine.start()
            await engine.read(BLOCK)
            await until(_has(index, blocks=1, is_connected=True), "it is back")
            await until(lambda: emptied, "it was said")
    assert emptied == [engine.url]


async def test_without_replay_what_comes_is_known() -> None:
    """Where nothing can be had again, prompts that begin after a loss are known nevertheless."""
    with telling_engine(can_replay=False) as engine:
        await engine.read(BLOCK * 2)
        async with _following(_followed(engine)) as (index, emptied):
            await _connected(index)
            (before,) = index.figures()
            await engine.read("other" + BLOCK)
            await until(lambda: index.figures()[0].events > before.events, "it is told")
            assert index.figures()[0].blocks == 1
            engine.kill()
            await until(_has(index, blocks=0, is_connected=False), "it is gone")
            engine.start()
            await _connected(index)
            await engine.read(BLOCK)
            await until(_has(index, blocks=1), "its new life")
    assert emptied == [engine.url]


async def test_who_is_not_there_yet_is_followed_later() -> None:
    """An engine may start long after it is followed, and be left at any time."""
    engine = TellingEngine()
    async with _following(_followed(engine)) as (index, _):
        assert _has(index, is_connected=False, blocks=0)()
        try:
            engine.start()
            await engine.read(BLOCK)
            await until(_has(index, blocks=1), "it is known")
            await index.follow([])
            assert index.figures() == ()
        finally:
            engine.kill()


class _Publisher:
    """Sends what no engine would."""

    def __init__(self, context: zmq.asyncio.Context) -> None:
        self.context = context
        self.socket = context.socket(zmq.XPUB)
        self.port, self.replay_port = free_port(), free_port()
        self.socket.bind(f"tcp://127.0.0.1:{self.port}")
        self.replayer = context.socket(zmq.ROUTER)
        self.replayer.bind(f"tcp://127.0.0.1:{self.replay_port}")

    async def send(self, *frames: bytes) -> None:
        await self.socket.send_multipart(frames)


@asynccontextmanager
async def _publishing() -> AsyncIterator[_Publisher]:
    with zmq.asyncio.Context() as context:
        publisher = _Publisher(context)
        with publisher.socket, publisher.replayer:
            yield publisher


_EMPTY = b"\x92\x01\x90"
_STORED = msgspec.msgpack.encode([1.0, [["BlockStored", [1], None, [1, 2], 2, None]], 0])


def _number(number: int) -> bytes:
    return number.to_bytes(8, "big")


async def test_what_no_engine_sends_harms_nothing() -> None:
    """Messages of other shapes, and batches that make no sense, are passed over and counted."""
    async with _publishing() as publisher:
        engine = FollowedEngine("u", "x", "127.0.0.1", (publisher.port,))
        async with _following(engine) as (index, _):
            await publisher.socket.recv()  # it subscribed
            await publisher.send(b"topic", b"short", b"")
            await publisher.send(b"one")
            await publisher.send(b"a", b"b", b"c", b"d")
            await publisher.send(b"", _number(0), b"\xc1")
            await publisher.send(b"", _number(2), b"\xc1")
            await publisher.send(b"", _number(2**63 - 1), b"\xc1")
            await publisher.send(b"", END, b"\xc1")
            await until(_has(index, unknown=7, gaps=2, blocks=0), "all is counted")


@pytest.mark.parametrize("frames", [[b""] * 100_000, [b"", _number(0), bytes(5 << 20)]])
async def test_a_message_that_is_too_large_ends_its_line(frames: list[bytes]) -> None:
    """It is refused and counted, and the engine is heard again after a pause."""
    async with _publishing() as publisher:
        engine = FollowedEngine("u", "x", "127.0.0.1", (publisher.port,))
        async with _following(engine) as (index, _):
            await publisher.socket.recv()  # it subscribed
            await publisher.send(*frames)
            assert await publisher.socket.recv() == b"\0", "it left"
            assert await publisher.socket.recv() == b"\1", "it is back"
            await publisher.send(b"", _number(0), _STORED)
            await until(_has(index, failures=1, unknown=0, blocks=1), "it is heard")


async def test_a_gap_is_closed_by_what_is_sent_again() -> None:
    """Batches that were lost on the way are asked for by number; what makes no sense there ends."""
    async with _publishing() as publisher:
        engine = FollowedEngine("u", "x", "127.0.0.1", (publisher.port,), (publisher.replay_port,))
        async with _following(engine) as (index, _):
            who, _, first = await publisher.replayer.recv_multipart()
            assert first == _number(0)
            await publisher.replayer.send_multipart([who, b"", END, b""])
            await _connected(index)
            await publisher.send(b"", _number(0), b"\x92\x01\x90")
            await publisher.send(b"", _number(4), b"\xc1")
            who, _, first = await publisher.replayer.recv_multipart()
            assert first == _number(1)
            for number in (1, 2, 3, 4):
                await publisher.replayer.send_multipart([who, b"", _number(number), b"\xc1"])
            await publisher.replayer.send_multipart([who, b"", b"odd", b""])
            await publisher.replayer.send_multipart([who, b""])
            await until(_has(index, unknown=4, gaps=1, resets=0), "all are there")


async def test_no_number_ends_a_line() -> None:
    """Behind the largest one, and the one that is none, others are asked for and heard."""
    async with _publishing() as publisher:
        engine = FollowedEngine("u", "x", "127.0.0.1", (publisher.port,), (publisher.replay_port,))

        async def replay() -> None:
            while True:
                who, _, _first = await publisher.replayer.recv_multipart()
                await publisher.replayer.send_multipart([who, b"", END, b""])

        replaying = asyncio.create_task(replay())
        async with _following(engine) as (index, _):
            await _connected(index)
            await publisher.send(b"", _number(2**63 - 1), _EMPTY)
            await publisher.send(b"", END, _EMPTY)
            await publisher.send(b"", _number(3), _STORED)
            await until(_has(index, events=1, blocks=1, unknown=1, failures=0), "the last one")
        replaying.cancel()


class _Buggy(Follower):
    """Does once what it should not."""

    is_well = False

    def hear(self, number: int, content: bytes) -> Heard:
        """Take a batch, but for the first one."""
        if not self.is_well:
            self.is_well = True
            raise KeyError(number)
        return super().hear(number, content)


async def test_a_bug_ends_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and counted, and the engine is heard again after a pause."""
    async with _publishing() as publisher:
        follower = _Buggy(Shelves(Room()), "x")
        line = Subscription(
            publisher.context,
            "127.0.0.1",
            publisher.port,
            None,
            follower=follower,
            on_change=lambda: None,
        )
        running = asyncio.create_task(line.run())
        await publisher.socket.recv()  # it subscribed
        await publisher.send(b"", _number(0), _STORED)
        assert await publisher.socket.recv() == b"\0", "it left"
        assert await publisher.socket.recv() == b"\1", "it is back"
        await publisher.send(b"", _number(0), _STORED)
        await until(lambda: len(follower) == 1, "it is heard")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert follower.counts["failures"] == 1
    assert [each.exc_info[0] for each in caplog.records if each.exc_info] == [KeyError]


async def test_counts_of_an_engine_go_on_when_its_ports_change() -> None:
    """What is told of it as a counter never goes down while it is followed."""
    async with _publishing() as publisher:
        engine = FollowedEngine("u", "x", "127.0.0.1", (publisher.port,))
        async with _following(engine) as (index, _):
            await publisher.socket.recv()  # it subscribed
            await publisher.send(b"", _number(0), _STORED)
            await until(_has(index, events=1, blocks=1), "it is heard")
            await index.follow([replace(engine, events=(free_port(),))])
            assert _has(index, events=1, blocks=0)()


async def test_of_too_many_engines_some_are_followed(caplog: pytest.LogCaptureFixture) -> None:
    """As many as there may be lines to; who is followed stays so, and others take free places."""
    one, two, three = (
        FollowedEngine("u", name, "127.0.0.1", (free_port(),) * ranks)
        for name, ranks in (("one", 2), ("two", 2), ("three", 1))
    )
    async with _following(one, two, three, most_lines=3) as (index, _):
        assert [each.url for each in index.figures()] == ["one", "three"]
        assert "too many" in caplog.text
        caplog.clear()
        await index.follow([two, three])
        assert [each.url for each in index.figures()] == ["three", "two"]
        assert caplog.text == ""


def test_lines_are_as_many_as_files_allow() -> None:
    """And as sockets of ZeroMQ do."""
    assert list(map(count_lines, (0, 1_024, 20_000, 1 << 20))) == [0, 128, 3_290, 16_383]


def test_only_hosts_of_endpoints_are_asked() -> None:
    """Each with the ports of its upstream; of several of one host each has its own."""

    def upstream(kv_events: str | None, *urls: tuple[str, int]) -> Upstream:
        endpoints = [Endpoint("http", *url) for url in urls]
        grpc = Endpoint("grpc", "10.0.0.9", 1)
        return Upstream("u", "vllm", (*endpoints, grpc), kv_events=kv_events)

    def places(item: Upstream) -> list[tuple[Any, ...]]:
        return [(each.url, each.host, each.events, each.replay) for each in list_followed([item])]

    a, b = "http://10.0.0.1:8000", "http://10.0.0.2:8000"
    one, two = ("10.0.0.1", 8000), ("10.0.0.2", 8000)
    assert places(upstream(None, one)) == places(upstream("odd", one)) == []
    assert places(upstream("5557-5558", one, two)) == [
        (a, "10.0.0.1", (5557, 5558), ()),
        (b, "10.0.0.2", (5557, 5558), ()),
    ]
    both = upstream("5557-5558/6557-6558", ("10.0.0.1", 8001), one)
    assert places(both) == [
        (a, "10.0.0.1", (5557,), (6557,)),
        ("http://10.0.0.1:8001", "10.0.0.1", (5558,), (6558,)),
    ]
    assert places(upstream("5557", one, ("10.0.0.1", 8001))) == []


def test_figures_are_of_the_contract() -> None:
    """Their order is that of the message."""
    assert EngineFigures("u", "x", True, 1, 2, 3, 4, 5, 6, None).failures == 6  # noqa: FBT003
