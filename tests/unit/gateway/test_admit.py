"""What may be sent on, and in which words; pure."""

import json
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.worker_process import PEPPER, build_runtime, make_snapshot

from penstock.contract.snapshot import Alias, Choice, Deployment, Route
from penstock.engines.isolation import ALWAYS_OURS, IDENTIFYING, STEERING
from penstock.gateway.admit import Admission, admit, readdress
from penstock.gateway.demand import NO_TOKENS, cap_tail
from penstock.gateway.dialects.errors import (
    BODY_NOT_JSON,
    MEMBER_INVALID,
    MEMBER_MISSING,
    MODEL_NOT_FOUND,
)
from penstock.gateway.dialects.openai import (
    CHAT,
    COMPLETIONS,
    DETOKENIZE,
    EMBEDDINGS,
    RERANK,
    SCORE,
    TOKENIZE,
    Operation,
)
from penstock.gateway.limits import CHOICES
from penstock.gateway.quota import Quota
from penstock.gateway.runtime import Principal
from penstock.kit.errors import ErrorCode, Refusal

_SNAPSHOT = make_snapshot([1])
_RUNTIME = build_runtime(
    msgspec.structs.replace(
        _SNAPSHOT,
        deployments=(
            *_SNAPSHOT.deployments,
            Deployment("always", "engine", "cumulative", continuous_usage=True),
        ),
        routes=(*_SNAPSHOT.routes, Route("always", (Choice("always"),))),
        aliases=(*_SNAPSHOT.aliases, Alias("model-u", "always"), Alias("caf\u00e9", "main")),
    ),
    PEPPER,
)
_OPEN = Principal("key", "org-a", "project-a", None, None)
_BOUND = Principal("key", "org-a", "project-a", frozenset({"model-a"}), None)
_HEAD = b'{"model":"model-a","messages":["x"]'
_ASKED = b'"stream_options":{"include_usage":true}'


def _admit(body: bytes, operation: Operation = CHAT, principal: Principal = _OPEN) -> Admission:
    admission = admit(_RUNTIME, principal, operation, body)
    assert isinstance(admission, Admission), admission
    return admission


def _refuse(
    body: bytes, operation: Operation = CHAT, principal: Principal = _OPEN
) -> tuple[ErrorCode, str | None]:
    refusal = admit(_RUNTIME, principal, operation, body)
    assert isinstance(refusal, Refusal), refusal
    return refusal.error, refusal.param


def test_a_chat_is_admitted() -> None:
    """A plain chat goes to its target, the model under the upstream's own name."""
    admission = _admit(_HEAD + b',"temperature":0.5}')
    assert admission.target.alias == "model-a"
    assert admission.body == b'{"model":"served-model","messages":["x"],"temperature":0.5}'
    assert not admission.is_stream
    assert not admission.hides_usage
    assert not admission.strips_usage


def test_input_is_estimated_by_size() -> None:
    """Four bytes of the caller's body count as one token."""
    body = _HEAD + b" " * 1000 + b"}"
    assert _admit(body).estimated_input_tokens == len(body) // 4


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"nul", b"{}{}", b"\xef\xbb\xbf{}", "{}".encode("utf-16"),
     _HEAD + b',"x":NaN}', _HEAD + b',"x":"\xff"}', _HEAD + b',"x":' + b"[" * 100_000],
)  # fmt: skip
def test_other_bodies_are_refused(body: bytes) -> None:
    """A body is one JSON object in UTF-8, of sensible depth."""
    assert _refuse(body) == (BODY_NOT_JSON, None)


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (b"", MEMBER_MISSING),
        (b'"model":1,', MEMBER_INVALID),
        (b'"model":null,', MEMBER_INVALID),
        (b'"model":"other",', MODEL_NOT_FOUND),
        (b'"model":"MODEL-A",', MODEL_NOT_FOUND),
        (b'"model":"model-a","model":"other",', MODEL_NOT_FOUND),
    ],
)
def test_models_are_looked_up(model: bytes, error: ErrorCode) -> None:
    """The last model named must be there, a string, and known."""
    assert _refuse(b'{%b"messages":["x"]}' % model) == (error, "model")


@pytest.mark.parametrize(
    "model",
    ['"caf\u00e9"'.encode(), rb'"caf\u00e9"', rb'"\u0063af\u00E9"', b' \t"caf\xc3\xa9"\r\n'],
)
def test_a_name_has_many_spellings(model: bytes) -> None:
    """However JSON writes a name, it is the same name."""
    assert _admit(b'{"model":%b,"messages":["x"]}' % model).target.alias == "caf\u00e9"


def test_a_key_may_use_its_aliases_only() -> None:
    """An alias that the key may not use is one that does not exist."""
    assert _admit(_HEAD + b"}", principal=_BOUND).target.alias == "model-a"
    foreign = _refuse(b'{"model":"only-theirs","messages":["x"]}', principal=_BOUND)
    missing = _refuse(b'{"model":"never-there","messages":["x"]}', principal=_BOUND)
    assert foreign == missing == (MODEL_NOT_FOUND, "model")


@pytest.mark.parametrize(
    ("operation", "good", "bad", "empty"),
    [
        (CHAT, (b"[1]", b"[ {}]"), (b'"x"', b"{}", b"true"), (b"[]", b"[\n]", b"null", b'""')),
        (COMPLETIONS, (b'"x"', b"[1]", rb'"\""'), (b"{}", b"1"), (b"[ ]", b'""', b"null")),
        (EMBEDDINGS, (b'"x"', b'["x"]', b"[[1]]"), (b"{}", b"0"), (b"[]", b'""', b"null")),
        (RERANK, (b'["x"]', b'[{"a":1}]'), (b'"x"', b"{}"), (b"[]", b"null")),
        (DETOKENIZE, (b"[1]",), (b'"x"', b"1"), (b"[]", b"null")),
    ],
)  # fmt: skip
def test_a_question_must_be_there(
    operation: Operation, good: tuple[bytes, ...], bad: tuple[bytes, ...], empty: tuple[bytes, ...]
) -> None:
    """Each operation wants its question, of the right type and not empty."""
    name = operation.input_member
    form = b'{"model":"model-a","' + name.encode() + b'":%b}'
    for question in good:
        assert question in _admit(form % question, operation).body
    for question in bad:
        assert _refuse(form % question, operation) == (MEMBER_INVALID, name)
    for question in empty:
        assert _refuse(form % question, operation) == (MEMBER_MISSING, name)
    assert _refuse(b'{"model":"model-a"}', operation) == (MEMBER_MISSING, name)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n", "best_of"])
def test_counts_have_bounds(name: str) -> None:
    """A count is a whole number from one to its bound, or null."""
    highest = CHOICES if name in {"n", "best_of"} else 100_000
    for value in ("null", "1", str(highest)):
        assert f'"{name}":{value}'.encode() in _admit(_HEAD + f',"{name}":{value}}}'.encode()).body
    odd = ("0", "-1", str(highest + 1), "1.0", "1e2", '"1"', "true", "[1]", "1e309", "9" * 5_000)
    for value in odd:
        body = _HEAD + f',"{name}":{value}}}'.encode()
        assert _refuse(body) == (MEMBER_INVALID, name)


@pytest.mark.parametrize("value", [b"false", b"null"])
def test_an_answer_that_does_not_stream_is_left_alone(value: bytes) -> None:
    """Without streaming nothing is asked of the engine that the caller did not ask."""
    for options in (b"", b',"stream_options":null', b',"stream_options":{"include_usage":true}'):
        body = _HEAD + b',"stream":' + value + options + b"}"
        admission = _admit(body)
        assert not admission.is_stream
        assert admission.body == body.replace(b"model-a", b"served-model")


@pytest.mark.parametrize(
    ("model", "options", "sent", "hides", "strips"),
    [
        ("model-a", "", _ASKED, True, False),
        ("model-a", ',"stream_options":null', _ASKED, True, False),
        ("model-a", ',"stream_options":{}', _ASKED, True, False),
        ("model-a", ',"stream_options":{"include_usage":false}', _ASKED, True, False),
        ("model-a", ',"stream_options":{"include_usage":null}', _ASKED, True, False),
        ("model-a", ',"stream_options":{"include_usage":true}', _ASKED, False, False),
        ("model-a", ',"stream_options":{"x":1.0}', b'{"x":1.0,"include_usage":true}', True, False),
        ("model-a", ',"stream_options":{"include_usage":false,"include_usage":true}', _ASKED,
         False, False),
        ("model-u", "", b'{"include_usage":true,"continuous_usage_stats":true}', True, True),
        ("model-u", ',"stream_options":{"include_usage":true}',
         b'{"include_usage":true,"continuous_usage_stats":true}', False, True),
        ("model-u",
         ',"stream_options":{"include_usage":true,"continuous_usage_stats":true}',
         b'{"include_usage":true,"continuous_usage_stats":true}', False, False),
        ("model-a", ',"stream_options":{"continuous_usage_stats":true}',
         b'{"continuous_usage_stats":true,"include_usage":true}', True, False),
    ],
)  # fmt: skip
def test_streams_are_asked_for_usage(
    model: str, options: str, sent: bytes, *, hides: bool, strips: bool
) -> None:
    """The engine reports usage in every stream; what the caller did not ask for is hidden."""
    body = f'{{"model":"{model}","messages":["x"],"stream":true{options}}}'.encode()
    admission = _admit(body)
    assert admission.is_stream
    assert sent in admission.body
    assert admission.body.count(b"stream_options") == 1
    assert admission.body.count(b"include_usage") == 1
    assert (admission.hides_usage, admission.strips_usage) == (hides, strips)


@pytest.mark.parametrize("operation", [SCORE, TOKENIZE])
def test_questions_that_engines_name_in_their_own_ways_pass(operation: Operation) -> None:
    """Where engines do not agree what the question is called, they judge it."""
    for name in (b"prompt", b"messages", b"text_1", b"queries"):
        assert b'"%b":"x"' % name in _admit(b'{"model":"model-a","%b":"x"}' % name, operation).body


def test_counting_tokens_asks_for_none() -> None:
    """Limits and estimates of tokens are not touched by what no model reads."""
    principal = msgspec.structs.replace(_OPEN, quota=cast("Quota", object()))
    admission = _admit(b'{"model":"model-a","prompt":"x"}', TOKENIZE, principal)
    assert admission.estimated_input_tokens == 0
    assert admission.demand == NO_TOKENS


def test_streams_of_embeddings_are_refused() -> None:
    """Embeddings do not stream."""
    body = b'{"model":"model-a","input":"x","stream":%b}'
    assert _refuse(body % b"true", EMBEDDINGS) == (MEMBER_INVALID, "stream")
    assert not _admit(body % b"false", EMBEDDINGS).is_stream


@pytest.mark.parametrize("stream", [b"true", b"false"])
@pytest.mark.parametrize(
    ("options", "param"),
    [(b'"x"', "stream_options"), (b"[]", "stream_options"), (b"1", "stream_options"),
     (b'{"include_usage":1}', "include_usage"), (b'{"include_usage":"true"}', "include_usage"),
     (b'{"continuous_usage_stats":[]}', "continuous_usage_stats")],
)  # fmt: skip
def test_odd_stream_options_are_refused(stream: bytes, options: bytes, param: str) -> None:
    """Stream options are judged whether the answer streams or not."""
    body = _HEAD + b',"stream":%b,"stream_options":%b}' % (stream, options)
    assert _refuse(body) == (MEMBER_INVALID, param)


_CHOICES = msgspec.structs.replace(
    _SNAPSHOT,
    deployments=(
        Deployment("plain", "engine", "m-plain", max_output_tokens=4_000),
        Deployment("continuous", "engine", "m-cont", continuous_usage=True, max_output_tokens=100),
    ),
    routes=(Route("main", (Choice("plain", 1), Choice("continuous", 3))),),
)
_PLAIN_TURN, _CONTINUOUS_TURN = 0.1, 0.6


@pytest.mark.parametrize("turn", [_PLAIN_TURN, _CONTINUOUS_TURN])
def test_several_choices_go_to_whom_gives_them(turn: float) -> None:
    """An engine that answers one choice only gets no request for more; with no other it is 400."""
    engine = _SNAPSHOT.upstreams[0]
    dynamo = msgspec.structs.replace(engine, name="dynamo", provider="dynamo")
    both = msgspec.structs.replace(
        _CHOICES,
        upstreams=(engine, dynamo),
        deployments=(
            Deployment("plain", "dynamo", "m-plain"),
            Deployment("continuous", "engine", "m-cont", max_output_tokens=100),
        ),
    )
    body = _HEAD + b',"n":2}'
    runtime = build_runtime(both, PEPPER, turn=lambda: turn)
    admission = admit(runtime, _OPEN, CHAT, body)
    assert isinstance(admission, Admission)
    assert admission.target.upstream.name == "engine"
    short = admit(build_runtime(both, PEPPER), _OPEN, CHAT, _HEAD + b"}")
    assert isinstance(short, Admission)
    assert short.target.upstream.name == "dynamo"
    assert readdress(admission, short.target) is None
    alone = msgspec.structs.replace(both, routes=(Route("main", (Choice("plain"),)),))
    longer = _HEAD + b',"n":2,"max_tokens":101}'
    for snapshot, question in ((alone, body), (both, longer)):
        runtime = build_runtime(snapshot, PEPPER, turn=lambda: turn)
        refusal = admit(runtime, _OPEN, CHAT, question)
        assert isinstance(refusal, Refusal)
        assert refusal.error is MEMBER_INVALID


def _admit_by(turn: float, rest: bytes) -> Admission:
    """Admit a request whose route has a choice."""
    runtime = build_runtime(_CHOICES, PEPPER, turn=lambda: turn)
    admission = admit(runtime, _OPEN, CHAT, _HEAD + rest + b"}")
    assert isinstance(admission, Admission), admission
    return admission


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b',"max_tokens":100',
        b',"stream":false,"stream_options":{"x":1}',
        b',"stream":true',
        b',"stream":true,"stream_options":null',
        b',"stream":true,"stream_options":{"include_usage":true}',
        b',"stream":true,"stream_options":{"x":1,"continuous_usage_stats":true}',
        b',"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}',
        b',"n":2,"odd":[1.50,{"a":"\\u00e9"}],"stream":true',
    ],
)
def test_a_request_is_the_same_for_whichever_target_first(rest: bytes) -> None:
    """Written anew for another target a request is what it had been there in the first place."""
    plain, continuous = _admit_by(_PLAIN_TURN, rest), _admit_by(_CONTINUOUS_TURN, rest)
    assert (plain.target.deployment.name, continuous.target.deployment.name) == (
        "plain",
        "continuous",
    )
    for here, there in ((plain, continuous), (continuous, plain)):
        moved = readdress(here, there.target)
        assert moved is not None
        assert msgspec.structs.replace(moved, turn=there.turn) == there
        assert readdress(moved, here.target) == here


def test_a_cap_is_written_once_for_whichever_target() -> None:
    """It is written when the body is sent: another target's stands there alone."""
    plain = _admit_by(_PLAIN_TURN, b"")
    moved = readdress(plain, _admit_by(_CONTINUOUS_TURN, b"").target)
    assert moved is not None
    for body, cap in ((plain.body, 50), (moved.body, 40)):
        written = body[:-1] + cap_tail(cap)
        pairs = json.loads(written, object_pairs_hook=list)
        assert [value for name, value in pairs if name == "max_tokens"] == [cap]


def test_a_target_that_gives_less_than_asked_is_not_chosen() -> None:
    """A bound on output is the largest of all choices, and those below it are passed over."""
    admission = _admit_by(_CONTINUOUS_TURN, b',"max_tokens":101')
    assert admission.target.deployment.name == "plain"
    continuous = _admit_by(_CONTINUOUS_TURN, b"").target
    assert readdress(admission, continuous) is None
    runtime = build_runtime(_CHOICES, PEPPER, turn=lambda: _CONTINUOUS_TURN)
    refusal = admit(runtime, _OPEN, CHAT, _HEAD + b',"max_tokens":4001}')
    assert isinstance(refusal, Refusal)
    assert (refusal.error, refusal.param) == (MEMBER_INVALID, "max_tokens")
    assert "4000" in refusal.detail


_ENGINES = build_runtime(
    msgspec.structs.replace(
        _SNAPSHOT,
        upstreams=(
            *_SNAPSHOT.upstreams,
            msgspec.structs.replace(_SNAPSHOT.upstreams[0], name="gpu", provider="vllm"),
        ),
        deployments=(*_SNAPSHOT.deployments, Deployment("gpu", "gpu", "served")),
        routes=(
            Route("gpu", (Choice("gpu"),), fallback="main"),
            Route("back", (Choice("main"),), fallback="gpu"),
            *_SNAPSHOT.routes,
        ),
        aliases=(Alias("model-a", "gpu"), Alias("back", "back")),
    ),
    PEPPER,
)


def _sent(body: bytes, organization: str = "org-a") -> dict[str, object]:
    principal = Principal("key", organization, "project-a", None, None)
    admission = admit(_ENGINES, principal, CHAT, body)
    assert isinstance(admission, Admission)
    sent: dict[str, object] = json.loads(admission.body)
    return sent


@pytest.mark.parametrize("name", sorted(STEERING))
def test_nobody_steers_an_engine(name: str) -> None:
    """Members that would reach what is others' on an engine are taken out, whatever they hold."""
    for value in (b'"x"', b"1", b"null", b'{"a":[{}]}'):
        sent = _sent(_HEAD + b',"%b":%b,"seed":7}' % (name.encode(), value))
        assert sent["seed"] == 7
        assert set(sent) == {"model", "messages", "seed", "cache_salt"}


@pytest.mark.parametrize("name", sorted(STEERING))
def test_a_key_with_the_scope_steers(name: str) -> None:
    """What the operator lets a key say passes, but never what stands before others' caches."""
    scopes = frozenset({"inference", "inference:steer"})
    principal = msgspec.structs.replace(_OPEN, scopes=scopes)
    admission = admit(_ENGINES, principal, CHAT, _HEAD + b',"%b":"mine"}' % name.encode())
    assert isinstance(admission, Admission)
    sent = json.loads(admission.body)
    assert (sent.get(name) == "mine") is (name not in ALWAYS_OURS)
    assert sent["cache_salt"] == _sent(_HEAD + b"}")["cache_salt"]


def test_caches_of_organizations_are_apart() -> None:
    """Each organization has its own salt, the same in each of its requests and none of callers'."""
    body = _HEAD + b',"cache_salt":"mine"}'
    salt = _sent(body)["cache_salt"]
    assert _sent(_HEAD + b"}")["cache_salt"] == salt
    assert isinstance(salt, str)
    assert len(salt) == 64
    assert _sent(body, "org-b")["cache_salt"] not in (salt, "mine")


def test_another_target_gets_what_it_knows() -> None:
    """A request that goes to another kind of engine has a salt there if that takes one."""
    body = _HEAD + b',"cache_salt":"mine"}'
    admission = admit(_ENGINES, _OPEN, CHAT, body)
    assert isinstance(admission, Admission)
    vllm, emulator = (tier[0] for tier in admission.offer.tiers)
    there = readdress(admission, emulator)
    assert there is not None
    assert "cache_salt" not in json.loads(there.body)
    back = readdress(there, vllm)
    assert back is not None
    assert json.loads(back.body) == json.loads(admission.body)


@pytest.mark.parametrize("name", IDENTIFYING)
def test_users_have_pseudonyms(name: str) -> None:
    """An engine can tell an organization's users apart and not who they are."""
    body = _HEAD + b',"%b":"ada@example.com"}' % name.encode()
    known = _sent(body)[name]
    assert isinstance(known, str)
    assert len(known) == 32
    assert known == _sent(body)[name]
    assert known != _sent(body, "org-b")[name]
    assert known != _sent(body.replace(b"ada", b"bob"))[name]
    assert _sent(_HEAD + b',"%b":null}' % name.encode())[name] is None


def test_nothing_is_kept_between_requests() -> None:
    """Admitting one request changes nothing for the next."""
    body = _HEAD + b',"stream":true}'
    assert _admit(body) == _admit(body)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
_known = {"model", "messages", "stream", "stream_options", "n", "best_of", "max_tokens",
          "max_completion_tokens", *STEERING, *IDENTIFYING}  # fmt: skip


@given(
    members=st.dictionaries(st.text().filter(lambda name: name not in _known), _json, max_size=5),
    indent=st.sampled_from((None, 0, 2)),
    is_ascii=st.booleans(),
)
def test_what_nobody_knows_passes(
    members: dict[str, object], indent: int | None, *, is_ascii: bool
) -> None:
    """Members that this gateway does not judge arrive as they were sent, in order."""
    whole = {"model": "model-a", **members, "messages": ["x"]}
    body = json.dumps(whole, indent=indent, ensure_ascii=is_ascii).encode()
    seen = msgspec.json.decode(_admit(body).body, type=dict[str, msgspec.Raw])
    assert list(seen) == list(whole)
    for name, value in members.items():
        assert bytes(seen[name]) in body
        assert json.loads(bytes(seen[name])) == value
