"""The process that follows engines' KV caches, as its agent tells it; it ends with its agent.

It is one of its own since events come in thousands a second, and neither agent nor workers may be
late by them. What it knows it is told again when it starts anew.
"""

import asyncio
import contextlib
import os
import random
import sys
from pathlib import Path

import msgspec

from penstock.contract.caches import (
    Emptied,
    Figures,
    FollowedEngine,
    decode_agent_says,
    encode_said,
)
from penstock.contract.node import Frames, LogLevel
from penstock.contract.node_parts import Parts, split
from penstock.kit.logs.setup import Form, LevelName, change_level
from penstock.kit.processes import raise_open_files
from penstock.kit.streams import write_if_open
from penstock.node.caches.desk import Desk
from penstock.node.caches.index import Index, count_lines

FIGURES_S = 1.0
_READ_BYTES = 64 * 1024


class CachesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it is started."""

    node_id: str
    socket: str
    """Where workers ask; a path of at most 107 bytes."""
    answer_s: float = 0.02
    """How long they wait for an answer."""
    log_format: Form = "auto"
    log_level: LevelName = "info"
    memory_bytes: int = 0
    """The most that it may have; half of what there is when 0."""


async def serve(settings: CachesSettings) -> None:
    """Follow what the agent names, and answer workers, until the agent is gone."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    # What libraries may print is no message.
    said = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, said)

    def on_emptied(engine: FollowedEngine) -> None:
        write_if_open(writer, encode_said(Emptied(engine.upstream, engine.url)))

    async def tell() -> None:
        while True:
            await index.look()
            if not writer.get_write_buffer_size():  # else the agent has not read the last ones
                for part in split(Figures(index.figures())):
                    write_if_open(writer, encode_said(part))
            await asyncio.sleep(FIGURES_S)

    index = Index(on_emptied, count_lines(raise_open_files()), random.random)
    desk = Desk(index, settings.answer_s, loop.time)
    socket = Path(settings.socket)
    server = await desk.open(socket)
    made = await asyncio.to_thread(socket.stat)
    frames, parts = Frames(), Parts()
    async with asyncio.TaskGroup() as group:  # a bug ends the process, and the agent starts another
        telling = group.create_task(tell(), name="figures")
        while content := await reader.read(_READ_BYTES):
            for payload in frames.feed(content):
                said = decode_agent_says(payload)
                if isinstance(said, LogLevel):
                    change_level(said.level)
                elif (follow := parts.join(said)) is not None:
                    await index.follow(follow.engines)
                    await desk.know(follow.models)
        telling.cancel()
    server.close()
    await asyncio.to_thread(_remove, socket, made)
    desk.close()
    await index.close()
    writer.close()


def _remove(socket: Path, made: os.stat_result) -> None:
    """Remove our socket; another one there is of who was started while we were busy."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(socket.stat(), made):
            socket.unlink()
