"""The process that follows engines' KV caches, spoken to as its agent and workers speak to it."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pytest
from tests.fakes.ports import free_port
from tests.fakes.served_upstreams import ServedUpstreams
from tests.fakes.small_tokenizer import write_tokenizer
from tests.fakes.telling_engine import BLOCK, TellingEngine, telling_engine

from penstock.catalog.kv_events import parse_kv_events
from penstock.contract.caches import (
    AgentSays,
    Ask,
    Emptied,
    Figures,
    Follow,
    FollowedEngine,
    FollowedModel,
    Found,
    decode_found,
    decode_process_says,
    encode_said,
)
from penstock.contract.node import Frames, LogLevel
from penstock.contract.node_parts import Parts, split
from penstock.contract.snapshot import Endpoint, Upstream
from penstock.kit.clock import SystemClock
from penstock.node.caches.process import CachesSettings
from penstock.node.caches.supervision import Caches
from penstock.node.settings import AgentSettings

PATIENCE_S = 60.0
TEXT = BLOCK * 4


class _Process:
    """One of it, with what it said last."""

    def __init__(self, process: asyncio.subprocess.Process, socket: Path) -> None:
        self.process = process
        self.socket = socket
        self.said: list[Any] = []
        self._hearing = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        assert self.process.stdout is not None
        frames, parts = Frames(), Parts()
        while content := await self.process.stdout.read(65_536):
            for said in map(decode_process_says, frames.feed(content)):
                whole = parts.join(said) if isinstance(said, Figures) else said
                if whole is not None:
                    self.said.append(whole)

    def follow(self, *engines: FollowedEngine, models: tuple[FollowedModel, ...] = ()) -> None:
        for part in split(Follow(engines, models)):
            self.tell(part)

    def tell(self, message: AgentSays) -> None:
        """Say something as its agent does."""
        assert self.process.stdin is not None
        self.process.stdin.write(encode_said(message))

    async def until(self, holds: Callable[[list[Any]], object]) -> None:
        """Wait for it to have said something."""
        until_s = time.monotonic() + PATIENCE_S
        while not holds(self.said):
            assert time.monotonic() < until_s, self.said[-3:]
            await asyncio.sleep(0.05)

    async def until_blocks(self, count: int) -> None:
        """Wait for it to know so many blocks of all engines."""

        def has(said: list[Any]) -> bool:
            figures = [each for each in said if isinstance(each, Figures)]
            return bool(figures) and sum(each.blocks for each in figures[-1].engines) == count

        await self.until(has)

    async def ask(self, body: bytes, model: str = "m", sent: tuple[str, ...] = ()) -> Found:
        """Ask it as a worker does."""
        reader, writer = await asyncio.open_unix_connection(self.socket)
        writer.write(encode_said(Ask(7, "u", model, body, sent)))
        frames = Frames()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for payload in frames.feed(await reader.read(65_536)):
                    writer.close()
                    return decode_found(payload)

    async def ask_until_found(self, body: bytes) -> Found:
        """Ask it until it has read the model's tokenizer."""
        async with asyncio.timeout(PATIENCE_S):
            while not (found := await self.ask(body)).endpoints:  # noqa: ASYNC110 - nobody would tell
                await asyncio.sleep(0.05)
        return found

    async def end(self) -> int:
        """Leave it alone, as an agent does that ends; return its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(PATIENCE_S):
            code = await self.process.wait()
            await self._hearing
        return code


@asynccontextmanager
async def _running(
    folder: Path, answer_s: float = 20.0, stderr: BinaryIO | None = None, memory_bytes: int = 0
) -> AsyncIterator[_Process]:
    socket = folder / "s"
    settings = CachesSettings("node-a", str(socket), answer_s, "json", "info", memory_bytes)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "penstock.node.caches",
        msgspec.json.encode(settings).decode(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )
    running = _Process(process, socket)
    try:
        await running.until(lambda said: said and socket.exists())
        yield running
        if process.returncode is None:
            assert await running.end() == 0
            assert not socket.exists()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _followed(engine: TellingEngine) -> FollowedEngine:
    return FollowedEngine("u", engine.url, "127.0.0.1", *parse_kv_events(engine.ports))


def _body(salt: str | None, prompt: str = TEXT, **members: Any) -> bytes:
    return msgspec.json.encode({"prompt": prompt, "cache_salt": salt, **members})


async def test_it_answers_who_has_a_prompt(tmp_path: Path) -> None:
    """Who has most of it, under the prompt's salt alone; when nobody has, who of some is heard."""
    folder = write_tokenizer(tmp_path / "model", TEXT)
    model = FollowedModel("u", "m", str(folder))
    adapter = FollowedModel("u", "sql", str(folder), "sql")
    with telling_engine() as one, telling_engine() as two, telling_engine("sglang") as silent:
        async with _running(tmp_path) as process:
            engines = [_followed(each) for each in (one, two, silent)]
            process.follow(*engines, models=(model, adapter))
            await one.read(TEXT, "acme")
            await two.read(TEXT[: len(BLOCK)], "acme")
            await silent.read(TEXT, "acme")
            await process.until_blocks(9)
            found = await process.ask_until_found(_body("acme"))
            assert found == Found(7, ((one.url, 64),))
            both = await process.ask(_body("acme", TEXT[: len(BLOCK)]))
            assert set(both.endpoints) == {(one.url, 16), (two.url, 16)}
            chat = {"messages": [{"role": "user", "content": TEXT}], "cache_salt": "acme"}
            assert (await process.ask(msgspec.json.encode(chat))).endpoints == found.endpoints
            for nothing in (_body("other"), _body("acme", "x" + TEXT), b"no JSON"):
                assert (await process.ask(nothing)).endpoints == ()
            sent = one.url, silent.url, "http://10.0.0.1:1"
            heard = (await process.ask(_body("other"), sent=sent)).heard
            assert heard == (one.url,), "who tells no salts says nothing"
            assert await process.ask(_body("acme"), "sql") == Found(7), (
                "nothing was ever found of it"
            )
            assert await process.ask(_body("acme"), "other") == Found(7)

            await one.clear()
            await process.until(lambda said: Emptied("u", one.url) in said)
            assert (await process.ask(_body("acme"))).endpoints == ((two.url, 16),)
            process.follow(_followed(two))
            await process.until_blocks(1)
            assert await process.ask(_body("acme")) == Found(7), "its model is not known any more"


async def test_what_is_late_or_unusable_is_answered_with_nothing(tmp_path: Path) -> None:
    """Nobody waits for an answer, and a tokenizer that is not there harms nothing else."""
    model = FollowedModel("u", "m", str(write_tokenizer(tmp_path / "model", TEXT)))
    bad = FollowedModel("u", "bad", str(tmp_path / "nowhere"))
    with telling_engine() as engine:
        async with _running(tmp_path, answer_s=0.0) as process:
            process.follow(_followed(engine), models=(bad, model))
            await engine.read(TEXT, "acme")
            await process.until_blocks(4)
            for name in ("m", "bad"):
                assert await process.ask(_body("acme"), name) == Found(7)


@pytest.mark.parametrize("odd", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\0"])
async def test_questions_that_make_no_sense_end_their_connection(
    tmp_path: Path, odd: bytes
) -> None:
    """Others are answered on."""
    async with _running(tmp_path) as process:
        reader, writer = await asyncio.open_unix_connection(process.socket)
        writer.write(odd)
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
        writer.close()
        assert await process.ask(b"{}") == Found(7)


async def test_a_stale_socket_is_no_obstacle(tmp_path: Path) -> None:
    """What a killed one left behind is taken over."""
    (tmp_path / "s").touch()
    async with _running(tmp_path) as process:
        process.follow(FollowedEngine("u", "x", "127.0.0.1", (free_port(),)))
        await process.until(lambda said: any(each.engines for each in said))
        assert await process.ask(b"{}") == Found(7)


async def test_many_engines_are_followed(tmp_path: Path) -> None:
    """More than ZeroMQ has sockets for when nobody says how many, and the last one as the first."""
    nobody = [
        FollowedEngine("u", f"http://10.0.0.1:{number}", "127.0.0.1", (1,)) for number in range(400)
    ]
    with telling_engine() as engine:
        await engine.read(TEXT)
        async with _running(tmp_path) as process:
            process.follow(*nobody, _followed(engine))
            await process.until_blocks(4)


async def test_another_ones_socket_stays(tmp_path: Path) -> None:
    """A new agent may have started another one before the one of a dead agent ends."""
    async with _running(tmp_path) as process:
        process.socket.unlink()
        process.socket.touch()
        assert await process.end() == 0
        assert process.socket.exists()
        process.socket.unlink()


async def test_any_number_of_engines_can_be_followed(tmp_path: Path) -> None:
    """What is longer than a message may be goes in parts, both ways, and the last one counts."""
    with telling_engine() as engine:
        async with _running(tmp_path) as process:
            many = [  # without a port, so that this machine has no lines to them
                FollowedEngine("u", f"http://{host}:8000", host, ())
                for host in (
                    f"llama-{number:05}.inference.svc.cluster.local" for number in range(60_000)
                )
            ]
            assert len(split(Follow(tuple(many)))) > 1
            process.follow(*many, _followed(engine))
            await engine.read(BLOCK * 2)
            await process.until_blocks(2)
            told = process.said[-1].engines
            assert [each.url for each in told] == [*(each.url for each in many), engine.url]


async def test_it_logs_from_the_level_that_its_agent_says(tmp_path: Path) -> None:
    """As workers do; nobody has to start it anew."""
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        async with _running(tmp_path, stderr=stderr) as process:
            process.tell(LogLevel("error"))
            process.follow(models=(FollowedModel("u", "m", "/not/there"),))
            process.tell(LogLevel("debug"))
    said = [msgspec.json.decode(line) for line in log.read_bytes().splitlines()]
    assert [(each["event"], each.get("now")) for each in said] == [
        ("kit.log_level_changed", "error"),
        ("node.tokenizer_unusable", None),
        ("kit.log_level_changed", "debug"),
    ]


_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)
_READY = b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04XPUB"
_EMPTY_PART = b"\x01\x00"
"""Of a message that goes on."""
_MOST_PARTS = 1 << 24
"""Each takes 64 bytes of memory: 1 GiB."""


async def test_a_message_that_never_ends_takes_bounded_memory(tmp_path: Path) -> None:
    """The line ends before the process has more than it may, if not the process with it."""
    ended = asyncio.get_running_loop().create_future()

    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_GREETING + _READY)
        parts, count = _EMPTY_PART * (1 << 18), 0
        with contextlib.suppress(OSError):
            while count < _MOST_PARTS:
                writer.write(parts)
                await writer.drain()
                count += 1 << 18
        writer.transport.abort()
        if not ended.done():
            ended.set_result(count)

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with _running(tmp_path, memory_bytes=256 << 20) as process:
        process.follow(FollowedEngine("u", "x", "127.0.0.1", (port,)))
        async with asyncio.timeout(PATIENCE_S * 2):
            assert await ended < _MOST_PARTS
        server.close()
        process.process.kill()  # whether it lives or not, an agent would start the next one
        await process.process.wait()


async def test_a_message_that_never_ends_ends_its_line_alone(tmp_path: Path) -> None:
    """The process lives, whoever sends it is left out for a while, and others are heard on."""
    is_cut_off = asyncio.get_running_loop().create_future()

    async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not is_cut_off.done():
            writer.write(_GREETING + _READY)
            part = b"\x03" + (1 << 20).to_bytes(8, "big") + bytes(1 << 20)
            try:
                for _ in range(1 << 10):  # a GiB
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.02)
                is_cut_off.set_result(False)
            except OSError:
                is_cut_off.set_result(True)
        writer.transport.abort()

    def is_counted(said: list[Any]) -> bool:
        last = [each for each in said if isinstance(each, Figures)][-1]
        return [each.failures > 0 for each in last.engines] == [True, False]

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with telling_engine() as engine:
            async with _running(tmp_path) as process:
                process.follow(FollowedEngine("u", "x", "127.0.0.1", (port,)), _followed(engine))
                await engine.read(TEXT)
                await process.until_blocks(4)
                async with asyncio.timeout(PATIENCE_S * 2):
                    assert await is_cut_off
                await process.until(is_counted)
                await engine.read("other" + TEXT)
                await process.until_blocks(8)
                assert process.process.returncode is None


class _Flawed(ServedUpstreams):
    """What is served cannot be read a second time."""

    def list_upstreams(self) -> list[Upstream]:
        if self.version > 1:
            message = "a bug"
            raise RuntimeError(message)
        return super().list_upstreams()


async def test_a_bug_in_feeding_is_not_silent(tmp_path: Path) -> None:
    """What keeps the process from hearing of changes is raised where the agent sees it."""
    followed = Upstream("u", "vllm", (Endpoint("http", "127.0.0.1", 8000),), kv_events="5557")
    served = _Flawed(followed)
    caches = Caches(
        AgentSettings(data_path=str(tmp_path), control_url="http://control"),
        "node-a",
        tmp_path / "s",
        served,
        clock=SystemClock(),
        tell=lambda _: None,
    )
    running = asyncio.create_task(caches.run())
    async with asyncio.timeout(PATIENCE_S):
        while caches.pid is None:
            assert not running.done(), running.result()
            await asyncio.sleep(0.05)
        served.version = 2
        with pytest.raises(RuntimeError, match="a bug"):
            await running
