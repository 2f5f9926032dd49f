"""A Unix socket on which a process answers its operator, and nobody else.

It speaks HTTP, so that `curl --unix-socket` does, too. Who may enter is decided by the kernel: the
socket and its folder are this user's alone, and whoever comes is asked for by `SO_PEERCRED`. Such a
user could read the process's memory and secrets anyway, so the door gives nothing away.
"""

import asyncio
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from penstock.kit import log_events
from penstock.kit.inspection import Found, InspectionError, Question
from penstock.kit.inspection_topics import DEFAULT_ROWS, Topic
from penstock.kit.streams import write_if_open

_FOLDER: Final = "debug"
_HEAD_BYTES: Final = 8 * 1024
_HEAD_S: Final = 5.0
_ANSWER_S: Final = 60.0
_CONNECTIONS: Final = 8
_ROOT: Final = 0
_CREDENTIALS: Final = struct.Struct("3i")
_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}

Parameters: TypeAlias = Mapping[str, str]
Handler: TypeAlias = Callable[[Parameters, int], Awaitable[Any]]
"""Returns what is answered as JSON to a user of this machine, who is a number; an `InspectionError`
is told as 400."""
Routes: TypeAlias = Mapping[tuple[str, str], Handler]
"""By method and path."""


def socket_path(data: Path, process: str) -> Path:
    """Return where a process of a data folder listens.

    Args:
        data: The data folder.
        process: `agent` or `control`.
    """
    return data / _FOLDER / f"{process}.sock"


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Yield another path of a socket, short enough for the kernel however long its own is."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def debug_routes(answer: Callable[[Question, Parameters], Awaitable[Found]]) -> Routes:
    """Return `GET /debug/<topic>` for each topic that all processes have."""

    def make(topic: str) -> Handler:
        async def handle(parameters: Parameters, _user: int) -> Found:
            return await answer(_read_question(topic, parameters), parameters)

        return handle

    return {("GET", f"/debug/{topic}"): make(topic) for topic in Topic}


def _read_question(topic: str, parameters: Parameters) -> Question:
    try:
        rows = int(parameters.get("rows", DEFAULT_ROWS))
        return Question(topic, rows, float(parameters.get("trace_s", 0)))
    except ValueError:
        message = "rows and trace_s are numbers"
        raise InspectionError(message) from None


class DebugDoor:
    """The listener.

    Args:
        path: Where its socket is made, by `socket_path`.
        routes: What is answered.
        users: Who is heard, by their numbers; root and this process's own user when None.
    """

    def __init__(self, path: Path, routes: Routes, users: Collection[int] | None = None) -> None:
        """See the class."""
        self._users = {_ROOT, os.geteuid()} if users is None else users
        self._path = path
        self._routes = routes
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen. The caller is the only process of its kind on the data folder.

        Where that cannot be, as on file systems without sockets, it is logged and all else goes on.
        """
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._path.parent.chmod(0o700)
            self._path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.setblocking(False)  # noqa: FBT003 - its only parameter
            with short_path(self._path) as short:
                listener.bind(short)
            self._path.chmod(0o600)
            self._server = await asyncio.start_unix_server(
                self._accept, sock=listener, limit=_HEAD_BYTES
            )
        except OSError as error:
            log_events.NO_DEBUG_SOCKET.log(path=self._path, error=error)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        user = _user_of(peer)
        if len(self._tasks) >= _CONNECTIONS or user not in self._users:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(
            self._serve(reader, writer, user), name="debug"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: int
    ) -> None:
        try:
            async with asyncio.timeout(_HEAD_S):
                head = await reader.readuntil(b"\r\n\r\n")
            status, found = await self._answer(head, user)
            body = json.dumps(found).encode() + b"\n"
            write_if_open(
                writer,
                f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
                + body,
            )
            async with asyncio.timeout(_HEAD_S):
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it asked nothing, or does not want to hear it
        finally:
            writer.close()

    async def _answer(self, head: bytes, user: int) -> tuple[int, Any]:
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3:  # noqa: PLR2004 - method, target, version
            return 400, {"error": "this is no HTTP"}
        url = urlsplit(words[1])
        handler = self._routes.get((words[0], url.path))
        if handler is None:
            known = sorted(f"{method} {path}" for method, path in self._routes)
            return 404, {"error": f"there are {', '.join(known)}"}
        try:
            async with asyncio.timeout(_ANSWER_S):
                return 200, await handler(dict(parse_qsl(url.query)), user)
        except InspectionError as error:
            return 400, {"error": str(error)}
        except TimeoutError:
            return 503, {"error": "it took too long"}


def _user_of(peer: socket.socket) -> int:
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, _ = _CREDENTIALS.unpack(credentials)
    return int(user)
