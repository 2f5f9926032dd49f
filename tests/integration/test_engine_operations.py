"""Operations of engines: from the command line over control and a node to an engine, and back."""

import asyncio
import contextlib
import re
import shlex
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api
from tests.fakes.control_api import run, run_json
from tests.fakes.control_server import ControlServer, serving_control
from tests.fakes.emulator_process import running_emulator
from tests.fakes.organizations import ALL
from tests.fakes.served_upstreams import ServedUpstreams

from penstock.catalog.operations import service
from penstock.catalog.operations.model import CLAIM_WITHIN_S, REPORT_WITHIN_S
from penstock.catalog.rules import parse_endpoint
from penstock.contract.operations import Claim, Outcome, OutcomeReport
from penstock.contract.snapshot import MAX_FOUND, Endpoint, Upstream
from penstock.kit.errors import PenstockError
from penstock.node.calls import ControlCalls
from penstock.node.operator import Operator
from penstock.storage.database import Database

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "operate-engines.md"
ENDPOINTS = ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]
SERVED = ServedUpstreams(
    Upstream("gpu", "vllm", tuple(Endpoint("http", f"10.0.0.{n}", 8000) for n in (1, 2)))
)


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API over an empty database of each kind."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        yield rig


async def _want(rig: AdminRig, **members: Any) -> httpx.Response:
    found = (await rig.call("GET", "/upstreams")).json()["data"]
    if not found:
        found = [await rig.create("/upstreams", name="gpu", provider="vllm", endpoints=ENDPOINTS)]
    body = {"upstream_id": found[0]["id"], "operation": "sleep", **members}
    return await rig.call("POST", "/engine_operations", body)


async def _claim(rig: AdminRig, database: Database, node_id: str) -> Claim | None:
    async with database.write(ALL) as session:
        return await service.claim(session, node_id, rig.clock.wall_ns() // 1_000)


async def _finish(rig: AdminRig, database: Database, report: OutcomeReport) -> None:
    async with database.write(ALL) as session:
        await service.finish(session, report, rig.clock.wall_ns() // 1_000)


async def _status(rig: AdminRig, operation: dict[str, Any]) -> str:
    answer = await rig.call("GET", f"/engine_operations/{operation['id']}")
    return str(answer.json()["status"])


async def test_one_node_does_it_once(rig: AdminRig, database: Database) -> None:
    """Of many nodes one gets it; what that one says first is what came of it."""
    wanted = (await _want(rig, arguments={"level": "1"})).json()
    assert wanted["status"] == "waiting"
    claims = await asyncio.gather(*(_claim(rig, database, f"node-{n}") for n in range(4)))
    (claim,) = [each for each in claims if each is not None]
    assert claim == Claim(wanted["id"], "gpu", "sleep", {"level": "1"}, None)
    assert await _status(rig, wanted) == "running"
    node = f"node-{claims.index(claim)}"
    with pytest.raises(PenstockError):
        await _finish(rig, database, OutcomeReport(claim.id, "stranger", ()))
    outcomes = [Outcome(ENDPOINTS[0], 200, "a\0b" * 1_000)]
    outcomes += [Outcome(f"http://gpu-{n}:8000", 200) for n in range(1, MAX_FOUND)]
    await _finish(rig, database, OutcomeReport(claim.id, node, tuple(outcomes)))
    await _finish(rig, database, OutcomeReport(claim.id, node, (), "said again"))
    shown = (await rig.call("GET", "/engine_operations")).json()["data"][0]
    assert (shown["status"], shown["node_id"], shown["fault"]) == ("done", node, None)
    assert shown["outcomes"][0]["text"].startswith("abab")
    assert [each["endpoint"] for each in shown["outcomes"]] == [each.endpoint for each in outcomes]


async def test_what_nobody_does(rig: AdminRig, database: Database) -> None:
    """What no node takes expires and is not done late; what a node keeps for itself is lost."""
    late, kept = [(await _want(rig)).json() for _ in range(2)]
    claim = await _claim(rig, database, "node-1")
    assert claim is not None
    assert claim.id in {late["id"], kept["id"]}
    if claim.id == late["id"]:
        late, kept = kept, late
    rig.clock.advance(CLAIM_WITHIN_S + 1)
    assert await _claim(rig, database, "node-1") is None
    assert (await _status(rig, late), await _status(rig, kept)) == ("expired", "running")
    rig.clock.advance(REPORT_WITHIN_S)
    assert await _status(rig, kept) == "lost"
    rig.clock.advance(service.KEEP_S)
    async with database.write(ALL) as session:
        await service.forget_old_operations(session, rig.clock.wall_ns() // 1_000)
    assert (await rig.call("GET", "/engine_operations")).json()["data"] == []


@pytest.mark.parametrize(
    "members",
    [
        {"operation": "abort_requests"},
        {"operation": "flush_cache"},
        {"arguments": {"depth": "1"}},
        {"operation": "load_lora_adapter", "arguments": {"lora_name": "x"}},
    ],
)
async def test_what_engines_cannot_be_told(rig: AdminRig, members: dict[str, Any]) -> None:
    """An operation of another kind, or with other arguments, is refused before a node sees it."""
    answer = await _want(rig, **members)
    expect_problem(answer, 400, "err:control:catalog:operation_invalid")


class _Node:
    """A node's operator in a thread of its own, with engines that are none unless they are said."""

    def __init__(
        self, control: ControlServer, token: Path, engines: ServedUpstreams | None = None
    ) -> None:
        self.seen: list[httpx.Request] = []
        self._control, self._token, self._engines = control, token, engines
        self._loop = asyncio.new_event_loop()

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        return httpx.Response(503 if request.url.path == "/wake_up" else 200, text="so be it")

    def run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._work())
        self._loop.close()

    async def _work(self) -> None:
        self._task = asyncio.current_task()
        calls = ControlCalls(self._control.url, self._token, timeout_s=30)
        transport = httpx.MockTransport(self._respond) if self._engines is None else None
        engines = self._engines or SERVED
        try:
            await Operator(calls, "n", engines, lambda _: None, transport=transport).run()
        finally:
            await calls.close()

    def stop(self) -> None:
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)


@contextmanager
def _running_node(
    control: ControlServer, token: Path, engines: ServedUpstreams | None = None
) -> Iterator[_Node]:
    node = _Node(control, token, engines)
    thread = threading.Thread(target=node.run)
    thread.start()
    try:
        yield node
    finally:
        node.stop()
        thread.join()


def test_the_commands(sqlite_template: Path, tmp_path: Path) -> None:
    """An operator has engines do something, sees what came of it, and so does the audit log."""
    data = tmp_path / "data"
    with (
        serving_control(sqlite_template, data) as control,
        _running_node(control, data / "secrets" / "node_token") as node,
    ):
        places = [word for url in ENDPOINTS for word in ("--endpoint", url)]
        run_json(control, "upstreams", "create", "gpu", "--provider", "vllm", *places)
        done = run_json(control, "engines", "operate", "gpu", "sleep", "--argument", "level=1")
        assert [each["status"] for each in done[0]["outcomes"]] == [200, 200]
        assert {str(each.url) for each in node.seen} == {f"{e}/sleep?level=1" for e in ENDPOINTS}
        words = ("engines", "operate", "gpu", "wake_up", "--endpoint", ENDPOINTS[1])
        failed = run(control, *words)
        assert failed.exit_code == 1
        assert f"{ENDPOINTS[1]}  503  so be it" in failed.stdout
        assert len(node.seen) == 3
        entries = run_json(control, "audit", "list")
        assert [each["action"] for each in entries].count("engine_operation.create") == 2
        assert "load_lora_adapter" in run(control, "engines", "operations", "vllm").stdout
        wrong = run(control, "engines", "operate", "gpu", "sleep", "--argument", "level")
        assert wrong.exit_code == 2


def test_the_commands_of_the_page(sqlite_template: Path, tmp_path: Path) -> None:
    """Each succeeds in its order: the emulated engine says yes to all that it is told."""
    data = tmp_path / "data"
    with (
        running_emulator("llama-3.3-70b", options=("--kind", "vllm")) as url,
        serving_control(sqlite_template, data) as control,
    ):
        page = PAGE.read_text("utf-8").replace("http://127.0.0.1:8000", url)
        engines = ServedUpstreams(Upstream("gpu-pool", "vllm", (parse_endpoint(url),)))
        blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        commands = [line for block in blocks for line in block.splitlines()]
        assert len(commands) > 5
        with _running_node(control, data / "secrets" / "node_token", engines):
            for command in commands:
                done = run(control, *shlex.split(command)[1:])
                assert done.exit_code == 0, (command, done.output)
