"""A caller of gRPC by its own library: raw messages, so that every byte is the test's."""

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from penstock.kit.protobuf import Field, Message, length_field, varint, varint_field

SERVICE = "/inference.GRPCInferenceService/"
HEALTH = "/grpc.health.v1.Health/"


class Caller:
    """Calls one worker.

    Args:
        port: Its port for gRPC.
        key: Shown with every call; none when None.
    """

    def __init__(self, port: int, key: str | None) -> None:
        """See the class."""
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),  # else callers share a connection
        ]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        self._key = key

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def metadata(self, *fields: tuple[str, str]) -> list[tuple[str, str]]:
        """Return the key and further fields."""
        key = [] if self._key is None else [("authorization", f"Bearer {self._key}")]
        return [*key, *fields]

    def unary(
        self, method: str, message: bytes, *fields: tuple[str, str], timeout_s: float = 30.0
    ) -> Any:
        """Call a method; return the finished call: its result or error, and its trailers."""
        future = self.begin(method, message, *fields, timeout_s=timeout_s)
        future.exception()  # waits
        return future

    def begin(
        self, method: str, message: bytes, *fields: tuple[str, str], timeout_s: float = 30.0
    ) -> Any:
        """Begin to call a method; return what becomes a finished call."""
        path = method if method.startswith("/") else SERVICE + method
        call = self._channel.unary_unary(path)
        return call.future(message, timeout=timeout_s, metadata=self.metadata(*fields))

    def stream(
        self,
        messages: Iterable[bytes],
        *fields: tuple[str, str],
        timeout_s: float = 30.0,
        method: str = "ModelStreamInfer",
    ) -> Any:
        """Begin a stream of requests; return what yields the answers."""
        path = method if method.startswith("/") else SERVICE + method
        call = self._channel.stream_stream(path)
        return call(iter(messages), timeout=timeout_s, metadata=self.metadata(*fields))


@contextmanager
def calling(port: int, key: str | None) -> Iterator[Caller]:
    """Return a caller, and hang up afterwards."""
    caller = Caller(port, key)
    try:
        yield caller
    finally:
        caller.close()


def tensor(name: str, datatype: str, shape: Iterable[int], contents: bytes | None = None) -> bytes:
    """Return an input, as a field of a request."""
    parts = length_field(1, name.encode()) + length_field(2, datatype.encode())
    parts += length_field(3, b"".join(map(varint, shape)))
    return length_field(5, parts if contents is None else parts + length_field(5, contents))


def raw(content: bytes) -> bytes:
    """Return the raw contents of an input, as a field of a request."""
    return length_field(7, content)


def text(content: str) -> bytes:
    """Return the raw contents of an input that is one text."""
    return raw(struct.pack("<I", len(content)) + content.encode())


def named(model: str, version: str = "") -> bytes:
    """Return the beginning of a request, or all of one that has nothing else."""
    return length_field(1, model.encode()) + (length_field(2, version.encode()) if version else b"")


def text_request(model: str, *, tokens: int = 3, request_id: str = "") -> bytes:
    """Return a request of text for so many tokens."""
    return (
        named(model)
        + (length_field(3, request_id.encode()) if request_id else b"")
        + tensor("text_input", "BYTES", [1])
        + tensor("max_tokens", "INT32", [1])
        + text("once upon a time")
        + raw(struct.pack("<i", tokens))
    )


def number_parameter(name: str, value: int) -> bytes:
    """Return a parameter of a request, as a field of it."""
    entry = length_field(1, name.encode()) + length_field(2, varint_field(2, value))
    return length_field(4, entry)


def fields_of(message: bytes) -> list[tuple[int, bytes | int]]:
    """Return number and content of each field of a message."""
    read = Message(message)

    def content(field: Field) -> bytes | int:
        return read.content(field) if field.key & 7 == 2 else field.value

    return [(field.key >> 3, content(field)) for field in read.fields()]


def told(call: Any) -> dict[str, str]:
    """Return the trailers of a finished call."""
    return {name: str(value) for name, value in call.trailing_metadata() or ()}
