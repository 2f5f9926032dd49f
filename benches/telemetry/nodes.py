"""Nodes whose organizations and models make ten thousand series, with telemetry on or off."""

import json
import os
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil
import yaml
from benches.load.payloads import PATH, Request
from benches.load.processes import Cores, Running, find_free_port, start
from benches.load.servers import MODEL

from penstock.access.rules import format_key
from penstock.node.settings import AgentSettings

ORGANIZATIONS = 100
MODELS = 40
SCRAPE_S = 1.0
_NOWHERE = "http://127.0.0.1:9"
"""A control plane that is away: usage waits in the journals, for every node alike."""


@dataclass(slots=True)
class Node:
    """An agent with a worker."""

    running: Running
    metrics_port: int
    keys: list[str]
    models: list[str]
    worker_pid: int
    scrapes_s: list[float] = field(default_factory=list)
    """How long each scrape took."""
    _lines: list[bytes] = field(default_factory=list)
    """Of the last scrape."""

    def request(self, organization: int = 0, model: int = 0) -> Request:
        """Return a chat of one organization for one model."""
        body = {"model": self.models[model], "messages": [{"role": "user", "content": "x" * 120}]}
        headers = {
            "content-type": "application/json",
            "authorization": f"Bearer {self.keys[organization]}",
        }
        return Request(headers, json.dumps(body))

    def fill(self) -> None:
        """Have each organization ask for each model once."""
        for organization in range(len(self.keys)):
            for model in range(len(self.models)):
                one = self.request(organization, model)
                url = f"http://127.0.0.1:{self.running.port}{PATH}"
                asked = urllib.request.Request(url, one.body.encode(), one.headers)
                with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
                    answer.read()

    def scrape(self) -> None:
        """Read the page as Prometheus does."""
        began_s = time.perf_counter()
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=30) as answer:
            page = answer.read()
        self.scrapes_s.append(time.perf_counter() - began_s)
        self._lines = [line for line in page.splitlines() if not line.startswith(b"#")]

    @property
    def series(self) -> int:
        """How many the page had last."""
        return len(self._lines)

    def total(self, *metrics: str) -> float:
        """Return the sum of all series of some counters, as the page had them last."""
        starts = tuple(f"{name}{end}".encode() for name in metrics for end in " {")
        return sum(float(line.split()[-1]) for line in self._lines if line.startswith(starts))

    @contextmanager
    def scraped(self) -> Iterator[None]:
        """Read the page each second within the block."""
        ended = threading.Event()

        def scrape() -> None:
            while not ended.wait(SCRAPE_S):
                self.scrape()

        thread = threading.Thread(target=scrape)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def launch(
    name: str,
    folder: Path,
    engine_port: int,
    *,
    cores: Cores,
    seed: int,
    models: int = 1,
    organizations: int = 1,
    settings: Mapping[str, Any] | None = None,
) -> Node:
    """Start a node: its worker has a core to itself, its agent shares the other one.

    Args:
        name: What it is called.
        folder: Takes its data; it is not there yet.
        engine_port: Where the emulator listens.
        cores: Which core is for whom.
        seed: Of the hashes of its processes, see `docs/explanation/benchmarks.md`.
        models: How many names the emulator's model has.
        organizations: How many there are, each with a key.
        settings: Further settings of the agent.
    """
    (folder / "secrets").mkdir(parents=True)
    keys = [
        format_key(f"Bench{number:07}", f"{number:04}Xy" * 10 + "Zz")
        for number in range(organizations)
    ]
    for number, key in enumerate(keys):
        (folder / "secrets" / f"key-{number}").write_text(key)
    names = [MODEL, *(f"{MODEL}-{number}" for number in range(1, models))]
    path = folder / "penstock.yaml"
    path.write_text(yaml.safe_dump(_configuration(names, organizations, engine_port)))
    port, metrics_port = find_free_port(), find_free_port()
    values = AgentSettings(
        data_path=str(folder),
        control_url=_NOWHERE,
        config_path=str(path),
        port=port,
        metrics_port=metrics_port,
        ship_grace_s=0.0,
        drain_grace_s=1.0,
    )
    encoded = msgspec.json.encode(msgspec.to_builtins(values) | dict(settings or {})).decode()
    command = [sys.executable, "-m", "penstock.node", encoded]
    running = start(
        name,
        command,
        port,
        core=cores.load,
        folder=folder,
        environment={"PYTHONHASHSEED": str(seed)},
    )
    (worker,) = psutil.Process(running.pid).children()
    for thread in worker.threads():
        os.sched_setaffinity(thread.id, {cores.gateway})
    return Node(running, metrics_port, keys, names, worker.pid)


def _configuration(models: list[str], organizations: int, engine_port: int) -> dict[str, Any]:
    numbers = range(organizations)
    return {
        "version": 1,
        "organizations": [{"name": f"organization-{number}"} for number in numbers],
        "projects": [
            {"name": f"project-{number}", "organization": f"organization-{number}"}
            for number in numbers
        ],
        "keys": [
            {
                "name": f"key-{number}",
                "project": f"project-{number}",
                "secret": f"file:secrets/key-{number}",
            }
            for number in numbers
        ],
        "upstreams": [
            {
                "name": "emulator",
                "provider": "emulator",
                "endpoints": [f"http://127.0.0.1:{engine_port}"],
            }
        ],
        "routes": [{"name": name, "upstream": "emulator", "model": MODEL} for name in models],
        "aliases": [{"name": name, "route": name} for name in models],
    }
