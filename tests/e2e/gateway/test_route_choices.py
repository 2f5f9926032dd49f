"""Routes with a choice: where requests go, and where they go when connecting fails."""

import asyncio
import itertools
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from tests.fakes.ports import free_port
from tests.fakes.scripted_engine import (
    DONE,
    ROLE,
    ScriptedEngine,
    Talk,
    chat,
    counts,
    hanging_port,
    running_scripted_engine,
    usage_frame,
)
from tests.fakes.stream_caller import Answer, StreamCaller, ask, calling, chat_body
from tests.fakes.worker_process import (
    WorkerProcess,
    eventually,
    make_snapshot,
    running_worker,
)

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
from penstock.gateway.limits import ENDPOINT_COOL_DOWN_S
from penstock.node.progress import Checkpoint, Position, Progress

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def engine() -> AsyncIterator[ScriptedEngine]:
    """Return an engine that answers at once, in a stream when it is asked to."""

    async def quick(talk: Talk) -> None:
        if talk.request.members.get("stream"):
            await talk.stream(ROLE, usage_frame(counts(1, 2)), DONE)
        else:
            await talk.send(chat(counts(1, 2)))

    async def silence(talk: Talk) -> None:
        await talk.gone()

    async with running_scripted_engine(quick) as running:
        running.scripts["silence"] = silence
        yield running


def _snapshot(
    ports: Mapping[str, Sequence[int]], *tiers: Mapping[str, int], timeouts: Timeouts | None = None
) -> Snapshot:
    """Return a snapshot whose `model-a` may go to these upstreams.

    Args:
        ports: Of each upstream's endpoints; its model is `model-of-<name>`. The model of one whose
            name ends in `-continuous` reports usage all the time, that of `-small` gives 10 tokens.
        tiers: Weights of upstreams; each is the fallback of the one before.
        timeouts: Of all.
    """
    return msgspec.structs.replace(
        make_snapshot([1]),
        upstreams=tuple(
            Upstream(
                name,
                "emulator",
                tuple(Endpoint("http", "127.0.0.1", port) for port in each),
                forward_headers=("x-emulator-*",),
                timeouts=timeouts or Timeouts(),
            )
            for name, each in ports.items()
        ),
        deployments=tuple(
            Deployment(
                name,
                name,
                f"model-of-{name}",
                continuous_usage=name.endswith("-continuous"),
                max_output_tokens=10 if name.endswith("-small") else 1_000,
            )
            for name in ports
        ),
        routes=tuple(
            Route(
                f"tier-{number}",
                tuple(Choice(name, weight) for name, weight in tier.items()),
                fallback=f"tier-{number + 1}",
            )
            for number, tier in enumerate(tiers)
        ),
        aliases=(Alias("model-a", "tier-0"),),
    )


def _served(worker: WorkerProcess) -> list[tuple[str, str, int, str]]:
    return [
        (event.upstream, event.served_model, event.attempt_count, event.outcome)
        for event in worker.events()
    ]


def _check_passed_over(events: Sequence[UsageEvent]) -> None:
    """See that what could not be connected to is tried again after a while only."""
    tried: dict[str, int] = {}
    for attempt in itertools.chain.from_iterable(event.earlier_attempts for event in events):
        since_ns = attempt.started_at_ns - tried.get(attempt.upstream, 0)
        assert since_ns >= ENDPOINT_COOL_DOWN_S * 0.99e9, "it is passed over"
        tried[attempt.upstream] = attempt.finished_at_ns


async def test_requests_are_shared_by_weight(engine: ScriptedEngine, tmp_path: Path) -> None:
    """Of a hundred requests each choice gets its share, the one of weight 0 none."""
    ports = dict.fromkeys(("one", "three", "spare"), (engine.port,))
    snapshot = _snapshot(ports, {"one": 1, "three": 3, "spare": 0})
    with running_worker(tmp_path, [], snapshot=snapshot) as worker:
        for _ in range(100):
            assert (await ask(worker.port, "", chat_body())).status == 200
        worker.wait_events(100)
        served = Counter(upstream for upstream, *_ in _served(worker))
    assert set(served) == {"one", "three"}
    assert abs(served["three"] - 75) <= 3
    seen = Counter(request.members["model"] for request in engine.requests)
    assert seen == {"model-of-one": served["one"], "model-of-three": served["three"]}


@pytest.mark.parametrize(
    "tiers",
    [
        [{"away": 1, "here": 0}],
        [{"away": 1}, {"here": 1}],
        [{"away": 1, "gone": 0}, {"here": 1}],
        [{"away": 1}, {"gone": 1}, {"here": 0}],
    ],
    ids=["stand-in", "fallback", "stand-in that is away", "second fallback"],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_another_choice_serves_when_connecting_fails(
    engine: ScriptedEngine, tmp_path: Path, tiers: list[dict[str, int]], *, stream: bool
) -> None:
    """What refuses connections costs no request: the next choice gets it, in its own words."""
    ports = {"away": [free_port()], "gone": [free_port()], "here": [engine.port]}
    with running_worker(tmp_path, [], snapshot=_snapshot(ports, *tiers)) as worker:
        for _ in range(5):
            assert (await ask(worker.port, "", chat_body(stream=stream))).status == 200
        worker.wait_events(5)
        events, opens = worker.events(), worker.opens()
    away = sum(len(tier) for tier in tiers) - 1
    assert events[0].attempt_count == away + 1
    assert {(e.upstream, e.served_model, e.outcome) for e in events} == {
        ("here", "model-of-here", "ok")
    }
    _check_passed_over(events)
    assert {request.members["model"] for request in engine.requests} == {"model-of-here"}
    assert len(engine.requests) == 5
    assert opens[-1].upstream == "here"
    last = {opened.event_id: opened for opened in opens}
    assert {(o.upstream, o.served_model) for o in last.values()} == {("here", "model-of-here")}


async def test_all_endpoints_of_a_choice_go_before_the_next_choice(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """The next choice is for when no endpoint of the first can be connected to."""
    ports = {"half": [free_port(), engine.port], "other": [engine.port]}
    snapshot = _snapshot(ports, {"half": 1, "other": 0})
    with running_worker(tmp_path, [], snapshot=snapshot) as worker:
        assert (await ask(worker.port, "", chat_body())).status == 200
        worker.wait_events(1)
        assert _served(worker) == [("half", "model-of-half", 2, "ok")]
        assert len(worker.opens()) == 1


async def test_attempts_are_bounded_across_choices(engine: ScriptedEngine, tmp_path: Path) -> None:
    """A request tries three endpoints in all; what refused is passed over by those behind it."""
    ports = {"wide": [free_port() for _ in range(3)], "here": [engine.port]}
    snapshot = _snapshot(ports, {"wide": 1}, {"here": 1})
    with running_worker(tmp_path, [], snapshot=snapshot) as worker:
        found: list[Answer] = []
        while not found or found[-1].status == 503:
            # Behind more than ENDPOINT_COOL_DOWN_S, on a busy machine, it is as at first.
            assert len(found) < 5
            found.append(await ask(worker.port, "", chat_body()))
        assert {(each.code, each.header["retry-after"]) for each in found[:-1]} == {
            ("upstream:connect_failed", "1")
        }
        assert found[-1].status == 200
        worker.wait_events(len(found))
        assert _served(worker) == [
            *[("wide", "model-of-wide", 3, "upstream_error")] * (len(found) - 1),
            ("here", "model-of-here", 1, "ok"),
        ]


async def test_another_choice_serves_when_connecting_takes_too_long(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """An upstream that swallows connections costs its time-out once, and no request."""
    async with hanging_port() as port:
        ports = {"hanging": [port], "here": [engine.port]}
        snapshot = _snapshot(ports, {"hanging": 1}, {"here": 1}, timeouts=Timeouts(connect_ms=300))
        with running_worker(tmp_path, [], snapshot=snapshot) as worker:
            for _ in range(3):
                assert (await ask(worker.port, "", chat_body())).status == 200
            worker.wait_events(3)
            events = worker.events()
    assert events[0].attempt_count == 2
    assert {(event.upstream, event.outcome) for event in events} == {("here", "ok")}
    _check_passed_over(events)
    assert len(engine.requests) == 3


async def test_with_nothing_left_the_caller_is_told(tmp_path: Path) -> None:
    """When no choice can be connected to it is 503, also while all of them are passed over."""
    ports = {"a": [free_port()], "b": [free_port()]}
    with running_worker(tmp_path, [], snapshot=_snapshot(ports, {"a": 1}, {"b": 1})) as worker:
        for _ in range(3):
            found = await ask(worker.port, "", chat_body())
            assert (found.status, found.code) == (503, "upstream:connect_failed")
            assert "model-of" not in found.body.decode()
        events = worker.wait_events(3)
        assert {(event.outcome, event.attempt_count) for event in events} == {("upstream_error", 2)}


async def test_what_was_sent_is_never_sent_to_another(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """An engine that took the request and failed is not stood in for: it may have been paid for."""

    async def reset(talk: Talk) -> None:
        talk.reset()

    engine.scripts["reset"] = reset
    ports = {"first": [engine.port], "second": [engine.port]}
    snapshot = _snapshot(ports, {"first": 1}, {"second": 1})
    with running_worker(tmp_path, [], snapshot=snapshot) as worker:
        found = await ask(worker.port, "reset", chat_body())
        assert (found.status, found.code) == (502, "upstream:closed_early")
        worker.wait_events(1)
        assert _served(worker) == [("first", "model-of-first", 1, "upstream_error")]
    assert len(engine.requests) == 1


async def test_the_body_is_the_other_choices(engine: ScriptedEngine, tmp_path: Path) -> None:
    """Usage is asked for as the choice that serves wants it, and hidden as for any other."""
    ports = {"away": [free_port()], "here-continuous": [engine.port]}
    snapshot = _snapshot(ports, {"away": 1, "here-continuous": 0})
    with running_worker(tmp_path, [], snapshot=snapshot) as worker:
        for options in (None, {"include_usage": True}):
            extra = {} if options is None else {"stream_options": options}
            found = await ask(worker.port, "", chat_body(stream=True, **extra))
            assert (b"usage" in found.body) == (options is not None)
    for request in engine.requests:
        assert request.members["stream_options"] == {
            "include_usage": True,
            "continuous_usage_stats": True,
        }


async def test_a_choice_that_gives_too_little_does_not_stand_in(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """A request for more output than a choice gives does not go there, even as the last resort."""
    ports = {"away": [free_port()], "here-small": [engine.port]}
    snapshot = _snapshot(ports, {"away": 1, "here-small": 0})
    with running_worker(tmp_path, [], snapshot=snapshot) as worker:
        assert (await ask(worker.port, "", chat_body(max_tokens=11))).status == 503
        assert (await ask(worker.port, "", chat_body(max_tokens=10))).status == 200
        refused = await ask(worker.port, "", chat_body(max_tokens=1_001))
        assert (refused.status, refused.code) == (400, "request:member_invalid")
    assert [request.members["max_tokens"] for request in engine.requests] == [10]


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_caller_may_leave_while_another_choice_is_tried(
    engine: ScriptedEngine, tmp_path: Path, how: str
) -> None:
    """A caller that leaves then is recorded once, and no further choice hears of the request."""
    async with hanging_port() as port:
        ports = {"away": [free_port()], "hanging": [port], "here": [engine.port]}
        snapshot = _snapshot(ports, {"away": 1}, {"hanging": 1}, {"here": 1})
        with running_worker(tmp_path, [], snapshot=snapshot) as worker:
            caller = await StreamCaller.connect(worker.port)
            await caller.ask("", chat_body())
            await eventually(lambda: len(worker.opens()) == 2)
            getattr(caller, how)()
            (event,) = worker.wait_events(1)
            assert (event.outcome, event.upstream, event.attempt_count) == (
                "caller_gone",
                "hanging",
                2,
            )
            assert (event.input_tokens, event.output_tokens) == (0, 0)
            assert (await ask(worker.port, "", chat_body(max_tokens=1))).status in {200, 504}
    assert all(request.members.get("max_tokens") == 1 for request in engine.requests)


async def test_a_drain_ends_what_tries_another_choice(tmp_path: Path) -> None:
    """A request between two choices ends with the worker's grace like any other, recorded once."""
    async with hanging_port() as port:
        ports = {"away": [free_port()], "hanging": [port]}
        snapshot = _snapshot(ports, {"away": 1, "hanging": 0})
        with running_worker(tmp_path, [], snapshot=snapshot, drain_grace_s=0.2) as worker:
            asking = asyncio.create_task(ask(worker.port, "", chat_body()))
            await eventually(lambda: len(worker.opens()) == 2)
            os.kill(worker.pid, signal.SIGTERM)
            found = await asking
            assert (found.status, found.code) == (503, "internal:interrupted")
            assert await asyncio.to_thread(worker.process.wait, 30) == 0
            (event,) = worker.events()
            assert (event.outcome, event.upstream) == ("interrupted", "hanging")


async def test_a_killed_worker_leaves_the_choice_that_served(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    """What the agent ends for a dead worker names the upstream that the request went to."""
    ports = {"away": [free_port()], "here": [engine.port]}
    snapshot = _snapshot(ports, {"away": 1, "here": 0})
    with running_worker(tmp_path, [], snapshot=snapshot) as worker:
        async with calling(worker.port) as caller:
            await caller.ask("silence", chat_body())
            await eventually(lambda: len(engine.seen("silence")) == 1)
            worker.stop(signal.SIGKILL)
        progress = Progress(Checkpoint())
        for number, record in enumerate(worker.records()):
            progress.follow(record, Position(1, number))
        (opened,) = progress.unclosed
        assert (opened.upstream, opened.served_model) == ("here", "model-of-here")
