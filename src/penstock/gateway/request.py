"""Step 1, request: one HTTP request as far as its header tells, checked as it arrives."""

import re
from typing import Final

from penstock.gateway.dialects import oip
from penstock.gateway.dialects.oip import READS, Call
from penstock.gateway.dialects.openai import Operation
from penstock.gateway.dialects.operations import OPERATIONS, Telling, telling_of
from penstock.gateway.errors import (
    BODY_TOO_LARGE,
    ENCODING_UNSUPPORTED,
    EXPECTATION_UNKNOWN,
    HEADER_TOO_LARGE,
    HOST_INVALID,
    LABELS_INVALID,
    MALFORMED,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    TARGET_TOO_LONG,
    VERSION_UNSUPPORTED,
)
from penstock.gateway.labels import Labels, read_labels
from penstock.gateway.limits import BODY_BYTES, HEADER_BYTES, HEADER_FIELDS, TARGET_BYTES
from penstock.gateway.offer import ServedUpstream
from penstock.gateway.runtime import Principal
from penstock.gateway.trace import is_tracestate, read_traceparent
from penstock.gateway.upload import Upload
from penstock.kit.errors import Refusal

LIVE: Final = b"/health/live"
READY: Final = b"/health/ready"
MODELS: Final = b"/v1/models"
MODEL_PREFIX: Final = b"/v1/models/"

ALLOW_READ: Final = b"GET, HEAD, OPTIONS"
ALLOW_OPERATION: Final = b"POST, OPTIONS"
ALLOW_CALL: Final = b"GET, OPTIONS"
_READ_PATHS: Final = oip.OWN_PATHS.union((LIVE, READY, MODELS))

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{1,5})?")
_ABSOLUTE = re.compile(rb"(?i:https?)://" + _HOST.pattern + rb"(?P<path>/.*)")
_CALLER_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:~-]{1,128}")
_PLAIN_HOSTS: set[bytes] = set()
"""Hosts seen and found well-formed: spares the pattern. Bounded below."""
_PLAIN_HOSTS_MAX = 256
_LENGTH_DIGITS = 20


class Request:
    """One request on its way in.

    `refusal` is set as soon as the request is known to be one that must not be served; what
    arrives of it afterwards is dropped.
    """

    # Defaults stand in the class: most requests change few of them.
    method = b""
    target = b""
    version = "1.1"
    host: bytes | None = None
    authorization: bytes | None = None
    x_api_key: bytes | None = None
    api_key: bytes | None = None
    request_id: str | None = None
    """The caller's own `x-request-id`, when it sent a sane one."""
    traceparent: bytes | None = None
    """What its caller says of traces, as version 0 says it."""
    tracestate: bytes | None = None
    has_traceparent = False
    session_id: bytes | None = None
    """What keeps requests together on one engine, as the caller names it."""
    fairness_id: bytes | None = None
    """Among whom llm-d is to be fair, as the caller names it; heeded of who may steer engines."""
    labels: Labels = ()
    """By which the caller finds its costs."""
    forwarded: list[tuple[bytes, bytes]] | None = None
    """Fields, lower-case, that some upstream wants passed on."""
    content_length: int | None = None
    is_chunked = False
    expects_continue = False
    offers_upgrade = False
    field_count = 0
    field_bytes = 0
    keep_alive = True
    is_header_done = False
    operation: Operation | None = None
    call: Call | None = None
    """What is asked for by the Open Inference Protocol."""
    json_length: bytes | None = None
    """`Inference-Header-Content-Length`: how much of the body is JSON, there."""
    content_type: bytes | None = None
    upload: Upload | None = None
    """Its body, where that is a form."""
    allow = b""
    """Methods that the path takes, for `Allow`."""
    principal: Principal | None = None
    refusal: Refusal | None = None
    body_bytes = 0
    received_s = 0.0
    """When its last byte came, by `time.perf_counter`."""

    def __init__(self) -> None:
        """Start with nothing received."""
        self.body: list[bytes] = []

    @property
    def is_oip(self) -> bool:
        """Whether the path is one of the Open Inference Protocol."""
        return oip.is_path(self.target)

    @property
    def telling(self) -> Telling:
        """How its protocol tells of errors."""
        return telling_of(self.target)

    def refuse(self, refusal: Refusal) -> None:
        """Give the request up for the first reason found, and forget its body."""
        if self.refusal is None:
            self.refusal = refusal
        self.body = []

    def take_field(self, name: bytes, value: bytes) -> bool:
        """Take one header field.

        Args:
            name: As it was sent.
            value: Without leading white space.

        Returns:
            False when it means nothing here: whether it is passed on is for others to say.
        """
        self.field_count += 1
        self.field_bytes += len(name) + len(value)
        if self.field_count > HEADER_FIELDS or self.field_bytes > HEADER_BYTES:
            self.refuse(Refusal(HEADER_TOO_LARGE))
            return True
        take = _FIELDS.get(name) or _FIELDS.get(name.lower())
        if take is None:
            return False
        take(self, value.rstrip())
        return take is not _take_session_id  # which some upstream may want as it is

    def passed_lines(self, upstream: ServedUpstream, traceparent: bytes | None) -> bytes:
        """Return the header lines of the caller that an upstream wants.

        Args:
            upstream: Which one.
            traceparent: What it is told of the trace, if anything.
        """
        lines = b""
        if traceparent is not None:
            lines = b"traceparent: " + traceparent + b"\r\n"
            if self.tracestate is not None and self.traceparent is not None:
                lines += b"tracestate: " + self.tracestate + b"\r\n"
        if self.forwarded is not None:
            for name, value in self.forwarded:
                if name in upstream.forward_names or name.startswith(upstream.forward_prefixes):
                    lines += b"%b: %b\r\n" % (name, value)
        return lines

    def check_header(self, method: bytes, version: str) -> None:
        """Judge the finished header: framing, target and operation.

        Args:
            method: As it was sent.
            version: `1.1`, `1.0`, ...
        """
        self.is_header_done = True
        self.method = method
        self.version = version
        if version not in {"1.1", "1.0"}:
            self.refuse(Refusal(VERSION_UNSUPPORTED))
            return
        if (self.host is None and version == "1.1") or (self.is_chunked and version == "1.0"):
            self.refuse(Refusal(HOST_INVALID if self.host is None else MALFORMED))
            return
        if len(self.target) > TARGET_BYTES:
            self.refuse(Refusal(TARGET_TOO_LONG))
            return
        self._find_operation(method)
        is_form = self.operation is not None and self.operation.is_form
        if self.content_length is not None and self.content_length > BODY_BYTES and not is_form:
            self.refuse(Refusal(BODY_TOO_LARGE))

    def _find_operation(self, method: bytes) -> None:
        path = self.target
        operation = OPERATIONS.get(path)
        if operation is None:
            path = self.target = _path(path)
            operation = OPERATIONS.get(path)
        if operation is not None:
            self.allow = ALLOW_OPERATION
            if method == b"POST":
                self.operation = operation
            elif method != b"OPTIONS":
                self.refuse(Refusal(METHOD_NOT_ALLOWED))
        elif self.is_oip and path not in oip.OWN_PATHS:
            self._find_call(path, method)
        elif path in _READ_PATHS or path.startswith(MODEL_PREFIX):
            self.allow = ALLOW_READ
            if method not in {b"GET", b"HEAD", b"OPTIONS"}:
                self.refuse(Refusal(METHOD_NOT_ALLOWED))
        else:
            self.refuse(Refusal(NOT_FOUND))

    def _find_call(self, path: bytes, method: bytes) -> None:
        call = oip.find_call(path)
        if isinstance(call, Refusal):
            self.refuse(call)
            return
        is_read = call.operation in READS
        self.allow = ALLOW_CALL if is_read else ALLOW_OPERATION
        if method == (b"GET" if is_read else b"POST"):
            self.call, self.operation = call, call.operation
        elif method != b"OPTIONS":
            self.refuse(Refusal(METHOD_NOT_ALLOWED))


def _path(target: bytes) -> bytes:
    """Return the path of a target in origin or absolute form, without its query.

    The API's paths are known with and without `/v1`, since base URLs are written both ways.
    Paths are compared byte for byte afterwards: whatever could be read in two ways (dots,
    doubled slashes, percent signs) is simply no path of ours.
    """
    if not target.startswith(b"/"):
        match = _ABSOLUTE.fullmatch(target)
        if match is None:
            return b""
        target = match["path"]
    path = target.partition(b"?")[0]
    full = b"/v1" + path
    if full in OPERATIONS or full == MODELS or full.startswith(MODEL_PREFIX):
        return full
    return path


def _take_host(request: Request, value: bytes) -> None:
    if request.host is not None:
        request.refuse(Refusal(HOST_INVALID))
        return
    request.host = value
    if value in _PLAIN_HOSTS:
        return
    if _HOST.fullmatch(value) is None:
        request.refuse(Refusal(HOST_INVALID))
    elif len(_PLAIN_HOSTS) < _PLAIN_HOSTS_MAX:
        _PLAIN_HOSTS.add(value)


def _take_authorization(request: Request, value: bytes) -> None:
    if request.authorization is not None and request.authorization != value:
        request.refuse(Refusal(MALFORMED, "Two different Authorization headers were sent."))
    request.authorization = value


def _take_x_api_key(request: Request, value: bytes) -> None:
    if request.x_api_key is not None and request.x_api_key != value:
        request.refuse(Refusal(MALFORMED, "Two different x-api-key headers were sent."))
    request.x_api_key = value


def _take_api_key(request: Request, value: bytes) -> None:
    if request.api_key is not None and request.api_key != value:
        request.refuse(Refusal(MALFORMED, "Two different api-key headers were sent."))
    request.api_key = value


def _take_content_type(request: Request, value: bytes) -> None:
    if request.content_type is not None and request.content_type != value:
        request.refuse(Refusal(MALFORMED, "Two different Content-Type headers were sent."))
    request.content_type = value


def _take_content_length(request: Request, value: bytes) -> None:
    # The parser has refused whatever is no plain number, or there twice; zeros it lets pass.
    if len(value) > _LENGTH_DIGITS:
        request.refuse(Refusal(MALFORMED))
    else:
        request.content_length = int(value)


def _take_transfer_encoding(request: Request, value: bytes) -> None:
    if value.lower() != b"chunked":
        request.refuse(Refusal(MALFORMED, "The only transfer coding taken is chunked."))
    request.is_chunked = True


def _take_content_encoding(request: Request, value: bytes) -> None:
    if value.lower() not in {b"", b"identity"}:
        request.refuse(Refusal(ENCODING_UNSUPPORTED))


def _take_expect(request: Request, value: bytes) -> None:
    request.expects_continue = True  # whatever it expects, its body may wait for an answer
    if value.lower() != b"100-continue":
        request.refuse(Refusal(EXPECTATION_UNKNOWN))


def _take_upgrade(request: Request, value: bytes) -> None:  # noqa: ARG001 - all are declined
    request.offers_upgrade = True


def _take_request_id(request: Request, value: bytes) -> None:
    if _CALLER_REQUEST_ID.fullmatch(value) is not None:
        request.request_id = value.decode("ascii")


def _take_traceparent(request: Request, value: bytes) -> None:
    request.traceparent = None if request.has_traceparent else read_traceparent(value)
    request.has_traceparent = True  # which is meant of two, nobody knows


def _take_tracestate(request: Request, value: bytes) -> None:
    before = request.tracestate
    whole = value if before is None else before + b"," + value
    request.tracestate = whole if is_tracestate(whole) else before


def _take_json_length(request: Request, value: bytes) -> None:
    if request.json_length is not None and request.json_length != value:
        request.refuse(Refusal(MALFORMED, "Two different lengths of the JSON were sent."))
    request.json_length = value


def _take_session_id(request: Request, value: bytes) -> None:
    if _CALLER_REQUEST_ID.fullmatch(value) is not None:
        request.session_id = value


def _take_fairness_id(request: Request, value: bytes) -> None:
    if _CALLER_REQUEST_ID.fullmatch(value) is not None:
        request.fairness_id = value


def _take_labels(request: Request, value: bytes) -> None:
    if request.labels:
        request.refuse(Refusal(LABELS_INVALID, "Two x-penstock-labels headers were sent."))
        return
    found = read_labels(value)
    if isinstance(found, Refusal):
        request.refuse(found)
    else:
        request.labels = found


_TAKERS = {
    b"content-type": _take_content_type,
    b"host": _take_host,
    b"authorization": _take_authorization,
    b"x-api-key": _take_x_api_key,
    b"api-key": _take_api_key,
    b"content-length": _take_content_length,
    b"transfer-encoding": _take_transfer_encoding,
    b"content-encoding": _take_content_encoding,
    b"expect": _take_expect,
    b"upgrade": _take_upgrade,
    b"x-request-id": _take_request_id,
    b"traceparent": _take_traceparent,
    b"tracestate": _take_tracestate,
    b"x-session-id": _take_session_id,
    b"x-llm-d-inference-fairness-id": _take_fairness_id,
    b"x-penstock-labels": _take_labels,
    b"inference-header-content-length": _take_json_length,
}
_FIELDS = _TAKERS | {name.title(): take for name, take in _TAKERS.items()}
"""Also under the usual spelling, which spares making it lower-case."""
