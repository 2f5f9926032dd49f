"""Messages of nodes, MessagePack: how they are read, and how OpenAPI describes them."""

from typing import Any, Final, TypeVar

import msgspec

from penstock.kit.errors import ErrorCode, PenstockError

MESSAGE_TYPE: Final = "application/msgpack"
MESSAGE_CONTENT: Final[dict[str, Any]] = {
    MESSAGE_TYPE: {"schema": {"type": "string", "format": "binary"}}
}

Message = TypeVar("Message")


def describe_message(description: str) -> dict[str, Any]:
    """Return what OpenAPI is to say of an endpoint besides: that its body is such a message."""
    return {
        "requestBody": {"required": True, "description": description, "content": MESSAGE_CONTENT}
    }


def decode_message(content: bytes, kind: type[Message], invalid: ErrorCode) -> Message:
    """Return the message in a body.

    Raises:
        PenstockError: `invalid`, with the reason: it is none of that kind.
    """
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except ValueError as error:
        raise PenstockError(invalid, f"It cannot be read: {error}") from None
