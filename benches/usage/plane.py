"""A control plane of its own process on either kind of database, and the usage that it is sent."""

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import msgspec
import psutil
from benches.usage.money import Holds, make_money
from tests.fakes.budget_rig import make_price
from tests.fakes.organizations import ALL, NOW_US
from tests.fakes.ports import free_port
from tests.fakes.postgresql_server import run_cluster
from tests.unit.metering.usage_events import make_event

from penstock.contract.money import HoldUse
from penstock.contract.usage import UsageEvent
from penstock.kit.ids import format_uuid7
from penstock.rating import store
from penstock.rating.model import default_book_id
from penstock.storage.database import Database

Kind = Literal["sqlite", "postgresql"]
KINDS: tuple[Kind, ...] = ("sqlite", "postgresql")

MODELS = [f"model-{number}" for number in range(8)]
ORGANIZATIONS = 20
KEYS = 5
"""Of an organization, each in a project of its own."""
_START_S = 60.0


@dataclass(frozen=True, slots=True)
class Plane:
    """A control plane that runs."""

    url: str
    token_path: Path
    process: psutil.Process
    location: Path | str
    """Of its database."""
    holds: Holds
    """What events name of budgets and wallets; nothing without any."""

    def rss_mb(self) -> float:
        """Return how much memory it has."""
        return self.process.memory_info().rss / 1e6

    def cpu_s(self) -> float:
        """Return how long it computed."""
        times = self.process.cpu_times()
        return times.user + times.system


@contextlib.contextmanager
def running_plane(kind: Kind, folder: Path, *, paying: Sequence[str] = ()) -> Iterator[Plane]:
    """Run a control plane with prices for all models; its commits wait for the disk.

    Args:
        kind: Of its database.
        folder: For all that it keeps.
        paying: Producers that hold parts of a hard budget and a wallet of each organization.
    """
    with contextlib.ExitStack() as stack:
        location: Path | str = folder / "usage.db"
        if kind == "postgresql":
            server = stack.enter_context(run_cluster(is_durable=True)).server
            asyncio.run(server.prepare())
            location = server.role_dsn(asyncio.run(server.create()))
        asyncio.run(_price(location))
        holds = asyncio.run(make_money(location, ORGANIZATIONS, paying)) if paying else {}
        yield stack.enter_context(_serving(location, folder, holds))


async def _price(location: Path | str) -> None:
    database = Database(location)
    await database.open()
    async with database.write(ALL) as session:
        for kind in ("list", "cost"):
            await store.make_default_book(session, ALL, kind, "EUR", NOW_US)
            for model in MODELS:
                name = model if kind == "list" else f"served-{model}"
                price = make_price(name, book_id=default_book_id(kind, "EUR"))
                await store.prices.insert(session, ALL, price)
    await database.close()


@contextlib.contextmanager
def _serving(location: Path | str, folder: Path, holds: Holds) -> Iterator[Plane]:
    port = free_port()
    settings = {"data_dir": str(folder), "port": port}
    if isinstance(location, str):
        settings["database"] = "env:BENCH_DATABASE"
    command = [sys.executable, "-m", "penstock.control", json.dumps(settings)]
    with (folder / "control.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {"BENCH_DATABASE": str(location)}
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _START_S
        while not _is_ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "control.log").read_text())
            time.sleep(0.1)
        token_path = folder / "secrets" / "node_token"
        yield Plane(url, token_path, psutil.Process(process.pid), location, holds)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health/ready").status_code == httpx.codes.OK
    return False


class Usage:
    """Makes events like those of many organizations, each with an id of its own and of now."""

    def __init__(self, holds: Mapping[str, tuple[HoldUse, ...]] | None = None) -> None:
        """See the class; of organizations that hold something, or of some that are names only."""
        held = holds or {f"org-{owner}": () for owner in range(ORGANIZATIONS)}
        seed = secrets.randbits(32)
        self._random = random.Random(seed)
        self._kinds = [
            make_event(
                organization=organization,
                holds=uses,
                project=f"org-{owner}-project-{key}",
                key_id=f"org-{owner}-key-{key}",
                model=model,
                served_model=f"served-{model}",
                region="eu",
                labels=(("team", f"team-{key}"),) if key == 0 else (),
            )
            for owner, (organization, uses) in enumerate(held.items())
            for key in range(KEYS)
            for model in (MODELS[owner % 8], MODELS[key])
        ]

    def make(self) -> UsageEvent:
        """Return an event that ended a moment ago."""
        now_ns = time.time_ns()
        event_id = format_uuid7(now_ns // 1_000_000, self._random.getrandbits(66))
        return msgspec.structs.replace(
            self._random.choice(self._kinds),
            event_id=event_id,
            request_id=event_id,
            input_tokens=self._random.randrange(1, 4_000),
            output_tokens=self._random.randrange(1, 1_000),
            started_at_ns=now_ns - 2_000_000_000,
            first_byte_at_ns=now_ns - 1_900_000_000,
            finished_at_ns=now_ns,
        )
