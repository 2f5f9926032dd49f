"""Control plane and agent with real workers, each in its own process, without `penstock dev`."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
from tests.fakes.plain_http import NO_TLS
from tests.fakes.ports import free_port

from penstock.control.settings import ControlSettings
from penstock.node.discovery.settings import DiscoverySettings
from penstock.node.settings import AgentSettings

WAIT_S = 60.0
_CONFIG = """\
version: 1
organizations: [{name: dev}]
projects: [{name: playground, organization: dev}]
"""


@dataclass
class Plane:
    """A control plane and a node on one data folder."""

    data: Path
    control_port: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)
    settings: dict[str, Any] = field(default_factory=dict)
    """Further ones of the agent."""
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def control_url(self) -> str:
        """Base URL of the control plane."""
        return f"http://127.0.0.1:{self.control_port}"

    async def start_control(self) -> None:
        """Start the control plane and wait until it answers."""
        settings = ControlSettings(data_dir=str(self.data), port=self.control_port)
        self._start("control", msgspec.json.encode(settings).decode())
        await self._until_ready(f"{self.control_url}/health/ready")

    async def start_node(self, workers: int = 1) -> None:
        """Start the agent and wait until its workers take requests."""
        config = self.data / "penstock.yaml"
        config.write_text(_CONFIG)
        settings = AgentSettings(
            data_path=str(self.data),
            config_path=str(config),
            control_url=self.control_url,
            port=self.port,
            metrics_port=self.metrics_port,
            workers=workers,
            drain_grace_s=2.0,
            ship_grace_s=0.5,
            discovery=DiscoverySettings(networks=("127.0.0.0/8",)),
            **self.settings,
        )
        self._start("node", msgspec.json.encode(settings).decode())
        await self._until_ready(f"http://127.0.0.1:{self.metrics_port}/health/ready")

    def process_id(self, name: str) -> int:
        """Return the id of a process that runs."""
        return self._processes[name].pid

    async def end(self, name: str, number: signal.Signals) -> None:
        """Send a process a signal and wait for its end."""
        process = self._processes.pop(name)
        process.send_signal(number)
        await asyncio.to_thread(process.wait, WAIT_S)

    async def create(self, path: str, **body: Any) -> dict[str, Any]:
        """Create an object as the operator and return it."""
        answer = await self.call("POST", path, body)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    async def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Ask the admin API as the operator."""
        token = (self.data / "secrets" / "admin_token").read_text().strip()
        async with httpx.AsyncClient(
            base_url=f"{self.control_url}/api/v1", verify=NO_TLS
        ) as client:
            headers = {"authorization": f"Bearer {token}"}
            return await client.request(method, path, json=body, headers=headers, timeout=WAIT_S)

    async def chat(self, key: str, model: str) -> int:
        """Send a chat and return the answer's status."""
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}/v1", timeout=WAIT_S, verify=NO_TLS
        ) as client:
            headers = {"authorization": f"Bearer {key}"}
            answer = await client.post("/chat/completions", json=body, headers=headers)
        return answer.status_code

    def clean_up(self) -> None:
        """End everything that was started."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)

    def _start(self, name: str, settings: str) -> None:
        with (self.data / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"penstock.{name}", settings],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

    async def _until_ready(self, url: str) -> None:
        deadline = time.monotonic() + WAIT_S
        async with httpx.AsyncClient(verify=NO_TLS) as client:
            while True:
                try:
                    if (await client.get(url)).is_success:
                        return
                except httpx.HTTPError:
                    pass
                logs = [path.read_text()[-2000:] for path in self.data.glob("*.log")]
                assert time.monotonic() < deadline, f"{url} is not ready: {logs}"
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running_plane(data: Path, *, workers: int = 1, **settings: Any) -> AsyncIterator[Plane]:
    """Start a control plane and a node in a folder, and end them afterwards."""
    plane = Plane(data, settings=settings)
    try:
        await plane.start_control()
        await plane.start_node(workers)
        yield plane
    finally:
        plane.clean_up()
