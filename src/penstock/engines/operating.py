"""How an operation is put to a server, and what arguments it takes. Pure."""

from collections.abc import Mapping
from urllib.parse import quote, urlencode

import msgspec

from penstock.engines.model import MAX_ARGUMENT_CHARS, Engine, Operation

LOAD_ADAPTER, UNLOAD_ADAPTER = "load_lora_adapter", "unload_lora_adapter"
"""Names of the operations of every kind that has adapters."""
_STEPS = frozenset({".", ".."})
"""What a part of a path must not be: it would lead elsewhere."""


def find_operation(engine: Engine, name: str) -> Operation | None:
    """Return a kind's operation of that name; None when it has none."""
    return next((each for each in engine.operations if each.name == name), None)


def loads_adapters(engine: Engine) -> bool:
    """Return whether a kind can be told to load LoRA adapters."""
    return find_operation(engine, LOAD_ADAPTER) is not None


def find_fault(operation: Operation, arguments: Mapping[str, str]) -> str | None:
    """Return what is wrong with the arguments of an operation, as a sentence; None for nothing."""
    missing = [name for name in operation.required if not arguments.get(name)]
    if missing:
        return f"The argument `{missing[0]}` is missing or empty."
    unknown = arguments.keys() - {*operation.required, *operation.optional}
    if unknown:
        return f"There is no argument `{min(unknown)}`."
    for name, value in arguments.items():
        if len(value) > MAX_ARGUMENT_CHARS or not value.isprintable():
            return f"The argument `{name}` is too long, or has characters that cannot be printed."
        if _is_in_path(operation, name) and value in _STEPS:
            return f"The argument `{name}` names no part of a path."
    return None


def write_request(operation: Operation, arguments: Mapping[str, str]) -> tuple[str, bytes]:
    """Return the path, with its query, and the JSON body of a request that asks for an operation.

    >>> write_request(Operation(name="x", path="/m/{model}/x", title=""), {"model": "a/b"})
    ('/m/a%2Fb/x', b'{}')
    """
    path, rest = operation.path, {}
    for name, value in arguments.items():
        if _is_in_path(operation, name):
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        else:
            rest[name] = value
    if operation.is_in_query:
        return (f"{path}?{urlencode(rest)}" if rest else path), b""
    return path, msgspec.json.encode(rest)


def _is_in_path(operation: Operation, name: str) -> bool:
    return f"{{{name}}}" in operation.path
