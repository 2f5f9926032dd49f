"""The socket on which a process answers its operator, and nobody else."""

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from penstock.kit.debug_door import (
    DebugDoor,
    Parameters,
    debug_routes,
    short_path,
    socket_path,
)
from penstock.kit.inspection import Found, Question


async def answer(question: Question, parameters: Parameters) -> Found:
    """Return what was asked."""
    if question.topic == "gc":
        await asyncio.sleep(3600)
    return {"topic": question.topic, "rows": question.rows, "worker": parameters.get("worker")}


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    """Return where a door listens, in a folder whose name is longer than a socket's may be."""
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    path = socket_path(folder, "agent")
    door = DebugDoor(path, debug_routes(answer))
    await door.open()
    yield path
    await door.close()
    assert not path.exists()


async def send(path: Path, content: bytes) -> bytes:
    """Return what is answered to these bytes."""
    with short_path(path) as short:
        reader, writer = await asyncio.open_unix_connection(short)
    writer.write(content)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def ask(path: Path, target: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
    """Return status and body of an answer."""
    head, _, body = (
        await send(path, f"{method} {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    ).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_only_its_user_may_enter(path: Path) -> None:
    """Folder and socket are nobody else's."""
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_another_user_is_not_heard(tmp_path: Path) -> None:
    """Whoever comes past the permissions and is somebody else gets no byte."""
    path = socket_path(tmp_path, "agent")
    door = DebugDoor(path, debug_routes(answer), users=[os.geteuid() + 1])
    await door.open()
    assert await send(path, b"GET /debug/tasks HTTP/1.1\r\n\r\n") == b""
    await door.close()


async def test_a_question_is_answered(path: Path) -> None:
    """Topic and parameters come from the URL."""
    found = await ask(path, "/debug/tasks?rows=7&worker=3")
    assert found == (200, {"topic": "tasks", "rows": 7, "worker": "3"})


@pytest.mark.parametrize(
    ("target", "method", "status"),
    [
        ("/debug/locals", "GET", 404),
        ("/metrics", "GET", 404),
        ("/debug/tasks", "POST", 404),
        ("/debug/tasks?rows=many", "GET", 400),
        ("/debug/tasks?trace_s=x", "GET", 400),
        ("/a b", "GET", 400),
    ],
)
async def test_anything_else_is_not(path: Path, target: str, method: str, status: int) -> None:
    """Unknown paths, other methods and figures that are none are refused in words."""
    answered, body = await ask(path, target, method)
    assert answered == status
    assert body["error"]


async def test_a_long_head_is_not_read(path: Path) -> None:
    """More than a head has is not taken into memory."""
    assert await send(path, b"GET /" + b"x" * 100_000) == b""


async def test_no_more_than_a_few_may_wait(path: Path) -> None:
    """Connections beyond the bound are closed at once; closing ends those that wait."""
    waiting = [asyncio.create_task(ask(path, "/debug/gc")) for _ in range(8)]
    for _ in range(200):
        await asyncio.sleep(0.005)
        if not await send(path, b"GET /debug/tasks HTTP/1.1\r\n\r\n"):
            break
    else:
        pytest.fail("a ninth connection was served")
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_place_without_sockets_stops_nothing(tmp_path: Path) -> None:
    """Where no socket can be made, the process goes on without one."""
    (tmp_path / "debug").write_text("in the way")
    door = DebugDoor(socket_path(tmp_path, "agent"), debug_routes(answer))
    await door.open()
    await door.close()
    assert (tmp_path / "debug").read_text() == "in the way"
