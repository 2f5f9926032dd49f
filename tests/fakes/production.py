"""The product as it runs in production: a control plane on PostgreSQL, an agent, its workers."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from tests.fakes.plain_http import NO_TLS
from tests.fakes.ports import free_port

from penstock.control.settings import ControlSettings
from penstock.node.settings import AgentSettings

START_S = 60.0
MODEL = "emulated-70b"
_DSN = "PENSTOCK_DATABASE"
_CONFIG = """\
version: 1
upstreams: [{name: engine, provider: emulator, endpoints: ["@ENGINE@"]}]
routes: [{name: engine, upstream: engine, model: emulated-70b}]
aliases: [{name: emulated-70b, route: engine}]
"""


class Production:
    """Real processes on one data folder; `start` starts all, and each can be killed.

    Args:
        data: The data folder.
        dsn: Address of a database; SQLite's in the data folder when it is empty.
        workers: How many the agent runs.
        engine: More of the engine's command line.
        agent: More of the agent's settings.
        beside: Another one, whose control plane and engine this node uses, too.
    """

    def __init__(
        self,
        data: Path,
        dsn: str,
        *,
        workers: int = 2,
        engine: Sequence[str] = (),
        agent: Mapping[str, Any] | None = None,
        beside: "Production | None" = None,
    ) -> None:
        """See the class."""
        self._data = data
        self._dsn = dsn
        self._workers = workers
        self._engine = tuple(engine)
        self._agent = dict(agent or {})
        self._beside = beside
        names = ("api", "control", "metrics", "engine")
        self._ports = {name: free_port() for name in names}
        if beside is not None:
            self._ports |= {name: beside._ports[name] for name in ("control", "engine")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        """By name: `control`, `agent`, `engine`."""

    def url(self, name: str) -> str:
        """Return the base URL of `api`, `control`, `metrics` or `engine`."""
        return f"http://127.0.0.1:{self._ports[name]}"

    @property
    def api_port(self) -> int:
        """The port that all workers share."""
        return self._ports["api"]

    @property
    def data(self) -> Path:
        """The data folder."""
        return self._data

    @property
    def admin_headers(self) -> dict[str, str]:
        """What lets in the operator."""
        token = (self._data / "secrets" / "admin_token").read_text().strip()
        return {"authorization": f"Bearer {token}"}

    def log(self, name: str) -> str:
        """Return what a process has logged."""
        return (self._data / f"{name}.log").read_text()

    def start(self) -> None:
        """Start everything, and wait until all of it is ready."""
        self.start_control()
        self.start_node()

    def start_node(self) -> None:
        """Start an engine and the agent, and wait until all workers take requests."""
        if self._beside is None:
            engine = ("--port", str(self._ports["engine"]), "--ttft-ms", "0", "--itl-ms", "0")
            self._start("engine", "penstock.emulator", *engine, *self._engine)
        else:
            shutil.copytree(self._beside._data / "secrets", self._data / "secrets")
        self.start_agent()

    def start_control(self) -> None:
        """Start the control plane, and wait until it and its database are ready."""
        self._data.mkdir(parents=True, exist_ok=True)
        settings = ControlSettings(data_dir=str(self._data), port=self._ports["control"])
        if self._dsn:
            settings = msgspec.structs.replace(settings, database=f"env:{_DSN}")
        self._start("control", "penstock.control", _encode(settings))
        self.until(f"{self.url('control')}/health/ready", lambda answer: answer.is_success)

    def start_agent(self) -> None:
        """Start the agent, and wait until all workers take requests."""
        config = self._data / "penstock.yaml"
        config.write_text(_CONFIG.replace("@ENGINE@", self.url("engine")))
        settings = AgentSettings(
            data_path=str(self._data),
            config_path=str(config),
            control_url=self.url("control"),
            port=self._ports["api"],
            metrics_port=self._ports["metrics"],
            workers=self._workers,
            drain_grace_s=1.0,
            ship_grace_s=1.0,
        )
        settings = msgspec.structs.replace(settings, **self._agent)
        self._start("agent", "penstock.node", _encode(settings))

        def is_complete(answer: httpx.Response) -> bool:
            return answer.is_success and answer.json()["workers_ready"] == self._workers

        self.until(f"{self.url('metrics')}/health/ready", is_complete)

    def end(self, name: str, *, is_hard: bool = False) -> None:
        """End a process, kindly or with kill -9."""
        process = self.processes.pop(name)
        if is_hard:
            process.kill()
        else:
            process.terminate()
        process.wait(START_S)

    def stop(self) -> None:
        """End all that run: the agent first and kindly, because its workers end with it."""
        for name in ("agent", "control", "engine"):
            if name in self.processes:
                self.end(name, is_hard=name != "agent")

    def until(self, url: str, is_good: Callable[[httpx.Response], bool]) -> None:
        """Wait until a URL is answered as wanted."""
        deadline = time.monotonic() + START_S
        with httpx.Client(trust_env=False, verify=NO_TLS) as client:
            while True:
                try:
                    if is_good(client.get(url)):
                        return
                except httpx.HTTPError:
                    pass
                assert time.monotonic() < deadline, f"{url} is not as wanted in time"
                time.sleep(0.05)

    def _start(self, name: str, module: str, *arguments: str) -> None:
        with (self._data / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {_DSN: self._dsn},
            )


def create(admin: httpx.Client, path: str, **members: Any) -> dict[str, Any]:
    """Create an object with the admin API and return it."""
    return change(admin, "POST", path, members)


def change(
    admin: httpx.Client, method: str, path: str, members: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Change something with the admin API and return what it answers."""
    answer = admin.request(method, path, json=dict(members or {}))
    assert answer.is_success, answer.text
    found: dict[str, Any] = json.loads(answer.content)
    return found


@contextmanager
def running_production(data: Path, dsn: str, *, workers: int = 2) -> Iterator[Production]:
    """Run everything for as long as the context lasts."""
    production = Production(data, dsn, workers=workers)
    try:
        production.start()
        yield production
    finally:
        production.stop()


@contextmanager
def administer(production: Production) -> Iterator[httpx.Client]:
    """Hand out a client of the admin API, as the operator."""
    base = f"{production.url('control')}/api/v1"
    headers = production.admin_headers
    with httpx.Client(base_url=base, headers=headers, timeout=30, verify=NO_TLS) as client:
        yield client


def _encode(settings: msgspec.Struct) -> str:
    return msgspec.json.encode(settings).decode()
