"""Whom a worker asks what is in engines' caches: it never waits long."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.fakes.agent_process import until

from penstock.contract.caches import Ask, Found, decode_ask, encode_said
from penstock.contract.node import Frames
from penstock.gateway.caches import NOTHING, Caches
from penstock.gateway.limits import CACHES_ASKED, CACHES_LATE

TARGET: Any = SimpleNamespace(
    upstream=SimpleNamespace(name="gpu"), deployment=SimpleNamespace(model="served")
)
FOUND = (("http://a:1", 32),)


class _Process:
    """Answers as a test wants it to."""

    def __init__(self, answer: Callable[[Ask], bytes]) -> None:
        self.answer = answer
        self.asked: list[Ask] = []
        self.writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        frames = Frames()
        while content := await reader.read(65_536):
            for payload in frames.feed(content):
                self.asked.append(decode_ask(payload))
                writer.write(self.answer(self.asked[-1]))
        writer.close()


class _Rig:
    def __init__(self, process: _Process, socket: str) -> None:
        self.process = process
        self.counts = Counter[str]()
        self.told: list[Found] = []
        loop = asyncio.get_running_loop()
        settings: Any = SimpleNamespace(caches_socket=socket, caches_wait_s=0.02)
        self.caches = Caches(settings, loop, lambda _, answer: self.counts.update([answer]))

    def ask(self) -> bool:
        return self.caches.ask(TARGET, b"{}", ["http://b:1"], self.told.append)

    def has_told(self, count: int) -> bool:
        return len(self.told) == count

    def is_idle(self) -> bool:
        return self.caches._connecting is None

    async def connect(self) -> None:
        assert not self.ask()
        await until(lambda: self.caches._transport, "it is connected")
        self.counts.clear()


@asynccontextmanager
async def _running(
    folder: Path, answer: Callable[[Ask], bytes] = lambda _: b""
) -> AsyncIterator[_Rig]:
    process = _Process(answer)
    socket = folder / "s"
    server = await asyncio.start_unix_server(process.serve, socket)
    rig = _Rig(process, str(socket))
    try:
        await rig.connect()
        yield rig
    finally:
        if rig.caches._transport is not None:
            rig.caches._transport.abort()
        server.close()
        await until(lambda: rig.caches._transport is None, "it is closed")
        await asyncio.sleep(0)


def _write(ask: Ask) -> bytes:
    return encode_said(Found(ask.number, FOUND, ("http://b:1",)))


async def test_answers_belong_to_their_questions(tmp_path: Path) -> None:
    """Each is passed on once, to whoever asked."""
    async with _running(tmp_path) as rig:
        assert rig.ask()
        assert rig.ask()
        assert rig.told == []
        await until(lambda: len(rig.told) == 2, "nobody waits for long")
        assert rig.told == [NOTHING, NOTHING]
        assert rig.counts == {"late": 2}
        await until(lambda: len(rig.process.asked) == 2, "both are read")
        assert [each.body for each in rig.process.asked] == [b"{}"] * 2
        for ask in rig.process.asked:  # what comes late is for nobody
            rig.caches.data_received(_write(ask))
        assert len(rig.told) == 2
        assert rig.ask()
        rig.caches.data_received(_write(Ask(3, "", "", b"")))
        assert rig.told[-1] == Found(3, FOUND, ("http://b:1",))
        assert rig.counts == {"late": 2, "told": 1}


async def test_who_is_late_again_and_again_is_asked_no_more(tmp_path: Path) -> None:
    """For a while; so requests are not later for it either."""
    async with _running(tmp_path) as rig:
        for number in range(CACHES_LATE - 1):
            assert rig.ask()
            await until(partial(rig.has_told, number + 1), "late")
        is_asked: list[bool] = []
        assert rig.caches.ask(TARGET, b"{}", (), lambda _: is_asked.append(rig.ask()))
        await until(lambda: is_asked, "the last one is late")
        assert is_asked == [False]
        assert rig.counts == {"late": CACHES_LATE, "unasked": 1}
        await until(rig.ask, "it is asked again")


async def test_many_do_not_wait_at_a_time(tmp_path: Path) -> None:
    """Those beyond the bound go by what is known here."""
    async with _running(tmp_path) as rig:
        assert all(rig.ask() for _ in range(CACHES_ASKED))
        assert not rig.ask()
        await until(lambda: len(rig.told) == CACHES_ASKED, "all go on")


async def test_nobody_waits_for_a_lost_connection(tmp_path: Path) -> None:
    """Those who wait go on at once, and it is made again."""
    async with _running(tmp_path) as rig:
        await until(lambda: rig.process.writer, "it is there")
        assert rig.ask()
        assert rig.process.writer is not None
        rig.process.writer.close()
        await until(lambda: rig.told == [NOTHING], "it goes on")
        await until(rig.ask, "it is asked again")


@pytest.mark.parametrize("odd", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\0"])
async def test_answers_that_make_no_sense_end_the_connection(tmp_path: Path, odd: bytes) -> None:
    """And harm nobody who waits."""
    async with _running(tmp_path, lambda _: odd) as rig:
        assert rig.ask()
        await until(lambda: rig.told == [NOTHING], "it goes on")
        await until(lambda: rig.caches._transport is None, "it ended")
        rig.process.answer = _write
        await until(lambda: rig.ask() and rig.caches._transport, "it is there again")


async def test_without_a_process_nobody_is_asked(tmp_path: Path) -> None:
    """Neither where there is none, nor where none is meant to be."""
    for socket in ("", str(tmp_path / "none")):
        rig = _Rig(_Process(_write), socket)
        assert not any(rig.ask() for _ in range(3))
        await asyncio.sleep(0)
        assert rig.counts == {"unasked": 3}
        await until(rig.is_idle, "it gave up")
