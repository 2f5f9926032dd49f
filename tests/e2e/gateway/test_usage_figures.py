"""Usage through a real worker: whatever an engine says, one sane record says what was used."""

import json
from typing import Any

import pytest
from tests.fakes.scripted_engine import (
    CHAT,
    DONE,
    LAST_CHUNK,
    ROLE,
    STREAM_HEAD,
    ScriptedEngine,
    Talk,
    answer,
    chunk,
    counts,
    token,
    usage_frame,
)
from tests.fakes.stream_caller import ask, chat_body
from tests.fakes.worker_process import WorkerProcess

from penstock.contract.usage import UsageEvent

pytestmark = pytest.mark.asyncio(loop_scope="module")

HUGE = 10**12


class Case:
    """One request, what the engine answered and what was recorded."""

    def __init__(self, engine: ScriptedEngine, worker: WorkerProcess) -> None:
        """Use this engine behind this worker."""
        self._engine = engine
        self._worker = worker

    async def plain(self, content: bytes, path: str = "/v1/chat/completions") -> UsageEvent:
        """Answer with these bytes, which the caller shall get as they are."""

        async def script(talk: Talk) -> None:
            await talk.send(content)

        body = {
            "/v1/embeddings": b'{"model":"model-a","input":"hello there"}',
            "/v1/completions": b'{"model":"model-a","prompt":"hello there"}',
            "/v1/classify": b'{"model":"model-a","input":"hello there"}',
            "/v1/rerank": b'{"model":"model-a","query":"hello","documents":["there"]}',
            "/v1/score": b'{"model":"model-a","text_1":"hello","text_2":"there"}',
            "/tokenize": b'{"model":"model-a","prompt":"hello there"}',
        }
        event = await self._play(script, body.get(path, chat_body()), path)
        assert self.answer.body == content.partition(b"\r\n\r\n")[2]
        return event

    async def stream(self, *frames: bytes) -> UsageEvent:
        """Answer with a stream of these frames, each in a packet of its own."""

        async def script(talk: Talk) -> None:
            await talk.send(STREAM_HEAD, *map(chunk, frames), LAST_CHUNK, pause_s=0.002)

        event = await self._play(script, chat_body(stream=True), "/v1/chat/completions")
        assert self.answer.body == b"".join(f for f in frames if b'"choices":[]' not in f)
        return event

    async def _play(self, script: Any, body: bytes, path: str) -> UsageEvent:
        self._engine.script = script
        before = len(self._worker.events())
        self.answer = await ask(self._worker.port, "", body, path=path)
        (event,) = self._worker.wait_events(before + 1)[before:]
        assert (event.outcome, event.status, self.answer.is_complete) == ("ok", 200, True)
        assert event.key_secret_id == "secret-a"
        assert event.input_tokens >= 0
        assert event.output_tokens >= 0
        assert 0 <= (event.cached_input_tokens or 0) <= event.input_tokens
        assert 0 <= (event.reasoning_output_tokens or 0) <= event.output_tokens
        return event


@pytest.fixture
def case(engine: ScriptedEngine, worker: WorkerProcess) -> Case:
    """Return one request."""
    return Case(engine, worker)


def _figures(event: UsageEvent) -> tuple[int, int, int | None, int | None]:
    return (
        event.input_tokens,
        event.output_tokens,
        event.cached_input_tokens,
        event.reasoning_output_tokens,
    )


SANE = [
    ({"prompt_tokens": 7, "completion_tokens": 5}, (7, 5, None, None)),
    ({"prompt_tokens": 0, "completion_tokens": 0}, (0, 0, None, None)),
    (
        counts(7, 5)
        | {
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
        (7, 5, 4, 3),
    ),
    (counts(7, 5) | {"reasoning_tokens": 2}, (7, 5, None, 2)),
    (
        counts(7, 5) | {"reasoning_tokens": 2, "completion_tokens_details": {"audio_tokens": 1}},
        (7, 5, None, 2),
    ),
    (counts(7, 5) | {"prompt_tokens_details": None}, (7, 5, None, None)),
    (counts(7, 5) | {"prompt_tokens_details": {"cached_tokens": 0}}, (7, 5, 0, None)),
    (counts(7, 5) | {"created_cache_tokens": 3, "cost": "1.5"}, (7, 5, None, None)),
    ({"prompt_tokens": 7.0, "completion_tokens": 5.0}, (7, 5, None, None)),
]


@pytest.mark.parametrize(("usage", "expected"), SANE)
@pytest.mark.parametrize("is_stream", [True, False])
async def test_sane_figures_are_booked_as_they_are(
    case: Case,
    usage: dict[str, Any],
    expected: tuple[int, int, int | None, int | None],
    *,
    is_stream: bool,
) -> None:
    """Figures, also those of parts in every place that engines put them, are the engine's own."""
    if is_stream:
        event = await case.stream(ROLE, token("x"), usage_frame(usage), DONE)
    else:
        event = await case.plain(answer(CHAT | {"usage": usage}))
    assert _figures(event) == expected
    assert (event.usage_source, event.flags) == ("engine", ())


ODD = [
    (counts(-7, 5), (0, 5), "usage_negative"),
    (counts(7, -5), (7, 0), "usage_negative"),
    (counts(7, 5) | {"prompt_tokens_details": {"cached_tokens": -1}}, (7, 5), "usage_negative"),
    (counts(7, 5) | {"prompt_tokens_details": {"cached_tokens": 9}}, (7, 5), "usage_inconsistent"),
    (
        counts(7, 5) | {"completion_tokens_details": {"reasoning_tokens": 6}},
        (7, 5),
        "usage_inconsistent",
    ),
    (
        counts(7, 5) | {"prompt_tokens_details": {"cached_tokens": "4"}},
        (7, 5),
        "usage_not_a_number",
    ),
    (counts(7, 5) | {"prompt_tokens_details": {"cached_tokens": HUGE}}, (7, 5), "usage_absurd"),
]


@pytest.mark.parametrize(("usage", "expected", "flag"), ODD)
@pytest.mark.parametrize("is_stream", [True, False])
async def test_odd_figures_are_mended_and_flagged(
    case: Case, usage: dict[str, Any], expected: tuple[int, int], flag: str, *, is_stream: bool
) -> None:
    """What makes little sense is clamped, never negative, and the record says what was odd."""
    if is_stream:
        event = await case.stream(ROLE, token("x"), usage_frame(usage), DONE)
    else:
        event = await case.plain(answer(CHAT | {"usage": usage}))
    assert (event.input_tokens, event.output_tokens) == expected
    assert (event.usage_source, event.flags) == ("engine", (flag,))


USELESS = [
    (counts(HUGE, 5), "usage_absurd"),
    (counts(7, HUGE), "usage_absurd"),
    ({"prompt_tokens": "7", "completion_tokens": 5}, "usage_not_a_number"),
    ({"prompt_tokens": 7.5, "completion_tokens": 5}, "usage_not_a_number"),
    ({"prompt_tokens": True, "completion_tokens": 5}, "usage_not_a_number"),
    ({"prompt_tokens": 7, "completion_tokens": None}, "usage_not_a_number"),
    ({"prompt_tokens": [7], "completion_tokens": 5}, "usage_not_a_number"),
    ({"completion_tokens": 5}, "usage_not_a_number"),
    ({}, "usage_not_a_number"),
    ("lots", "usage_not_a_number"),
    (12, "usage_not_a_number"),
    ([], "usage_not_a_number"),
]


@pytest.mark.parametrize(("usage", "flag"), USELESS)
@pytest.mark.parametrize("is_stream", [True, False])
async def test_useless_figures_are_replaced_and_flagged(
    case: Case, usage: object, flag: str, *, is_stream: bool
) -> None:
    """What cannot be a count is never booked: the output is counted or estimated instead."""
    if is_stream:
        event = await case.stream(ROLE, token("x"), token("y"), usage_frame(usage), DONE)
        assert (event.usage_source, event.output_tokens) == ("counted", 2)
    else:
        event = await case.plain(answer(CHAT | {"usage": usage}))
        assert event.usage_source == "estimated"
        assert 0 < event.output_tokens < 100
    assert event.flags == (flag,)
    assert 0 < event.input_tokens < 100


@pytest.mark.parametrize(
    "raw",
    [
        b'{"prompt_tokens":1e400,"completion_tokens":1}',
        b'{"prompt_tokens":' + b"9" * 5_000 + b',"completion_tokens":1}',
        b'{"prompt_tokens":"\xff","completion_tokens":1}',
        b'{"\xff":1}',
        b"[" * 800 + b"]" * 800,
    ],
    ids=["infinite", "endless", "not UTF-8", "not UTF-8 name", "deep"],
)
@pytest.mark.parametrize("is_stream", [True, False])
async def test_figures_that_no_type_holds_break_no_answer(
    case: Case, raw: bytes, *, is_stream: bool
) -> None:
    """However broken the figures are, the caller gets its whole answer."""
    members = b'"choices":[{"delta":{}}],"usage":' + raw
    if is_stream:
        event = await case.stream(ROLE, b"data: {" + members + b"}\n\n", DONE)
    else:
        event = await case.plain(answer(b"{" + members + b"}"))
    assert event.flags == ("usage_not_a_number",)
    assert event.usage_source in {"counted", "estimated"}


async def test_missing_figures_are_flagged(case: Case) -> None:
    """An engine that never says what it used is counted or estimated, and flagged."""
    event = await case.stream(ROLE, token("x"), token("y"), token("z"), DONE)
    assert (event.usage_source, event.output_tokens) == ("counted", 3)
    assert event.flags == ("usage_missing",)
    event = await case.plain(answer(CHAT))
    assert (event.usage_source, event.flags) == ("estimated", ("usage_missing",))
    event = await case.plain(answer(CHAT | {"usage": None}))
    assert (event.usage_source, event.flags) == ("estimated", ("usage_missing",))


@pytest.mark.parametrize(
    "frames",
    [
        (ROLE, token("x"), usage_frame(counts(7, 5)), DONE),
        (ROLE, token("x"), DONE, usage_frame(counts(7, 5))),
        (usage_frame(counts(7, 5)), ROLE, token("x"), DONE),
        (ROLE, usage_frame(counts(7, 1)), token("x"), usage_frame(counts(7, 5)), DONE),
        (ROLE, usage_frame(counts(7, 5)), usage_frame(counts(7, 5)), DONE),
        (ROLE, usage_frame(counts(7, 5)), DONE, usage_frame(counts(7, 5))),
        (ROLE, usage_frame("lots"), usage_frame(counts(7, 5)), DONE),
        (ROLE, token("x"), usage_frame(counts(7, 5)), DONE, b": bye\n\n"),
        (ROLE, token("x"), DONE, usage_frame(counts(7, 5)).rstrip()),
    ],
    ids=[
        "last", "behind the end", "first", "cumulative", "twice", "twice around the end",
        "after nonsense", "then a comment", "cut off",
    ],
)  # fmt: skip
async def test_usage_counts_once_wherever_it_comes(case: Case, frames: tuple[bytes, ...]) -> None:
    """Wherever and however often a stream says what was used, its last figures count once."""
    event = await case.stream(*frames)
    assert _figures(event) == (7, 5, None, None)
    assert event.usage_source == "engine"


async def test_cumulative_figures_are_not_added_up(case: Case) -> None:
    """An engine that repeats its growing figures in every chunk is booked for the last ones."""
    frame = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":%b}\n\n'
    frames = [frame % json.dumps(counts(7, n)).encode() for n in range(1, 21)]
    event = await case.stream(ROLE, *frames, DONE)
    assert _figures(event) == (7, 20, None, None)


async def test_usage_null_in_other_chunks_is_nothing(case: Case) -> None:
    """`usage: null` in the chunks before the last says nothing and is relayed."""
    null = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":null}\n\n'
    event = await case.stream(ROLE, null, null, usage_frame(counts(7, 5)), DONE)
    assert _figures(event) == (7, 5, None, None)


async def test_comments_are_no_tokens(case: Case) -> None:
    """Keep-alive comments of an engine that says no figures are not counted as output."""
    event = await case.stream(*[b": keep-alive\n\n"] * 9, ROLE, token("x"), DONE)
    assert (event.usage_source, event.output_tokens) == ("counted", 1)


@pytest.mark.parametrize(
    ("path", "operation"), [("/v1/embeddings", "embeddings"), ("/v1/completions", "completions")]
)
async def test_other_operations_are_metered_alike(case: Case, path: str, operation: str) -> None:
    """Embeddings, which have no output, and completions are booked like chats."""
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    event = await case.plain(answer({"data": [], "usage": usage}), path)
    assert _figures(event) == (9, 0, None, None)
    assert (event.operation, event.usage_source) == (operation, "engine")


@pytest.mark.parametrize("name", ["classify", "rerank", "score"])
@pytest.mark.parametrize("usage", [{"total_tokens": 9}, {"prompt_tokens": 9, "total_tokens": 9}])
async def test_ranking_is_metered_by_its_input(
    case: Case, name: str, usage: dict[str, int]
) -> None:
    """Ranks and scores have no output; engines that tell a total alone mean the input."""
    event = await case.plain(answer({"results": [], "usage": usage}), f"/v1/{name}")
    assert _figures(event) == (9, 0, None, None)
    assert (event.operation, event.usage_source, event.flags) == (name, "engine", ())


async def test_counting_tokens_consumes_none(case: Case) -> None:
    """What no model reads is recorded, without tokens and without a flag."""
    event = await case.plain(answer({"count": 3, "tokens": [1, 2, 3]}), "/tokenize")
    assert _figures(event) == (0, 0, None, None)
    assert (event.operation, event.usage_source, event.flags) == ("tokenize", "counted", ())


async def test_a_record_says_who_asked_for_what(case: Case, worker: WorkerProcess) -> None:
    """A record names organization, project, key, alias, served model, upstream and times."""
    event = await case.plain(answer(CHAT | {"usage": counts(7, 5)}))
    assert (event.organization, event.project, event.key_id) == ("org-a", "project-a", "key-a")
    assert (event.model, event.served_model, event.upstream) == (
        "model-a", "served-model", "engine",
    )  # fmt: skip
    assert (event.operation, event.is_stream, event.attempt_count) == ("chat", False, 1)
    assert event.request_id == case.answer.header["x-request-id"]
    assert event.first_byte_at_ns is not None
    assert event.started_at_ns <= event.first_byte_at_ns <= event.finished_at_ns
    (opened,) = [each for each in worker.opens() if each.event_id == event.event_id]
    assert opened.request_id == event.request_id
