"""The Open Inference Protocol over gRPC: its messages judged, and written anew. Pure.

Field numbers are the protocol's public specification (package `inference`), with Triton's
additions. A request is taken apart as far as something in it could reach what is others', no
further; bytes of tensors pass as they are.
"""

import math
from typing import Final, NamedTuple

import msgspec

from penstock.gateway.dialects.errors import MEMBER_INVALID, MEMBER_MISSING, MESSAGE_MALFORMED
from penstock.gateway.dialects.oip_answers import reading_of
from penstock.gateway.dialects.oip_tensors import (
    ITEM_BYTES,
    NOT_PASSED,
    SEQUENCE,
    SHARED_MEMORY,
    STOP,
    InferBody,
    Pseudonym,
    Tensor,
    sequence_name,
)
from penstock.gateway.dialects.openai import Reading
from penstock.gateway.limits import MESSAGE_FIELDS, TENSORS
from penstock.kit.errors import Refusal
from penstock.kit.protobuf import (
    Field,
    MalformedError,
    Message,
    join_slices,
    key_of,
    length_field,
    once,
    read_fields,
    read_varints,
    signed,
    varint_field,
)

# Of ModelInferRequest; ModelInferResponse has 1 to 5 alike, and its raw contents as 6.
_MODEL, _VERSION, _ID, _PARAMETERS, _INPUTS, _OUTPUTS, _RAW = map(key_of, range(1, 8))
_RAW_OUTPUTS = key_of(6)
# Of a tensor, in and out.
_NAME, _DATATYPE, _SHAPE, _TENSOR_PARAMETERS, _CONTENTS = map(key_of, range(1, 6))
_DIMENSION = key_of(3, is_varint=True)
_OUTPUT_PARAMETERS = key_of(2)
# Of an entry of a map.
_ENTRY_KEY, _ENTRY_VALUE = key_of(1), key_of(2)
# Of a parameter.
_INT64, _UINT64 = key_of(2, is_varint=True), key_of(5, is_varint=True)
_TEXT = key_of(3)
# Of contents that are not raw, those with whole numbers: packed or one by one.
_NUMBERS = frozenset(map(key_of, range(2, 6)))
_NUMBERS_ONE_BY_ONE = frozenset(key_of(number, is_varint=True) for number in range(2, 6))
# Of ModelStreamInferResponse.
_ERROR, _RESPONSE = key_of(1), key_of(2)

_DIMENSIONS = 64
_NUMBERS_READ = 4_096
_MOST_INT64 = 2**63 - 1
_ELSEWHERE: Final = msgspec.Raw(b"")
"""Stands for data that are neither JSON nor raw bytes."""
_MALFORMED = Refusal(MESSAGE_MALFORMED)
_encode = msgspec.json.Encoder().encode


class _Contents(Tensor):
    """A tensor whose elements are fields of their own; numbers are read when they are asked for."""

    __slots__ = ()

    def integers(self, tail: bytes) -> list[int]:
        """Return its elements, none where they are no whole numbers, or too many."""
        found: list[int] = []
        try:
            end = self.start + self.size
            for field in read_fields(tail, self.start, end, _NUMBERS_READ):
                if field.key in _NUMBERS:
                    left = _NUMBERS_READ - len(found)
                    found += map(signed, read_varints(tail, field.start, field.end, left))
                elif field.key in _NUMBERS_ONE_BY_ONE:
                    found.append(signed(field.value))
        except MalformedError:
            return []
        return found


class ModelName(NamedTuple):
    """Which model is meant."""

    model: msgspec.Raw
    """The alias, as JSON."""
    version: str


class InferMessage(NamedTuple):
    """A request to infer, as it is sent on."""

    name: ModelName
    body: InferBody
    """Its content has no name of a model: `address` puts it in front."""


def read_name(data: bytes, start: int = 0) -> ModelName | Refusal:
    """Return which model a message asks for that has nothing else.

    Args:
        data: Bytes that the message ends.
        start: Where it begins in them.
    """
    try:
        message = Message(data, start, most_fields=MESSAGE_FIELDS)
        return _name_of(message, message.fields())
    except (MalformedError, UnicodeDecodeError):
        return _MALFORMED


def _name_of(message: Message, fields: list[Field]) -> ModelName:
    model, version = (message.text(once(fields, key)) for key in (_MODEL, _VERSION))
    return ModelName(msgspec.Raw(_encode(model)), version)


def address(content: bytes, model: str) -> bytes:
    """Return a request under the server's own name of the model."""
    return length_field(1, model.encode()) + content


def name_message(model: str, version: str) -> bytes:
    """Return the message that asks for a model's readiness or metadata."""
    content = length_field(1, model.encode())
    return content + length_field(2, version.encode()) if version else content


def renamed(data: bytes, start: int, alias: str) -> bytes:
    """Return a model's metadata under the name by which it was asked for.

    Args:
        data: Bytes that the message ends.
        start: Where it begins in them.
        alias: That name.

    Raises:
        MalformedError: It is no message.
    """
    message = Message(data, start, most_fields=MESSAGE_FIELDS)
    others = [field for field in message.fields() if field.key != _MODEL]
    return length_field(1, alias.encode()) + join_slices(data, others)


def read_infer_message(
    data: bytes,
    start: int,
    pseudonym: Pseudonym,
    not_passed: frozenset[str] = NOT_PASSED,
) -> InferMessage | Refusal:
    """Judge a request to infer and put it together again.

    Args:
        data: Bytes that the message ends.
        start: Where it begins in them.
        pseudonym: Names the sequences of one organization.
        not_passed: Parameters that are taken out.
    """
    try:
        return _read_infer(Message(data, start, most_fields=MESSAGE_FIELDS), pseudonym, not_passed)
    except (MalformedError, UnicodeDecodeError):
        return _MALFORMED


def _read_infer(
    message: Message, pseudonym: Pseudonym, not_passed: frozenset[str]
) -> InferMessage | Refusal:
    fields = message.fields()
    name = _name_of(message, fields)
    inputs = _read_inputs(message, fields)
    if isinstance(inputs, Refusal):
        return inputs
    for field in fields:
        if field.key == _OUTPUTS and _is_shared(message, message.part(field), _OUTPUT_PARAMETERS):
            return _NO_SHARED_MEMORY
    parameters = _isolate(message, fields, pseudonym, not_passed)
    if isinstance(parameters, Refusal):
        return parameters
    head = length_field(2, name.version.encode()) if name.version else b""
    passed = [field for field in fields if field.key in _PASSED]
    once(fields, _ID)
    content = head + parameters + join_slices(message.data, passed)
    return InferMessage(name, InferBody(content, None, tuple(inputs), message.data))


_PASSED = frozenset({_ID, _INPUTS, _OUTPUTS, _RAW})


def _read_inputs(message: Message, fields: list[Field]) -> list[Tensor] | Refusal:
    """Return the inputs, as far as we look at them."""
    raws = [field for field in fields if field.key == _RAW]
    found: list[Tensor] = []
    for field in fields:
        if field.key != _INPUTS:
            continue
        parts = message.part(field)
        if _is_shared(message, parts, _TENSOR_PARAMETERS):
            return _NO_SHARED_MEMORY
        if len(found) >= TENSORS or (raws and len(found) >= len(raws)):
            return _invalid(f"There are more than {TENSORS} inputs, or more than raw contents.")
        tensor = _read_tensor(message, parts, raws[len(found)] if raws else None)
        refusal = _judge(tensor, has_both=bool(raws) and once(parts, _CONTENTS) is not None)
        if refusal is not None:
            return refusal
        found.append(tensor)
    if not found:
        return Refusal(MEMBER_MISSING, "The field 'inputs' is missing or empty.", "inputs")
    if raws and len(raws) != len(found):
        return _invalid(f"There are {len(raws)} raw contents for {len(found)} inputs.")
    return found


def _read_tensor(message: Message, parts: list[Field], raw: Field | None) -> Tensor:
    name, datatype = (message.text(once(parts, key)) for key in (_NAME, _DATATYPE))
    shape: list[int] = []
    for part in parts:
        if part.key == _SHAPE:
            dimensions = read_varints(message.data, part.start, part.end, _DIMENSIONS)
            shape += map(signed, dimensions)
        elif part.key == _DIMENSION:
            shape.append(signed(part.value))
    if len(shape) > _DIMENSIONS:
        raise MalformedError
    if raw is not None:
        return Tensor(name, datatype, None, raw.start, raw.end - raw.start, tuple(shape))
    contents = once(parts, _CONTENTS)
    start, end = (0, 0) if contents is None else (contents.start, contents.end)
    return _Contents(name, datatype, _ELSEWHERE, start, end - start, tuple(shape))


def _judge(tensor: Tensor, *, has_both: bool) -> Refusal | None:
    """Refuse an input whose name, type, shape and size do not fit together."""
    shown = repr(tensor.name[:64])
    if tensor.datatype not in ITEM_BYTES:
        return _invalid(f"The datatype of input {shown} is not known.")
    if any(length < 0 for length in tensor.shape):
        return _invalid(f"The shape of input {shown} has a negative length.")
    if has_both:
        return _invalid(f"Input {shown} has contents beside raw ones.")
    width = ITEM_BYTES[tensor.datatype]
    if tensor.data is None and width and tensor.size != math.prod(tensor.shape) * width:
        return _invalid(f"The bytes of input {shown} do not fill its shape.")
    if tensor.name == STOP and tensor.datatype == "BOOL":
        return _invalid("Requests are ended by cancelling their call, not by a tensor 'stop'.")
    return None


def _is_shared(message: Message, parts: list[Field], key: int) -> bool:
    """Return whether the parameters of a tensor name shared memory."""
    return any(
        message.text(once(message.part(part), _ENTRY_KEY)) == SHARED_MEMORY
        for part in parts
        if part.key == key
    )


def _isolate(
    message: Message, fields: list[Field], pseudonym: Pseudonym, not_passed: frozenset[str]
) -> bytes | Refusal:
    """Return the parameters without what steers the server, and with our name of a sequence."""
    entries: dict[str, bytes] = {}
    for field in fields:
        if field.key != _PARAMETERS:
            continue
        entry = message.part(field)
        name = message.text(once(entry, _ENTRY_KEY))
        if name in not_passed:
            continue
        if name == SEQUENCE:
            value = _rename_sequence(message, once(entry, _ENTRY_VALUE), pseudonym)
            if isinstance(value, Refusal):
                return value
            named = length_field(1, name.encode()) + length_field(2, value)
            entries[name] = length_field(4, named)
        else:
            entries[name] = join_slices(message.data, (field,))
    return b"".join(entries.values())


def _rename_sequence(
    message: Message, value: Field | None, pseudonym: Pseudonym
) -> bytes | Refusal:
    """Return the parameter that names a sequence as no other organization's is named."""
    choices = message.part(value)
    if not choices:
        return b""
    choice = choices[0]
    if len(choices) > 1 or choice.key not in {_INT64, _UINT64, _TEXT}:
        return _invalid(f"The parameter '{SEQUENCE}' must be one number or one text.")
    if choice.key == _TEXT:
        text = _encode(message.text(choice))
        return length_field(3, sequence_name(text, pseudonym).strip(b'"'))
    number = signed(choice.value) if choice.key == _INT64 else choice.value
    name = min(int(sequence_name(b"%d" % number, pseudonym)), _MOST_INT64)
    return varint_field(choice.key >> 3, name)


def _invalid(message: str) -> Refusal:
    return Refusal(MEMBER_INVALID, message, "inputs")


_NO_SHARED_MEMORY = _invalid("Shared memory cannot be used through a gateway: send the bytes.")


def read_infer_response(data: bytes, start: int) -> Reading:
    """Read counts and the size of text out of an answer to a request to infer.

    Args:
        data: Bytes that the message ends.
        start: Where it begins in them.

    Raises:
        MalformedError: It is no message of that kind.
        UnicodeDecodeError: Nor is a name in it text.
    """
    message = Message(data, start, most_fields=MESSAGE_FIELDS)
    return _read_response(message, message.fields())


def _read_response(message: Message, fields: list[Field]) -> Reading:
    raws = [field for field in fields if field.key == _RAW_OUTPUTS]
    outputs = [field for field in fields if field.key == _INPUTS]
    if raws and len(raws) != len(outputs):
        raise MalformedError
    tensors = [
        _read_tensor(message, message.part(field), raws[position] if raws else None)
        for position, field in enumerate(outputs)
    ]
    return reading_of(tensors, message.data)


class StreamMessage(NamedTuple):
    """One message of an answer to ModelStreamInfer."""

    error: str
    """"" when it is none."""
    reading: Reading


def read_stream_response(data: bytes, start: int) -> StreamMessage:
    """Read one message of a stream of answers.

    Args:
        data: Bytes that the message ends.
        start: Where it begins in them.

    Raises:
        MalformedError: It is no message of that kind.
        UnicodeDecodeError: Nor is a name in it text.
    """
    message = Message(data, start, most_fields=MESSAGE_FIELDS)
    fields = message.fields()
    error = message.text(once(fields, _ERROR))
    response = message.part(once(fields, _RESPONSE))
    return StreamMessage(error, _read_response(message, response))


def error_message(text: str) -> bytes:
    """Return the message of a stream that tells of an error."""
    return length_field(1, text.encode())
