"""The control plane as a process: settings become a server."""

import asyncio
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import msgspec
import uvicorn
from fastapi import FastAPI

from penstock.control import log_events
from penstock.control.app import create_app
from penstock.control.settings import ControlSettings
from penstock.kit.debug_door import DebugDoor, debug_routes, socket_path
from penstock.kit.errors import PenstockError
from penstock.kit.inspection import Found, Inspector, Question
from penstock.kit.kek.configure import KekSettingError
from penstock.kit.kek.model import KekUnavailableError
from penstock.kit.logs.setup import configure
from penstock.kit.logs.switch import LevelChange, level_routes
from penstock.kit.secrets import SecretUnavailableError
from penstock.storage.database import Database

BACKLOG = 1_024
DRAIN_GRACE_S = 10


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; requests in flight are finished.

    Returns:
        The exit status: 0 after a signal, 1 when it could not start, 2 for bad settings.
    """
    configure("control")
    try:
        (content,) = arguments
        settings = msgspec.json.decode(content, type=ControlSettings)
    except ValueError as error:
        log_events.SETTINGS_INVALID.log(error=error)
        return 2
    configure("control", form=settings.log_format, level=settings.log_level)
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(_listen(settings.host, settings.port))
            app = create_app(settings)
            asyncio.run(_prepare(settings))
        except (
            PenstockError,
            SecretUnavailableError,
            KekSettingError,
            KekUnavailableError,
            OSError,
        ) as error:
            log_events.CANNOT_START.log(why=error)
            return 1
        return _serve(app, listener, settings)


class _Server(uvicorn.Server):
    """A server that answers its operator as long as it serves.

    Args:
        config: The server's own.
        settings: How it was started.
        record_level: Told of each change of what is logged.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        settings: ControlSettings,
        record_level: Callable[[LevelChange], Awaitable[None]],
    ) -> None:
        super().__init__(config)
        inspector = Inspector(msgspec.to_builtins(settings), self._count_connections)
        self._debug = DebugDoor(
            socket_path(Path(settings.data_dir), "control"),
            {
                **debug_routes(lambda question, _: inspector.answer(question)),
                **level_routes(record_level),
            },
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await self._debug.open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._debug.close()
        await super().shutdown(sockets)

    async def _count_connections(self, _question: Question) -> Found:
        state = self.server_state
        return {"connections": len(state.connections), "requests": len(state.tasks)}


def _serve(app: FastAPI, listener: socket.socket, settings: ControlSettings) -> int:
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=DRAIN_GRACE_S,
        ),
        settings,
        app.state.record_level,
    )
    app.state.is_stopping = lambda: server.should_exit
    # The server ends by raising the signal again, for whoever handled it before: us.
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _listen(host: str, port: int) -> socket.socket:
    # Ours before anything of the data is touched; the server's own way to fail is to exit.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    host_now, port_now = listener.getsockname()[:2]
    log_events.LISTENING.log(host=host_now, port=port_now)
    return listener


async def _prepare(settings: ControlSettings) -> None:
    # The application does it again and finds it done; but there a failure ends in a traceback.
    database = Database(settings.database_location)
    try:
        await database.open()
    finally:
        await database.close()


def _stop(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)
