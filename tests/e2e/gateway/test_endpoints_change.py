"""Endpoints that come and go while callers ask: no request is lost."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from tests.fakes.fake_agent import FakeAgent, running_agent
from tests.fakes.http_rig import request
from tests.fakes.raw_http import ask
from tests.fakes.recording_engine import RecordingEngine, running_engine
from tests.fakes.worker_process import (
    WorkerProcess,
    make_snapshot,
    running_worker,
    write_snapshot,
)

from penstock.contract.node import Applied, Apply, Hello

CHANGES = 12
CALLERS = 4


def _serve_from(
    worker: WorkerProcess, agent: FakeAgent, engines: list[RecordingEngine], version: int
) -> None:
    """Have the worker ask these engines from now on."""
    snapshot = make_snapshot([engine.port for engine in engines], version=version)
    write_snapshot(worker.folder / "snapshot", snapshot)
    agent.send(Apply(version))
    deadline = time.monotonic() + 20
    while Applied(version) not in agent.received:
        assert time.monotonic() < deadline, agent.received[-3:]
        time.sleep(0.005)


def _ask_on(port: int, statuses: list[int], goes_on: list[bool]) -> None:
    while goes_on:
        statuses.append(ask(port, request()).status)


def _wait_answered(asking: list[Future[None]], answered: list[list[int]]) -> None:
    """Wait until each caller was answered what it asks now, and several more."""
    enough = [len(statuses) + 4 for statuses in answered]
    while any(len(statuses) < much for statuses, much in zip(answered, enough, strict=True)):
        assert not any(each.done() for each in asking), "a caller gave up"
        time.sleep(0.005)


def test_endpoints_change_under_load(tmp_path: Path) -> None:
    """Whatever comes and goes, every request is answered, and none goes to who was taken out."""
    choose = random.Random(7)
    versions: Iterator[int] = count(2)
    answered: list[list[int]] = [[] for _ in range(CALLERS)]
    goes_on = [True]
    with ExitStack() as stack:
        engines = [stack.enter_context(running_engine()) for _ in range(3)]
        agent = stack.enter_context(running_agent())
        worker = stack.enter_context(
            running_worker(tmp_path, [engines[0].port], agent_socket=str(agent.path))
        )
        agent.wait(Hello)
        callers = stack.enter_context(ThreadPoolExecutor(CALLERS))
        asking = [callers.submit(_ask_on, worker.port, each, goes_on) for each in answered]
        try:
            for _ in range(CHANGES):
                chosen = choose.sample(engines, choose.randint(1, 3))
                _serve_from(worker, agent, chosen, next(versions))
                _wait_answered(asking, answered)  # none of before is on its way then
                gone = [engine for engine in engines if engine not in chosen]
                seen = [len(engine.seen) for engine in gone]
                _wait_answered(asking, answered)
                assert [len(engine.seen) for engine in gone] == seen
        finally:
            goes_on.clear()
        for each in asking:
            each.result()
        statuses = [status for each in answered for status in each]
        assert set(statuses) == {200}
        assert sum(len(engine.seen) for engine in engines) == len(statuses)
        events = worker.wait_events(len(statuses), timeout_s=20)
    assert {event.outcome for event in events} == {"ok"}


def test_endpoints_that_stay_keep_their_connections(tmp_path: Path) -> None:
    """A change of the others is nothing to an endpoint: its idle connection is used again."""
    with (
        running_engine() as stays,
        running_engine() as other,
        running_agent() as agent,
        running_worker(tmp_path, [stays.port], agent_socket=str(agent.path)) as worker,
    ):
        agent.wait(Hello)
        for version in range(2, 8):
            assert ask(worker.port, request()).status == 200
            before = stays.connection_count
            engines = [stays, other] if version % 2 == 0 else [stays]
            _serve_from(worker, agent, engines, version)
            assert ask(worker.port, request()).status == 200
            if stays.connection_count == before:
                return  # on a busy machine one may have been idle for too long, but not each time
    raise AssertionError
