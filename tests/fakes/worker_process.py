"""A real worker in its own process, without an agent: what gateway tests talk to."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from tests.fakes.ports import free_port

from penstock.access.peppers import Peppers
from penstock.access.rules import format_key, key_mac
from penstock.contract.journal import Close, Open, Record, scan
from penstock.contract.limits import Limit, OwnerLimits
from penstock.contract.money import Budget, Price
from penstock.contract.node import WorkerSettings
from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Endpoint,
    Key,
    Policy,
    Route,
    Snapshot,
    Timeouts,
    Upstream,
)
from penstock.contract.snapshot_store import Delta, Meta, SnapshotStore, grant_name, records_of
from penstock.contract.usage import UsageEvent
from penstock.gateway.rehash import OldHashes
from penstock.gateway.runtime import Runtime
from penstock.gateway.tokens import Tokens

PEPPER = b"c3b1f7a90d52e86417a9c0f45be2d3861f7098ac"
"""A worker refuses one that can be guessed."""
KEY = format_key("AKeyForTests", "Tk7" * 10 + "Zz")
OTHER_KEY = format_key("OtherForTest", "Ok9" * 10 + "Yy")
"""A key of another organization, which may use `only-theirs` alone."""


def make_snapshot(
    engines: list[int],
    *,
    timeouts: Timeouts | None = None,
    continuous_usage: bool = False,
    max_connections: int = 16_384,
    version: int = 1,
) -> Snapshot:
    """Return a snapshot with two organizations, an alias each, and one upstream."""
    return Snapshot(
        version=version,
        created_at_ns=1_750_000_000_000_000_000,
        keys=(
            Key(
                "key-a",
                key_mac(PEPPER, KEY.encode()),
                "org-a",
                "project-a",
                ("model-a",),
                secret="secret-a",
            ),
            Key("key-b", key_mac(PEPPER, OTHER_KEY.encode()), "org-b", "p-b", ("only-theirs",)),
        ),
        upstreams=(
            Upstream(
                "engine",
                "emulator",
                tuple(Endpoint("http", "127.0.0.1", port) for port in engines),
                forward_headers=("x-emulator-*",),
                timeouts=timeouts or Timeouts(),
                max_connections=max_connections,
            ),
        ),
        deployments=(Deployment("main", "engine", "served-model", continuous_usage, 100_000),),
        routes=(Route("main", (Choice("main"),)),),
        aliases=(Alias("model-a", "main"), Alias("only-theirs", "main")),
    )


def write_snapshot(
    folder: Path, snapshot: Snapshot, fed: Mapping[bytes, bytes] | None = None
) -> None:
    """Make `folder` the snapshot store of this snapshot, whatever it held.

    Args:
        folder: The store's.
        snapshot: What a file would bring.
        fed: Further records, as a control plane's feed brings them.
    """
    store = SnapshotStore(folder)
    store.apply(
        Delta(
            base_version=0,
            version=snapshot.version,
            created_at_ns=snapshot.created_at_ns,
            puts=(records_of(snapshot) | dict(fed or {})).items(),
        )
    )
    store.close()


class MemoryRecords:
    """The records of a snapshot in memory, for tests of what reads them."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Serve this snapshot's records."""
        self.meta = Meta(snapshot.version, snapshot.created_at_ns, snapshot.version)
        self._keys = {key.mac: key for key in snapshot.keys}
        self._aliases = {alias.name: alias for alias in snapshot.aliases}
        self._routes = {route.name: route for route in snapshot.routes}
        self._deployments = {deployment.name: deployment for deployment in snapshot.deployments}
        self._upstreams = {upstream.name: upstream for upstream in snapshot.upstreams}
        self.grants: set[bytes] = set()
        """Names of records, from `grant_name`."""
        self.policies: dict[tuple[str, str | None], Policy] = {}
        """By organization and project, or None for all of its projects."""
        self.own_credentials: dict[tuple[str, str], str] = {}
        """By organization and upstream."""
        self.limits: dict[bytes, OwnerLimits] = {}
        """By what `owner_name` says."""
        self.plans: dict[str, tuple[Limit, ...]] = {}
        self.budgets: dict[bytes, tuple[Budget, ...]] = {}
        """By what `owner_name` says."""
        self.prices: dict[str, tuple[Price, ...]] = {}
        """By alias."""
        self.billed: dict[str, str] = {}
        """Currencies, by organization."""

    def find_key(self, mac: bytes) -> Key | None:
        """Return a key."""
        return self._keys.get(mac)

    def find_alias(self, name: str) -> Alias | None:
        """Return an alias."""
        return self._aliases.get(name)

    def find_route(self, name: str) -> Route | None:
        """Return a route."""
        return self._routes.get(name)

    def find_deployment(self, name: str) -> Deployment | None:
        """Return a deployment."""
        return self._deployments.get(name)

    def find_upstream(self, name: str) -> Upstream | None:
        """Return an upstream."""
        return self._upstreams.get(name)

    def list_upstreams(self) -> list[Upstream]:
        """Return all upstreams."""
        return list(self._upstreams.values())

    def list_aliases(self) -> list[Alias]:
        """Return all aliases, by name."""
        return [alias for _, alias in sorted(self._aliases.items())]

    def has_grant(self, alias: str, organization: str, project: str) -> bool:
        """Return whether a project, or its organization, has a grant."""
        names = {grant_name(alias, organization), grant_name(alias, organization, project)}
        return not self.grants.isdisjoint(names)

    def find_policy(self, organization: str, project: str | None = None) -> Policy | None:
        """Return a policy."""
        return self.policies.get((organization, project))

    def find_own_credential(self, organization: str, upstream: str) -> str | None:
        """Return the id of an organization's own credential."""
        return self.own_credentials.get((organization, upstream))

    def find_limits(self, owner: bytes) -> OwnerLimits | None:
        """Return the limits of an owner."""
        return self.limits.get(owner)

    def find_plan(self, plan: str) -> tuple[Limit, ...]:
        """Return the limits of a plan."""
        return self.plans.get(plan, ())

    def find_budgets(self, owner: bytes) -> tuple[Budget, ...]:
        """Return the hard budgets of an owner."""
        return self.budgets.get(owner, ())

    def find_prices(self, alias: str, organization: str) -> tuple[Price, ...]:
        """Return the prices of an alias, an organization's own before everybody's."""
        return self.prices.get(f"{alias} {organization}", self.prices.get(alias, ()))

    def find_billed_currency(self, organization: str) -> str | None:
        """Return what all that an organization uses must have a price in."""
        return self.billed.get(organization)


def build_runtime(
    snapshot: Snapshot | MemoryRecords,
    pepper: bytes,
    *,
    old_pepper: bytes | None = None,
    tokens: Mapping[str, str] | None = None,
    turn: Callable[[], float] = lambda: 0.0,
    old_hashes: OldHashes | None = None,
    now_s: Callable[[], float] = lambda: 1.0,
    heeds_prefixes: bool = False,
) -> Runtime:
    """Return what a worker makes of a snapshot.

    Args:
        snapshot: Or its records.
        pepper: The active one.
        old_pepper: The one before.
        tokens: Of credentials that the agent opened, by id.
        turn: Decides between choices.
        old_hashes: Told of keys under the old pepper.
        now_s: The time.
        heeds_prefixes: Whether it matters how prompts begin.
    """
    held = Tokens()
    held.replace(tokens or {})
    return Runtime(
        MemoryRecords(snapshot) if isinstance(snapshot, Snapshot) else snapshot,
        Peppers({2: pepper} if old_pepper is None else {1: old_pepper, 2: pepper}),
        tokens=held,
        turn=turn,
        old_hashes=old_hashes or OldHashes(),
        now_s=now_s,
        heeds_prefixes=heeds_prefixes,
    )


@dataclass
class WorkerProcess:
    """A worker under test."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    settings: WorkerSettings
    log: Path
    url: str = field(init=False)

    def __post_init__(self) -> None:
        """Derive the base URL."""
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self.process.pid

    def records(self) -> list[Record]:
        """Return all intact records of the worker's journal."""
        folder = Path(self.settings.journal_path)
        found: list[Record] = []
        for segment in sorted(folder.glob("*/*.journal")):
            found += [record for record, _ in scan(segment.read_bytes())]
        return found

    def opens(self) -> list[Open]:
        """Return the OPEN records."""
        return [record for record in self.records() if isinstance(record, Open)]

    def events(self) -> list[UsageEvent]:
        """Return the usage events of the CLOSE records."""
        return [record.event for record in self.records() if isinstance(record, Close)]

    def wait_events(self, count: int, timeout_s: float = 20.0) -> list[UsageEvent]:
        """Wait until at least `count` events are in the journal, and return all."""
        deadline = time.monotonic() + timeout_s
        while len(found := self.events()) < count:
            if time.monotonic() > deadline:
                message = f"{len(found)} of {count} events: {found}"
                raise TimeoutError(message)
            time.sleep(0.02)
        return found

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(timeout_s)


@contextmanager
def running_worker(
    folder: Path,
    engines: list[int],
    *,
    snapshot: Snapshot | None = None,
    fed: Mapping[bytes, bytes] | None = None,
    program: Sequence[str] = ("-m", "penstock.gateway"),
    **settings: object,
) -> Iterator[WorkerProcess]:
    """Start a worker in `folder` and end it afterwards.

    Args:
        folder: Empty folder for its files.
        engines: Ports of the engines on the loopback.
        snapshot: Instead of `make_snapshot(engines)`.
        fed: Further records of the snapshot's store.
        program: What Python runs, with its first arguments.
        settings: Instead of the usual `WorkerSettings`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pepper").write_bytes(PEPPER)
    write_snapshot(folder / "snapshot", snapshot or make_snapshot(engines), fed)
    chosen: dict[str, object] = {
        "slot": 0,
        "epoch": 1,
        "node_id": "node-test",
        "snapshot_path": str(folder / "snapshot"),
        "journal_path": str(folder / "journal"),
        "pepper_path": str(folder / "pepper"),
        "agent_socket": "",
        "port": free_port(),
        "journal_segment_bytes": 4 * 1024 * 1024,
        "drain_grace_s": 5.0,
    } | settings
    worker_settings = msgspec.convert(chosen, WorkerSettings)
    log = folder / "worker.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *program, msgspec.json.encode(worker_settings)],
            stdout=output,
            stderr=output,
        )
    worker = WorkerProcess(process, worker_settings.port, folder, worker_settings, log)
    try:
        _wait_listening(worker)
        yield worker
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def _wait_listening(worker: WorkerProcess) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", worker.port), 1).close()
        except OSError:
            if worker.process.poll() is not None or time.monotonic() > deadline:
                message = f"worker did not start: {worker.log.read_text()[-2000:]}"
                raise RuntimeError(message) from None
            time.sleep(0.02)
        else:
            return


async def eventually(condition: "object", timeout_s: float = 20.0) -> None:
    """Wait until calling `condition` is true."""
    assert callable(condition)
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it never happened"
        await asyncio.sleep(0.01)
