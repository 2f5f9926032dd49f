"""By which names engines know requests and sessions."""

from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
import pytest_asyncio
from tests.fakes.scripted_engine import (
    Received,
    ScriptedEngine,
    Talk,
    chat,
    counts,
    running_scripted_engine,
)
from tests.fakes.stream_caller import ask, calling, chat_body
from tests.fakes.worker_process import OTHER_KEY, WorkerProcess, make_snapshot, running_worker

from penstock.contract.snapshot import Alias, Choice, Deployment, Route

pytestmark = pytest.mark.asyncio(loop_scope="module")

HEADERS = {
    "vllm": "x-session-id",
    "dynamo": "x-dynamo-session-id",
    "trtllm": None,
    "llm_d": None,
}
STEERING = {
    *(
        f"x-override-{what}"
        for what in (
            "rid",
            "bootstrap-host",
            "bootstrap-port",
            "bootstrap-room",
            "conversation-id",
            "routed-dp-rank",
            "disagg-prefill-dp-rank",
            "priority",
        )
    ),
    *(
        f"x-dynamo-{what}"
        for what in (
            "request-priority",
            "strict-priority",
            "session-id",
            "meta-policy-class",
            "dp-rank",
        )
    ),
    "x-worker-instance-id",
    "x-prefill-instance-id",
    "x-tenant-id",
    "x-data-parallel-rank",
    "x-vllm-priority",
    "x-smg-routing-key",
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-subset",
    "x-gateway-inference-fairness-id",
    "x-llm-d-inference-objective",
    "x-llm-d-model-name-rewrite",
    "endpoint-load-metrics-format",
}
"""By which servers are told which worker answers, for whom, how urgently, and under which name."""
FAIRNESS = "x-llm-d-inference-fairness-id"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[ScriptedEngine]:
    """Return an engine that answers at once."""

    async def quick(talk: Talk) -> None:
        await talk.send(chat(counts(1, 2)))

    async with running_scripted_engine() as running:
        running.script = quick
        yield running


@pytest.fixture(scope="module")
def worker(
    engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Return a worker to which the engine is one of each kind."""
    plain = make_snapshot([engine.port])
    snapshot = msgspec.structs.replace(
        plain,
        keys=tuple(
            msgspec.structs.replace(
                key,
                aliases=None,
                scopes=("inference", "inference:steer") if key.id == "key-b" else key.scopes,
            )
            for key in plain.keys
        ),
        upstreams=tuple(
            msgspec.structs.replace(plain.upstreams[0], name=kind, provider=kind)
            for kind in HEADERS
        ),
        deployments=tuple(Deployment(kind, kind, "m") for kind in HEADERS),
        routes=tuple(Route(kind, (Choice(kind),)) for kind in HEADERS),
        aliases=tuple(Alias(kind, kind) for kind in HEADERS),
    )
    with running_worker(tmp_path_factory.mktemp("worker"), [], snapshot=snapshot) as running:
        yield running


async def _seen(
    engine: ScriptedEngine, worker: WorkerProcess, kind: str, **fields: str
) -> Received:
    assert (await ask(worker.port, "", chat_body(model=kind), **fields)).status == 200
    return engine.requests[-1]


async def _seen_of_other(
    engine: ScriptedEngine, worker: WorkerProcess, kind: str, lines: str = ""
) -> Received:
    """Return what arrives of a request of the other organization, whose key may steer engines."""
    async with calling(worker.port) as caller:
        body = chat_body(model=kind)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {OTHER_KEY}"
        head += f"\r\n{lines}content-length: {len(body)}\r\n\r\n"
        await caller.send(head.encode() + body)
        assert (await caller.read_answer()).status == 200
    return engine.requests[-1]


@pytest.mark.parametrize("kind", HEADERS)
async def test_engines_know_sessions_by_pseudonyms(
    engine: ScriptedEngine, worker: WorkerProcess, kind: str
) -> None:
    """Where a kind has a header for it, a session has one name, which tells nothing."""
    names = [
        (await _seen(engine, worker, kind, x_session_id=session)).header.get(HEADERS[kind] or "")
        for session in ("chat-1", "chat-1", "chat-2")
    ]
    if HEADERS[kind] is None:
        assert names == [None] * 3
        assert "x-session-id" not in engine.requests[-1].header
        return
    first, again, other = names
    assert first == again != other
    assert first is not None
    assert len(first) == 32
    without = await _seen(engine, worker, kind)
    assert HEADERS[kind] not in without.header
    told: list[str] = []
    for members in ({"prompt_cache_key": "chat-1"}, {"user": "ada"}, {"user": "grace"}):
        assert (await ask(worker.port, "", chat_body(model=kind, **members))).status == 200
        told.append(engine.requests[-1].header[HEADERS[kind] or ""])
        assert len(told[-1]) == 32
    assert len(set(told)) == 3
    body = chat_body(model=kind, user="ada", prompt_cache_key="chat-1")
    assert (await ask(worker.port, "", body)).status == 200
    assert engine.requests[-1].header[HEADERS[kind] or ""] == told[0]
    for nothing in (None, "", 7):
        body = chat_body(model=kind, prompt_cache_key=nothing, user=nothing)
        assert (await ask(worker.port, "", body)).status == 200
        assert HEADERS[kind] not in engine.requests[-1].header


async def test_organizations_are_told_apart_where_they_are_served_fairly(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """llm-d gets one name for all requests of an organization, never a caller's, others none."""
    fields = {FAIRNESS.replace("-", "_"): "of-somebody-else"}
    first, again = [(await _seen(engine, worker, "llm_d", **fields)).header for _ in range(2)]
    other = await _seen_of_other(engine, worker, "llm_d")
    assert len(first[FAIRNESS]) == 32
    assert first[FAIRNESS] == again[FAIRNESS] != other.header[FAIRNESS]
    assert FAIRNESS not in (await _seen(engine, worker, "vllm", **fields)).header


@pytest.mark.parametrize(
    ("said", "is_heeded"),
    [("batch-7", True), ("two words", False), ("", False), ("x" * 129, False)],
)
async def test_who_may_steer_says_among_whom_to_be_fair(
    engine: ScriptedEngine,
    worker: WorkerProcess,
    said: str,
    is_heeded: bool,  # noqa: FBT001 - a table
) -> None:
    """With the operator's scope a sane name is passed as it is, to servers that know such names."""
    line = f"{FAIRNESS}: {said}\r\n"
    found = (await _seen_of_other(engine, worker, "llm_d", line)).header[FAIRNESS]
    assert (found == said) is is_heeded
    assert is_heeded or len(found) == 32
    assert FAIRNESS not in (await _seen_of_other(engine, worker, "vllm", line)).header


@pytest.mark.parametrize("kind", HEADERS)
async def test_engines_get_request_id_and_trace(
    engine: ScriptedEngine, worker: WorkerProcess, kind: str
) -> None:
    """Both are the caller's own, to every kind of engine."""
    fields = {"x_request_id": "mine-1", "traceparent": TRACEPARENT}
    seen = await _seen(engine, worker, kind, **fields)
    assert (seen.header["x-request-id"], seen.header["traceparent"]) == ("mine-1", TRACEPARENT)


@pytest.mark.parametrize("kind", HEADERS)
async def test_headers_that_steer_do_not_arrive(
    engine: ScriptedEngine, worker: WorkerProcess, kind: str
) -> None:
    """A caller reaches no worker, rank, tenant, priority or request of an engine by a header."""
    seen = await _seen(engine, worker, kind, **{name.replace("-", "_"): "1" for name in STEERING})
    assert STEERING.isdisjoint(seen.header)
