"""A real NATS server of our own, from a wheel: JetStream in a temporary folder."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection

from tests.fakes.ports import free_port

START_TIMEOUT_S = 30


class NatsServer:
    """A server that can be killed and started again on the same folder.

    Args:
        folder: Where it keeps streams.
        password: The token that clients need.
    """

    def __init__(self, folder: Path, password: str) -> None:
        """See the class."""
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.password = password
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; return when it accepts connections.

        Raises:
            TimeoutError: It does not start.
        """
        program = Path(sys.executable).parent / "nats-server"
        options = ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self._folder)]
        options += ["--auth", self.password]
        self._process = subprocess.Popen(
            [str(program), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise TimeoutError(self.url) from None
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """Kill it, as a power cut does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def nats_server() -> Iterator[NatsServer]:
    """Run a server."""
    with tempfile.TemporaryDirectory(prefix="ps-nats-") as folder:
        server = NatsServer(Path(folder), "a-token-of-tests")
        try:
            server.start()
            yield server
        finally:
            server.kill()
