"""A request's `x-emulator-*` headers, laid over the server's own behavior."""

import msgspec

from penstock.emulator.settings import Behavior

PREFIX = b"x-emulator-"
JSON_LENGTH = b"inference-header-content-length"
"""How much of a body is JSON, where bytes of tensors follow it. Changes no behavior."""

Headers = tuple[tuple[bytes, bytes], ...]
"""Names in lower case with their values, in the order sent."""

_FIELDS = {field.encode_name: field.type for field in msgspec.structs.fields(Behavior)}


class BadHeaderError(Exception):
    """An `x-emulator-*` header is unknown, given twice or of no use; the message says which."""


def overlay(default: Behavior, headers: Headers) -> Behavior:
    """Return the behavior for a request with these `x-emulator-*` headers.

    Args:
        default: The server's behavior; its subtypes keep their further fields out of reach.
        headers: Only headers whose name begins with `PREFIX`, or is `JSON_LENGTH`.

    Returns:
        `default` itself without headers, else a `Behavior` with their values.

    Raises:
        BadHeaderError: See there. Numbers are plain decimals within the field's range.
    """
    if not headers:
        return default
    values: dict[str, object] = {}
    for name, value in headers:
        if name == JSON_LENGTH:
            continue
        shown = name.decode("latin-1")
        field = name[len(PREFIX) :].decode("latin-1").replace("-", "_")
        if field not in _FIELDS:
            message = f"unknown header {shown}"
            raise BadHeaderError(message)
        if field in values:
            message = f"header {shown} given twice"
            raise BadHeaderError(message)
        try:
            values[field] = msgspec.convert(
                value.decode("latin-1").strip(), _FIELDS[field], strict=False
            )
        except msgspec.ValidationError as error:
            message = f"header {shown}: {error}"
            raise BadHeaderError(message) from None
    defaults = {field: getattr(default, field) for field in _FIELDS}
    return Behavior(**(defaults | values))
