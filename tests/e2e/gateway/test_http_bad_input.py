"""Bad input: a clear 4xx at once, in OpenAI's shape, and no engine sees any of it."""

import json
import time
from typing import Any

import pytest
from tests.fakes.http_rig import CHAT, OPEN_KEY, Rig, chat, request
from tests.fakes.worker_process import KEY

_CHAT, _TEXT, _EMBED = b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings"
_DEEP = 100_000

NOT_JSON = {
    "nothing": b"",
    "white space": b" \r\n\t",
    "text": b"hello",
    "cut off": CHAT[:-1],
    "one brace more": CHAT + b"}",
    "another object behind": CHAT + CHAT,
    "a word behind": CHAT + b" x",
    "NUL behind": CHAT + b"\0",
    "comma at the end": CHAT[:-1] + b",}",
    "no comma": CHAT.replace(b",", b" ", 1),
    "single quotes": CHAT.replace(b'"', b"'"),
    "unquoted name": CHAT.replace(b'"model"', b"model"),
    "comment": b"/* hi */" + CHAT,
    "list": b"[" + CHAT + b"]",
    "string": b'"model-a"',
    "number": b"17",
    "null": b"null",
    "true": b"true",
    "byte order mark": b"\xef\xbb\xbf" + CHAT,
    "UTF-16": CHAT.decode().encode("utf-16"),
    "UTF-16 without mark": CHAT.decode().encode("utf-16-le"),
    "UTF-32": CHAT.decode().encode("utf-32"),
    "latin-1": chat("caf\u00e9").decode().encode("latin-1"),
    "half a character": CHAT.replace(b'"x"', b'"\xe2\x82"'),
    "overlong character": CHAT.replace(b'"x"', b'"\xc0\xaf"'),
    "surrogate in UTF-8": CHAT.replace(b'"x"', b'"\xed\xa0\x80"'),
    "lone surrogate": CHAT.replace(b'"x"', rb'"\ud800"'),
    "lone surrogate in a name": CHAT[:-1] + rb',"\ud800":1}',
    "raw line feed in a string": CHAT.replace(b'"x"', b'"a\nb"'),
    "raw NUL in a string": CHAT.replace(b'"x"', b'"a\0b"'),
    "unknown escape": CHAT.replace(b'"x"', rb'"\x41"'),
    "short escape": CHAT.replace(b'"x"', rb'"\u00"'),
    "NaN": CHAT[:-1] + b',"temperature":NaN}',
    "Infinity": CHAT[:-1] + b',"temperature":Infinity}',
    "-Infinity": CHAT[:-1] + b',"temperature":-Infinity}',
    "leading zero": CHAT[:-1] + b',"temperature":01}',
    "leading plus": CHAT[:-1] + b',"temperature":+1}',
    "hexadecimal": CHAT[:-1] + b',"seed":0x1f}',
    "no fraction": CHAT[:-1] + b',"temperature":1.}',
    "deep lists": CHAT[:-1] + b',"x":' + b"[" * _DEEP + b"]" * _DEEP + b"}",
    "deep objects": CHAT[:-1] + b',"x":' + b'{"a":' * _DEEP + b"1" + b"}" * _DEEP + b"}",
    "deep without end": CHAT[:-1] + b',"x":' + b"[" * _DEEP,
    "deep from the start": b"[" * _DEEP,
    "deep in the messages": b'{"model":"model-a","messages":' + b"[" * _DEEP + b"]" * _DEEP + b"}",
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
    "form": b"model=model-a&messages=x",
}

_MODELS: dict[str, tuple[int, str, bytes | None]] = {
    "no model": (400, "member_missing", None),
    "null": (400, "member_invalid", b"null"),
    "number": (400, "member_invalid", b"1"),
    "list": (400, "member_invalid", b'["model-a"]'),
    "object": (400, "member_invalid", b'{"id":"model-a"}'),
    "true": (400, "member_invalid", b"true"),
    "empty": (404, "model_not_found", b'""'),
    "unknown": (404, "model_not_found", b'"no-such"'),
    "capital": (404, "model_not_found", b'"Model-a"'),
    "space behind": (404, "model_not_found", b'"model-a "'),
    "space before": (404, "model_not_found", b'" model-a"'),
    "homoglyph": (404, "model_not_found", '"m\u043edel-a"'.encode()),
    "escaped homoglyph": (404, "model_not_found", rb'"m\u043edel-a"'),
    "full width": (404, "model_not_found", '"\uff4dodel-a"'.encode()),
    "zero width": (404, "model_not_found", '"model\u200b-a"'.encode()),
    "NUL": (404, "model_not_found", rb'"model-a\u0000"'),
    "line feed": (404, "model_not_found", rb'"model-a\r\nx: y"'),
    "vendor": (404, "model_not_found", b'"openai/model-a"'),
    "path": (404, "model_not_found", b'"../model-a"'),
    "wildcard": (404, "model_not_found", b'"model-*"'),
    "fragment": (404, "model_not_found", b'"model-a#x"'),
    "query": (404, "model_not_found", b'"model-a?x"'),
    "upstream's own name": (404, "model_not_found", b'"served-model"'),
    "huge": (404, "model_not_found", b'"' + b"m" * 1_000_000 + b'"'),
}

_COUNTS = ("-1", "0", "9223372036854775808", "1e309", "1e400", '"10"', "1.5", "1.0", "1e1",
           "true", "[]", "{}", "-0.0", "1" * 5_000)  # fmt: skip
_FLAGS = ('"yes"', '"true"', "1", "0", "[]", "{}", '""')


def _with(member: str, value: str, body: bytes = CHAT) -> bytes:
    return body[:-1] + b',"%b":%b}' % (member.encode(), value.encode())


MEMBERS = [
    *[(_CHAT, member, value, _with(member, value))
      for member in ("max_tokens", "max_completion_tokens", "n")
      for value in _COUNTS],
    *[(_CHAT, "n", value, _with("n", value)) for value in ("1000000", '"x"', "129")],
    (_CHAT, "max_tokens", "past the route's", _with("max_tokens", "100001")),
    *[(_TEXT, "best_of", value, _with("best_of", value, b'{"model":"model-a","prompt":"x"}'))
      for value in ("-1", "0", "1000000", '"2"', "1.5")],
    *[(_CHAT, "stream", value, _with("stream", value)) for value in _FLAGS],
    *[(_CHAT, "stream_options", f"{value}, stream {stream}",
       _with("stream_options", value, _with("stream", stream)))
      for value in ('"x"', "1", "[]", "true")
      for stream in ("true", "false", "null")],
    *[(_CHAT, "include_usage", f"{value}, stream {stream}",
       _with("stream_options", f'{{"include_usage":{value}}}', _with("stream", stream)))
      for value in _FLAGS
      for stream in ("true", "false")],
    (_EMBED, "stream", "true",
     _with("stream", "true", b'{"model":"model-a","input":"x"}')),
]  # fmt: skip

_QUESTIONS = {_CHAT: "messages", _TEXT: "prompt", _EMBED: "input"}
_NO_QUESTION = ("null", "[]", "[ ]", "[\n\t\r ]")
_BAD_QUESTION = ("5", "-1.5", "true", "false", "{}", '{"role":"user"}')
QUESTIONS: list[tuple[bytes, str, str, str | None]] = [
    *[(path, name, "member_missing", None) for path, name in _QUESTIONS.items()],
    *[(path, name, "member_missing", value)
      for path, name in _QUESTIONS.items() for value in _NO_QUESTION],
    *[(path, name, "member_invalid", value)
      for path, name in _QUESTIONS.items() for value in _BAD_QUESTION],
    (_CHAT, "messages", "member_missing", '""'),
    (_CHAT, "messages", "member_invalid", '"hello"'),
    (_TEXT, "prompt", "member_missing", '""'),
    (_EMBED, "input", "member_missing", '""'),
]  # fmt: skip


def _expect(
    rig: Rig, content: bytes, status: int, code: str, *, param: str | None = None
) -> dict[str, Any]:
    """Send it, and see that it is refused at once, in the right shape, here."""
    started_s = time.monotonic()
    answer = rig.ask(content)
    assert time.monotonic() - started_s < 5.0, "a header has ten"
    assert (answer.status, answer.code) == (status, f"request:{code}")
    error: dict[str, Any] = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code", "penstock_code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]
    assert answer.header["content-type"] == "application/json"
    assert answer.header["x-penstock-error-code"] == error["penstock_code"]
    assert answer.header["x-penstock-error-source"] == "gateway"
    assert answer.header["x-request-id"]
    assert not answer.is_last
    rig.expect_untouched()
    return error


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_no_json_object_is_400(rig: Rig, name: str) -> None:
    """A body that is not one JSON object in UTF-8 is refused."""
    _expect(rig, request(NOT_JSON[name]), 400, "body_not_json")


@pytest.mark.parametrize("name", _MODELS)
@pytest.mark.parametrize("key", [KEY, OPEN_KEY], ids=["bound key", "open key"])
def test_models_that_are_not_there_are_refused(rig: Rig, key: str, name: str) -> None:
    """A model is known by its exact name, and nothing is like it."""
    status, code, model = _MODELS[name]
    body = b'{"messages":["x"]}'
    if model is not None:
        body = b'{"model":%b,"messages":["x"]}' % model
    error = _expect(rig, request(body, key=key), status, code, param="model")
    assert len(error["message"]) < 200


@pytest.mark.parametrize(
    ("path", "member", "body"),
    [pytest.param(path, member, body, id=f"{member} {value[:30]}")
     for path, member, value, body in MEMBERS],
)  # fmt: skip
def test_members_of_wrong_type_or_range_are_400(
    rig: Rig, path: bytes, member: str, body: bytes
) -> None:
    """A member that this gateway judges is refused when it cannot be right."""
    error = _expect(rig, request(body, path=path), 400, "member_invalid", param=member)
    assert member in error["message"] or member == "stream"


@pytest.mark.parametrize(("path", "member", "code", "value"), QUESTIONS)
def test_requests_without_a_question_are_400(
    rig: Rig, path: bytes, member: str, code: str, value: str | None
) -> None:
    """A request with nothing to answer is refused."""
    body = b'{"model":"model-a"}'
    if value is not None:
        body = _with(member, value, body)
    _expect(rig, request(body, path=path), 400, code, param=member)


@pytest.mark.parametrize(
    ("value", "seen"),
    [("null", None), ("1", 1), ("100", 100)],
)
@pytest.mark.parametrize("member", ["max_tokens", "max_completion_tokens", "n"])
def test_sensible_counts_pass(rig: Rig, member: str, value: str, seen: int | None) -> None:
    """Counts in range, and null, reach the engine as they are."""
    assert rig.ask(request(_with(member, value))).status == 200
    assert [json.loads(body)[member] for body in rig.bodies()] == [seen]


def test_the_bound_of_the_route_holds(rig: Rig) -> None:
    """Each route has its own largest `max_tokens`."""
    body = b'{"model":"vendor/model-c","messages":["x"]}'
    assert rig.ask(request(_with("max_tokens", "100", body), key=OPEN_KEY)).status == 200
    rig.engine.seen.clear()
    content = request(_with("max_tokens", "101", body), key=OPEN_KEY)
    _expect(rig, content, 400, "member_invalid", param="max_tokens")


@pytest.mark.parametrize(
    "model", [rb'"model-\u0061"', rb'"\u006d\u006f\u0064\u0065\u006c\u002d\u0061"']
)
def test_a_name_may_be_written_with_escapes(rig: Rig, model: bytes) -> None:
    """The same name in JSON's other spelling is the same model."""
    assert rig.ask(request(b'{"model":%b,"messages":["x"]}' % model)).status == 200
    assert rig.bodies() == [b'{"model":"served-model","messages":["x"]}']


@pytest.mark.parametrize(
    ("doubled", "seen"),
    [
        (
            b'{"model":"only-theirs","messages":["x"],"model":"model-a"}',
            b'{"model":"served-model","messages":["x"]}',
        ),
        (
            b'{"model":"model-a","messages":["x"],"stream":true,"stream":false}',
            b'{"model":"served-model","messages":["x"],"stream":false}',
        ),
        (
            b'{"model":"model-a","messages":["a"],"messages":["b"]}',
            b'{"model":"served-model","messages":["b"]}',
        ),
        (
            rb'{"model":"model-a","messages":["x"],"max_tokens":-1,"max\u005ftokens":5}',
            b'{"model":"served-model","messages":["x"],"max_tokens":5}',
        ),
    ],
)
def test_doubled_members_reach_the_engine_once(rig: Rig, doubled: bytes, seen: bytes) -> None:
    """Of members with one name the engine gets the one that was judged, and no other."""
    assert rig.ask(request(doubled)).status == 200
    assert rig.bodies() == [seen]


@pytest.mark.parametrize(
    ("doubled", "status", "code", "param"),
    [
        (b'"model":"model-a","model":"only-theirs"', 404, "model_not_found", "model"),
        (rb'"model":"model-a","mod\u0065l":"only-theirs"', 404, "model_not_found", "model"),
        (b'"model":"model-a","n":1,"n":1000000', 400, "member_invalid", "n"),
        (b'"model":"model-a","stream":true,"stream":"no"', 400, "member_invalid", "stream"),
    ],
)
def test_a_doubled_member_does_not_hide_another(
    rig: Rig, doubled: bytes, status: int, code: str, param: str
) -> None:
    """The last of members with one name is judged, since it is the one that is sent on."""
    body = b'{"messages":["x"],%b}' % doubled
    _expect(rig, request(body), status, code, param=param)


def test_other_spellings_of_a_member_are_other_members(rig: Rig) -> None:
    """`Model` is not `model`: it is passed on for the engine to ignore."""
    body = b'{"Model":"only-theirs","model":"model-a","messages":["x"],"STREAM":true}'
    assert rig.ask(request(body)).status == 200
    assert rig.bodies() == [body.replace(b'"model-a"', b'"served-model"')]


@pytest.mark.parametrize(
    "tail",
    [
        b',"temperature":1.0,"top_p":1e5,"seed":1E+2,"x":-0,"y":-0.0}',
        b',"big":123456789012345678901234567890,"small":1e-400,"huge":1e999}',
        rb',"note":"\u00e9\ud83d\ude00\/\u0000\"\\","\u0078":1}',
        b',"note":"\xc3\xa9\xf0\x9f\x98\x80\x7f"}',
        b',"z":1,"a":{"b":[1,2,{"c":null}],"b":2},"":0}',
        b',"spaced" : [ 1 , 2 ,\n 3 ] , "x" : { "a" : 1 } }',
        b',"api_base":"http://evil","base_url":"http://evil","extra_headers":{"host":"evil"}}',
        b',"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]}',
        b',"logit_bias":{"50256":-100},"metadata":{"a":"b\\r\\nx: y"}}',
    ],
)
def test_unknown_members_pass_untouched(rig: Rig, tail: bytes) -> None:
    """Members that nobody here knows reach the engine byte for byte and in order."""
    body = CHAT[:-1] + tail
    assert rig.ask(request(body)).status == 200
    (seen,) = rig.bodies()
    _, _, rest = tail.partition(b",")
    between = seen.replace(
        b'{"model":"served-model","messages":[{"role":"user","content":"x"}],', b""
    )
    assert json.loads(seen) == json.loads(body) | {"model": "served-model"}
    if b" " not in tail and b"\\u0078" not in tail:
        assert between == rest


def test_white_space_inside_a_member_stays(rig: Rig) -> None:
    """Only the space between top-level members goes."""
    body = b' { "model" : "model-a" , "messages" : [ {"role" :\t"user", "content": "x"} ] } \r\n'
    assert rig.ask(request(body)).status == 200
    seen = b'{"model":"served-model","messages":[ {"role" :\t"user", "content": "x"} ]}'
    assert rig.bodies() == [seen]


def test_many_members_are_no_burden(rig: Rig) -> None:
    """A body of ten thousand members, or of a very long list, is served as it is."""
    members = b"".join(b',"m%d":%d' % (number, number) for number in range(10_000))
    long_list = b',"x":[' + b"0," * 1_000_000 + b"0]"
    for more in (members, long_list):
        rig.engine.seen.clear()
        assert rig.ask(request(CHAT[:-1] + more + b"}")).status == 200
        (seen,) = rig.bodies()
        assert seen.endswith(more + b"}")


@pytest.mark.parametrize("path", [_TEXT, _EMBED])
@pytest.mark.parametrize("question", [b'"x"', b'["x"]', b"[1,2]", b"[[1],[2]]", b'[ "x" ]', b'" "'])
def test_questions_of_other_operations_pass(rig: Rig, path: bytes, question: bytes) -> None:
    """Prompts and inputs may be text, texts, tokens or lists of tokens."""
    name = _QUESTIONS[path].encode()
    body = b'{"model":"model-a","%b":%b}' % (name, question)
    assert rig.ask(request(body, path=path)).status == 200
    (seen,) = rig.engine.seen
    assert seen.line == f"POST {path.decode()} HTTP/1.1"
    assert seen.body == body.replace(b"model-a", b"served-model")


@pytest.mark.parametrize("kind", [b"text/plain", b"application/x-www-form-urlencoded", b"x"])
def test_the_content_type_does_not_matter(rig: Rig, kind: bytes) -> None:
    """A JSON object is one under any content type, and the engine is told the right one."""
    assert rig.ask(request(CHAT, b"Content-Type: " + kind)).status == 200
    (seen,) = rig.engine.seen
    assert seen.header["content-type"] == "application/json"
