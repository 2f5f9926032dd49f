"""What a worker says of how requests went: in its journal, and to its agent of those refused."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.fakes.fake_agent import FakeAgent, running_agent
from tests.fakes.http_rig import request
from tests.fakes.limits_agent import LimitsAgent
from tests.fakes.ports import free_port
from tests.fakes.raw_http import Answer, ask
from tests.fakes.recording_engine import RecordingEngine, running_engine
from tests.fakes.worker_process import WorkerProcess, make_snapshot, running_worker

from penstock.contract.finished import FinishedRequest, RefusedBy, part_span_id
from penstock.contract.journal import Close
from penstock.contract.limits import Limit, Metric, OwnerLimits
from penstock.contract.node import RefusedRequests, Stats, Tracing
from penstock.contract.snapshot import Choice, Deployment, Endpoint, Route, Snapshot, Upstream
from penstock.contract.snapshot_store import limits_record, owner_name

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FIELDS = (f"Traceparent: 00-{TRACE}-{SPAN}-01".encode(), b"Tracestate: vendor=1")
LIMIT = Limit("r1", Metric.REQUESTS, 1)
KEY_A = owner_name("key", "org-a", "key-a")


def _snapshot(engine: int, nobody: int) -> Snapshot:
    """Return a snapshot whose requests go to one upstream that is away, then to one that is."""
    away = Upstream("away", "emulator", (Endpoint("http", "127.0.0.1", nobody),))
    here = Upstream("here", "emulator", (Endpoint("http", "127.0.0.1", engine),), region="eu-de")
    return msgspec.structs.replace(
        make_snapshot([engine]),
        upstreams=(away, here),
        deployments=(Deployment("away", "away", "m"), Deployment("here", "here", "m")),
        routes=(
            Route("main", (Choice("away"),), fallback="second"),
            Route("second", (Choice("here"),)),
        ),
    )


class Stage:
    """A worker with a limit of one request, behind it nobody and then an engine."""

    def __init__(
        self, worker: WorkerProcess, agent: FakeAgent, engine: RecordingEngine, nobody: int
    ) -> None:
        """Take its parts."""
        self.worker, self.agent, self.engine, self.nobody = worker, agent, engine, nobody

    def ask_until(self, status: int) -> Answer:
        """Ask until the answer is this one: a busy agent may tell of the limit too late."""
        while (answer := ask(self.worker.port, request(*_with_trace()))).status != status:
            assert answer.status == 503
        return answer

    def refused(self, count: int) -> list[FinishedRequest]:
        """Wait until the agent was told of so many refused requests, and return all of them.

        Of those that it was too late for nothing is said.
        """
        deadline = time.monotonic() + 20
        while True:
            told = [each for each in self.agent.received if isinstance(each, RefusedRequests)]
            found = [one for each in told for one in each.requests if one.status != 503]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.05)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Return one that traces."""
    books = LimitsAgent(lambda: time.monotonic_ns() // 1_000_000, base_ms=10**12, budgets={})
    nobody = free_port()
    with (
        running_engine() as engine,
        running_agent(books.clock, answer=books.answer) as agent,
        running_worker(
            tmp_path,
            [],
            snapshot=_snapshot(engine.port, nobody),
            fed=dict([limits_record(KEY_A, OwnerLimits(limits=(LIMIT,)))]),
            agent_socket=str(agent.path),
            tells_refused=True,
            tracing=Tracing(),
        ) as worker,
    ):
        agent.wait(Stats)
        yield Stage(worker, agent, engine, nobody)


def test_the_course_of_requests_is_known(stage: Stage) -> None:
    """One that was served says where and when in its journal; refused ones are told, with why."""
    before_ns = time.time_ns()
    answer = stage.ask_until(200)
    stage.worker.wait_events(1)
    (close,) = [each for each in stage.worker.records() if isinstance(each, Close)]
    event, course = close.event, close.course
    assert course is not None
    trace = course.trace
    assert trace is not None
    assert (trace.trace_id, trace.parent_span_id, trace.is_sampled) == (TRACE, SPAN, True)
    assert course.endpoints == (f"127.0.0.1:{stage.nobody}", f"127.0.0.1:{stage.engine.port}")
    assert len(course.endpoints) == event.attempt_count
    (seen,) = stage.engine.seen
    told = f"00-{TRACE}-{part_span_id(trace.span_id, 2)}-01"
    assert (seen.header["traceparent"], seen.header["tracestate"]) == (told, "vendor=1")
    assert course.request_bytes == len(request()) - request().index(b"\r\n\r\n") - 4
    assert course.answer_bytes == len(answer.body)
    assert event.first_byte_at_ns is not None
    times = (
        *(before_ns, course.received_at_ns, event.started_at_ns, course.dispatched_at_ns),
        *(event.first_byte_at_ns, event.finished_at_ns, time.time_ns()),
    )
    assert list(times) == sorted(times)

    stage.ask_until(429)
    unknown = ask(stage.worker.port, request(key="nobody")).header["x-request-id"]
    nowhere = ask(stage.worker.port, request(path=b"/nowhere")).header["x-request-id"]
    limited, no_key, no_path = stage.refused(3)
    assert (limited.outcome, limited.status, limited.error_source) == ("refused", 429, "downstream")
    assert (limited.organization, limited.key_id, limited.model) == ("org-a", "key-a", "model-a")
    assert limited.trace_id == TRACE
    by = limited.refused_by
    assert by is not None
    assert by == RefusedBy("r1", "requests", 1, by.retry_after_s)
    assert by.retry_after_s is None or by.retry_after_s > 0
    assert (no_key.request_id, no_key.status, no_key.organization) == (unknown, 401, "")
    assert (no_path.request_id, no_path.status, no_path.operation) == (nowhere, 404, "")
    assert {no_key.attempt_count, no_path.attempt_count, limited.attempt_count} == {0}
    assert no_key.trace_id != no_path.trace_id


def _with_trace() -> tuple[bytes, ...]:
    return (b'{"model":"model-a","messages":[{"role":"user","content":"x"}]}', *FIELDS)
