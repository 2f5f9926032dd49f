"""Keys: who may ask for what, and how little the others are told."""

import pytest
from tests.fakes.http_rig import CHAT, EXPIRED_KEY, OPEN_KEY, Rig, get, request
from tests.fakes.raw_http import Answer
from tests.fakes.worker_process import KEY, OTHER_KEY

from penstock.access.rules import create_key, format_key

_K = KEY.encode()
_OTHER = OTHER_KEY.encode()
_ID = b"x-request-id: same"
_OPERATIONS = (b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings")

HEADERS = {
    "bearer": b"Authorization: Bearer " + _K,
    "bearer in capitals": b"AUTHORIZATION: BEARER " + _K,
    "bearer and white space": b"Authorization:   Bearer  " + _K + b" \t",
    "x-api-key": b"x-api-key: " + _K,
    "api-key": b"api-key: " + _K,
    "api-key and white space": b"Api-Key: " + _K + b" ",
}

WRONG_KEYS = {
    "unknown": create_key(),
    "unknown secret of a known key": format_key(KEY.split("_")[2], "a" * 32),
    "wrong checksum": KEY[:-1] + ("a" if KEY[-1] != "a" else "b"),
    "cut off": KEY[:-1],
    "doubled": KEY * 2,
    "expired": EXPIRED_KEY,
    "other case": KEY.swapcase(),
    "garbage": "garbage",
    "quoted": f'"{KEY}"',
    "list": f"{KEY}, {KEY}",
    "SQL": "' OR '1'='1' --",
    "SQL union": "x' UNION SELECT secret FROM keys; --",
    "LIKE": "ps_live_%",
    "NoSQL": '{"$ne": null}',
    "path": "../../secrets/pepper",
    "format": "%s%n{0}${jndi:ldap://a}",
    "JSON web token": "eyJhbGciOiJub25lIn0.e30.",
    "huge": "x" * 60_000,
}


def _without_id(answer: Answer) -> tuple[object, ...]:
    return answer.status, answer.fields, answer.body


@pytest.mark.parametrize("name", HEADERS)
def test_a_key_is_taken_from_three_headers(rig: Rig, name: str) -> None:
    """A key is the same key in each of the three headers."""
    assert rig.ask(request(CHAT, HEADERS[name], key=None)).status == 200


@pytest.mark.parametrize("name", HEADERS)
def test_every_header_has_the_same_rights(rig: Rig, name: str) -> None:
    """No header opens what another does not."""
    refused = rig.ask(request(CHAT.replace(b"model-a", b"only-theirs"), HEADERS[name], key=None))
    assert (refused.status, refused.code) == (404, "request:model_not_found")
    rig.expect_untouched()


def test_one_key_may_be_sent_twice(rig: Rig) -> None:
    """Equal keys in several headers are one key."""
    fields = (b"x-api-key: " + _K, b"api-key: " + _K, b"Authorization: Bearer " + _K)
    assert rig.ask(request(CHAT, *fields)).status == 200


@pytest.mark.parametrize(
    "fields",
    [
        (b"Authorization: Bearer " + _K, b"x-api-key: " + _OTHER),
        (b"Authorization: Bearer " + _K, b"api-key: " + _OTHER),
        (b"x-api-key: " + _OTHER, b"api-key: " + _K),
        (b"Authorization: Bearer " + _K, b"x-api-key: garbage"),
        (b"Authorization: Bearer garbage", b"x-api-key: " + _K),
        (b"Authorization: Bearer " + _K, b"x-api-key: " + _K.swapcase()),
        (b"Authorization: Bearer " + _K, b"Authorization: Bearer " + _OTHER),
        (b"x-api-key: " + _K, b"x-api-key: " + _OTHER),
        (b"api-key: " + _K, b"api-key: " + _OTHER),
    ],
    ids=lambda fields: " & ".join(field.partition(b":")[0].decode() for field in fields),
)
def test_two_different_keys_are_400(rig: Rig, fields: tuple[bytes, ...]) -> None:
    """Two different keys at once are refused, whichever of them is good."""
    for path in (b"/v1/chat/completions", b"/v1/models"):
        method = b"GET" if path == b"/v1/models" else b"POST"
        answer = rig.ask(request(CHAT, *fields, path=path, method=method, key=None))
        assert answer.status == 400
        assert answer.code in {"auth:keys_conflict", "request:malformed"}
    rig.expect_untouched()


@pytest.mark.parametrize("name", WRONG_KEYS)
def test_wrong_keys_are_all_alike(rig: Rig, name: str) -> None:
    """Whatever is wrong with a key, the answer is the same to the byte."""
    usual = rig.ask(request(CHAT, _ID, key="wrong"))
    assert (usual.status, usual.code) == (401, "auth:key_invalid")
    assert usual.error["code"] == "invalid_api_key"
    assert usual.header["www-authenticate"] == "Bearer"
    wrong = WRONG_KEYS[name].encode()
    for field in (b"Authorization: Bearer ", b"x-api-key: ", b"api-key: "):
        answer = rig.ask(request(CHAT, _ID, field + wrong, key=None))
        assert _without_id(answer) == _without_id(usual)
    rig.expect_untouched()


@pytest.mark.parametrize(
    "field",
    [b"Basic " + _K, b"Token " + _K, _K, b"Digest a=b", b"Bearer" + _K, b"Bearer\t" + _K],
    ids=["basic", "token", "bare", "digest", "glued", "tab"],
)
def test_other_schemes_are_401(rig: Rig, field: bytes) -> None:
    """A key under another scheme than Bearer is no key."""
    usual = rig.ask(request(CHAT, _ID, key="wrong"))
    answer = rig.ask(request(CHAT, _ID, b"Authorization: " + field, key=None))
    assert _without_id(answer) == _without_id(usual)
    rig.expect_untouched()


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (b"Authorization:",),
        (b"Authorization: Bearer",),
        (b"x-api-key:",),
        (b"Cookie: api_key=" + _K,),
        (b"Proxy-Authorization: Bearer " + _K,),
        (b"Sec-WebSocket-Protocol: openai-insecure-api-key." + _K,),
        (b"X-Authorization: Bearer " + _K,),
        (b"authorization_: Bearer " + _K,),
        (b"X-Original-URL: /health/live", b"X-Forwarded-Prefix: /health"),
    ],
    ids=lambda fields: " & ".join(field.partition(b":")[0].decode() for field in fields) or "none",
)
@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/chat/completions?api_key=" + _K])
def test_no_key_is_401(rig: Rig, path: bytes, fields: tuple[bytes, ...]) -> None:
    """Without a key in one of the three headers nothing is served, wherever else one is."""
    answer = rig.ask(request(CHAT, *fields, path=path, key=None))
    assert answer.status == 401
    assert answer.code in {"auth:key_missing", "auth:key_invalid"}
    assert answer.error["code"] == "invalid_api_key"
    rig.expect_untouched()


@pytest.mark.parametrize("path", _OPERATIONS)
def test_operations_want_a_key_first(rig: Rig, path: bytes) -> None:
    """Anonymous callers learn nothing of what is wrong with their request."""
    for body in (CHAT, b"junk", b'{"model":"no-such"}'):
        assert rig.ask(request(body, path=path, key=None)).status == 401
    rig.expect_untouched()


@pytest.mark.parametrize("path", [b"/v1/models", b"/v1/models/model-a", b"/v1/models/no-such"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_models_want_a_key(rig: Rig, path: bytes, method: bytes) -> None:
    """Anonymous callers are told of no model."""
    answer = rig.ask(get(path, method=method), is_head=method == b"HEAD")
    assert answer.status == 401


def test_health_wants_no_key(rig: Rig) -> None:
    """Probes carry no key, and a wrong one does not matter."""
    for path in (b"/health/live", b"/health/ready"):
        assert rig.ask(get(path)).status == 200
        assert rig.ask(get(path, key="wrong")).status == 200


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_models_of_others_do_not_exist(rig: Rig, key: str) -> None:
    """Another organization's model is answered like one that was never there, to the byte."""
    theirs = b"only-theirs" if key == KEY else b"model-a"
    for path in _OPERATIONS:
        foreign, missing = (
            rig.ask(request(CHAT.replace(b"model-a", name), _ID, path=path, key=key))
            for name in (theirs, b"no-such-model")
        )
        assert (foreign.status, foreign.code) == (404, "request:model_not_found")
        assert _without_id(foreign) == _without_id(missing)
    foreign, missing = (
        rig.ask(get(b"/v1/models/" + name, _ID, key=key)) for name in (theirs, b"no-such-model")
    )
    assert (foreign.status, foreign.error["code"]) == (404, "model_not_found")
    assert _without_id(foreign) == _without_id(missing)
    assert theirs not in rig.ask(get(b"/v1/models", key=key)).body
    rig.expect_untouched()


@pytest.mark.parametrize(
    ("key", "names"),
    [
        (KEY, [b"model-a"]),
        (OTHER_KEY, [b"only-theirs"]),
        (OPEN_KEY, [b"model-a", b"only-theirs", b"vendor/model-c"]),
    ],
    ids=["own", "other", "open"],
)
def test_models_lists_what_a_key_may_use(rig: Rig, key: str, names: list[bytes]) -> None:
    """`GET /v1/models` lists the aliases of the key, each of which can be asked for."""
    listed = rig.ask(get(b"/v1/models", key=key))
    assert listed.status == 200
    assert listed.header["content-type"] == "application/json"
    for name in names:
        assert b'"id":"%b"' % name in listed.body
        one = rig.ask(get(b"/v1/models/" + name, key=key))
        assert one.status == 200
        assert one.body in listed.body
        assert rig.ask(request(CHAT.replace(b"model-a", name), key=key)).status == 200
    assert listed.body.count(b'"id"') == len(names)


def test_a_model_may_be_asked_for_in_percent_signs(rig: Rig) -> None:
    """SDKs that encode the model's name in the path get the same model."""
    plain = rig.ask(get(b"/v1/models/vendor/model-c", _ID, key=OPEN_KEY))
    coded = rig.ask(get(b"/v1/models/vendor%2Fmodel%2dc", _ID, key=OPEN_KEY))
    assert plain.status == 200
    assert _without_id(plain) == _without_id(coded)


@pytest.mark.parametrize(
    "name",
    [
        b"", b".", b"..", b"%2e%2e", b"MODEL-A", b"model-a/", b"/model-a", b"model-a%00",
        b"model-a%20", b"%", b"%zz", b"%ff", b"x/../model-a", b"model-a;x=1", b"%6dodel-a%",
    ],
)  # fmt: skip
def test_models_are_compared_exactly(rig: Rig, name: bytes) -> None:
    """What is almost the name of a model is 404."""
    answer = rig.ask(get(b"/v1/models/" + name, key=KEY))
    assert (answer.status, answer.code) == (404, "request:model_not_found")
