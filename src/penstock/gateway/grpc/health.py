"""`grpc.health.v1`: whether a service can be called, asked once or watched. Pure."""

from typing import Final

from penstock.gateway.dialects.errors import MESSAGE_MALFORMED
from penstock.gateway.errors import SERVICE_NOT_FOUND
from penstock.gateway.form_grpc import SERVICE
from penstock.gateway.limits import MESSAGE_FIELDS
from penstock.kit.errors import Refusal
from penstock.kit.protobuf import (
    MalformedError,
    Message,
    key_of,
    once,
    varint_field,
)

_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = (varint_field(1, state) for state in (1, 2, 3))
_SERVICES: Final = frozenset({"", SERVICE.strip("/")})


def read_service(message: bytes, start: int) -> str | Refusal:
    """Return which service is asked for; "" for all of them.

    Args:
        message: Bytes that the question ends.
        start: Where it begins in them.
    """
    question = Message(message, start, most_fields=MESSAGE_FIELDS)
    try:
        return question.text(once(question.fields(), key_of(1)))
    except (MalformedError, UnicodeDecodeError):
        return Refusal(MESSAGE_MALFORMED)


def check(service: str, *, is_ready: bool) -> bytes | Refusal:
    """Return the answer to one question."""
    if service not in _SERVICES:
        return Refusal(SERVICE_NOT_FOUND)
    return _SERVING if is_ready else _NOT_SERVING


class Watch:
    """What one watcher was told.

    Args:
        service: Which service it watches.
    """

    __slots__ = ("_service", "_told")

    def __init__(self, service: str) -> None:
        """See the class."""
        self._service = service
        self._told = b""

    def look(self, *, is_ready: bool) -> bytes:
        """Return what the watcher has to be told now; b"" when nothing changed."""
        state = check(self._service, is_ready=is_ready)
        message = _SERVICE_UNKNOWN if isinstance(state, Refusal) else state
        if message == self._told:
            return b""
        self._told = message
        return message
