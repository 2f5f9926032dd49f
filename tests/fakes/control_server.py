"""The real control plane on a port of this machine, in a thread of the test's own process."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import uvicorn
from tests.fakes.ports import free_port

from penstock.control.app import create_app
from penstock.control.settings import ControlSettings

_START_S = 20.0


@dataclass(frozen=True, slots=True)
class ControlServer:
    """What `serving_control` hands out."""

    url: str
    token: str

    @property
    def environment(self) -> dict[str, str]:
        """What points the commands here."""
        return {"PENSTOCK_URL": self.url, "PENSTOCK_TOKEN": self.token, "NO_COLOR": "1"}

    def as_(self, token: str) -> "ControlServer":
        """Return the same with another token: an API key."""
        return replace(self, token=token)


@contextmanager
def serving_control(template: Path, data: Path, **settings: object) -> Iterator[ControlServer]:
    """Serve from a copy of a migrated SQLite file until the block ends; with further settings."""
    data.mkdir(parents=True)
    shutil.copy(template, data / "usage.db")
    port = free_port()
    app = create_app(msgspec.convert({"data_dir": str(data), **settings}, ControlSettings))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + _START_S
        while not server.started:
            assert thread.is_alive(), "the control plane did not start"
            assert time.monotonic() < deadline, "the control plane did not start in time"
            time.sleep(0.02)
        token = (data / "secrets" / "admin_token").read_text()
        yield ControlServer(f"http://127.0.0.1:{port}", token)
    finally:
        server.should_exit = True
        thread.join()
