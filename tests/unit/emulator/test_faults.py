"""Usage habits and faults, as a peer sees them."""

from typing import Any

import pytest
from tests.unit.emulator.peer import (
    Answer,
    ask,
    chat_body,
    connect,
    on_uvloop,
    request_bytes,
    start,
    until_active,
)

from penstock.emulator.settings import Behavior, EmulatorSettings, Hangup, UsageHabit
from penstock.emulator.usage import HUGE

TOKENS = 3
HONEST = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
ASKED = {"include_usage": True}


def _fault(fault: str, **others: object) -> dict[str, str]:
    fields = {"fault": fault, "output_tokens": TOKENS} | others
    return {f"x-emulator-{name.replace('_', '-')}": str(value) for name, value in fields.items()}


async def _ask(headers: dict[str, str], *, is_stream: bool) -> Answer:
    return await ask(EmulatorSettings(), chat_body(stream=is_stream), headers=headers)


def _reported(answer: Answer) -> list[Any]:
    return [event["usage"] for event in answer.events() if "usage" in event]


@pytest.mark.parametrize(
    ("habit", "plain", "stream", "asking_stream"),
    [
        ("asked", HONEST, [], [HONEST]),
        ("always", HONEST, [HONEST], [HONEST]),
        ("never", None, [], []),
        ("twice", HONEST, [HONEST] * 2, [HONEST] * 2),
        ("after_done", HONEST, [HONEST], [HONEST]),
        ("missing", {}, [{}], [{}]),
        (
            "negative",
            *[{"prompt_tokens": -2, "completion_tokens": -4, "total_tokens": -5}],
            *[[{"prompt_tokens": -2, "completion_tokens": -4, "total_tokens": -5}]] * 2,
        ),
        (
            "text",
            *[{"prompt_tokens": "1", "completion_tokens": "3", "total_tokens": "4"}],
            *[[{"prompt_tokens": "1", "completion_tokens": "3", "total_tokens": "4"}]] * 2,
        ),
    ],
)
@on_uvloop
async def test_usage_habits(
    habit: UsageHabit, plain: object, stream: list[object], asking_stream: list[object]
) -> None:
    """Each habit reports usage where and as it says, in plain answers and in streams."""
    settings = EmulatorSettings(output_tokens=TOKENS, usage=habit)
    assert (await ask(settings, chat_body())).json().get("usage") == plain
    assert _reported(await ask(settings, chat_body(stream=True))) == stream
    asking = await ask(settings, chat_body(stream=True, stream_options=ASKED))
    assert _reported(asking) == asking_stream
    assert asking.is_complete
    assert (asking.events()[-1] == "[DONE]") == (habit != "after_done")


@pytest.mark.parametrize("habit", ["null", "fraction", "flag", "nested", "parts"])
@on_uvloop
async def test_senseless_usage_has_the_usual_names(habit: UsageHabit) -> None:
    """These habits report every figure, under its name, as what is no count."""
    settings = EmulatorSettings(output_tokens=TOKENS, usage=habit)
    for stream in (False, True):
        answer = await ask(settings, chat_body(stream=stream))
        usage = _reported(answer)[-1] if stream else answer.json()["usage"]
        assert usage.keys() >= HONEST.keys()
        assert habit == "parts" or all(type(figure) is not int for figure in usage.values())


@on_uvloop
async def test_huge_usage_is_beyond_any_model() -> None:
    """The habit `huge` reports figures that no answer can have."""
    answer = await _ask({"x-emulator-usage": "huge"}, is_stream=False)
    assert all(figure >= HUGE for figure in answer.json()["usage"].values())


@on_uvloop
async def test_continuous_usage_is_cumulative() -> None:
    """With `continuous_usage_stats` each chunk has the usage so far, the last one that of all."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    settings = EmulatorSettings(output_tokens=TOKENS)
    answer = await ask(settings, chat_body(stream=True, stream_options=options))
    figures = [usage["completion_tokens"] for usage in _reported(answer)]
    assert figures == [0, 1, 2, 3, 3, 3]
    assert len(answer.events()) == len(figures) + 1
    assert answer.text() == "the water runs"


@on_uvloop
async def test_cached_tokens_are_reported_when_set() -> None:
    """`prompt_tokens_details.cached_tokens` appears only when a figure is set."""
    headers = {"x-emulator-input-tokens": "20", "x-emulator-cached-tokens": "16"}
    answer = await _ask(headers, is_stream=False)
    assert answer.json()["usage"]["prompt_tokens"] == 20
    assert answer.json()["usage"]["prompt_tokens_details"] == {"cached_tokens": 16}


@pytest.mark.parametrize("hangup", ["fin", "reset"])
@pytest.mark.parametrize("after", [0, 1, 3, 5])
@pytest.mark.parametrize("itl_ms", [0, 2])
@on_uvloop
async def test_disconnect_ends_a_stream_after_its_chunks(
    hangup: Hangup, after: int, itl_ms: int
) -> None:
    """Just as many chunks come as asked for, then a FIN or an RST, with no end of the stream."""
    headers = _fault("disconnect", fault_after=after, hangup=hangup, itl_ms=itl_ms)
    answer = await _ask(headers, is_stream=True)
    assert not answer.is_complete
    assert len(answer.chunks) == after
    assert answer.is_reset == (hangup == "reset")
    assert (answer.status == 0) == (after == 0)


@on_uvloop
async def test_a_fault_behind_the_end_does_not_happen() -> None:
    """A stream that is shorter than `fault_after` is whole."""
    answer = await _ask(_fault("disconnect", fault_after=6), is_stream=True)
    assert answer.is_complete
    assert answer.events()[-1] == "[DONE]"


@pytest.mark.parametrize(("after", "status"), [(0, 0), (1, 200)])
@on_uvloop
async def test_disconnect_ends_a_plain_answer(after: int, status: int) -> None:
    """A plain answer ends before its first byte or in mid-body."""
    answer = await _ask(_fault("disconnect", fault_after=after), is_stream=False)
    assert (answer.status, answer.is_complete) == (status, False)
    assert bool(answer.body) == bool(after)


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize("after", [0, 2])
@on_uvloop
async def test_stall_says_nothing_more_until_the_peer_leaves(
    after: int,
    is_stream: bool,  # noqa: FBT001
) -> None:
    """A stalled answer keeps its connection open and silent, and ends as an abort."""
    headers = _fault("stall", fault_after=after) | {"x-request-id": "patient"}
    async with await start(EmulatorSettings()) as server:
        async with connect(server.port) as peer:
            peer.send(request_bytes(chat_body(stream=is_stream), headers=headers))
            if after:
                received = await peer.read_some()
                assert received.count(b"data: ") == (after if is_stream else 0)
            await until_active(server)
            assert await peer.is_silent()
            assert server.statistics.report().active_count == 1
        while not server.statistics.report().aborted:
            async with connect(server.port) as peer:
                peer.send(request_bytes(b"", "/health", method="GET"))
                await peer.read_answer()
        assert server.statistics.report().aborted[0].request_id == "patient"


@pytest.mark.parametrize(
    ("status", "expected", "retry_after"),
    [(200, 503, "1"), (429, 429, "1"), (503, 503, "1"), (529, 529, "1"), (500, 500, None)],
)
@pytest.mark.parametrize("is_stream", [True, False])
@on_uvloop
async def test_status_is_answered_with_an_error(
    status: int,
    expected: int,
    retry_after: str | None,
    is_stream: bool,  # noqa: FBT001
) -> None:
    """The status asked for comes with an error object, and `Retry-After` when overloaded."""
    answer = await _ask(_fault("status", status=status), is_stream=is_stream)
    assert answer.status == expected
    assert answer.json()["error"]["code"] == expected
    assert answer.headers.get("retry-after") == retry_after


@on_uvloop
async def test_retry_after_can_be_set_and_left_out() -> None:
    """`Retry-After` says what is set, and -1 leaves it out."""
    set_to_7 = await _ask(_fault("status", retry_after_s=7), is_stream=False)
    assert set_to_7.headers["retry-after"] == "7"
    left_out = await _ask(_fault("status", retry_after_s=-1), is_stream=False)
    assert "retry-after" not in left_out.headers


@on_uvloop
async def test_errors_come_under_status_200() -> None:
    """An error object is the plain answer, or the event before `[DONE]` in a clean stream."""
    plain = await _ask(_fault("error_in_200"), is_stream=False)
    assert (plain.status, list(plain.json())) == (200, ["error"])
    stream = await _ask(_fault("error_in_200", fault_after=2), is_stream=True)
    assert stream.is_complete
    *told, error, done = stream.events()
    assert len(told) == 2
    assert (list(error), done) == (["error"], "[DONE]")


@on_uvloop
async def test_malformed_json_comes_in_good_framing() -> None:
    """Framing holds while JSON does not, and a stream goes on behind the broken event."""
    plain = await _ask(_fault("malformed"), is_stream=False)
    assert plain.is_complete
    assert plain.body.startswith(b"{")
    assert not plain.body.endswith(b"}")
    stream = await _ask(_fault("malformed", fault_after=2), is_stream=True)
    assert stream.is_complete
    assert not stream.chunks[2].endswith(b"}\n\n")
    assert stream.chunks[2].endswith(b"\n\n")
    assert stream.chunks[-1] == b"data: [DONE]\n\n"
    assert len(stream.chunks) == TOKENS + 4


@pytest.mark.parametrize("is_stream", [True, False])
@on_uvloop
async def test_slow_answers_drip(is_stream: bool) -> None:  # noqa: FBT001
    """A slow answer is the normal one, a few bytes at a time."""
    headers = _fault("slow", drip_ms=1, drip_bytes=20)
    settings = EmulatorSettings(output_tokens=TOKENS)
    async with await start(settings) as server, connect(server.port) as peer:
        peer.send(request_bytes(chat_body(stream=is_stream)))
        normal = await peer.read_answer()
        peer.send(request_bytes(chat_body(stream=is_stream), headers=headers))
        reads = 0
        received = b""
        while len(received.partition(b"\r\n\r\n")[2]) < len(normal.body):
            received += await peer.read_some()
            reads += 1
    assert reads > len(normal.body) / 20 / 4
    assert (await _ask(headers, is_stream=is_stream)).body == normal.body


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize("is_stream", [True, False])
@on_uvloop
async def test_web_pages_and_empty_bodies(
    status: int,
    is_stream: bool,  # noqa: FBT001
) -> None:
    """What should be JSON or events is a web page, or nothing, under any status."""
    page = await _ask(_fault("html", status=status), is_stream=is_stream)
    assert page.status == status
    assert page.headers["content-type"].startswith("text/html")
    empty = await _ask(_fault("empty", status=status), is_stream=is_stream)
    assert (empty.status, empty.headers["content-length"], empty.body) == (status, "0", b"")


@on_uvloop
async def test_truncated_answers_are_shorter_than_announced() -> None:
    """Fewer bytes come than `content-length` or the chunk's size say, then the end."""
    plain = await _ask(_fault("truncate"), is_stream=False)
    assert not plain.is_complete
    assert 0 < len(plain.body) < int(plain.headers["content-length"])
    stream = await _ask(_fault("truncate", fault_after=2), is_stream=True)
    assert not stream.is_complete
    assert len(stream.chunks) == 2
    assert len(stream.body) > sum(map(len, stream.chunks))


@on_uvloop
async def test_a_fault_of_the_server_can_be_lifted_by_a_request() -> None:
    """Flags set the fault of every request, and a header takes it back."""
    settings = EmulatorSettings(fault="status")
    assert (await ask(settings, chat_body())).status == 503
    healthy = await ask(settings, chat_body(), headers={"x-emulator-fault": "none"})
    assert healthy.status == 200
    assert healthy.json()["usage"]["completion_tokens"] == Behavior().output_tokens
