"""What an engine has no room for goes to another one, before anything of an answer was shown."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from tests.fakes.ports import free_port
from tests.fakes.scripted_engine import (
    DONE,
    LAST_CHUNK,
    ROLE,
    STREAM_HEAD,
    Script,
    ScriptedEngine,
    Talk,
    answer,
    chat,
    chunk,
    counts,
    running_scripted_engine,
    token,
    usage_frame,
)
from tests.fakes.stream_caller import Answer, StreamCaller, ask, chat_body
from tests.fakes.worker_process import WorkerProcess, eventually, make_snapshot, running_worker

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
from penstock.contract.usage import UsageEvent
from penstock.gateway.limits import RETRIES_AT_LEAST

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = "The request queue is full."
BUSY = {"error": {"message": WORDS, "code": 503}}
IN_STREAM = b"data: %b\n\n" % json.dumps(BUSY).encode()
FINALS = tuple(f"final-{number}" for number in range(10))
ALIASES = (
    "status",
    "under-200",
    "budget",
    "gone",
    "elsewhere",
    "alone",
    "half",
    "late",
    "past",
    *FINALS,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def first() -> AsyncIterator[ScriptedEngine]:
    """Return the engine that is asked first."""
    async with running_scripted_engine() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second() -> AsyncIterator[ScriptedEngine]:
    """Return another one, which has room."""

    async def well(talk: Talk) -> None:
        if talk.request.members.get("stream"):
            await talk.stream(ROLE, token("x"), usage_frame(counts(1, 2)), DONE)
        else:
            await talk.send(chat(counts(1, 2)))

    async with running_scripted_engine() as running:
        running.script = well
        yield running


def _snapshot(first: int, second: int) -> Snapshot:
    """Return a snapshot in which each alias has an upstream, and so a budget, of its own."""
    ports = dict.fromkeys(ALIASES, (first, second)) | {
        "elsewhere": (first,),
        "stand-in": (second,),
        "alone": (first,),
        "half": (first, free_port()),
    }
    plain = make_snapshot([first])
    return msgspec.structs.replace(
        plain,
        keys=(msgspec.structs.replace(plain.keys[0], aliases=None),),
        upstreams=tuple(
            Upstream(
                name,
                "emulator",
                tuple(Endpoint("http", "127.0.0.1", port) for port in each),
                timeouts=Timeouts(total_ms=600 if name == "past" else 60_000),
            )
            for name, each in ports.items()
        ),
        deployments=tuple(Deployment(name, name, f"model-of-{name}") for name in ports),
        routes=tuple(
            Route(name, (Choice(name),), fallback="stand-in" if name == "elsewhere" else None)
            for name in ports
        ),
        aliases=tuple(Alias(name, name) for name in ALIASES),
    )


@pytest.fixture(scope="module")
def worker(
    first: ScriptedEngine, second: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Return a worker in front of both."""
    snapshot = _snapshot(first.port, second.port)
    with running_worker(tmp_path_factory.mktemp("worker"), [], snapshot=snapshot) as running:
        yield running


class Case:
    """Requests whose first engine answers by a script."""

    def __init__(
        self, worker: WorkerProcess, first: ScriptedEngine, second: ScriptedEngine
    ) -> None:
        """Use these."""
        self.worker, self._first, self._second = worker, first, second

    async def ask(
        self, model: str, script: Script, *, stream: bool = False
    ) -> tuple[Answer, UsageEvent]:
        """Return a request's answer and its only event, and count what the engines saw."""
        self._first.script = script
        before = len(self.worker.events())
        asked = len(self._first.requests), len(self._second.requests)
        found = await ask(self.worker.port, "", chat_body(model=model, stream=stream))
        (event,) = self.worker.wait_events(before + 1)[before:]
        self.seen = len(self._first.requests) - asked[0], len(self._second.requests) - asked[1]
        assert len(event.earlier_attempts) == event.attempt_count - 1
        return found, event


@pytest.fixture
def case(worker: WorkerProcess, first: ScriptedEngine, second: ScriptedEngine) -> Case:
    """Return requests to both engines."""
    return Case(worker, first, second)


def _sends(*pieces: bytes, end: str = "") -> Script:
    async def script(talk: Talk) -> None:
        await talk.send(*pieces, pause_s=0.01)
        if end:
            getattr(talk, end)()

    return script


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "reason"),
    [(429, "overloaded"), (502, "failed"), (503, "overloaded"), (529, "overloaded")],
)
async def test_no_room_at_one_is_no_failure(
    case: Case, status: int, reason: str, *, stream: bool
) -> None:
    """The caller sees the answer of the other engine, which alone is counted."""
    found, event = await case.ask("status", _sends(answer(BUSY, status)), stream=stream)
    assert (found.status, found.is_complete) == (200, True)
    assert WORDS not in found.body.decode()
    assert case.seen == (1, 1)
    assert (event.outcome, event.attempt_count, event.status) == ("ok", 2, 200)
    assert (event.usage_source, event.input_tokens, event.output_tokens) == ("engine", 1, 2)
    (attempt,) = event.earlier_attempts
    assert (attempt.upstream, attempt.reason) == ("status", reason)
    assert event.started_at_ns <= attempt.started_at_ns <= attempt.finished_at_ns
    assert event.first_byte_at_ns is not None
    assert event.first_byte_at_ns >= attempt.finished_at_ns


async def test_a_full_queue_under_200_is_tried_again(case: Case) -> None:
    """An error event before all else, as vLLM sends it, shows the caller nothing either."""
    script = _sends(STREAM_HEAD, chunk(IN_STREAM), chunk(DONE) + LAST_CHUNK)
    found, event = await case.ask("under-200", script, stream=True)
    assert found.body.startswith(ROLE)
    assert (case.seen, event.outcome, event.attempt_count) == ((1, 1), "ok", 2)
    plain, event = await case.ask("under-200", _sends(answer(BUSY)))
    assert (plain.status, case.seen, event.attempt_count) == (200, (1, 1), 2)


@pytest.mark.parametrize(
    ("alias", "script"),
    [
        *zip(
            FINALS,
            [
                _sends(answer(BUSY | {"error": WORDS}, status))
                for status in (400, 404, 422, 500, 501)
            ]
            + [
                _sends(answer({"error": WORDS})),
                _sends(b"", end="reset"),
                _sends(answer(b"<html>", 200, kind="text/html")),
                _sends(STREAM_HEAD, chunk(ROLE) + chunk(token("x")), chunk(IN_STREAM), LAST_CHUNK),
                _sends(STREAM_HEAD, chunk(ROLE) + chunk(token("x")), end="reset"),
            ],
            strict=True,
        )
    ],
    ids=["400", "404", "422", "500", "501", "in-200", "reset", "html", "in-stream", "reset-stream"],
)
async def test_other_failures_are_final(case: Case, alias: str, script: Script) -> None:
    """A request that was worked on, or that no engine will take, is not sent anywhere again."""
    _, event = await case.ask(alias, script, stream=True)
    assert (case.seen, event.attempt_count) == ((1, 0), 1)
    assert event.outcome != "ok"


async def test_retries_are_a_small_part_of_requests(case: Case) -> None:
    """An upstream that turns everything away is asked little more than callers ask."""
    ends = []
    for _ in range(RETRIES_AT_LEAST + 5):
        found, event = await case.ask("budget", _sends(answer(BUSY, 503)))
        ends.append((found.status, event.attempt_count))
    assert ends == [(200, 2)] * RETRIES_AT_LEAST + [(429, 1)] * 5


async def test_an_engine_that_asks_for_rest_gets_it(case: Case) -> None:
    """Where others are there, one that said how long to leave it alone is left alone."""
    script = _sends(answer(BUSY, 503, "retry-after: 30"))
    _, event = await case.ask("late", script)
    assert (case.seen, event.attempt_count) == ((1, 1), 2)
    _, event = await case.ask("late", script)
    assert (case.seen, event.attempt_count) == ((0, 1), 1)


async def test_what_is_turned_away_too_late_is_tried_nowhere(case: Case) -> None:
    """A request whose time is over is not sent to another engine any more."""

    async def script(talk: Talk) -> None:
        await asyncio.sleep(0.7)
        await talk.send(answer(BUSY, 503))

    found, event = await case.ask("past", script)
    assert (case.seen, event.attempt_count) == ((1, 0), 1)
    assert found.code in {"upstream:overloaded", "upstream:total_timeout"}


async def test_another_model_stands_in(case: Case) -> None:
    """With all endpoints of a choice tried, the next choice gets the request in its own words."""
    found, event = await case.ask("elsewhere", _sends(answer(BUSY, 529)))
    assert (found.status, case.seen) == (200, (1, 1))
    assert (event.upstream, event.served_model) == ("stand-in", "model-of-stand-in")
    opens = [each for each in case.worker.opens() if each.event_id == event.event_id]
    assert [each.upstream for each in opens] == ["elsewhere", "stand-in"]
    (attempt,) = event.earlier_attempts
    assert (attempt.upstream, attempt.reason) == ("elsewhere", "overloaded")


async def test_with_nobody_else_the_caller_is_told(case: Case) -> None:
    """The engine's words and its Retry-After are passed on, also when the others are away."""
    script = _sends(answer(BUSY, 529, "retry-after: 17"))
    for model, attempts in (("alone", 1), ("half", 2)):
        found, event = await case.ask(model, script)
        assert (found.status, found.code) == (429, "upstream:overloaded")
        assert (found.header["retry-after"], found.error["message"]) == ("17", WORDS)
        assert (case.seen, event.attempt_count) == ((1, 0), attempts)
        assert (event.outcome, event.input_tokens) == ("upstream_error", 0)


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_no_room_is_503_where_an_operator_wants_it(
    first: ScriptedEngine, tmp_path: Path, status: int
) -> None:
    """The answer says all else that it says with 429: its code, and when to come again."""
    first.script = _sends(answer(BUSY, status))
    with running_worker(tmp_path, [first.port], overloaded_status=503) as worker:
        found = await ask(worker.port, "", chat_body())
        assert (found.status, found.code) == (503, "upstream:overloaded")
        assert (found.header["retry-after"], found.error["message"]) == ("1", WORDS)
        (event,) = worker.wait_events(1)
        assert (event.status, event.outcome) == (503, "upstream_error")


async def test_a_caller_may_leave_while_the_other_is_asked(
    worker: WorkerProcess, first: ScriptedEngine, second: ScriptedEngine
) -> None:
    """It is recorded once, the other engine is let go, and the first one hears no more of it."""

    async def silence(talk: Talk) -> None:
        await talk.gone()

    first.script, well, second.script = _sends(answer(BUSY, 503)), second.script, silence
    before, asked = len(worker.events()), len(second.requests)
    caller = await StreamCaller.connect(worker.port)
    await caller.ask("", chat_body(model="gone"))
    await eventually(lambda: len(second.requests) == asked + 1)
    caller.reset()
    await asyncio.wait_for(second.talks[-1].gone(), 10)
    second.script = well
    (event,) = worker.wait_events(before + 1)[before:]
    assert (event.outcome, event.attempt_count, event.upstream) == ("caller_gone", 2, "gone")
