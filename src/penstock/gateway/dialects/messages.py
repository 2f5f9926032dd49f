"""Anthropic's Messages: operations, usage, events, errors.

Shapes are Anthropic's public API reference; what engines that speak it really send is read
leniently. `input_tokens` leaves out what was read from a cache, or written into one: ours has both.
"""

from typing import Any, Final

import msgspec

from penstock.gateway.dialects.openai import IS_LIST, Operation, Reading, as_word
from penstock.gateway.dialects.openai_usage import Usage, sane_usage
from penstock.gateway.limits import ANSWER_ID_CHARS, SANE_TOKENS, SERVICE_TIER_CHARS
from penstock.kit.errors import Refusal

PATH: Final = b"/v1/messages"
MESSAGES = Operation(
    "messages",
    PATH.decode(),
    "messages",
    IS_LIST,
    "a list",
    can_stream=True,
    has_output=True,
    is_native=True,
    cap_member="max_tokens",
    needs_cap=True,
    lead_member="system",
)
COUNT_TOKENS = Operation(
    "count_tokens",
    "/v1/messages/count_tokens",
    "messages",
    IS_LIST,
    "a list",
    has_usage=False,
    is_native=True,
)
_READ, _WRITTEN = "cache_read_input_tokens", "cache_creation_input_tokens"
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
"""Anthropic's words for what the caller can do something about, by status."""
_SERVER: Final = "server_error"
_OVERLOADED: Final = frozenset({429, 503})
_LEAST_SERVER_STATUS: Final = 500
_encode = msgspec.json.Encoder().encode


class _Message(msgspec.Struct, frozen=True):
    id: Any = None
    usage: Any = None
    error: Any = None


class Event(msgspec.Struct, frozen=True):
    """One event of a stream, or a whole answer, as far as it matters here."""

    type: Any = None
    id: Any = None
    message: _Message | str | None = None
    usage: Any = None
    error: Any = None

    @property
    def said_usage(self) -> dict[str, Any]:
        """The usage object in it; an empty one for none."""
        usage = self.usage
        if usage is None and isinstance(self.message, _Message):
            usage = self.message.usage
        return usage if isinstance(usage, dict) else {}

    @property
    def answer_id(self) -> str:
        """The engine's name of the message."""
        name = self.message.id if isinstance(self.message, _Message) else self.id
        return as_word(name, ANSWER_ID_CHARS) if isinstance(name, str) else ""


_decode_event = msgspec.json.Decoder(Event).decode


def read_event(payload: bytes) -> Event:
    """Read one event.

    Raises:
        msgspec.DecodeError: It is no JSON object, or not of this protocol.
    """
    return _decode_event(payload)


def read_message(body: bytes) -> Reading:
    """Read a whole answer, or the number of tokens of a question.

    Raises:
        msgspec.DecodeError: It is no JSON object, or not of this protocol.
    """
    answer = _decode_event(body)
    usage, flags = read_usage(answer.usage)
    is_error = answer.error is not None or answer.type == "error"
    return Reading(
        usage,
        body if is_error else None,
        flags=flags,
        answer_id=answer.answer_id,
        service_tier=tier_of(answer.said_usage),
    )


def tier_of(usage: dict[str, Any]) -> str:
    """Return the service tier by which the engine says that it worked."""
    tier = usage.get("service_tier")
    return as_word(tier, SERVICE_TIER_CHARS) if isinstance(tier, str) else ""


def read_usage(loose: Any) -> tuple[Usage | None, tuple[str, ...]]:
    """Return the usage that a member of any shape tells, if any, and what is odd about it."""
    if not isinstance(loose, dict):
        return sane_usage(loose)
    inputs = loose.get("input_tokens")
    if _is_count(inputs):
        inputs += sum(loose[name] for name in (_READ, _WRITTEN) if _is_count(loose.get(name)))
    details = loose.get("output_tokens_details")
    thought = details.get("thinking_tokens") if isinstance(details, dict) else None
    return sane_usage(
        {
            "prompt_tokens": inputs,
            "completion_tokens": loose.get("output_tokens"),
            "completion_tokens_details": {"reasoning_tokens": thought},
            _READ: loose.get(_READ),
            _WRITTEN: loose.get(_WRITTEN),
        }
    )


def _is_count(value: Any) -> bool:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return is_whole and 0 <= value <= SANE_TOKENS


def error_body(refusal: Refusal, request_id: bytes) -> bytes:
    """Return the error object that Anthropic's SDKs know.

    `error.type` is the conventional word; ours is `error.penstock_code`.

    Args:
        refusal: What went wrong.
        request_id: What the request is called.
    """
    error = refusal.error
    return _encode(
        {
            "type": "error",
            "error": {
                "type": _type_of(refusal),
                "message": refusal.message,
                "param": refusal.param,
                "code": error.conventional_code,
                "penstock_code": error.code,
            },
            "request_id": request_id.decode("ascii"),
        }
    )


def _type_of(refusal: Refusal) -> str:
    error = refusal.error
    if error.conventional_type == _SERVER and error.status in _OVERLOADED:
        return "overloaded_error"
    if error.conventional_type == "insufficient_quota":
        return "billing_error"
    is_ours = error.status >= _LEAST_SERVER_STATUS
    return _TYPES.get(error.status, "api_error" if is_ours else "invalid_request_error")
