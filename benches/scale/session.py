"""How a worker takes to a million keys: its start, its memory, its speed beside a small store."""

import argparse
import json
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
from benches.load.machine import REPOSITORY, describe_machine
from benches.load.processes import (
    Cores,
    Running,
    StartError,
    choose_cores,
    find_free_port,
    forget_file,
    start,
)
from benches.load.servers import Bench, launch_emulator
from benches.scale.feeding import Fed, feed_node
from benches.scale.filling import Filling
from rich.console import Console

from penstock.access.rules import create_key, key_mac
from penstock.contract.node import WorkerSettings
from penstock.contract.snapshot import Alias, Choice, Deployment, Endpoint, Key, Route, Upstream
from penstock.contract.snapshot_store import (
    Delta,
    SnapshotStore,
    alias_record,
    deployment_record,
    key_record,
    route_record,
    upstream_record,
)

SAMPLE = 10_000
"""Keys that the client uses, one after another by chance; they are in either store."""
_PATH = "/v1/chat/completions"
_SCOPES = ("inference", "models:read")
"""What the feed tells of a key: records of both stores have the same form."""
_SCRIPT = """\
local keys, aliases = {}, @ALIASES@
for line in io.lines("@KEYS@") do keys[#keys + 1] = line end
wrk.method = "POST"
function request()
  local alias = math.random(0, aliases - 1)
  return wrk.format("POST", "@PATH@", {["authorization"] = "Bearer " .. keys[math.random(#keys)],
    ["content-type"] = "application/json"},
    '{"model":"model-' .. alias .. '","messages":[{"role":"user","content":"Hello there"}]}')
end
"""


@dataclass(frozen=True, slots=True)
class Store:
    """A snapshot store to serve from, and how it was made."""

    name: str
    keys: int
    aliases: int
    path: Path


@dataclass(frozen=True, slots=True)
class Round:
    """What a worker did with random keys and models."""

    per_second: float
    cpu_us: float
    """Processor time of a request: it suffers less from what others do on the machine."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one worker on one store showed."""

    store: Store
    ready_s: float
    """From the process's start, with nothing of the store in memory, to its first answer."""
    own_mb: float
    shared_mb: float
    rounds: list[Round]

    @property
    def per_second(self) -> float:
        """Requests a second, the median of the rounds."""
        return statistics.median(each.per_second for each in self.rounds)

    @property
    def cpu_us(self) -> float:
        """Processor time of a request, the median of the rounds."""
        return statistics.median(each.cpu_us for each in self.rounds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run showed."""

    small: Figures
    large: Figures
    fed: Fed
    """How the large store came to the node."""

    @property
    def ratios(self) -> list[float]:
        """Processor time on the large store to that on the small one, by round, lowest first."""
        pairs = zip(self.large.rounds, self.small.rounds, strict=True)
        return sorted(large.cpu_us / small.cpu_us for large, small in pairs)


def build_store(folder: Path, name: str, *, aliases: int, macs: list[bytes], port: int) -> Store:
    """Write a store with so many aliases, and keys of these hashes, without any control plane."""
    store = SnapshotStore(folder / name)
    upstream = Upstream("engine", "emulator", (Endpoint("http", "127.0.0.1", port),))
    records = [upstream_record(upstream)]
    for number in range(aliases):
        deployment = f"deployment-{number}"
        records.append(deployment_record(Deployment(deployment, "engine", "emulated-70b")))
        records.append(route_record(Route(f"route-{number}", (Choice(deployment),))))
        records.append(alias_record(Alias(f"model-{number}", f"route-{number}")))
    for number, mac in enumerate(macs):
        owner = f"org_{number % 5_000:012d}", f"prj_{number % 20_000:012d}"
        key = Key(f"{number:012d}", mac, *owner, scopes=_SCOPES, secret=f"sec_{number:012d}")
        records.append(key_record(key))
    store.apply(Delta(base_version=0, version=1, created_at_ns=1, puts=sorted(records)))
    store.close()
    return Store(name, len(macs), aliases, folder / name)


class Session:
    """One run: two stores, a fresh worker on each, measured in turn."""

    def __init__(self, folder: Path, cores: Cores, seconds: int, rounds: int) -> None:
        """See the class."""
        self._folder = folder
        self._cores = cores
        self._seconds = seconds
        self._rounds = rounds
        self._pepper = secrets.token_hex(32).encode()
        (folder / "pepper").write_bytes(self._pepper)
        self._port = find_free_port()

    def run(self, stack: ExitStack, keys: int, aliases: int, console: Console) -> Outcome:
        """Build the small store, have a node fed the large one, start, measure."""
        bench = Bench(self._cores, self._folder, self._port, "")
        stack.callback(launch_emulator(bench).stop)
        tokens = [create_key() for _ in range(min(SAMPLE, keys))]
        (self._folder / "keys").write_text("\n".join(tokens))
        macs = [key_mac(self._pepper, token.encode()) for token in tokens]
        small = build_store(self._folder, "small", aliases=aliases, macs=macs, port=self._port)
        filling = Filling(
            keys=keys,
            aliases=aliases,
            sample=list(zip(tokens, macs, strict=True)),
            engine_url=f"http://127.0.0.1:{self._port}",
        )
        fed = feed_node(self._folder / "node", self._pepper, filling, console)
        stores = [small, Store("large", keys, aliases, fed.path)]
        workers = [(store, *self._start(store, stack)) for store in stores]
        rounds: dict[str, list[Round]] = {store.name: [] for store in stores}
        for number in range(self._rounds):
            console.print(f"round {number + 1} of {self._rounds}")
            for store, worker, _ in workers:
                rounds[store.name].append(self._measure(worker, store))
        figures = [
            Figures(store, ready_s, *_memory_mb(worker), rounds[store.name])
            for store, worker, ready_s in workers
        ]
        return Outcome(figures[0], figures[1], fed)

    def _start(self, store: Store, stack: ExitStack) -> tuple[Running, float]:
        folder = self._folder / f"worker-{store.name}"
        (folder / "journal").mkdir(parents=True)
        port = find_free_port()
        settings = WorkerSettings(
            slot=0,
            epoch=1,
            node_id="bench",
            snapshot_path=str(store.path),
            journal_path=str(folder / "journal"),
            pepper_path=str(self._folder / "pepper"),
            agent_socket="",
            port=port,
        )
        command = [sys.executable, "-m", "penstock.gateway", msgspec.json.encode(settings).decode()]
        forget_file(store.path / "data.mdb")
        began_s = time.monotonic()
        worker = start(store.name, command, port, core=self._cores.gateway, folder=folder)
        ready_s = time.monotonic() - began_s
        stack.callback(worker.stop)
        return worker, ready_s

    def _measure(self, worker: Running, store: Store) -> Round:
        script = self._folder / "scale.lua"
        text = _SCRIPT.replace("@KEYS@", str(self._folder / "keys")).replace("@PATH@", _PATH)
        script.write_text(text.replace("@ALIASES@", str(store.aliases)))
        before_ns = worker.cpu_ns()
        done = subprocess.run(
            [
                *("taskset", "-c", str(self._cores.load), "wrk", "-t1", "-c64"),
                *(f"-d{self._seconds}s", "-s", str(script), f"http://127.0.0.1:{worker.port}"),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        failed = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
        rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        count = re.search(r"(\d+) requests in", done.stdout)
        if failed is not None or rate is None or count is None:
            message = f"requests were refused: {done.stdout[-300:]}"
            raise StartError(message)
        return Round(float(rate[1]), (worker.cpu_ns() - before_ns) / 1e3 / int(count[1]))


def _memory_mb(worker: Running) -> tuple[float, float]:
    """Return a worker's own memory and what it shares with others of the node, in MB."""
    status = Path(f"/proc/{worker.pid}/status").read_text()
    found = {name: int(size) for name, size in re.findall(r"(Rss\w+):\s+(\d+) kB", status)}
    return found["RssAnon"] / 1_000, found["RssFile"] / 1_000


def main(arguments: list[str]) -> int:
    """Run the bench and write `results/scale.json` and `scale.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--aliases", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=5, help="of each measure in a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    console = Console()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-scale-")))
        session = Session(folder, choose_cores(), options.seconds, options.rounds)
        outcome = session.run(stack, options.keys, options.aliases, console)
    _report(outcome, console)
    return 0


def _report(outcome: Outcome, console: Console) -> None:
    figures = (outcome.small, outcome.large)
    rows = [
        ("API keys", *(f"{each.store.keys:,}" for each in figures)),
        ("aliases, routes and deployments", *(f"{each.store.aliases:,}" for each in figures)),
        ("worker ready from a cold disk (s)", *(f"{each.ready_s:.2f}" for each in figures)),
        ("memory of its own (MB)", *(f"{each.own_mb:.1f}" for each in figures)),
        ("memory shared by workers (MB)", *(f"{each.shared_mb:.1f}" for each in figures)),
        ("chat, random keys, c=64 (req/s)", *(f"{each.per_second:,.0f}" for each in figures)),
        ("CPU a request (us)", *(f"{each.cpu_us:.1f}" for each in figures)),
    ]
    machine = "\n".join(describe_machine(Path(tempfile.gettempdir())).lines())
    ratios, fed = outcome.ratios, outcome.fed
    lines = [f"# Scale bench\n\n{machine}\n", "| | small store | large store |"]
    lines += ["|---|--:|--:|", *(f"| {' | '.join(row)} |" for row in rows)]
    lines += [
        "",
        (
            f"CPU a request, large to small, by round: median {statistics.median(ratios):.2f}, "
            f"from {ratios[0]:.2f} to {ratios[-1]:.2f}."
        ),
        "",
        (
            "The large store is what a node was fed by a control plane on PostgreSQL "
            f"(filled in {fed.fill_s:.0f} s)."
        ),
        f"From an empty disk the node served its keys after {fed.from_nothing_s:.0f} s; started",
        f"anew, agent and worker, with the store on a cold disk, after {fed.from_disk_s:.1f} s.",
    ]
    text = "\n".join(lines) + "\n"
    console.print(text, highlight=False)
    results = REPOSITORY / "benches" / "results"
    (results / "scale.md").write_text(text)
    data = {
        "rows": rows,
        "ratios": ratios,
        "fill_s": fed.fill_s,
        "from_nothing_s": fed.from_nothing_s,
        "from_disk_s": fed.from_disk_s,
    }
    (results / "scale.json").write_text(json.dumps(data, indent=1) + "\n")
