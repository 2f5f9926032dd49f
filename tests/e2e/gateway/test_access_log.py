"""The access log of real requests: each line says by itself what became of its request."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fakes.fake_agent import FakeAgent, running_agent
from tests.fakes.http_rig import request
from tests.fakes.limits_agent import LimitsAgent
from tests.fakes.ports import free_port
from tests.fakes.raw_http import RawConnection, ask
from tests.fakes.recording_engine import running_engine
from tests.fakes.worker_process import WorkerProcess, make_snapshot, running_worker

from penstock.contract.limits import Limit, Metric, OwnerLimits
from penstock.contract.money import PRICE_SCALE, Budget, Price
from penstock.contract.node import RefusedRequests, Stats
from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Endpoint,
    Route,
    Snapshot,
    Timeouts,
    Upstream,
)
from penstock.contract.snapshot_store import (
    budgets_record,
    limits_record,
    owner_name,
    prices_record,
)
from penstock.node.access_log import AccessLog
from penstock.node.finished import FinishedRequests

PROMPT = "canary-prompt-77"
KEY_A = owner_name("key", "org-a", "key-a")
ORGANIZATION = owner_name("organization", "org-a")
UPSTREAMS = ("engine", "hasty", "away", "broken", "dropping", "locked")
DROPPED = (
    b"HTTP/1.1 429 Too Many Requests\r\nx-llm-d-request-dropped-reason: rejected-ttl-expired\r\n"
    b"content-length: 2\r\n\r\n{}"
)
LONG = b"X-Emulator-Ttft-Ms: 20000"


def _snapshot(engine: int, nobody: int, broken: int, dropping: int) -> Snapshot:
    """Return a snapshot with an alias for each end that a request can come to."""
    plain = make_snapshot([engine])
    (here,) = plain.upstreams
    away = (Endpoint("http", "127.0.0.1", nobody),)
    return msgspec.structs.replace(
        plain,
        keys=(msgspec.structs.replace(plain.keys[0], aliases=None),),
        upstreams=(
            here,
            msgspec.structs.replace(here, name="hasty", timeouts=Timeouts(first_byte_ms=200)),
            Upstream("away", "emulator", away),
            Upstream("broken", "emulator", (Endpoint("http", "127.0.0.1", broken),)),
            Upstream("dropping", "llm_d", (Endpoint("http", "127.0.0.1", dropping),)),
            msgspec.structs.replace(here, name="locked"),
        ),
        deployments=tuple(
            Deployment(name, name, "m", credential="env:NO_SUCH" if name == "locked" else None)
            for name in UPSTREAMS
        ),
        routes=tuple(
            Route(name, (Choice(name),), fallback="broken" if name == "away" else None)
            for name in UPSTREAMS
        ),
        aliases=tuple(
            Alias(name, name if name in UPSTREAMS else "engine", is_open=True)
            for name in (*UPSTREAMS, "limited", "dear")
        ),
    )


class Stage:
    """A worker, and the access log that an agent would write of what it does."""

    def __init__(self, worker: WorkerProcess, agent: FakeAgent, path: Path) -> None:
        """Take its parts."""
        self.worker, self._agent, self._path = worker, agent, path
        self._log = AccessLog("all", str(path), "n-1", "auto")
        self._finished = FinishedRequests(Path(worker.settings.journal_path), (self._log.take,))
        self._told = 0
        asyncio.run(self._finished.look())  # what comes from now on is told

    def send(self, alias: str, *fields: bytes, status: int | None = None) -> str:
        """Send a chat and return its id.

        Args:
            alias: What is asked for.
            fields: More header lines.
            status: Ask again until it is this one: of limits a busy agent may tell too late.
        """
        give_up_at_s = time.monotonic() + 30
        while True:
            answer = ask(self.worker.port, _chat(alias, *fields))
            if status in (None, answer.status):
                return answer.header["x-request-id"]
            assert time.monotonic() < give_up_at_s, answer

    async def line(self, request_id: str) -> dict[str, Any]:
        """Wait for the line of a request."""
        deadline = time.monotonic() + 30
        while True:
            await self._finished.look()
            told = [each for each in self._agent.received if isinstance(each, RefusedRequests)]
            for message in told[self._told :]:
                self._finished.take(message)
            self._told = len(told)
            self._log.write()
            lines = self._path.read_text().splitlines()
            found = [line for line in map(json.loads, lines) if line["request_id"] == request_id]
            if found:
                (line,) = found
                assert isinstance(line, dict)
                return line
            assert time.monotonic() < deadline, lines
            await asyncio.sleep(0.05)


def _chat(alias: str, *fields: bytes) -> bytes:
    message = {"role": "user", "content": PROMPT}
    return request(msgspec.json.encode({"model": alias, "messages": [message]}), *fields)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Start a worker with a limit, an empty budget, and engines that are away or slow."""
    folder = tmp_path_factory.mktemp("access")
    books = LimitsAgent(
        lambda: time.monotonic_ns() // 1_000_000, base_ms=10**12, budgets={"b-1": 0}
    )
    limit = Limit("r-1", Metric.REQUESTS, 1, alias="limited")
    price = Price("EUR", 0, PRICE_SCALE, PRICE_SCALE, PRICE_SCALE)

    def hang_up(server: socket.socket, answer: bytes) -> None:
        """Take each request, say something, or nothing, and hang up."""
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

    with (
        running_engine() as engine,
        socket.create_server(("127.0.0.1", 0)) as broken,
        socket.create_server(("127.0.0.1", 0)) as dropping,
        running_agent(books.clock, answer=books.answer) as agent,
        running_worker(
            folder,
            [],
            snapshot=_snapshot(
                engine.port, free_port(), broken.getsockname()[1], dropping.getsockname()[1]
            ),
            fed=dict(
                [
                    limits_record(KEY_A, OwnerLimits(limits=(limit,))),
                    budgets_record(ORGANIZATION, (Budget("b-1", "EUR", "dear"),)),
                    prices_record("dear", (price,)),
                ]
            ),
            agent_socket=str(agent.path),
            tells_refused=True,
        ) as worker,
    ):
        for server, answer in ((broken, b""), (dropping, DROPPED)):
            threading.Thread(target=hang_up, args=(server, answer), daemon=True).start()
        agent.wait(Stats)
        path = folder / "access.log"
        path.touch()
        yield Stage(worker, agent, path)


def _said(line: dict[str, Any], **wanted: object) -> None:
    assert {name: line.get(name) for name in wanted} == wanted


async def test_a_request_that_went_well(stage: Stage) -> None:
    """Whose it was, where it went, how long it took and what it consumed; and nothing it said."""
    request_id = stage.send("engine")
    line = await stage.line(request_id)
    _said(line, event="node.request_ended", level="info", process="agent", node="n-1", slot=0)
    _said(line, organization="org-a", project="project-a", key_id="key-a", model="engine")
    _said(line, status=200, outcome="ok", upstream="engine", provider="emulator")
    _said(line, attempts=1, operation="chat")
    assert line["event_id"]
    assert line["total_ms"] >= line["first_byte_ms"] > 0
    assert line["admit_ms"] >= 0
    assert line["limits_ms"] >= 0
    assert line["input_tokens"] > 0
    assert line["request_bytes"] > 0
    assert line["answer_bytes"] > 0
    assert not {"error", "rule", "given_up", "trace_id"} & line.keys()
    assert PROMPT not in json.dumps(line)


async def test_a_limit_said_no(stage: Stage) -> None:
    """Which one, what it counts and gives; and that no engine was asked."""
    line = await stage.line(stage.send("limited", status=429))
    _said(line, status=429, outcome="refused", error="err:gateway:limits:rate_exceeded")
    _said(line, rule="r-1", rule_metric="requests", error_source="downstream", attempts=None)
    _said(line, organization="org-a", key_id="key-a", model="limited")


async def test_a_budget_said_no(stage: Stage) -> None:
    """Which one."""
    line = await stage.line(stage.send("dear", status=429))
    _said(line, status=429, outcome="refused", error="err:gateway:limits:quota_exhausted")
    _said(line, rule="b-1", rule_metric="money", attempts=None)


async def test_nothing_could_be_asked(stage: Stage) -> None:
    """A 503 of the gateway itself says so by its code and source."""
    line = await stage.line(stage.send("locked"))
    _said(line, status=503, outcome="refused", error="err:gateway:upstream:unusable")
    _said(line, error_source="internal", key_id="key-a", attempts=None)


async def test_two_endpoints_failed(stage: Stage) -> None:
    """A 502 names both endpoints that were tried, and why the first one was given up."""
    line = await stage.line(stage.send("away"))
    _said(line, status=502, outcome="upstream_error", upstream="broken", attempts=2)
    _said(line, error="err:gateway:upstream:closed_early", error_source="upstream")
    (given_up,) = line["given_up"]
    _said(given_up, upstream="away", reason="connect_failed")
    assert len(line["endpoints"]) == 2


async def test_an_endpoint_picker_dropped_it(stage: Stage) -> None:
    """A 429 says why in the word of whoever was behind the upstream."""
    line = await stage.line(stage.send("dropping"))
    _said(line, status=429, upstream="dropping", dropped_reason="rejected-ttl-expired")
    _said(line, error="err:gateway:upstream:overloaded", error_source="upstream")
    assert "dropped_reason" not in await stage.line(stage.send("engine"))


async def test_an_engine_took_too_long(stage: Stage) -> None:
    """A 504 says which time-out it was, and that it was the engine's."""
    line = await stage.line(stage.send("hasty", LONG))
    _said(line, status=504, outcome="timeout", upstream="hasty", first_byte_ms=None)
    _said(line, error="err:gateway:upstream:first_byte_timeout", error_source="upstream")
    assert line["total_ms"] >= 200


async def test_a_caller_left(stage: Stage) -> None:
    """Whoever hung up is told from an error of the engine."""
    with RawConnection(stage.worker.port) as caller:
        caller.send(_chat("engine", LONG, b"X-Request-Id: left-early"))
        await asyncio.sleep(0.3)
    line = await stage.line("left-early")
    _said(line, outcome="caller_gone", upstream="engine", error_source="downstream")


async def test_a_stranger_was_turned_away(stage: Stage) -> None:
    """Without a key there is no organization, and what was shown is not in the line."""
    shown = "ps_live_4mJ0wq8ZtK1c_" + "C" * 38
    answer = ask(stage.worker.port, request(key=shown, path=b"/v1/models", method=b"GET", body=b""))
    line = await stage.line(answer.header["x-request-id"])
    _said(line, status=401, outcome="refused", organization=None, error_source="downstream")
    assert "CCCC" not in json.dumps(line)
