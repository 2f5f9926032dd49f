"""The header of a request, judged without a network."""

import pytest

from penstock.gateway.errors import (
    BODY_TOO_LARGE,
    ENCODING_UNSUPPORTED,
    EXPECTATION_UNKNOWN,
    HEADER_TOO_LARGE,
    HOST_INVALID,
    MALFORMED,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    TARGET_TOO_LONG,
    VERSION_UNSUPPORTED,
)
from penstock.gateway.limits import BODY_BYTES, HEADER_BYTES, HEADER_FIELDS, TARGET_BYTES
from penstock.gateway.request import Request
from penstock.kit.errors import ErrorCode

Fields = tuple[tuple[bytes, bytes], ...]
_HOST = (b"Host", b"gateway")
_CHAT = b"/v1/chat/completions"


def _judge(
    *fields: tuple[bytes, bytes],
    target: bytes = _CHAT,
    method: bytes = b"POST",
    version: str = "1.1",
    host: tuple[bytes, bytes] | None = _HOST,
) -> Request:
    """Return a request with these fields after its header was judged."""
    request = Request()
    request.target = target
    for name, value in (*([host] if host else []), *fields):
        request.take_field(name, value)
    request.check_header(method, version)
    return request


def _error(request: Request) -> ErrorCode | None:
    return None if request.refusal is None else request.refusal.error


def test_a_fresh_request_is_its_own() -> None:
    """What one request keeps is not seen by another."""
    first, second = Request(), Request()
    first.body.append(b"x")
    first.take_field(b"x-request-id", b"a")
    assert (second.body, second.request_id, second.field_count) == ([], None, 0)


def test_a_plain_request_is_accepted() -> None:
    """An ordinary header leads to its operation."""
    request = _judge((b"Content-Length", b"12"), (b"Authorization", b"Bearer a"))
    assert request.refusal is None
    assert request.operation is not None
    assert request.operation.name == "chat"
    assert (request.content_length, request.authorization) == (12, b"Bearer a")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        (((b"Host", b"gateway"),), HOST_INVALID),
        (((b"Transfer-Encoding", b"gzip, chunked"),), MALFORMED),
        (((b"Content-Encoding", b"gzip"),), ENCODING_UNSUPPORTED),
        (((b"Expect", b"a"),), EXPECTATION_UNKNOWN),
        (((b"Content-Length", b"%d" % (BODY_BYTES + 1)),), BODY_TOO_LARGE),
        (((b"Authorization", b"Bearer a"), (b"authorization", b"Bearer b")), MALFORMED),
        (((b"x-api-key", b"a"), (b"X-Api-Key", b"b")), MALFORMED),
        (((b"api-key", b"a"), (b"Api-Key", b"b")), MALFORMED),
        (((b"X-A", b"x" * HEADER_BYTES),), HEADER_TOO_LARGE),
        (((b"X-A", b"x"),) * HEADER_FIELDS, HEADER_TOO_LARGE),
        (((b"Content-Length", b"%d" % BODY_BYTES),), None),
        (((b"Transfer-Encoding", b"Chunked"),), None),
        (((b"Content-Encoding", b"identity "),), None),
        (((b"Expect", b"100-Continue"),), None),
        (((b"x-api-key", b"a"), (b"x-api-key", b"a ")), None),
        (((b"X-A", b"x"),) * (HEADER_FIELDS - 1), None),
    ],
)
def test_fields_are_judged(fields: Fields, error: ErrorCode | None) -> None:
    """Each field that matters is refused for its own reason, or taken."""
    assert _error(_judge(*fields)) == error


@pytest.mark.parametrize(
    "host",
    [b"a", b"a.b-c_d~e", b"A:1", b"127.0.0.1:65535", b"[::1]", b"[::ffff:1.2.3.4]:80", b"a "],
)
def test_hosts_are_taken(host: bytes) -> None:
    """A name or an address, with or without a port, is a host."""
    assert _judge(host=(b"host", host)).refusal is None


@pytest.mark.parametrize(
    "host",
    [b"", b":80", b"a:", b"a:123456", b"a b", b"a/b", b"a?b", b"a@b", b"a,b", b"::1", b"[x]",
     b"a#b", b"a\\b", b"\xc3\xa9", b"a%2eb", b"[::1", b"a\tb", b"http://a"],
)  # fmt: skip
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_other_hosts_are_refused(host: bytes, version: str) -> None:
    """What is no host is refused in every version."""
    assert _error(_judge(host=(b"host", host), version=version)) == HOST_INVALID


def test_old_requests_need_no_host() -> None:
    """HTTP/1.1 wants a host, HTTP/1.0 does not."""
    assert _error(_judge(host=None)) == HOST_INVALID
    assert _judge(host=None, version="1.0").refusal is None


def test_hosts_are_remembered_within_a_bound() -> None:
    """Any number of different hosts is judged right."""
    for number in range(1_000):
        assert _judge(host=(b"Host", b"host-%d" % number)).refusal is None
        assert _error(_judge(host=(b"Host", b"host %d" % number))) == HOST_INVALID


@pytest.mark.parametrize("version", ["0.9", "2.0", "1.2", ""])
def test_other_versions_are_refused(version: str) -> None:
    """Nothing but HTTP/1.1 and HTTP/1.0 is spoken."""
    assert _error(_judge(version=version)) == VERSION_UNSUPPORTED


def test_chunked_is_not_for_old_requests() -> None:
    """HTTP/1.0 has no transfer codings."""
    assert _error(_judge((b"Transfer-Encoding", b"chunked"), version="1.0")) == MALFORMED


def test_the_first_reason_stays() -> None:
    """A request that is refused for several reasons is told the first."""
    request = _judge((b"Expect", b"a"), (b"Content-Encoding", b"gzip"), target=b"/nothing")
    assert _error(request) == EXPECTATION_UNKNOWN


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (b"/v1/chat/completions", "chat"),
        (b"/v1/completions", "completions"),
        (b"/v1/embeddings", "embeddings"),
        (b"/v1/rerank", "rerank"),
        (b"/rerank", "rerank"),
        (b"/tokenize", "tokenize"),
        (b"/v1/chat/completions?a=b?c", "chat"),
        (b"http://any/v1/embeddings", "embeddings"),
        (b"HTTPS://any:443/v1/embeddings?x", "embeddings"),
        (b"http://[::1]:80/v1/completions", "completions"),
    ],
)
def test_targets_lead_to_operations(target: bytes, name: str) -> None:
    """Path and absolute form lead to the same operation, without the query."""
    request = _judge(target=target)
    assert request.operation is not None
    assert request.operation.name == name


@pytest.mark.parametrize(
    "target",
    [b"", b"*", b"/", b"a:443", b"/v1", b"/v1/chat/completions/", b"//v1/chat/completions",
     b"/v1/chat/completions#a", b"/v1/chat/./completions", b"http://a", b"http://a?/v1/embeddings",
     b"http://a@b/v1/embeddings", b"http://a b/v1/embeddings", b"ws://a/v1/embeddings",
     b"/health/live/", b"/health", b"/v1/modelsx"],
)  # fmt: skip
def test_other_targets_lead_nowhere(target: bytes) -> None:
    """Paths are compared exactly."""
    assert _error(_judge(target=target, method=b"GET")) == NOT_FOUND


def test_long_targets_are_refused() -> None:
    """A target has a bound, its query counts."""
    longest = _CHAT + b"?" + b"x" * (TARGET_BYTES - len(_CHAT) - 1)
    assert _judge(target=longest).refusal is None
    assert _error(_judge(target=longest + b"x")) == TARGET_TOO_LONG


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"TRACE"])
def test_operations_are_posted(method: bytes) -> None:
    """An operation takes POST, and OPTIONS tells so."""
    request = _judge(method=method)
    assert _error(request) == METHOD_NOT_ALLOWED
    assert request.operation is None
    assert request.allow == b"POST, OPTIONS"
    assert _judge(method=b"OPTIONS").refusal is None


@pytest.mark.parametrize(
    "target", [b"/health/live", b"/health/ready", b"/v1/models", b"/v1/models/a"]
)
def test_the_rest_is_read(target: bytes) -> None:
    """Health and models take GET and HEAD, and OPTIONS tells so."""
    for method in (b"GET", b"HEAD", b"OPTIONS"):
        request = _judge(target=target, method=method)
        assert (request.refusal, request.operation) == (None, None)
        assert request.allow == b"GET, HEAD, OPTIONS"
    assert _error(_judge(target=target, method=b"POST")) == METHOD_NOT_ALLOWED


@pytest.mark.parametrize(
    ("value", "kept"),
    [(b"a", "a"), (b"a-Z_0.9:~", "a-Z_0.9:~"), (b"a  ", "a"), (b"x" * 128, "x" * 128),
     (b"x" * 129, None), (b"", None), (b"a b", None), (b"a\n", "a"), (b"a\r\nb", None),
     (b'"', None), (b"\xe9", None)],
)  # fmt: skip
def test_ids_are_kept_when_sane(value: bytes, kept: str | None) -> None:
    """An id is kept when it can be repeated anywhere without harm."""
    assert _judge((b"X-Request-ID", value)).request_id == kept


def test_a_trace_is_kept_when_well_formed() -> None:
    """`traceparent` is kept when it is one, else it was not there."""
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert _judge((b"traceparent", trace)).traceparent == trace
    later = b"01" + trace[2:] + b"-more"
    assert _judge((b"traceparent", later)).traceparent == trace
    nobody = b"00-" + b"0" * 32 + trace[35:]
    no_span = trace[:36] + b"0" * 16 + trace[52:]
    for wrong in (
        trace.upper(),
        trace[:-1],
        trace + b"-x",
        b"",
        b"ff" + trace[2:],
        nobody,
        no_span,
    ):
        assert _judge((b"traceparent", wrong)).traceparent is None


def test_unknown_fields_are_for_others() -> None:
    """A field that means nothing here is said to, whatever its case, one that does is not."""
    request = Request()
    assert not request.take_field(b"X-Unknown", b"a")
    for name in (b"host", b"HOST", b"x-api-key", b"Authorization", b"aUTHORIZATION"):
        assert Request().take_field(name, b"a")
