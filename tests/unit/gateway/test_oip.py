"""The Open Inference Protocol: paths, tensors, answers; pure."""

import json
import struct
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.cpu_time import least_cpu_s
from tests.fakes.worker_process import PEPPER, build_runtime, make_snapshot

from penstock.engines.isolation import STEERING
from penstock.gateway.admit import Admission
from penstock.gateway.admit_oip import admit_call
from penstock.gateway.dialects.errors import (
    ADMIN_PATH,
    BODY_NOT_JSON,
    MEMBER_INVALID,
    MEMBER_MISSING,
    MODEL_NOT_FOUND,
    PROTOCOL_UNSUPPORTED,
    REFUSED_BY_ENGINE,
    VERSION_NOT_FOUND,
)
from penstock.gateway.dialects.oip import Call, find_call
from penstock.gateway.dialects.oip_answers import read_generated, read_infer_answer
from penstock.gateway.errors import NOT_FOUND, OVERLOADED
from penstock.gateway.failure import oip_failure
from penstock.gateway.limits import TENSOR_HEADER_BYTES, TENSOR_JSON_BYTES, TENSORS
from penstock.gateway.quota import Quota
from penstock.gateway.runtime import Principal
from penstock.gateway.tap_oip import OipTap
from penstock.kit.errors import ErrorCode, Refusal

_RUNTIME = build_runtime(make_snapshot([1]), PEPPER)
_VLLM = make_snapshot([1])
_PLAIN_RUNTIME = build_runtime(
    msgspec.structs.replace(
        _VLLM, upstreams=(msgspec.structs.replace(_VLLM.upstreams[0], provider="vllm"),)
    ),
    PEPPER,
)
_WHO = Principal("key", "org-a", "project-a", None, None)
NO_BUDGETS = SimpleNamespace(budgets=())
_INFER = b"/v2/models/model-a/infer"
_GENERATE = b"/v2/models/model-a/generate"
_A = {"name": "a", "shape": [2], "datatype": "FP32", "data": [1.5, 2]}


def _call(path: bytes) -> Call:
    call = find_call(path)
    assert isinstance(call, Call), call
    return call


def _infer(body: object, length: int | None = None, tail: bytes = b"") -> Admission | Refusal:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = None if length is None else b"%d" % (length if length >= 0 else len(content))
    return admit_call(_RUNTIME, _WHO, _call(_INFER), content + tail, told)


def _generate(body: object, who: Principal = _WHO) -> Admission | Refusal:
    content = json.dumps(body).encode()
    return admit_call(_RUNTIME, who, _call(_GENERATE), content, None)


def _sent(admission: Admission | Refusal) -> dict[str, Any]:
    assert isinstance(admission, Admission), admission
    found: dict[str, Any] = json.loads(admission.body[: admission.json_bytes])
    return found


def _error(found: object) -> ErrorCode:
    assert isinstance(found, Refusal), found
    return found.error


@pytest.mark.parametrize(
    ("path", "operation", "alias", "sent_to"),
    [
        (b"/v2/models/m", "oip_model_metadata", "m", "/v2/models/up%2Fm"),
        (b"/v2/models/m/ready", "oip_model_ready", "m", "/v2/models/up%2Fm/ready"),
        (b"/v2/models/a/b/infer", "oip_infer", "a/b", "/v2/models/up%2Fm/infer"),
        (b"/v2/models/a%2Fb/infer", "oip_infer", "a/b", "/v2/models/up%2Fm/infer"),
        (
            b"/v2/models/m/versions/3/generate",
            "oip_generate",
            "m",
            "/v2/models/up%2Fm/versions/3/generate",
        ),
    ],
)
def test_a_path_names_operation_model_and_version(
    path: bytes, operation: str, alias: str, sent_to: str
) -> None:
    """The alias may have slashes; the engine's own name goes into the path quoted."""
    call = _call(path)
    assert (call.operation.name, json.loads(bytes(call.model))) == (operation, alias)
    assert call.path("up/m") == sent_to


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"/v2/repository/models/m/load", ADMIN_PATH),
        (b"/v2/repository/index", ADMIN_PATH),
        (b"/v2/models/m/config", ADMIN_PATH),
        (b"/v2/models/m/versions/1/stats", ADMIN_PATH),
        (b"/v2/models/stats", ADMIN_PATH),
        (b"/v2/systemsharedmemory/status", ADMIN_PATH),
        (b"/v2/trace/setting", ADMIN_PATH),
        (b"/v2/models/m/versions/../infer", VERSION_NOT_FOUND),
        (b"/v2/models/", NOT_FOUND),
        (b"/v2/else", NOT_FOUND),
    ],
)
def test_paths_of_operators_and_odd_ones_lead_nowhere(path: bytes, error: ErrorCode) -> None:
    """Nothing that changes a server, or tells of its other callers, is reached."""
    assert _error(find_call(path)) is error


def test_tensors_pass_and_their_bytes_are_not_touched() -> None:
    """JSON is written anew with the same members; what is behind it comes byte for byte."""
    assert _sent(_infer({"inputs": [_A], "id": "x"})) == {"inputs": [_A], "id": "x"}
    tail = struct.pack("<2f", 1.5, 2) + b"\x03\0\0\0abc"
    inputs = [
        {"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
        {"name": "t", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 7}},
    ]
    admission = _infer({"inputs": inputs}, -1, tail)
    assert _sent(admission) == {"inputs": inputs}
    assert isinstance(admission, Admission)
    assert admission.body[admission.json_bytes or 0 :] == tail
    assert admission.estimated_input_tokens == 7 // 4  # only text has tokens


@pytest.mark.parametrize(
    "tensor",
    [
        {"shape": [2], "datatype": "FP32", "data": [1, 2]},
        {"name": "a", "shape": "2", "datatype": "FP32", "data": [1]},
        {"name": "a", "shape": [-1], "datatype": "FP32", "data": [1]},
        {"name": "a", "shape": [2], "datatype": "FP31", "data": [1]},
        {"name": "a", "shape": [2], "datatype": "FP32"},
        {"name": "a", "shape": [2], "datatype": "FP32", "data": 7},
        {"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}},
        {"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": -8}},
        {"name": "a", "shape": [2], "datatype": "FP32", "parameters": 3},
        {"name": "a", "shape": [9], "datatype": "BYTES", "parameters": {"shared_memory_region": 1}},
        {"name": "stop", "shape": [1], "datatype": "BOOL", "data": [True]},
        {"name": "max_tokens", "shape": [1], "datatype": "INT32", "data": [100_001]},
        {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [[0]]},
        {"name": "max_tokens", "shape": [1, 1, 1], "datatype": "INT32", "data": [[[100_001]]]},
        {"name": "max_tokens", "shape": [1], "datatype": "FP32", "data": [100_001]},
        {"name": "beam_width", "shape": [1], "datatype": "INT32", "data": [129]},
        "a",
    ],
)
def test_tensors_that_make_no_sense_or_reach_too_far_are_refused(tensor: object) -> None:
    """Each has a typed error: no engine is asked."""
    assert _error(_infer({"inputs": [tensor]})) is MEMBER_INVALID


def test_what_hides_behind_a_double_member_is_seen_or_gone() -> None:
    """Of members that are there twice one is left, at every level that is judged."""
    shared = b'"parameters":{"shared_memory_region":"theirs"},"parameters":{}'
    body = b'{"inputs":[{"name":"a","shape":[1],"datatype":"INT8","data":[1],%b}]}' % shared
    admission = _infer(body)
    assert isinstance(admission, Admission)
    assert b"theirs" not in admission.body
    outputs = [{"name": "b", "parameters": {"shared_memory_region": "theirs"}}]
    assert _error(_infer({"inputs": [_A], "outputs": outputs})) is MEMBER_INVALID


def test_bytes_that_do_not_fit_are_refused() -> None:
    """The sizes that tensors name are those of their shapes, and together those that follow."""
    tensor = {"name": "a", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    assert isinstance(_infer({"inputs": [tensor]}, -1, bytes(8)), Admission)
    for tail in (bytes(7), bytes(9), b""):
        assert _error(_infer({"inputs": [tensor]}, -1, tail)) is MEMBER_INVALID
    short = tensor | {"parameters": {"binary_data_size": 7}}
    assert _error(_infer({"inputs": [short]}, -1, bytes(7))) is MEMBER_INVALID
    for length in (b"x", b"0", b"-1", b"99", b"9" * 40):
        found = admit_call(_RUNTIME, _WHO, _call(_INFER), b"{}", length)
        assert _error(found) is MEMBER_INVALID


def test_bodies_that_are_no_requests_are_refused() -> None:
    """Also absurdly deep ones, those without tensors, and those with far too many."""
    for body in (b"", b"[]", b'{"inputs":[{"name":"\xff"}]}', b'{"a":' + b"[" * 100_000):
        assert _error(_infer(body)) is BODY_NOT_JSON
    assert _error(_infer({"inputs": []})) is MEMBER_MISSING
    assert _error(_infer({"inputs": {}})) is MEMBER_INVALID
    assert _error(_infer({"inputs": [_A] * (TENSORS + 1)})) is MEMBER_INVALID
    huge = b'{"id":"%b","inputs":[]}' % (b"x" * TENSOR_HEADER_BYTES)
    assert _error(_infer(huge, -1)) is MEMBER_INVALID


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[' + b"{}," * 2_500_000 + b"{}]}",
        b'{"inputs":[' + b'{"name":1,"shape":1,"datatype":1},' * 240_000 + b"0]}",
        b'{"inputs":['
        + b'{"name":"a","shape":[1],"datatype":"INT8","data":[1]},' * 150_000
        + b"0]}",
        b'{"inputs":[{"name":"a","shape":[' + b"1," * 4_000_000 + b'1],"datatype":"INT8"}]}',
        b'{"inputs":[' + b" " * TENSOR_JSON_BYTES + b"]}",
    ],
    ids=["objects", "names", "tensors", "shape", "space"],
)
def test_huge_json_costs_little(body: bytes) -> None:
    """A refusal of megabytes takes 0.1 s of CPU; ten times that is allowed to a busy machine."""
    assert _error(_infer(body)) in {MEMBER_INVALID, BODY_NOT_JSON}
    assert least_cpu_s(lambda: _infer(body), 1) < 1


def test_sequences_are_each_organizations_own() -> None:
    """The same name stands for other sequences of others, as numbers and as text."""
    theirs = Principal("key", "org-b", "p-b", None, None)
    for name in (7, "seven"):
        sequence = {"sequence_id": name, "sequence_start": True}
        body = {"text_input": "x", "parameters": sequence}
        ours, again, others = _generate(body), _generate(body), _generate(body, theirs)
        plain = _generate({"text_input": "x"} | sequence)
        found = [_sent(each)["sequence_id"] for each in (ours, again, others, plain)]
        inferred = _sent(_infer({"inputs": [_A], "parameters": sequence}))
        assert inferred["parameters"]["sequence_id"] == found.pop() == found[0]
        assert found[0] == found[1] != found[2]
        assert name not in found
        assert {type(each) for each in found} == {type(name)}
    untouched = {"text_input": "x", "sequence_id": 0}
    assert _sent(_generate(untouched)) == untouched


def test_who_may_go_first_says_so_in_tritons_words() -> None:
    """A priority passes in requests to infer of keys with the scope, and is nothing else's."""
    body = json.dumps({"inputs": [_A], "parameters": {"priority": 1, "rid": "x"}}).encode()
    urgent = Principal(
        "key", "org-a", "project-a", None, None, scopes=frozenset({"inference:priority"})
    )
    for who, parameters in ((urgent, {"priority": 1}), (_WHO, {})):
        sent = _sent(admit_call(_RUNTIME, who, _call(_INFER), body, None))
        assert sent["parameters"] == parameters
    text = {"text_input": "x", "priority": 1, "parameters": {"priority": 1}}
    assert _sent(_generate(text, urgent)) == {"text_input": "x"}


def test_members_that_steer_a_server_do_not_pass() -> None:
    """Neither at the top of `generate`, nor among its parameters, nor among those of `infer`."""
    ours = ("stop", "model_name", "headers", "request_output_len")
    steering = dict.fromkeys((*STEERING, *ours), 1)
    for hidden in (steering, {"parameters": steering}, {"parameters": {"parameters": steering}}):
        assert _sent(_generate({"text_input": "x", **hidden})) == {"text_input": "x"}
    parameters = {"priority": 1, "headers": 1, "temperature": 0.5}
    sent = _sent(_infer({"inputs": [_A], "parameters": parameters}))
    assert sent["parameters"] == {"temperature": 0.5}
    assert _error(_generate({"text_input": "x", "parameters": 7})) is MEMBER_INVALID


def test_the_most_output_is_judged_wherever_it_stands() -> None:
    """As Triton does, parameters of `generate` are read as if they stood beside the text."""
    sent = {"text_input": "x", "max_tokens": 9, "top_k": 2}
    inner = {"max_tokens": 9, "top_k": 2}
    assert _sent(_generate({"text_input": "x", "parameters": inner})) == sent
    inner["max_tokens"] = 100_001  # of the two, the one that is judged is sent
    assert _sent(_generate({"text_input": "x", "max_tokens": 9, "parameters": inner})) == sent
    for body in (
        {"max_tokens": 100_001},
        {"parameters": {"max_tokens": 0}},
        {"beam_width": 129},
        {"parameters": {"beam_width": 129}},
        {"num_return_sequences": "2"},
    ):
        assert _error(_generate({"text_input": "x", **body})) is MEMBER_INVALID
    for text in cast("tuple[object, ...]", (None, 7, {})):
        assert _error(_generate({"text_input": text})) is MEMBER_MISSING


def test_demand_counts_text_alone_and_infer_cannot_be_capped() -> None:
    """What a budget holds for `infer` is all that the model may write, or what a tensor names."""
    who = msgspec.structs.replace(_WHO, quota=cast("Quota", NO_BUDGETS))
    text: dict[str, Any] = {
        "name": "text_input",
        "shape": [1],
        "datatype": "BYTES",
        "data": ["x" * 100],
    }
    cap = {"name": "max_tokens", "shape": [2], "datatype": "INT32", "data": [30, 40]}
    ids = {"name": "input_ids", "shape": [1, 50], "datatype": "INT32", "data": [[0] * 50]}
    demands = []
    beams = {"name": "beam_width", "shape": [1], "datatype": "INT32", "data": [3]}
    many = text | {"shape": [200, 1], "data": ["x"] * 200}
    absurd = text | {"shape": [10**18, 1]}
    for inputs in ([_A], [text], [text, cap], [ids], [text, cap, beams], [many], [absurd]):
        content = json.dumps({"inputs": inputs}).encode()
        admission = admit_call(_RUNTIME, who, _call(_INFER), content, None)
        assert isinstance(admission, Admission)
        assert admission.demand is not None
        demands.append(admission.demand)
    assert demands[0].answers == 0
    assert [(each.cap, each.answers) for each in demands[1:3]] == [(100_000, 1), (40, 2)]
    assert not any(each.can_be_capped for each in demands[1:])
    assert demands[3].body_bytes == 4 * 50  # token ids count as the text that they are of
    assert [(each.cap, each.answers) for each in demands[4:6]] == [(40, 6), (100_000, 200)]
    assert demands[6].answers < 10_000
    claimed = json.dumps({"inputs": [ids | {"shape": [10**12]}]}).encode()
    admission = admit_call(_RUNTIME, who, _call(_INFER), claimed, None)
    assert isinstance(admission, Admission)
    assert admission.estimated_input_tokens < 100  # by what was sent, not by what it claims
    asked = {"max_tokens": 5, "beam_width": 3}
    for body in (asked, {"parameters": asked}):
        found = _generate({"text_input": "x", **body}, who)
        assert isinstance(found, Admission)
        assert found.demand is not None
        assert (found.demand.cap, found.demand.answers) == (5, 3)


def test_models_that_are_not_there_or_speak_otherwise_are_refused() -> None:
    """A model of others does not exist; one of another kind of server is told of."""
    call = _call(b"/v2/models/nope/infer")
    assert _error(admit_call(_RUNTIME, _WHO, call, b"{}", None)) is MODEL_NOT_FOUND
    bound = Principal("key", "org-a", "project-a", frozenset({"other"}), None)
    assert _error(admit_call(_RUNTIME, bound, _call(_INFER), b"{}", None)) is MODEL_NOT_FOUND
    found = admit_call(_PLAIN_RUNTIME, _WHO, _call(_INFER), b"{}", None)
    assert _error(found) is PROTOCOL_UNSUPPORTED


def test_counts_are_read_out_of_outputs() -> None:
    """As JSON and as bytes; without them usage is not known, and text is what was text."""
    outputs: list[dict[str, Any]] = [
        {"name": "text_output", "datatype": "BYTES", "shape": [1], "data": ["abc"]},
        {"name": "num_input_tokens", "datatype": "INT32", "shape": [2], "data": [3, 4]},
        {"name": "num_output_tokens", "datatype": "UINT64", "shape": [2], "data": [[1], [2]]},
    ]
    reading = read_infer_answer(json.dumps({"outputs": outputs}).encode(), None)
    assert reading.usage is not None
    assert (reading.usage.input_tokens, reading.usage.output_tokens) == (7, 3)
    for output in outputs[1:]:
        del output["data"]
    outputs[1]["parameters"] = {"binary_data_size": 8}
    outputs[2]["parameters"] = {"binary_data_size": 16}
    head = json.dumps({"outputs": outputs}).encode()
    body = head + struct.pack("<2i2Q", 30, 12, 5, 6)
    reading = read_infer_answer(body, b"%d" % len(head))
    assert reading.usage is not None
    assert (reading.usage.input_tokens, reading.usage.output_tokens) == (42, 11)
    assert reading.text_bytes == len('["abc"]')
    assert read_infer_answer(json.dumps({"outputs": outputs[:1]}).encode(), None).usage is None
    assert read_infer_answer(b'{"error":"no"}', None).error == b'"no"'
    for broken in (b"", b"[]", b'{"outputs":[{}]}', b'{"outputs":7}'):
        with pytest.raises(msgspec.DecodeError):
            read_infer_answer(broken, None)


def test_figures_that_make_no_sense_are_flagged() -> None:
    """Absurd ones are dropped, negative ones are nothing."""
    absurd = read_generated(b'{"num_input_tokens":1,"num_output_tokens":10000000000}')
    assert (absurd.usage, absurd.flags) == (None, ("usage_absurd",))
    negative = read_generated(b'{"num_input_tokens":-1,"num_output_tokens":2}')
    assert negative.usage is not None
    assert (negative.usage.input_tokens, negative.flags) == (0, ("usage_negative",))


@given(st.lists(st.integers(1, 40), max_size=5))
def test_a_stream_is_read_alike_however_it_is_cut(cuts: list[int]) -> None:
    """Counts of events are added up, every byte passes, an error is seen."""
    stream = b"".join(
        b'data: {"num_input_tokens":7,"num_output_tokens":%d,"text_output":"a"}\n\n' % count
        for count in (1, 2, 3)
    )
    tap, shown = OipTap(), b""
    for size in cuts:
        piece, rest = stream[:size], stream[size:]
        shown += tap.feed(piece) if piece else b""
        stream = rest
    shown += (tap.feed(stream) if stream else b"") + tap.finish()
    assert shown.count(b"data: ") == 3
    assert tap.usage is not None
    assert (tap.usage.input_tokens, tap.usage.output_tokens, tap.frame_count) == (7, 6, 3)
    tap.feed(b'data: {"error":"broken"}\n\n')
    assert tap.error == b'"broken"'


@pytest.mark.parametrize(
    ("status", "body", "has_version", "error"),
    [
        (404, b'{"error":"no version"}', True, VERSION_NOT_FOUND),
        (501, b'{"error":"decoupled"}', False, REFUSED_BY_ENGINE),
        (500, b'{"error":"Unable to parse \'data\': ..."}', False, REFUSED_BY_ENGINE),
        (400, b'data: {"error":"missing"}\n\n', False, REFUSED_BY_ENGINE),
        (503, b'{"error":"exceeds maximum queue size"}', False, OVERLOADED),
    ],
)
def test_mistakes_of_callers_are_told_as_theirs(
    status: int, body: bytes, *, has_version: bool, error: ErrorCode
) -> None:
    """Whatever status Triton tells them under."""
    assert oip_failure(status, body, None, has_version=has_version).error is error
