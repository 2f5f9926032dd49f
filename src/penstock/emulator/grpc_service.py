"""The emulator as Triton over gRPC, on a port of its own: `inference.GRPCInferenceService`.

By the library of gRPC itself, so that what a gateway speaks is held against it. Every model is a
text model, as over HTTP (`oip`); over a stream it is decoupled: a message a token. Given other
inputs, it answers with them as they are.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, NamedTuple, NoReturn

import grpc

from penstock.emulator.oip import PARTS, VERSION
from penstock.emulator.overlay import PREFIX, BadHeaderError, overlay
from penstock.emulator.settings import Behavior, EmulatorSettings
from penstock.emulator.statistics import Statistics
from penstock.emulator.text import answer_text, token_text
from penstock.kit.protobuf import (
    Field,
    Message,
    key_of,
    length_field,
    once,
    read_varints,
    varint,
    varint_field,
)

_SERVICE: Final = "inference.GRPCInferenceService"
_MODEL, _VERSION, _ID, _INPUTS, _RAW = (key_of(number) for number in (1, 2, 3, 5, 7))
_NAME, _DATATYPE, _SHAPE, _CONTENTS = (key_of(number) for number in (1, 2, 3, 5))
_TAKEN: Final = frozenset({"FP32", "INT32", "BYTES"})
_INPUT_TOKENS = 7
_STALL_S = 3600
Context = Any


class _Question(NamedTuple):
    """A request to infer."""

    model: str
    head: bytes
    """Of every answer to it: model, version and id."""
    message: Message
    inputs: list[list[Field]]
    raws: list[Field]

    def most_tokens(self, usual: int) -> int:
        """Return what its input `max_tokens` says, if it has one; the usual number else."""
        for position, fields in enumerate(self.inputs):
            if self.message.text(once(fields, _NAME)) != "max_tokens":
                continue
            if self.raws:
                content = self.message.content(self.raws[position])
                return min(usual, int.from_bytes(content[:4], "little"))
            contents = self.message.part(once(fields, _CONTENTS))
            at = contents[0]
            return min(usual, read_varints(self.message.data, at.start, at.end, 1)[0])
        return usual


class GrpcService:
    """Answers calls.

    Args:
        settings: The server's.
        statistics: Told of what was called.
    """

    def __init__(self, settings: EmulatorSettings, statistics: Statistics) -> None:
        """See the class."""
        self._settings = settings
        self._statistics = statistics
        self._server = grpc.aio.server()
        unary: dict[str, Callable[[bytes, Context], Awaitable[bytes]]] = {
            "ServerLive": self._say_yes,
            "ServerReady": self._say_yes,
            "ServerMetadata": self._describe,
            "ModelReady": self._say_ready,
            "ModelMetadata": self._describe_model,
            "ModelInfer": self._infer,
        }
        handlers = {name: grpc.unary_unary_rpc_method_handler(call) for name, call in unary.items()}
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        generic = grpc.method_handlers_generic_handler(_SERVICE, handlers)
        self._server.add_generic_rpc_handlers((generic,))

    async def start(self) -> int:
        """Listen; return on which port.

        Raises:
            OSError: The address is taken or not ours.
        """
        settings = self._settings
        try:
            port: int = self._server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
        except RuntimeError as error:
            raise OSError(str(error)) from None
        await self._server.start()
        return port

    async def close(self) -> None:
        """End all calls and stop listening."""
        await self._server.stop(0)

    # Calls

    async def _say_yes(self, request: bytes, context: Context) -> bytes:
        del request, context
        return varint_field(1, 1)

    async def _describe(self, request: bytes, context: Context) -> bytes:
        del request, context
        return length_field(1, PARTS["name"].encode()) + length_field(2, PARTS["version"].encode())

    async def _say_ready(self, request: bytes, context: Context) -> bytes:
        await self._find(Message(request), context)
        return varint_field(1, 1)

    async def _describe_model(self, request: bytes, context: Context) -> bytes:
        model = await self._find(Message(request), context)
        return b"".join(
            [
                length_field(1, model.encode()),
                length_field(2, VERSION.encode()),
                length_field(3, b"ensemble"),
                length_field(4, _tensor("text_input", "BYTES", [1])),
                length_field(4, _tensor("max_tokens", "INT32", [1])),
                length_field(5, _tensor("text_output", "BYTES", [1])),
            ]
        )

    async def _find(self, message: Message, context: Context) -> str:
        fields = message.fields()
        model, version = (message.text(once(fields, key)) for key in (_MODEL, _VERSION))
        if not self._settings.serves(model) or version not in {"", VERSION}:
            await _refuse(
                context, grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{model}'"
            )
        return model

    async def _read(self, request: bytes, context: Context) -> _Question:
        self._statistics.record_request(_metadata(context).get("x-request-id", "").encode())
        message = Message(request)
        model = await self._find(message, context)
        fields = message.fields()
        name = message.text(once(fields, _ID))
        head = length_field(1, model.encode()) + length_field(2, VERSION.encode())
        if name:
            head += length_field(3, name.encode())
        inputs = [message.part(field) for field in fields if field.key == _INPUTS]
        raws = [field for field in fields if field.key == _RAW]
        return _Question(model, head, message, inputs, raws)

    async def _infer(self, request: bytes, context: Context) -> bytes:
        behavior = await _behavior(self._settings, context)
        question = await self._read(request, context)
        self._statistics.record_start(is_stream=False)
        try:
            return await _answer(question, behavior, context)
        except asyncio.CancelledError:
            self._statistics.record_abort(_id(context), 0)
            raise
        finally:
            self._statistics.record_end(is_stream=False)

    async def _stream(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        behavior = await _behavior(self._settings, context)
        count = 0
        self._statistics.record_start(is_stream=True)
        try:
            async for request in requests:
                question = await self._read(request, context)
                async for message in _answers(question, behavior, context):
                    yield message
                    count += 1
        except (asyncio.CancelledError, GeneratorExit):
            self._statistics.record_abort(_id(context), count)
            raise
        finally:
            self._statistics.record_end(is_stream=True)


async def _answer(question: _Question, behavior: Behavior, context: Context) -> bytes:
    """Return the only answer to a question."""
    await _be_late_or_fail(behavior, context)
    message = question.message
    names = {message.text(once(fields, _NAME)) for fields in question.inputs}
    if "text_input" in names:
        tokens = question.most_tokens(behavior.output_tokens)
        return question.head + _text_outputs(answer_text(tokens), tokens)
    if any(message.text(once(fields, _DATATYPE)) not in _TAKEN for fields in question.inputs):
        await _refuse(
            context,
            grpc.StatusCode.INVALID_ARGUMENT,
            "inference input data-type is not what the model expects",
        )
    outputs = [
        length_field(5, message.content(field))
        for field in message.fields()
        if field.key == _INPUTS
    ]
    raws = [length_field(6, message.content(field)) for field in question.raws]
    return question.head + b"".join(outputs + raws)


async def _answers(
    question: _Question, behavior: Behavior, context: Context
) -> AsyncIterator[bytes]:
    """Yield the messages of a stream, a token each."""
    await _be_late_or_fail(behavior, context, is_stream=True)
    tokens = question.most_tokens(behavior.output_tokens)
    for position in range(tokens):
        if position and behavior.itl_ms:
            await asyncio.sleep(behavior.itl_ms / 1000)
        if behavior.fault != "none" and position == behavior.fault_after:
            if behavior.fault == "error_in_200":
                yield length_field(1, b"emulated engine failure")
                return
            await _break_off(behavior, context)
        yield length_field(2, question.head + _text_outputs(token_text(position), 1))


async def _be_late_or_fail(
    behavior: Behavior, context: Context, *, is_stream: bool = False
) -> None:
    if behavior.ttft_ms:
        await asyncio.sleep(behavior.ttft_ms / 1000)
    if behavior.fault == "status":
        await _refuse(context, grpc.StatusCode.UNAVAILABLE, "Exceeds maximum queue size")
    if behavior.fault != "none" and not is_stream:
        await _break_off(behavior, context)


async def _break_off(behavior: Behavior, context: Context) -> None:
    if behavior.fault == "stall":
        await asyncio.sleep(_STALL_S)
    if behavior.fault != "none":
        await _refuse(context, grpc.StatusCode.INTERNAL, "emulated engine failure")


async def _refuse(context: Context, status: Any, message: str) -> NoReturn:
    await context.abort(status, message)
    raise AssertionError  # pragma: no cover - abort does not return


async def _behavior(settings: EmulatorSettings, context: Context) -> Behavior:
    headers = tuple(
        (name.encode(), value.encode())
        for name, value in _metadata(context).items()
        if name.startswith(PREFIX.decode())
    )
    try:
        return overlay(settings, headers)
    except BadHeaderError as error:
        await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))


def _metadata(context: Context) -> dict[str, str]:
    return {name: str(value) for name, value in context.invocation_metadata() or ()}


def _id(context: Context) -> bytes:
    return _metadata(context).get("x-request-id", "").encode()


def _text_outputs(text: str, tokens: int) -> bytes:
    """Return the outputs of an answer: the text, and how many tokens there were."""
    content = text.encode()
    raws = [
        len(content).to_bytes(4, "little") + content,
        _INPUT_TOKENS.to_bytes(4, "little"),
        tokens.to_bytes(4, "little"),
    ]
    outputs = [
        _tensor("text_output", "BYTES", [1]),
        _tensor("num_input_tokens", "INT32", [1]),
        _tensor("num_output_tokens", "INT32", [1]),
    ]
    fields = [length_field(5, output) for output in outputs]
    return b"".join(fields + [length_field(6, raw) for raw in raws])


def _tensor(name: str, datatype: str, shape: list[int]) -> bytes:
    packed = b"".join(map(varint, shape))
    return (
        length_field(1, name.encode())
        + length_field(2, datatype.encode())
        + length_field(3, packed)
    )
