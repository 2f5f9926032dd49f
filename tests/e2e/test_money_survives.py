"""kill -9 of everything that touches money, under load: not a cent is lost, made or moved."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from tests.fakes.budget_account import MILLION, create_price
from tests.fakes.bugs import expect_no_bugs
from tests.fakes.control_api import run
from tests.fakes.control_server import ControlServer
from tests.fakes.limited_site import Answer, Site, running_site
from tests.fakes.postgresql_server import Cluster, run_cluster
from tests.fakes.production import create
from tests.fakes.worker_process import eventually

ROUNDS = int(os.environ.get("ROUNDS", "4"))
"""Kills; `ROUNDS=40 make test ARGS=tests/e2e/test_money_survives.py` goes on for longer."""
CALLERS = 8
SERVED = 20
"""What says that something went on beside the kills."""
INPUT, OUTPUT = Decimal("0.7"), Decimal("3.1")
"""Euros for a million tokens."""
PATIENCE_S = 90.0
MEETINGS = int(os.environ.get("MEETINGS", "8"))
"""Agents that are killed; three times as many workers are, one as the next agent takes it over."""


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

    def kill_worker(self, which: int = 0) -> None:
        """Kill one of the workers, if there is one; the agent starts another."""
        workers = list(self._workers())
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[which % len(workers)], signal.SIGKILL)

    def _workers(self) -> Iterator[int]:
        data = str(self.site.control.data)
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if "penstock.gateway" in line and data in line:
                yield process.pid

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

    def expect_well(self) -> None:
        """Fail when a process ended that nobody killed, or one has met a bug."""
        for name, process in self.site.control.processes.items():
            assert process.poll() is None, f"{name}: {self.site.control.log(name)[-4000:]}"
        expect_no_bugs(self.site.control.data)


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


async def _load(
    site: Site, secret: str, stop: asyncio.Event, answers: list[Answer], *, streams: bool = False
) -> None:
    """Have callers ask until they are told to stop, and write down what they get."""

    async def call(number: int) -> None:
        draw = random.Random(number)
        is_stream = streams and number % 2 == 1
        while not stop.is_set():
            leave_s = draw.uniform(0.001, 0.05) if is_stream and draw.random() < 0.3 else None
            chat = site.chat(
                secret, leave_after_s=leave_s, max_tokens=draw.randint(1, 50), stream=is_stream
            )
            answers.append(await chat)
            await asyncio.sleep(0.01)

    await asyncio.gather(*(call(number) for number in range(CALLERS)))


def _served(answers: Sequence[Answer]) -> list[Answer]:
    return [answer for answer in answers if answer.status == 200]


async def _until_served(answers: Sequence[Answer]) -> None:
    """Let callers go on until some were served: between kills on a busy machine hardly any are."""
    await eventually(lambda: len(_served(answers)) > SERVED, PATIENCE_S)


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
async def test_not_a_cent_is_lost_or_made(stage: Stage) -> None:
    """After kills of all there is, every request that the engine saw is charged once, exactly."""
    project = stage.site.create_project(stage.site.create_organization("acme"), "web")
    secret = str(stage.site.create_key(project)["secret"])
    await stage.site.until_told()
    stop, answers = asyncio.Event(), list[Answer]()
    load = asyncio.ensure_future(_load(stage.site, secret, stop, answers))
    kills = await _kill(stage)
    await _until_served(answers)
    stop.set()
    await load
    assert min(kills.values()) >= ROUNDS // 4
    stage.expect_well()
    seen = Counter(stage.seen.read_text().split())
    assert max(seen.values()) == 1, "a request was sent to an engine twice"
    rows = await _wait_stored(stage, set(seen))
    for answer in _served(answers):
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


async def _kill_as_they_meet(stage: Stage) -> None:
    """Kill agents and workers at any moment, also those in which they say hello to each other."""
    draw = random.Random(20261128)
    for _ in range(MEETINGS):
        stage.expect_well()
        meeting = asyncio.ensure_future(asyncio.to_thread(stage.kill_agent))
        await asyncio.sleep(draw.uniform(0.0, 1.2))
        await asyncio.to_thread(stage.kill_worker, draw.randrange(8))
        await meeting
        for _ in range(2):
            await asyncio.sleep(draw.uniform(0.0, 0.3))
            await asyncio.to_thread(stage.kill_worker, draw.randrange(8))


@pytest.mark.slow
async def test_who_is_not_killed_lives_on(stage: Stage) -> None:
    """Whatever dies beside them, others meet no bug; all is metered once, no money stays held."""
    site = stage.site
    organization = site.create_organization("acme")
    secret = str(site.create_key(site.create_project(organization, "web"))["secret"])
    budget = create(
        site.admin,
        "/budgets",
        organization_id=organization,
        currency="EUR",
        amount="1000",
        is_hard=True,
    )
    await site.until_told()
    stop, answers = asyncio.Event(), list[Answer]()
    load = asyncio.ensure_future(_load(site, secret, stop, answers, streams=True))
    await _kill_as_they_meet(stage)
    await _until_served(answers)
    stop.set()
    await load
    served = {one.headers["x-request-id"] for one in _served(answers)}
    stage.expect_well()  # else nobody tells why something is missing
    seen = Counter(stage.seen.read_text().split())
    assert max(seen.values()) == 1, "a request was sent to an engine twice"
    await _wait_settled(stage, budget["id"], set(seen) | served)
    stage.expect_well()


async def _wait_settled(stage: Stage, budget_id: str, expected: set[str]) -> None:
    """Wait until nothing of a budget is held, and all that there is to pay is paid.

    Of requests that neither an engine nor their callers saw the end of, usage may come last.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        rows = await _wait_stored(stage, expected)
        cost = sum(map(_cost, rows.values()), Decimal(0))
        windows = stage.site.admin.get(f"/budgets/{budget_id}").json()["windows"]
        held = sum(Decimal(window["held"]) for window in windows)
        settled = sum(Decimal(window["settled"]) for window in windows)
        if (held, settled) == (0, cost):
            return
        assert time.monotonic() < deadline, (held, settled, cost)
        await asyncio.sleep(0.5)
