"""What usage events say besides figures: labels, where it ran, the engine's names, attempts."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.fakes.ports import free_port
from tests.fakes.scripted_engine import (
    CHAT,
    DONE,
    LAST_CHUNK,
    STREAM_HEAD,
    ScriptedEngine,
    Talk,
    answer,
    chunk,
    counts,
)
from tests.fakes.stream_caller import Answer, ask, calling, chat_body
from tests.fakes.worker_process import (
    KEY,
    WorkerProcess,
    make_snapshot,
    running_worker,
)

from penstock.contract.journal import interrupted_event
from penstock.contract.snapshot import Choice, Deployment, Endpoint, Route, Snapshot, Upstream
from penstock.contract.usage import UsageEvent

pytestmark = pytest.mark.asyncio(loop_scope="module")

LABELS = "team=search, cost_center=4711"
READ = (("cost_center", "4711"), ("team", "search"))


def _snapshot(engine: int) -> Snapshot:
    """Return a snapshot whose `model-a` goes to one upstream that is away, then to one that is."""
    away = Upstream("away", "emulator", (Endpoint("http", "127.0.0.1", free_port()),), region="us")
    here = Upstream(
        "here",
        "emulator",
        (Endpoint("http", "127.0.0.1", engine),),
        region="eu-de",
        data_class="eu_only",
    )
    return msgspec.structs.replace(
        make_snapshot([engine]),
        upstreams=(away, here),
        deployments=(Deployment("away", "away", "m"), Deployment("here", "here", "m")),
        routes=(
            Route("main", (Choice("away"),), fallback="second"),
            Route("second", (Choice("here"),)),
        ),
    )


@pytest.fixture(scope="module")
def worker(
    engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Return a worker in front of the engine that lets two labels be used."""
    folder = tmp_path_factory.mktemp("worker")
    snapshot = _snapshot(engine.port)
    with running_worker(folder, [], snapshot=snapshot, labels=("team", "cost_center")) as running:
        yield running


async def _ask(
    worker: WorkerProcess, *, stream: bool = False, **fields: str
) -> tuple[Answer, UsageEvent]:
    before = len(worker.events())
    got = await ask(worker.port, "", chat_body(stream=stream), **fields)
    (event,) = worker.wait_events(before + 1)[before:]
    return got, event


async def test_a_plain_answer_tells_who_where_and_what(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """Labels, place, the engine's names and every class of token are in the event."""

    async def script(talk: Talk) -> None:
        details = {"cached_tokens": 2, "audio_tokens": 1}
        usage = counts(9, 5) | {
            "prompt_tokens_details": details,
            "cache_creation_input_tokens": 3,
            "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 2},
        }
        names = {"id": "chatcmpl-1", "service_tier": "flex"}
        await talk.send(answer(CHAT | names | {"usage": usage}, 200, "x-request-id: req-7"))

    engine.script = script
    _, event = await _ask(worker, x_penstock_labels=LABELS)
    assert event.labels == READ
    assert (event.data_class, event.region) == ("eu_only", "eu-de")
    assert (event.upstream_request_id, event.service_tier) == ("chatcmpl-1", "flex")
    assert (event.cached_input_tokens, event.cache_write_input_tokens) == (2, 3)
    assert (event.audio_input_tokens, event.audio_output_tokens) == (1, 2)
    assert (event.reasoning_output_tokens, event.flags, event.image_count) == (1, (), 0)
    assert "x-penstock-labels" not in engine.requests[-1].header


@pytest.mark.parametrize("wanted", [(), ("feature", "user_name")])
async def test_metadata_is_passed_on_and_counted_where_it_is_wanted(
    engine: ScriptedEngine, tmp_path: Path, wanted: tuple[str, ...]
) -> None:
    """An engine gets metadata as it was sent, and events say listed members, by default none."""

    async def script(talk: Talk) -> None:
        await talk.send(answer(CHAT, 200))

    engine.script = script
    metadata = b'{"feature": "chat",  "user_name": "Ada Lovelace", "other": "1"}'
    body = chat_body()[:-1] + b', "metadata": ' + metadata + b"}"
    snapshot = _snapshot(engine.port)
    running = running_worker(
        tmp_path, [], snapshot=snapshot, labels=("team",), metadata_labels=wanted
    )
    with running as worker:
        got = await ask(worker.port, "", body, x_penstock_labels="team=search")
        (event,) = worker.wait_events(1)
    assert got.status == 200
    assert metadata in engine.requests[-1].body
    found = (("feature", "chat"),) if wanted else ()
    assert event.labels == (*found, ("team", "search"))


async def test_the_header_names_a_request_whose_answer_does_not(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """Without an id in the body that of the header counts, unless it only repeats ours."""
    nameless = {name: member for name, member in CHAT.items() if name != "id"}

    async def named(talk: Talk) -> None:
        await talk.send(answer(nameless | {"usage": counts(1, 1)}, 200, "X-Request-Id: req-7"))

    async def echo(talk: Talk) -> None:
        own = talk.request.header["x-request-id"]
        await talk.send(answer(nameless | {"usage": counts(1, 1)}, 200, f"x-request-id: {own}"))

    async def refused(talk: Talk) -> None:
        await talk.send(answer({"error": "no"}, 400, "x-request-id: req-8"))

    for script, name in ((named, "req-7"), (echo, ""), (refused, "req-8")):
        engine.script = script
        _, event = await _ask(worker)
        assert event.upstream_request_id == name
        assert (event.labels, event.service_tier) == ((), "")


def _frame(**members: object) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode({"id": "chatcmpl-2", **members})


_FIRST = _frame(service_tier="priority", choices=[{"index": 0, "delta": {"content": "a"}}])


async def test_a_stream_tells_its_names(engine: ScriptedEngine, worker: WorkerProcess) -> None:
    """Names come with the usage chunk, which the caller that did not ask never sees."""

    async def script(talk: Talk) -> None:
        usage = _frame(service_tier="flex", choices=[], usage=counts(3, 1))
        await talk.send(STREAM_HEAD, chunk(_FIRST), chunk(usage), chunk(DONE), LAST_CHUNK)

    engine.script = script
    got, event = await _ask(worker, stream=True, x_penstock_labels=LABELS)
    assert got.body == _FIRST + DONE
    assert (event.upstream_request_id, event.service_tier) == ("chatcmpl-2", "flex")
    assert (event.labels, event.usage_source) == (READ, "engine")


async def test_a_stream_that_is_cut_tells_its_names(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """A caller that leaves early takes the usage chunk away, not the engine's names."""

    async def script(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, chunk(_FIRST))
        await talk.gone()

    engine.script = script
    before = len(worker.events())
    async with calling(worker.port) as caller:
        await caller.ask()
        await caller.read_head()
        assert await caller.read_piece() == _FIRST
    (event,) = worker.wait_events(before + 1)[before:]
    assert event.outcome == "caller_gone"
    assert (event.upstream_request_id, event.service_tier) == ("chatcmpl-2", "priority")
    assert (event.data_class, event.region) == ("eu_only", "eu-de")


async def test_attempts_that_were_given_up_are_told(engine: ScriptedEngine, tmp_path: Path) -> None:
    """What was tried first is in the event of the one that is paid for, with when and why."""

    async def script(talk: Talk) -> None:
        await talk.send(answer(CHAT | {"usage": counts(1, 1)}))

    engine.script = script
    with running_worker(tmp_path, [], snapshot=_snapshot(engine.port)) as worker:
        _, event = await _ask(worker)
    assert (event.upstream, event.attempt_count) == ("here", 2)
    (attempt,) = event.earlier_attempts
    assert (attempt.upstream, attempt.reason) == ("away", "connect_failed")
    assert attempt.started_at_ns <= attempt.finished_at_ns <= event.finished_at_ns
    assert attempt.started_at_ns >= event.started_at_ns - 50_000_000


@pytest.mark.parametrize(
    "labels", ["team", "nobody_listed_it=1", "team=a\r\nx-penstock-labels: team=b"]
)
async def test_bad_labels_are_refused_at_once(
    engine: ScriptedEngine, worker: WorkerProcess, labels: str
) -> None:
    """They are 400 before an engine hears of the request, and no event."""
    asked, before = len(engine.requests), len(worker.events())
    got = await ask(worker.port, "", chat_body(), x_penstock_labels=labels)
    assert (got.status, got.code) == (400, "request:labels_invalid")
    assert (len(engine.requests), len(worker.events())) == (asked, before)


async def test_a_worker_that_dies_leaves_labels_and_place(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """They are in the OPEN record, and so in the event that its agent makes of it."""

    async def script(talk: Talk) -> None:
        await talk.send(answer(CHAT | {"usage": counts(1, 1)}))

    engine.script = script
    _, closed = await _ask(worker, x_penstock_labels=LABELS)
    opened = worker.opens()[-1]
    event = interrupted_event(opened, opened.started_at_ns + 1)
    assert (event.event_id, event.outcome) == (closed.event_id, "interrupted")
    assert (event.labels, event.data_class, event.region) == (READ, "eu_only", "eu-de")


async def test_nothing_is_said_of_a_place_that_was_not_reached(tmp_path: Path) -> None:
    """When no engine got the request, no data class and no region served it."""
    with running_worker(tmp_path, [], snapshot=_snapshot(free_port())) as worker:
        got, event = await _ask(worker)
    assert got.code == "upstream:connect_failed"
    assert (event.data_class, event.region, event.upstream_request_id) == ("", "", "")
    assert len(event.earlier_attempts) == event.attempt_count - 1 == 1
    assert KEY not in repr(event)
