"""OpenAI's Responses: its operation, usage, events, errors.

Shapes are OpenAI's public API reference; what engines that speak it really send is read leniently.
"""

from typing import Any, Final

import msgspec

from penstock.gateway.dialects import openai
from penstock.gateway.dialects.openai import IS_TEXT_OR_LIST, Operation, Reading, as_word
from penstock.gateway.dialects.openai_usage import Usage, sane_usage
from penstock.gateway.limits import ANSWER_ID_CHARS, SERVICE_TIER_CHARS
from penstock.kit.errors import Refusal

PATH: Final = b"/v1/responses"
RESPONSES = Operation(
    "responses",
    PATH.decode(),
    "input",
    IS_TEXT_OR_LIST,
    "text or a list",
    can_stream=True,
    has_output=True,
    is_native=True,
    cap_member="max_output_tokens",
    lead_member="instructions",
)
ENDS: Final = frozenset({"response.completed", "response.incomplete", "response.cancelled"})
"""Types of events behind which nothing follows, and which are no errors."""
_FAILED: Final = b'{"message":"The response failed."}'
_encode = msgspec.json.Encoder().encode


class Response(msgspec.Struct, frozen=True):
    """A response as far as it matters here: a whole answer, or in an event of a stream."""

    id: Any = None
    usage: Any = None
    error: Any = None
    status: Any = None
    service_tier: Any = None

    @property
    def answer_id(self) -> str:
        """The engine's name of it."""
        return as_word(self.id, ANSWER_ID_CHARS) if isinstance(self.id, str) else ""

    @property
    def tier(self) -> str:
        """The service tier by which the engine says that it worked."""
        name = self.service_tier
        return as_word(name, SERVICE_TIER_CHARS) if isinstance(name, str) else ""

    @property
    def raw_error(self) -> bytes | None:
        """Its error as JSON; None when it has none."""
        if self.error is not None:
            return _encode(self.error)
        return _FAILED if self.status == "failed" else None


class Event(msgspec.Struct, frozen=True):
    """One event of a stream."""

    type: Any = None
    response: Response | None = None
    error: Any = None


_decode_response = msgspec.json.Decoder(Response).decode
_decode_event = msgspec.json.Decoder(Event).decode


def read_event(payload: bytes) -> Event:
    """Read one event.

    Raises:
        msgspec.DecodeError: It is no JSON object, or not of this protocol.
    """
    return _decode_event(payload)


def event_error(event: Event, payload: bytes) -> bytes | None:
    """Return the error that an event tells of, as JSON; None when it tells of none.

    Args:
        event: Read.
        payload: Of what.
    """
    if event.error is not None or event.type == "error":
        return payload
    if event.type == "response.failed":
        return _FAILED if event.response is None else event.response.raw_error or _FAILED
    return openai.flat_error(payload) if event.response is None else event.response.raw_error


def read_response(body: bytes) -> Reading:
    """Read a whole answer.

    Raises:
        msgspec.DecodeError: It is no JSON object.
    """
    response = _decode_response(body)
    usage, flags = read_usage(response.usage)
    error = response.raw_error or openai.flat_error(body)
    return Reading(
        usage, error, flags=flags, answer_id=response.answer_id, service_tier=response.tier
    )


def read_usage(loose: Any) -> tuple[Usage | None, tuple[str, ...]]:
    """Return the usage that a member of any shape tells, if any, and what is odd about it."""
    if not isinstance(loose, dict):
        return sane_usage(loose)
    return sane_usage(
        {
            "prompt_tokens": loose.get("input_tokens"),
            "completion_tokens": loose.get("output_tokens"),
            "prompt_tokens_details": loose.get("input_tokens_details"),
            "completion_tokens_details": loose.get("output_tokens_details"),
        }
    )


def error_in_event(refusal: Refusal) -> bytes:
    """Return the error that ends a stream which cannot go on: OpenAI's, also as older SDKs look."""
    told = {
        "type": "error",
        "sequence_number": 0,
        "code": refusal.error.conventional_code,
        "message": refusal.message,
        "param": refusal.param,
    }
    return _encode(told | openai.error_members(refusal))
