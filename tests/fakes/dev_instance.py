"""The whole product in its own processes, as `penstock dev` starts it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.fakes.plain_http import NO_TLS
from tests.fakes.ports import free_port

START_S = 90.0


@dataclass
class DevInstance:
    """A running `penstock dev`."""

    process: subprocess.Popen[bytes]
    data: Path
    output: Path
    facts: dict[str, Any]

    @property
    def api_url(self) -> str:
        """Base URL of the OpenAI-compatible API."""
        return f"{self.facts['base_url'].removesuffix('/v1')}/v1"

    def usage(self) -> list[dict[str, Any]]:
        """Return what `penstock usage --json` prints, a row a line."""
        done = subprocess.run(
            [*PENSTOCK, "usage", "--json", "--data", str(self.data)],
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode()
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait_usage(self, request_ids: set[str], timeout_s: float = 20.0) -> list[dict[str, Any]]:
        """Wait until every request has a row, and return all rows."""
        deadline = time.monotonic() + timeout_s
        # A command takes longer to start than rows to come: the waiting is done without one.
        with httpx.Client(base_url=self.facts["control_url"], verify=NO_TLS) as client:
            while missing := request_ids - self._stored_ids(client):
                assert time.monotonic() < deadline, f"{len(missing)} without a row: {missing}"
                time.sleep(0.1)
        return self.usage()

    def _stored_ids(self, client: httpx.Client) -> set[str]:
        headers = {"authorization": f"Bearer {self.facts['admin_token']}"}
        params: dict[str, str] = {"limit": "1000"}
        found: set[str] = set()
        while True:
            answer = client.get("/api/v1/usage", params=params, headers=headers, timeout=30)
            answer.raise_for_status()
            page = answer.json()
            found.update(row["request_id"] for row in page["data"])
            if page["next_cursor"] is None:
                return found
            params["cursor"] = page["next_cursor"]

    def children(self, module: str) -> list[psutil.Process]:
        """Return the running processes `python -m <module>` that belong to this data folder."""
        found = []
        for process in psutil.process_iter():
            try:
                line = process.cmdline()
            except psutil.Error:
                continue
            if module in line and any(str(self.data) in part for part in line):
                found.append(process)
        return found

    def stop(self) -> int:
        """Press Ctrl-C and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


PENSTOCK = [str(Path(sys.executable).with_name("penstock"))]


@contextmanager
def running_dev(data: Path, *arguments: str) -> Iterator[DevInstance]:
    """Start `penstock dev` on free ports, wait until it serves, and stop it afterwards.

    Args:
        data: Its data folder.
        arguments: More of the command line.
    """
    data.parent.mkdir(parents=True, exist_ok=True)
    output = data.parent / f"{data.name}.out"
    ports = {name: free_port() for name in ("gateway", "control", "metrics")}
    flags = [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]
    with output.open("ab") as file:
        process = subprocess.Popen(
            [*PENSTOCK, "dev", "--data", str(data), *flags, *arguments],
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"COLUMNS": "200"},
        )
    try:
        facts = _wait_ready(process, data, output)
        yield DevInstance(process, data, output, facts)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _wait_ready(process: subprocess.Popen[bytes], data: Path, output: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_S
    file = data / "dev.json"
    while time.monotonic() < deadline and process.poll() is None:
        if file.exists():
            facts: dict[str, Any] = json.loads(file.read_text())
            if facts.get("pid") == process.pid:
                return facts
        time.sleep(0.1)
    message = f"penstock dev did not start:\n{output.read_text()[-4000:]}"
    raise RuntimeError(message)
