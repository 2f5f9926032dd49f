"""The emulator over real sockets: answers, statistics, connections."""

import asyncio
import time
from pathlib import Path

import msgspec
import pytest
from tests.unit.emulator.peer import (
    CHAT,
    MODEL,
    Peer,
    ask,
    chat_body,
    connect,
    on_uvloop,
    request_bytes,
    start,
    until_active,
)

from penstock.emulator.server import EmulatorServer
from penstock.emulator.settings import EmulatorSettings
from penstock.emulator.statistics import Report

PLAIN = EmulatorSettings(output_tokens=3)
ENDLESS = EmulatorSettings(output_tokens=100_000, ttft_ms=1, itl_ms=5)


async def _wait_gone(server: EmulatorServer) -> Report:
    """Return the report as soon as no connection is open."""
    async with asyncio.timeout(20):
        while server.statistics.report().connection_count:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0.001)
    return server.statistics.report()


def _buffered_bytes(server: EmulatorServer) -> int:
    (connection,) = server._connections._open
    return connection._transport.get_write_buffer_size()


async def _read_first_chunk(peer: Peer) -> None:
    received = b""
    while b"data: " not in received:
        received += await peer.read_some()


@on_uvloop
async def test_a_chat_is_answered() -> None:
    """A plain chat has text, a finish reason and the usage of its sizes."""
    answer = await ask(PLAIN, chat_body())
    assert answer.status == 200
    (choice,) = answer.json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": "the water runs"}
    assert choice["finish_reason"] == "stop"
    usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    assert answer.json()["usage"] == usage
    assert answer.json()["model"] == MODEL


@on_uvloop
async def test_a_chat_is_streamed() -> None:
    """A stream is a role, a chunk a token, a finish reason and `[DONE]`, without usage."""
    answer = await ask(PLAIN, chat_body(stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.is_complete
    *events, done = answer.events()
    assert done == "[DONE]"
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "the"},
        {"content": " water"},
        {"content": " runs"},
        {},
    ]
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * 4 + ["stop"]
    assert not any("usage" in event for event in events)


@on_uvloop
async def test_stream_and_plain_answer_say_the_same() -> None:
    """The text of a stream is that of the plain answer, characters of several bytes included."""
    settings = EmulatorSettings(output_tokens=70)
    plain = await ask(settings, chat_body())
    stream = await ask(settings, chat_body(stream=True))
    said = plain.json()["choices"][0]["message"]["content"]
    assert stream.text() == said
    assert "水" in said


@on_uvloop
async def test_the_callers_maximum_caps_the_answer() -> None:
    """`max_tokens` below the emulator's own count ends the answer by `length`."""
    answer = await ask(PLAIN, chat_body(max_tokens=2))
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert answer.json()["usage"]["completion_tokens"] == 2
    headers = {"x-emulator-output-tokens": "0"}
    nothing = await ask(PLAIN, chat_body(stream=True), headers=headers)
    assert len(nothing.events()) == 3


@on_uvloop
async def test_choices_are_streamed_side_by_side() -> None:
    """With `n` every choice has its role, its tokens and its end."""
    answer = await ask(PLAIN, chat_body(stream=True, n=2, stream_options={"include_usage": True}))
    *events, usage, _ = answer.events()
    assert [event["choices"][0]["index"] for event in events] == [0, 1] * 5
    assert usage["usage"]["completion_tokens"] == 6


@on_uvloop
async def test_completions_are_answered_and_streamed() -> None:
    """Text completions have `text`, and no role."""
    body = {"model": MODEL, "prompt": "Once"}
    plain = await ask(PLAIN, msgspec.json.encode(body), "/v1/completions")
    assert plain.json()["choices"][0]["text"] == "the water runs"
    body["stream"] = True  # type: ignore[assignment]
    stream = await ask(PLAIN, msgspec.json.encode(body), "/v1/completions")
    texts = [event["choices"][0]["text"] for event in stream.events()[:-1]]
    assert texts == ["the", " water", " runs", ""]


@on_uvloop
async def test_embeddings_depend_on_their_input_alone() -> None:
    """Equal inputs have equal vectors, as numbers and as base64, of the length asked for."""
    body = {"model": MODEL, "input": ["a", "b", "a"], "dimensions": 5}
    answer = await ask(PLAIN, msgspec.json.encode(body), "/v1/embeddings")
    first, second, third = (item["embedding"] for item in answer.json()["data"])
    assert first == third != second
    assert len(first) == 5
    assert answer.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    body["encoding_format"] = "base64"
    packed = await ask(PLAIN, msgspec.json.encode(body), "/v1/embeddings")
    assert len(packed.json()["data"][0]["embedding"]) == 28


@on_uvloop
async def test_models_and_health_are_served() -> None:
    """The list has the models of the settings, each can be had alone, others are 404."""
    async with await start(EmulatorSettings(models="a, b")) as server:
        answers = {}
        async with connect(server.port) as peer:
            for path in ("/v1/models", "/v1/models/b", "/v1/models/c", "/health", "/nowhere", CHAT):
                peer.send(request_bytes(b"", path, method="GET"))
                answers[path] = await peer.read_answer()
    assert [model["id"] for model in answers["/v1/models"].json()["data"]] == ["a", "b"]
    assert answers["/v1/models/b"].json()["id"] == "b"
    assert answers["/v1/models/c"].status == 404
    assert answers["/health"].status == 200
    assert answers["/nowhere"].status == 404
    assert (answers[CHAT].status, answers[CHAT].headers["allow"]) == (405, "POST")


@on_uvloop
async def test_bad_requests_are_answered_400() -> None:
    """A broken body, an unknown model and a bad header are told from good requests."""
    assert (await ask(PLAIN, b"{")).status == 400
    unknown = await ask(PLAIN, chat_body(model="other"))
    assert (unknown.status, unknown.json()["error"]["code"]) == (404, "model_not_found")
    bad = await ask(PLAIN, chat_body(), headers={"x-emulator-itl-ms": "-1"})
    assert bad.status == 400
    assert "x-emulator-itl-ms" in bad.json()["error"]["message"]


@on_uvloop
async def test_nonsense_is_answered_400_and_closed() -> None:
    """Bytes that are no HTTP get an answer, and the connection ends."""
    async with await start(PLAIN) as server, connect(server.port) as peer:
        peer.send(b"\x16\x03\x01 hello\r\n\r\n")
        answer = await peer.read_answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert await peer.read_some() == b""


@on_uvloop
async def test_head_is_answered_without_a_body() -> None:
    """HEAD gets a head alone, so that the next answer is where the peer looks for it."""
    async with await start(PLAIN) as server, connect(server.port) as peer:
        peer.send(request_bytes(b"", "/health", method="HEAD"))
        peer.send(request_bytes(b"", "/health", method="GET"))
        received = b""
        while b"ok" not in received:
            received += await peer.read_some()
    assert received.startswith(b"HTTP/1.1 405 ")
    assert b"\r\n\r\nHTTP/1.1 200 OK\r\n" in received


@on_uvloop
async def test_times_are_kept() -> None:
    """The first byte comes after the time to first token, the end an interval a token later."""
    headers = {"x-emulator-ttft-ms": "40", "x-emulator-itl-ms": "10"}
    async with await start(PLAIN) as server, connect(server.port) as peer:
        for is_stream in (True, False):
            began = time.monotonic()
            peer.send(request_bytes(chat_body(stream=is_stream), headers=headers))
            answer = await peer.read_answer()
            assert 0.058 <= time.monotonic() - began < 5
            assert answer.is_complete
        began = time.monotonic()
        peer.send(request_bytes(chat_body(stream=True), headers=headers))
        assert await peer.read_some()
        assert time.monotonic() - began >= 0.038


@on_uvloop
async def test_a_stream_without_times_is_one_write() -> None:
    """With no times set, the whole stream comes in one read."""
    settings = EmulatorSettings(output_tokens=100)
    async with await start(settings) as server, connect(server.port) as peer:
        peer.send(request_bytes(chat_body(stream=True)))
        assert (await peer.read_some()).endswith(b"0\r\n\r\n")


@on_uvloop
async def test_intervals_below_a_millisecond_are_kept() -> None:
    """1,000 tokens at 0.1 ms take 100 ms, not 1 s."""
    headers = {"x-emulator-itl-ms": "0.1", "x-emulator-output-tokens": "1000"}
    took_s = 1.0
    for _ in range(5):  # a busy machine may be late now and then
        began = time.monotonic()
        answer = await ask(PLAIN, chat_body(stream=True), headers=headers)
        assert len(answer.chunks) == 1003
        took_s = min(took_s, time.monotonic() - began)
        if took_s < 0.7:
            break
    assert 0.097 <= took_s < 0.7


@on_uvloop
async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent at once are answered one after the other, streams and slow ones too."""
    async with await start(PLAIN) as server, connect(server.port) as peer:
        slow = request_bytes(chat_body(stream=True), headers={"x-emulator-itl-ms": "5"})
        fast = request_bytes(chat_body())
        models = request_bytes(b"", "/v1/models", method="GET")
        peer.send((slow + fast + models) * 100)
        for _ in range(100):
            assert (await peer.read_answer()).text() == "the water runs"
            assert (await peer.read_answer()).json()["object"] == "chat.completion"
            assert (await peer.read_answer()).json()["object"] == "list"
        assert server.statistics.report().request_count == 200


@on_uvloop
async def test_requests_in_pieces_are_whole() -> None:
    """A request that comes byte by byte is answered like any other."""
    async with await start(PLAIN) as server, connect(server.port) as peer:
        for byte in request_bytes(chat_body(), headers={"x-request-id": "r"}):
            peer.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await peer.read_answer()).status == 200
        assert server.statistics.report().request_ids == ["r"]


@pytest.mark.parametrize(("announced", "header"), [(True, "close"), (False, None)])
@on_uvloop
async def test_connections_end_after_their_requests(
    announced: bool,  # noqa: FBT001
    header: str | None,
) -> None:
    """A connection is closed after as many requests as set, with or without saying so."""
    settings = msgspec.structs.replace(PLAIN, keep_alive_requests=2, keep_alive_announced=announced)
    async with await start(settings) as server, connect(server.port) as peer:
        peer.send(request_bytes(chat_body()) * 3)
        assert "connection" not in (await peer.read_answer()).headers
        assert (await peer.read_answer()).headers.get("connection") == header
        assert await peer.read_some() == b""
        assert server.statistics.report().request_count == 2


@on_uvloop
async def test_the_callers_close_is_heeded() -> None:
    """`connection: close` is answered likewise, and the connection closed."""
    async with await start(PLAIN) as server, connect(server.port) as peer:
        peer.send(request_bytes(chat_body(stream=True), headers={"connection": "close"}))
        answer = await peer.read_answer()
        assert answer.is_complete
        assert answer.headers["connection"] == "close"
        assert await peer.read_some() == b""


@on_uvloop
async def test_expectations_are_met() -> None:
    """A peer that waits for `100 Continue` gets it before its body."""
    async with await start(PLAIN) as server, connect(server.port) as peer:
        whole = request_bytes(chat_body(), headers={"expect": "100-continue"})
        head, _, body = whole.partition(b"\r\n\r\n")
        peer.send(head + b"\r\n\r\n")
        assert (await peer.read_answer()).status == 100
        peer.send(body)
        assert (await peer.read_answer()).status == 200


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset])
@pytest.mark.parametrize("is_stream", [True, False])
@on_uvloop
async def test_aborts_are_seen_at_once(leave: object, is_stream: bool) -> None:  # noqa: FBT001
    """A peer that leaves, by FIN or RST, in a stream or a wait, is recorded at once."""
    assert leave in (Peer.close, Peer.reset)
    async with await start(ENDLESS) as server, connect(server.port) as peer:
        body = chat_body(stream=is_stream)
        peer.send(request_bytes(body, headers={"x-request-id": "left"}))
        if is_stream:
            await _read_first_chunk(peer)
        else:
            await until_active(server)
            assert await peer.is_silent(0.02)
        left_at_s = time.monotonic()
        await (peer.close() if leave is Peer.close else peer.reset())
        report = await _wait_gone(server)
        (abort,) = report.aborted
        assert abort.request_id == "left"
        assert 0 <= abort.at_monotonic_s - left_at_s < 20  # the answer takes 500 s
        assert (abort.step_count > 0) == is_stream
        assert (report.active_count, report.active_stream_count) == (0, 0)


@on_uvloop
async def test_queued_requests_of_a_peer_that_left_are_aborted() -> None:
    """Requests that waited behind an unfinished one count as aborted too."""
    async with await start(ENDLESS) as server, connect(server.port) as peer:
        for number in range(3):
            peer.send(request_bytes(chat_body(stream=True), headers={"x-request-id": f"{number}"}))
        await _read_first_chunk(peer)
        await peer.close()
        report = await _wait_gone(server)
        assert [(abort.request_id, abort.step_count > 0) for abort in report.aborted] == [
            ("0", True),
            ("1", False),
            ("2", False),
        ]


@on_uvloop
async def test_complete_answers_are_no_aborts() -> None:
    """A peer that leaves after its answer, and a server that stops, abort nothing."""
    async with await start(ENDLESS) as server:
        async with connect(server.port) as peer:
            peer.send(request_bytes(chat_body(max_tokens=2, stream=True)))
            assert (await peer.read_answer()).is_complete
        async with connect(server.port) as peer:
            peer.send(request_bytes(chat_body(stream=True)))
            await _read_first_chunk(peer)
            await server.close()
            assert await peer.read_some() == b"" or await peer.read_some() == b""
        report = server.statistics.report()
    assert (report.request_count, report.aborted_count, report.active_count) == (2, 0, 0)


@on_uvloop
async def test_a_slow_reader_holds_its_stream_up() -> None:
    """What a peer does not read is not made: the emulator waits, and then goes on to the end."""
    settings = EmulatorSettings(output_tokens=80_000)
    async with await start(settings) as server, connect(server.port) as peer:
        peer.stop_reading()
        peer.send(request_bytes(chat_body(stream=True)))
        await until_active(server)
        await asyncio.sleep(0.2)
        assert _buffered_bytes(server) < 1_000_000
        assert server.statistics.report().active_stream_count == 1
        peer.resume_reading()
        answer = await peer.read_answer()
        assert answer.is_complete
        assert len(answer.chunks) == 80_003
        assert server.statistics.report().active_stream_count == 0


@on_uvloop
async def test_a_slow_reader_holds_a_timed_stream_up() -> None:
    """A timed stream, too, waits for its reader, whole and in order when it reads again."""
    settings = EmulatorSettings(output_tokens=60_000, itl_ms=0.01)
    async with await start(settings) as server, connect(server.port) as peer:
        peer.stop_reading()
        peer.send(request_bytes(chat_body(stream=True)))
        await until_active(server)
        await asyncio.sleep(0.5)
        assert _buffered_bytes(server) < 200_000
        peer.resume_reading()
        assert len((await peer.read_answer()).chunks) == 60_003


@on_uvloop
async def test_statistics_are_served_and_reset() -> None:
    """`GET /emulator/stats` says what was seen, oldest first, until a reset."""
    async with await start(PLAIN) as server, connect(server.port) as peer:
        for number in range(3):
            peer.send(request_bytes(chat_body(), headers={"X-Request-Id": f"r{number}"}))
            await peer.read_answer()
        peer.send(request_bytes(b"", "/emulator/stats", method="GET"))
        report = (await peer.read_answer()).json()
        assert (report["request_count"], report["request_ids"]) == (3, ["r0", "r1", "r2"])
        assert (report["connection_count"], report["recorded"]) == (1, [])
        peer.send(request_bytes(b"", "/emulator/reset"))
        assert (await peer.read_answer()).status == 200
        report = server.statistics.report()
        assert (report.request_count, report.request_ids) == (0, [])


@on_uvloop
async def test_requests_are_recorded_as_they_came() -> None:
    """With `record`, headers and body of a request can be read back, byte for byte."""
    settings = msgspec.structs.replace(PLAIN, record=True)
    body = chat_body(user="水")
    async with await start(settings) as server, connect(server.port) as peer:
        peer.send(request_bytes(body, headers={"X-Request-Id": "r", "Authorization": "Bearer t"}))
        await peer.read_answer()
        (recorded,) = server.statistics.report().recorded
    assert (recorded.request_id, recorded.method, recorded.target) == ("r", "POST", CHAT)
    assert recorded.body.encode() == body
    assert ("authorization", "Bearer t") in recorded.headers


@on_uvloop
async def test_the_log_has_each_request_before_its_answer(tmp_path: Path) -> None:
    """Each request has its line in the log as soon as its first byte of answer is out."""
    log = tmp_path / "seen.log"
    log.write_text("kept\n")
    settings = msgspec.structs.replace(PLAIN, log=str(log))
    async with await start(settings) as server, connect(server.port) as peer:
        peer.send(request_bytes(chat_body(), headers={"x-request-id": "one"}))
        await peer.read_answer()
        assert log.read_text() == "kept\none\n"
        peer.send(request_bytes(b"{"))
        await peer.read_answer()
    assert log.read_text() == "kept\none\n-\n"
