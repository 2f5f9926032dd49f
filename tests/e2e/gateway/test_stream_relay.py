"""Streams through a real worker: byte for byte, at every cut, at once."""

import asyncio
import json
import time
from collections.abc import Iterator

import pytest
from tests.fakes.scripted_engine import (
    DONE,
    LAST_CHUNK,
    ROLE,
    STREAM_HEAD,
    STREAM_HEAD_TO_END,
    ScriptedEngine,
    Talk,
    chunk,
    counts,
    cut,
    token,
    usage_frame,
)
from tests.fakes.stream_caller import Answer, ask, calling, chat_body
from tests.fakes.worker_process import WorkerProcess, make_snapshot, running_worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

USAGE = usage_frame(counts(7, 2))
ASKS_FOR_USAGE = chat_body(stream=True, stream_options={"include_usage": True})
ODD = b"".join(
    [
        b": keep-alive\n\n",
        ROLE,
        b'event: message\nid: 7\ndata: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"b"}}],"usage":null} \n\n',
        b'data: {"choices":[{"index":0,\r\ndata: "delta":{"content":"c"}}]}\r\n\r\n',
        'data: {"choices":[{"index":0,"delta":{"content":"grün 漢字 🦀"}}]}\n\n'.encode(),
        b'data:{"choices":[{"index":0,"delta":{"content":"\\"usage\\": {\\"error\\""}}]}\r\r',
        b'data: {"choices":[{"index":0,"delta":{"content":"\x00\xff"}}]}\n\n',
    ]
)


@pytest.fixture(scope="module")
def continuous(
    engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Return a worker whose route asks for usage in every chunk."""
    snapshot = make_snapshot([engine.port], continuous_usage=True)
    folder = tmp_path_factory.mktemp("continuous")
    with running_worker(folder, [engine.port], snapshot=snapshot) as running:
        yield running


def _in_pieces(content: bytes, boundaries: list[int]) -> tuple[bytes, ...]:
    return tuple(cut(content, boundaries))


async def _ask_all(
    engine: ScriptedEngine, port: int, cuts: list[tuple[bytes, ...]], body: bytes | None = None
) -> list[Answer]:
    """Have the engine send each of these sequences of packets, each to a caller of its own."""

    def script(pieces: tuple[bytes, ...]) -> object:
        async def play(talk: Talk) -> None:
            await talk.send(*pieces, pause_s=0.004)

        return play

    for number, pieces in enumerate(cuts):
        engine.scripts[f"cut-{number}"] = script(pieces)  # type: ignore[assignment]
    found: list[Answer] = []
    for start in range(0, len(cuts), 100):
        names = [f"cut-{number}" for number in range(start, min(start + 100, len(cuts)))]
        found += await asyncio.gather(*(ask(port, name, body) for name in names))
    return found


async def test_bytes_are_the_engines_at_every_cut(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """Wherever TCP cuts the engine's answer, the caller gets its bytes less the usage chunk."""
    content = STREAM_HEAD + chunk(ODD) + chunk(USAGE) + chunk(DONE) + LAST_CHUNK
    cuts = [_in_pieces(content, [at]) for at in range(1, len(content))]
    before = len(worker.events())
    answers = await _ask_all(engine, worker.port, cuts)
    assert {answer.body for answer in answers} == {ODD + DONE}
    assert all(answer.is_complete for answer in answers)
    events = worker.wait_events(before + len(cuts))[before:]
    assert {(e.outcome, e.usage_source, e.input_tokens, e.output_tokens) for e in events} == {
        ("ok", "engine", 7, 2)
    }


async def test_bytes_are_the_engines_when_every_byte_comes_alone(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """An answer that comes byte by byte is relayed like one that comes whole."""
    content = STREAM_HEAD + chunk(ROLE + token("x") + USAGE) + chunk(DONE) + LAST_CHUNK
    pieces = _in_pieces(content, list(range(len(content))))

    async def script(talk: Talk) -> None:
        await talk.send(*pieces, pause_s=0.0005)

    engine.scripts["drip"] = script
    answer = await ask(worker.port, "drip")
    assert answer.body == ROLE + token("x") + DONE
    assert answer.is_complete


async def test_a_caller_that_asked_sees_the_usage_chunk(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """A caller that asked for usage gets every byte of the engine, at every cut."""
    content = STREAM_HEAD + chunk(ROLE + token("x") + USAGE + DONE) + LAST_CHUNK
    cuts = [_in_pieces(content, [at]) for at in range(len(STREAM_HEAD), len(content), 3)]
    answers = await _ask_all(engine, worker.port, cuts, ASKS_FOR_USAGE)
    assert {answer.body for answer in answers} == {ROLE + token("x") + USAGE + DONE}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_usage": True}, {"include_usage": True}),
        (
            {"include_obfuscation": False, "later": [1]},
            {"include_usage": True, "include_obfuscation": False, "later": [1]},
        ),
    ],
)
async def test_the_engine_is_always_asked_for_usage(
    engine: ScriptedEngine,
    worker: WorkerProcess,
    options: dict[str, object] | None,
    expected: dict[str, object],
) -> None:
    """The engine gets `include_usage`, and the caller's other stream options as they were."""

    async def script(talk: Talk) -> None:
        await talk.stream(ROLE, USAGE, DONE)

    engine.scripts["asked"] = script
    members = {"stream": True} | ({} if options is None else {"stream_options": options})
    answer = await ask(worker.port, "asked", chat_body(**members))
    sent = engine.seen("asked")[-1].request.members
    assert sent["stream_options"] == expected
    assert sent["model"] == "served-model"
    wants_usage = bool(options and options.get("include_usage"))
    assert answer.body == (ROLE + USAGE + DONE if wants_usage else ROLE + DONE)


async def test_usage_in_every_chunk_is_kept_from_the_caller(
    engine: ScriptedEngine, continuous: WorkerProcess
) -> None:
    """On a route with continuous usage the caller sees no figure it did not ask for."""
    frame = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%d"}}],"usage":%b}\n\n'
    frames = [frame % (n, json.dumps(counts(7, n)).encode()) for n in range(1, 4)]

    async def script(talk: Talk) -> None:
        await talk.stream(*frames, USAGE, DONE)

    engine.scripts["continuous"] = script
    answer = await ask(continuous.port, "continuous")
    options = engine.seen("continuous")[-1].request.members["stream_options"]
    assert options == {"include_usage": True, "continuous_usage_stats": True}
    events = [json.loads(e[6:]) for e in answer.body.split(b"\n\n") if e.startswith(b"data: {")]
    assert [e["choices"][0]["delta"]["content"] for e in events] == ["1", "2", "3"]
    assert not any("usage" in e for e in events)
    assert answer.body.endswith(DONE)


async def test_usage_in_every_chunk_is_shown_to_a_caller_that_asked(
    engine: ScriptedEngine, continuous: WorkerProcess
) -> None:
    """A caller that asked for usage in every chunk gets every byte."""
    frame = b'data: {"choices":[{"index":0,"delta":{}}],"usage":{"prompt_tokens":7}}\n\n'

    async def script(talk: Talk) -> None:
        await talk.stream(frame, USAGE, DONE)

    engine.scripts["continuous-asked"] = script
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = chat_body(stream=True, stream_options=options)
    answer = await ask(continuous.port, "continuous-asked", body)
    assert answer.body == frame + USAGE + DONE


async def test_an_abort_on_a_continuous_route_is_counted_by_the_engine(
    engine: ScriptedEngine, continuous: WorkerProcess
) -> None:
    """With continuous usage, a caller that leaves is charged what the engine last said."""

    async def script(talk: Talk) -> None:
        frame = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"usage":%b}\n\n'
        for number in range(1, 6):
            await talk.send(
                *([STREAM_HEAD] if number == 1 else []),
                chunk(frame % json.dumps(counts(7, number * 10)).encode()),
            )
        await talk.gone()

    engine.scripts["abort"] = script
    before = len(continuous.events())
    async with calling(continuous.port) as caller:
        await caller.ask("abort")
        await caller.read_head()
        seen = b""
        while seen.count(b"\n\n") < 5:
            seen += await caller.read_piece()
    event = continuous.wait_events(before + 1)[-1]
    assert (event.outcome, event.usage_source) == ("caller_gone", "engine")
    assert (event.input_tokens, event.output_tokens) == (7, 50)


async def test_the_first_byte_is_flushed_at_once(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """A caller has the first token within 50 ms while the stream is open."""
    go_on = asyncio.Event()
    sent_at_s: list[float] = []

    async def script(talk: Talk) -> None:
        await talk.send(STREAM_HEAD)
        await asyncio.sleep(0.02)
        sent_at_s.append(time.monotonic())
        await talk.send(chunk(ROLE))
        await asyncio.wait_for(go_on.wait(), 60)
        await talk.send(chunk(DONE), LAST_CHUNK)

    engine.scripts["first"] = script
    delays: list[float] = []
    while min(delays, default=1.0) >= 0.05:  # a busy machine may be late now and then
        assert len(delays) < 20, delays
        go_on.clear()
        async with calling(worker.port) as caller:
            await caller.ask("first")
            await caller.read_head()
            assert await caller.read_piece() == ROLE
            delays.append(caller.last_byte_at_s - sent_at_s[-1])
            go_on.set()
            assert await caller.read_body() == (DONE, True)


async def test_half_a_frame_that_holds_choices_is_flushed(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """The beginning of a long frame goes on before its end is there."""
    beginning = b'data: {"choices":[{"index":0,"logprobs":['
    go_on = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.send(STREAM_HEAD, chunk(beginning))
        await asyncio.wait_for(go_on.wait(), 60)
        await talk.send(chunk(b"]}]}\n\n"), LAST_CHUNK)

    engine.scripts["half"] = script
    async with calling(worker.port) as caller:
        await caller.ask("half")
        await caller.read_head()
        assert await caller.read_piece() == beginning
        go_on.set()
        assert await caller.read_body() == (b"]}]}\n\n", True)


async def test_a_streams_head_forbids_buffering(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """A stream's head keeps the content type, names the request and asks proxies not to buffer."""

    async def script(talk: Talk) -> None:
        head = STREAM_HEAD.replace(b"text/event-stream", b"Text/Event-Stream; charset=utf-8")
        await talk.send(head.replace(b"\r\n\r\n", b"\r\nx-engine: secret\r\n\r\n"))
        await talk.send(chunk(ROLE + DONE), LAST_CHUNK)

    engine.scripts["head"] = script
    answer = await ask(worker.port, "head", x_request_id="my-own-id")
    assert answer.status == 200
    assert answer.header["content-type"] == "Text/Event-Stream; charset=utf-8"
    assert answer.header["x-request-id"] == "my-own-id"
    assert answer.header["x-accel-buffering"] == "no"
    assert answer.header["cache-control"] == "no-cache"
    assert answer.header["transfer-encoding"] == "chunked"
    assert not answer.header.keys() & {"x-engine", "content-length", "content-encoding"}


async def test_frames_of_megabytes_pass(engine: ScriptedEngine, worker: WorkerProcess) -> None:
    """A frame of 3 MB is relayed byte for byte, and the usage behind it is seen."""
    huge = b'data: {"choices":[{"index":0,"logprobs":"' + b"y" * 3_000_000 + b'"}]}\n\n'

    async def script(talk: Talk) -> None:
        await talk.stream(ROLE, huge, token("x"), USAGE, DONE)

    engine.scripts["huge"] = script
    before = len(worker.events())
    answer = await ask(worker.port, "huge")
    assert answer.body == ROLE + huge + token("x") + DONE
    event = worker.wait_events(before + 1)[-1]
    assert (event.usage_source, event.output_tokens) == ("engine", 2)


async def test_an_old_caller_gets_a_stream_that_ends_with_the_connection(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """To HTTP/1.0 a stream is sent without chunks, and the connection ends it."""

    async def script(talk: Talk) -> None:
        await talk.stream(ROLE, USAGE, DONE)

    engine.scripts["old"] = script
    async with calling(worker.port) as caller:
        await caller.ask("old", version="1.0")
        answer = await caller.read_answer()
    assert answer.body == ROLE + DONE
    assert "transfer-encoding" not in answer.header


async def test_a_stream_that_ends_with_the_engines_connection_is_complete_after_done(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """Without chunks from the engine, `[DONE]` is what tells a whole stream from a cut one."""

    async def whole(talk: Talk) -> None:
        await talk.send(
            STREAM_HEAD_TO_END, ROLE, token("x") + b"data: [DO", b"NE]\n\n", pause_s=0.01
        )
        talk.close()

    async def cut_off(talk: Talk) -> None:
        await talk.send(STREAM_HEAD_TO_END, ROLE, token("[DONE]"))
        talk.close()

    engine.scripts |= {"whole": whole, "cut-off": cut_off}
    answer = await ask(worker.port, "whole")
    assert (answer.body, answer.is_complete) == (ROLE + token("x") + DONE, True)
    answer = await ask(worker.port, "cut-off")
    assert not answer.is_complete
    assert answer.code == "upstream:closed_early"


async def test_a_plain_answer_to_a_stream_is_relayed_as_it_is(
    engine: ScriptedEngine, worker: WorkerProcess
) -> None:
    """An engine that does not stream though it was asked to is relayed like any plain answer."""

    async def script(talk: Talk) -> None:
        body = b'{"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":5}}'
        await talk.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    engine.scripts["plain"] = script
    before = len(worker.events())
    answer = await ask(worker.port, "plain")
    assert json.loads(answer.body)["usage"]["completion_tokens"] == 5
    event = worker.wait_events(before + 1)[-1]
    assert (event.outcome, event.output_tokens, event.is_stream) == ("ok", 5, True)
