"""kill -9 of everything that touches money, under load: not a cent is lost, made or moved."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from tests.fakes.budget_account import MILLION, create_price
from tests.fakes.control_api import run
from tests.fakes.control_server import ControlServer
from tests.fakes.limited_site import Answer, Site, running_site
from tests.fakes.postgresql_server import Cluster, run_cluster

ROUNDS = int(os.environ.get("ROUNDS", "4"))
"""Kills; `ROUNDS=40 make test ARGS=tests/e2e/test_money_survives.py` goes on for longer."""
CALLERS = 8
INPUT, OUTPUT = Decimal("0.7"), Decimal("3.1")
"""Euros for a million tokens."""
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Stage:
    """All that runs, and what the engine has written down."""

    site: Site
    cluster: Cluster
    seen: Path

    @property
    def control(self) -> ControlServer:
        """The control plane as commands find it."""
        token = (self.site.control.data / "secrets" / "admin_token").read_text().strip()
        return ControlServer(self.site.control.url("control"), token)

    def kill_worker(self) -> None:
        """Kill one of the workers; the agent starts another."""
        data = str(self.site.control.data)
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if "penstock.gateway" in line and data in line:
                os.kill(process.pid, signal.SIGKILL)
                return

    def kill_agent(self) -> None:
        """Kill the agent and start another, which takes the workers over."""
        self.site.control.end("agent", is_hard=True)
        self.site.control.start_agent()

    def kill_control(self) -> None:
        """Kill the control plane, in whatever transaction it is, and start another."""
        self.site.control.end("control", is_hard=True)
        self.site.control.start_control()

    def stop_database(self) -> None:
        """Stop the database as a crash does, and have it recover."""
        self.cluster.stop(signal.SIGQUIT)
        self.cluster.start()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A node of two workers, control on a durable PostgreSQL, an engine that writes a log."""
    seen = tmp_path / "seen.log"
    with run_cluster(is_durable=True) as cluster:
        asyncio.run(cluster.server.prepare())
        dsn = cluster.server.role_dsn(asyncio.run(cluster.server.create()))
        with running_site(tmp_path, dsn, nodes=1, engine=("--log", str(seen))) as site:
            create_price(site, input_price=str(INPUT), output_price=str(OUTPUT))
            yield Stage(site, cluster, seen)


async def _load(site: Site, secret: str, stop: asyncio.Event) -> list[Answer]:
    """Have callers ask until they are told to stop, and return what they got."""
    answers: list[Answer] = []

    async def call(number: int) -> None:
        draw = random.Random(number)
        while not stop.is_set():
            answers.append(await site.chat(secret, max_tokens=draw.randint(1, 50)))
            await asyncio.sleep(0.01)

    await asyncio.gather(*(call(number) for number in range(CALLERS)))
    return answers


async def _kill(stage: Stage) -> Counter[str]:
    """Kill one thing after the other, and return how often each."""
    draw = random.Random(20261126)
    kills: list[Callable[[], None]] = [
        stage.kill_worker,
        stage.kill_agent,
        stage.kill_control,
        stage.stop_database,
    ]
    done: Counter[str] = Counter()
    for number in range(ROUNDS):
        await asyncio.sleep(0.3 + draw.random() * 0.7)
        kill = kills[number % len(kills)]
        await asyncio.to_thread(kill)
        done[kill.__name__] += 1
    await asyncio.sleep(0.5)
    return done


async def _wait_stored(stage: Stage, expected: set[str]) -> dict[str, dict[str, Any]]:
    """Return all usage by request id, when that of these requests is stored."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        result = await asyncio.to_thread(run, stage.control, "usage", "--limit", "100000", "--json")
        rows = [msgspec.json.decode(line) for line in result.stdout.splitlines()]
        found = {row["request_id"]: row for row in rows}
        assert len(found) == len(rows), "a request was metered twice"
        if expected <= found.keys():
            return found
        assert time.monotonic() < deadline, f"{len(expected - found.keys())} are not stored"
        await asyncio.sleep(0.5)


def _cost(row: dict[str, Any]) -> Decimal:
    inputs, outputs = int(row["input_tokens"]), int(row["output_tokens"])
    return (inputs * INPUT + outputs * OUTPUT) / MILLION


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_not_a_cent_is_lost_or_made(stage: Stage) -> None:
    """After kills of all there is, every request that the engine saw is charged once, exactly."""
    project = stage.site.create_project(stage.site.create_organization("acme"), "web")
    secret = str(stage.site.create_key(project)["secret"])
    await stage.site.until_told()
    stop = asyncio.Event()
    load = asyncio.ensure_future(_load(stage.site, secret, stop))
    kills = await _kill(stage)
    stop.set()
    answers = [answer for answer in await load if answer.status == 200]
    assert min(kills.values()) >= ROUNDS // 4
    seen = Counter(stage.seen.read_text().split())
    assert len(answers) > 20
    assert max(seen.values()) == 1, "a request was sent to an engine twice"
    rows = await _wait_stored(stage, set(seen))
    for answer in answers:
        row = rows[answer.headers["x-request-id"]]
        assert (row["input_tokens"], row["output_tokens"]) == answer.tokens
    report = await asyncio.to_thread(run, stage.control, *_RECONCILE, str(stage.site.control.data))
    assert report.exit_code == 0, report.output
    said = msgspec.json.decode(report.stdout)
    charged = sum(Decimal(one["amount"]) for row in said["data"] for one in row["charges"])
    assert charged == sum(map(_cost, rows.values())) > 0
    assert sum(row["stored"] for row in said["data"]) == len(rows)
    assert said["pending"] == 0
    verified = await asyncio.to_thread(run, stage.control, "ledger", "verify", "--json")
    assert verified.exit_code == 0, verified.output


_RECONCILE = ("reconcile", "--wait", "60", "--json", "--node")
