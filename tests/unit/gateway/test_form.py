"""How a request is put to an engine, and how its answer is told, by protocol; pure."""

import json
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from tests.fakes.worker_process import PEPPER, build_runtime, make_snapshot

from penstock.contract.snapshot import Alias, Choice, Deployment, Endpoint, Route, Upstream
from penstock.engines.registry import ENGINES
from penstock.gateway.admit import Admission, admit
from penstock.gateway.admit_oip import admit_call
from penstock.gateway.dialects.oip import Call, find_call
from penstock.gateway.dialects.openai import CHAT, COMPLETIONS, Operation
from penstock.gateway.forms import form_of
from penstock.gateway.forward import Pool, UpstreamConnection
from penstock.gateway.limits import TRANSLATED_OUTPUT_TOKENS
from penstock.gateway.quota import Quota
from penstock.gateway.runtime import Principal

_PLAIN = make_snapshot([1])
_TRITON = Upstream("triton", "triton", (Endpoint("http", "127.0.0.1", 1),))
_RUNTIME = build_runtime(
    msgspec.structs.replace(
        _PLAIN,
        upstreams=(*_PLAIN.upstreams, _TRITON),
        deployments=(
            Deployment("big", "triton", "up/big", max_output_tokens=5_000),
            Deployment("small", "triton", "up-small", max_output_tokens=100),
            *_PLAIN.deployments,
        ),
        routes=(Route("both", (Choice("big"), Choice("small"))), *_PLAIN.routes),
        aliases=(Alias("text", "both"), *_PLAIN.aliases),
    ),
    PEPPER,
)
_WHO = Principal(
    "key", "org-a", "project-a", None, None, quota=cast("Quota", SimpleNamespace(budgets=()))
)
_NOTHING = cast("Any", None)
_LOOP = cast("Any", SimpleNamespace(time=lambda: 0.0))
_SERVED = cast("Any", SimpleNamespace(engine=ENGINES["triton"]))
_POOL = Pool(_TRITON.endpoints[0], _SERVED, _LOOP, _NOTHING)


def _call(verb: str, body: object) -> Admission:
    call = find_call(f"/v2/models/text{verb}".encode())
    assert isinstance(call, Call)
    admission = admit_call(_RUNTIME, _WHO, call, json.dumps(body).encode(), None)
    assert isinstance(admission, Admission), admission
    return admission


def _ask(body: dict[str, Any], operation: Operation = CHAT) -> Admission:
    admission = admit(_RUNTIME, _WHO, operation, json.dumps({"model": "text"} | body).encode())
    assert isinstance(admission, Admission), admission
    return admission


def _put(admission: Admission, cap: int | None = None) -> tuple[str, dict[str, Any]]:
    """Return path and body of what is sent."""
    head, body = form_of(admission).put(admission, _POOL, cap)
    return head.split(b" ")[1].decode(), json.loads(body)


def _on(admission: Admission, deployment: str) -> Admission | None:
    """Return a request as it is sent to another target."""
    targets = [target for tier in admission.offer.tiers for target in tier]
    target = next(each for each in targets if each.deployment.name == deployment)
    return form_of(admission).readdress(admission, target)


def test_another_target_has_its_own_path_and_may_give_less() -> None:
    """The body stays; a target that gives less than is asked for does not take it."""
    admission = _call("/versions/2/generate", {"text_input": "x", "max_tokens": 100})
    for deployment, path in (("big", "up%2Fbig"), ("small", "up-small")):
        other = _on(admission, deployment)
        assert other is not None
        assert _put(other) == (
            f"/v2/models/{path}/versions/2/generate",
            {"text_input": "x", "max_tokens": 100},
        )
    assert _on(_call("/generate", {"text_input": "x", "max_tokens": 101}), "small") is None


def test_what_a_budget_pays_for_is_written_where_there_is_a_place() -> None:
    """Into `generate`, and into what is translated; not among tensors."""
    assert _put(_call("/generate", {"text_input": "x", "max_tokens": 50}), 7)[1]["max_tokens"] == 7
    assert _put(_call("/generate", {"text_input": "x"}), 7)[1]["max_tokens"] == 7
    tensor = {"name": "text_input", "shape": [1], "datatype": "BYTES", "data": ["x"]}
    assert _put(_call("/infer", {"inputs": [tensor]}), 7)[1] == {"inputs": [tensor]}
    chat = _ask({"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 50})
    assert _put(chat, 7)[1]["max_tokens"] == 7
    assert _put(chat)[1]["max_tokens"] == 50


@pytest.mark.parametrize(
    ("deployment", "most"), [("big", TRANSLATED_OUTPUT_TOKENS), ("small", 100)]
)
def test_a_chat_becomes_one_text(deployment: str, most: int) -> None:
    """A line for each message, and the word that the answer follows; no more output than given."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "!"}],
        },
    ]
    admission = _on(
        _ask({"messages": messages, "top_p": 0.5, "stop": "x", "user": "me"}), deployment
    )
    assert admission is not None
    path, sent = _put(admission)
    assert path.endswith("/generate")
    assert sent == {
        "text_input": "system: Be brief.\nuser: Hi!\nassistant:",
        "max_tokens": most,
        "stream": False,
        "exclude_input_in_output": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
        "top_p": 0.5,
        "stop_words": ["x"],
    }


def test_usage_that_outputs_do_not_tell_is_estimated_and_says_so() -> None:
    """By the size of question and answer; a list of texts is one."""
    admission = _ask({"prompt": "x" * 400}, COMPLETIONS)
    connection = cast("UpstreamConnection", None)
    body = b'{"text_output":["one ","two"]}'
    answer = form_of(admission).read(admission, connection, body, None)
    said = json.loads(answer.body)
    assert said["choices"][0]["text"] == "one two"
    assert said["usage"]["estimated"] is True
    assert said["usage"]["prompt_tokens"] >= 100
    assert answer.reading.usage is None
    with pytest.raises(msgspec.DecodeError):
        form_of(admission).read(admission, connection, b'{"other":1}', None)


def test_what_a_budget_cuts_is_cut() -> None:
    """An answer as long as its budget pays for ends for its length, whole and in parts."""
    text = b'{"text_output":"a","num_input_tokens":1,"num_output_tokens":7}'
    connection = cast("UpstreamConnection", None)
    for cap, reason in ((7, "length"), (8, "stop"), (None, "stop")):
        admission = _ask({"prompt": "x"}, COMPLETIONS)
        whole = form_of(admission).read(admission, connection, text, cap)
        assert json.loads(whole.body)["choices"][0]["finish_reason"] == reason
        admission = _ask({"prompt": "x", "stream": True}, COMPLETIONS)
        tap = form_of(admission).make_tap(admission, cap)
        shown = tap.feed(b"data: " + text + b"\n\n") + tap.finish()
        assert b'"finish_reason":"%b"' % reason.encode() in shown


def test_a_stream_is_said_anew_however_it_is_cut() -> None:
    """Event by event; what is no answer is left out, and the end is told once."""
    admission = _ask({"prompt": "x", "stream": True}, COMPLETIONS)
    stream = b'data: {"text_output":"a"}\n\ndata: {"no":1}\n\ndata: {"text_output":"b"}\n\n'
    for size in (1, 7, len(stream)):
        tap = form_of(admission).make_tap(admission, None)
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        shown = b"".join(tap.feed(piece) for piece in pieces) + tap.finish()
        texts = [
            json.loads(event[6:])["choices"][0]["text"]
            for event in shown.split(b"\n\n")
            if event.startswith(b"data: {")
        ]
        assert texts == ["a", "b", ""]
        assert shown.endswith(b"data: [DONE]\n\n")
        assert tap.is_done
