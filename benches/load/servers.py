"""The gateways that are compared, and the emulator behind them all."""

import importlib.metadata
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from benches.load.processes import Cores, Running, StartError, find_free_port, start

from penstock.access.rules import key_mac
from penstock.contract.node import WorkerSettings
from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Endpoint,
    Key,
    Route,
    Snapshot,
    Upstream,
)
from penstock.contract.snapshot_store import Delta, SnapshotStore, records_of

MODEL = "emulated-70b"
"""The alias that is asked for, and the model of the emulator."""
_PEERS = Path(__file__).with_name("peers")


@dataclass(frozen=True, slots=True)
class Bench:
    """What every server of a run needs to know."""

    cores: Cores
    folder: Path
    """Temporary folder for configurations, logs and the journal."""
    engine_port: int
    key: str
    """The API key that the client sends; only our gateway looks at it."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One column of the comparison."""

    name: str
    note: str
    """What it does to a request besides passing it on."""
    program: str
    """Executable to look for."""
    install: str
    """How to get it."""
    version: Callable[[str], str]
    """Returns the version, given the executable's path."""
    command: Callable[[str, Bench, int, Path], list[str]]
    """Returns the command, given executable, run, port and a folder of its own."""

    def find_program(self) -> str | None:
        """Return the path of its executable, or None when it is not installed."""
        beside_python = Path(sys.executable).with_name(self.program)
        if beside_python.exists():
            return str(beside_python)
        # Debian keeps servers where an ordinary user's PATH does not look.
        return shutil.which(self.program) or shutil.which(self.program, path="/usr/sbin:/sbin")

    def launch(self, bench: Bench) -> Running:
        """Start it on the gateway's core; raises `StartError`."""
        program = self.find_program()
        if program is None:
            message = f"{self.name} is not installed: {self.install}"
            raise StartError(message)
        folder = bench.folder / f"{self.name}-{time.monotonic_ns()}"
        folder.mkdir()
        port = find_free_port()
        command = self.command(program, bench, port, folder)
        return start(self.name, command, port, core=bench.cores.gateway, folder=folder)


def _tool_version(pattern: str, *arguments: str) -> Callable[[str], str]:
    def read(program: str) -> str:
        answer = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        match = re.search(pattern, answer.stdout + answer.stderr)
        return match[1] if match else "unknown"

    return read


def _peer_config(name: str, bench: Bench, port: int, folder: Path) -> str:
    text = (_PEERS / name).read_text()
    for word, value in (("@PORT@", port), ("@ENGINE@", bench.engine_port), ("@FOLDER@", folder)):
        text = text.replace(word, str(value))
    path = folder / name
    path.write_text(text)
    return str(path)


def _nginx_command(program: str, bench: Bench, port: int, folder: Path) -> list[str]:
    config = _peer_config("nginx.conf", bench, port, folder)
    return [program, "-p", str(folder), "-e", "stderr", "-c", config]


def _haproxy_command(program: str, bench: Bench, port: int, folder: Path) -> list[str]:
    return [program, "-db", "-f", _peer_config("haproxy.cfg", bench, port, folder)]


def _envoy_command(program: str, bench: Bench, port: int, folder: Path) -> list[str]:
    config = _peer_config("envoy.yaml", bench, port, folder)
    flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return [program, "-c", config, *flags]


def _penstock_command(program: str, bench: Bench, port: int, folder: Path) -> list[str]:
    pepper = secrets.token_hex(32).encode()
    (folder / "pepper").write_bytes(pepper)
    (folder / "journal").mkdir()
    snapshot = Snapshot(
        version=1,
        created_at_ns=time.time_ns(),
        keys=(Key("bench-key", key_mac(pepper, bench.key.encode()), "bench", "load"),),
        upstreams=(
            Upstream(
                "emulator",
                "emulator",
                (Endpoint("http", "127.0.0.1", bench.engine_port),),
                forward_headers=("x-emulator-*",),
            ),
        ),
        deployments=(Deployment(MODEL, "emulator", MODEL),),
        routes=(Route(MODEL, (Choice(MODEL),)),),
        aliases=(Alias(MODEL, MODEL),),
    )
    store = SnapshotStore(folder / "snapshot")
    store.apply(
        Delta(base_version=0, version=1, created_at_ns=1, puts=records_of(snapshot).items())
    )
    store.close()
    settings = WorkerSettings(
        slot=0,
        epoch=1,
        node_id="bench",
        snapshot_path=str(folder / "snapshot"),
        journal_path=str(folder / "journal"),
        pepper_path=str(folder / "pepper"),
        agent_socket="",
        port=port,
    )
    return [program, "-m", "penstock.gateway", msgspec.json.encode(settings).decode()]


GATEWAYS = (
    Gateway(
        "penstock",
        "key check, facts of the body, journal and usage",
        "python",
        "make setup",
        lambda _: importlib.metadata.version("penstock"),
        _penstock_command,
    ),
    Gateway(
        "nginx",
        "no policy",
        "nginx",
        "apt-get install nginx-light",
        _tool_version(r"nginx/(\S+)", "-v"),
        _nginx_command,
    ),
    Gateway(
        "haproxy",
        "no policy",
        "haproxy",
        "apt-get install haproxy",
        _tool_version(r"version (\d[\d.]*)", "-v"),
        _haproxy_command,
    ),
    Gateway(
        "envoy",
        "no policy",
        "envoy",
        "uv sync --group bench",
        _tool_version(r"/(\d+\.\d+\.\d+)", "--version"),
        _envoy_command,
    ),
)
"""In the order of a round."""


def launch_emulator(bench: Bench) -> Running:
    """Start the emulator on the load core; raises `StartError`."""
    folder = bench.folder / "emulator"
    folder.mkdir()
    command = [sys.executable, "-m", "penstock.emulator", "--port", str(bench.engine_port)]
    return start("emulator", command, bench.engine_port, core=bench.cores.load, folder=folder)
