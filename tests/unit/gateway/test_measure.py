"""What a request consumed, by how it ended and what was seen of it."""

import pytest
from tests.fakes.scripted_engine import DONE, ROLE, counts, token, usage_frame

from penstock.contract.usage import Outcome
from penstock.gateway.dialects.openai import (
    CHAT,
    CLASSIFY,
    DETOKENIZE,
    EMBEDDINGS,
    RERANK,
    SCORE,
    TOKENIZE,
    Operation,
    Reading,
)
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.measure import measure_plain, measure_stream
from penstock.gateway.tap import Tap

OUTCOMES: list[Outcome] = [
    "ok",
    "caller_gone",
    "upstream_error",
    "timeout",
    "refused",
    "interrupted",
]


def _tap(*frames: bytes) -> Tap:
    tap = Tap(hides_usage=True)
    for frame in frames:
        tap.feed(frame)
    tap.finish()
    return tap


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_streams_own_figures_count_however_it_ended(outcome: Outcome) -> None:
    """The last figures that the engine sent are what is booked, whatever came after."""
    tap = _tap(ROLE, usage_frame(counts(3, 1)), token("x"), usage_frame(counts(3, 2)))
    assert measure_stream(outcome, tap, 99) == (Usage(3, 2), "engine", ())


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("relayed", [0, 1, 2, 50])
def test_without_figures_tokens_relayed_are_counted(outcome: Outcome, relayed: int) -> None:
    """Without figures each token relayed counts, and the frame that names the role does not."""
    tap = _tap(ROLE, *[token("x")] * relayed)
    usage, source, flags = measure_stream(outcome, tap, 99)
    assert (usage.input_tokens, usage.output_tokens, source) == (99, relayed, "counted")
    assert flags == (("usage_missing",) if outcome == "ok" else ())


@pytest.mark.parametrize("frames", [(), (DONE,), (b": ping\n\n",), (b"data: hello\n\n",)])
def test_nothing_relayed_is_no_output(frames: tuple[bytes, ...]) -> None:
    """A stream without a token has no output, and never a negative one."""
    usage, source, _ = measure_stream("upstream_error", _tap(*frames), 4)
    assert (usage.output_tokens, source) == (0, "counted")


def test_odd_figures_of_a_stream_keep_their_flag() -> None:
    """When figures were useless, the record says why it counted instead."""
    tap = _tap(ROLE, token("x"), usage_frame("lots"))
    assert measure_stream("ok", tap, 5) == (Usage(5, 1), "counted", ("usage_not_a_number",))


def test_a_plain_answers_figures_count() -> None:
    """The figures of a whole answer are booked with their flags."""
    usage = Usage(3, 0, flags=("usage_negative",))
    found = measure_plain(
        "ok", Reading(usage, None), CHAT, estimated_input_tokens=9, answer_bytes=400, was_sent=True
    )
    assert found == (usage, "engine", ("usage_negative",))


@pytest.mark.parametrize(
    ("outcome", "was_sent", "expected"),
    [
        ("ok", True, Usage(9, 100)),
        ("caller_gone", True, Usage(9, 100)),
        ("interrupted", True, Usage(9, 100)),
        ("upstream_error", True, Usage(0, 0)),
        ("timeout", True, Usage(0, 0)),
        ("refused", True, Usage(0, 0)),
        ("caller_gone", False, Usage(0, 0)),
        ("interrupted", False, Usage(0, 0)),
    ],
)
def test_without_figures_a_plain_answer_is_estimated(
    outcome: Outcome, *, was_sent: bool, expected: Usage
) -> None:
    """Sizes are what is left, for a caller that the engine worked for; failures cost nothing."""
    usage, source, flags = measure_plain(
        outcome, None, CHAT, estimated_input_tokens=9, answer_bytes=400, was_sent=was_sent
    )
    assert (usage, source) == (expected, "estimated")
    assert flags == (("usage_missing",) if outcome == "ok" else ())


def test_useless_figures_of_a_plain_answer_keep_their_flag() -> None:
    """When a whole answer's figures were useless, the record says why it estimated instead."""
    found = measure_plain(
        "ok",
        Reading(None, None, flags=("usage_absurd",)),
        CHAT,
        estimated_input_tokens=9,
        answer_bytes=40,
        was_sent=True,
    )
    assert found == (Usage(9, 10), "estimated", ("usage_absurd",))


@pytest.mark.parametrize("operation", [EMBEDDINGS, RERANK, SCORE, CLASSIFY])
def test_what_answers_without_tokens_is_never_charged_for_any(operation: Operation) -> None:
    """However large an answer of numbers is, its size is no output."""
    usage, source, _ = measure_plain(
        "ok", None, operation, estimated_input_tokens=9, answer_bytes=400_000, was_sent=True
    )
    assert (usage, source) == (Usage(9, 0), "estimated")


@pytest.mark.parametrize("operation", [TOKENIZE, DETOKENIZE])
def test_what_no_model_reads_consumes_no_tokens(operation: Operation) -> None:
    """Counting tokens is a request, and nothing more."""
    found = measure_plain(
        "ok",
        Reading(None, None),
        operation,
        estimated_input_tokens=9,
        answer_bytes=400,
        was_sent=True,
    )
    assert found == (Usage(0, 0), "counted", ())
