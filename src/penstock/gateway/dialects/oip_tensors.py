"""Tensors of the Open Inference Protocol over HTTP: their JSON judged, and written anew. Pure.

A body is JSON, or JSON with the tensors' bytes behind it, whose length a header field tells. The
JSON is taken apart as far as something in it could reach what is others', no further; the bytes
behind it are only counted.
"""

import math
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from penstock.engines.isolation import STEERING
from penstock.gateway.dialects.errors import MEMBER_INVALID, MEMBER_MISSING
from penstock.gateway.dialects.members import Members, read_members
from penstock.gateway.limits import (
    BYTES_PER_TOKEN,
    TENSOR_HEADER_BYTES,
    TENSOR_JSON_BYTES,
    TENSORS,
)
from penstock.kit.errors import Refusal

Pseudonym = Callable[[bytes], bytes]
"""Returns 32 hexadecimal digits that stand for a name, different for each organization."""

ITEM_BYTES: Final = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2,
    "INT32": 4, "INT64": 8, "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8, "BYTES": 0,
}  # fmt: skip
"""Bytes of an element by datatype; 0 where each has a length of its own."""
_INTEGERS: Final = frozenset({"INT32", "INT64", "UINT32", "UINT64"})
SHARED_MEMORY = "shared_memory_region"
"""The parameter of a tensor whose bytes lie in memory of the server's machine."""
SEQUENCE = "sequence_id"
"""The parameter that names a sequence of requests."""
_PARAMETERS = "parameters"
NOT_PASSED = STEERING.union(("headers",))
"""Parameters that no caller's request brings to a server."""
NOT_PASSED_OF_URGENT = NOT_PASSED.difference(("priority",))
"""The same of callers whose requests may go before others', who say so in the server's own way."""
_BINARY_SIZE = "binary_data_size"
_TOKEN_IDS = frozenset({"input_ids", "output_ids", "token_ids"})
STOP = "stop"
"""The tensor by which a TensorRT-LLM model ends whichever request has this one's id."""
_MOST_SEQUENCE = 2**63

_LONG_LIST = 64 * 1024
_SHAPE_BYTES = 1024
"""Of a shape as JSON: a longer one is cut, and so none."""


class _Entry(msgspec.Struct, gc=False):
    name: msgspec.Raw
    shape: msgspec.Raw
    datatype: msgspec.Raw


_decode_entries = msgspec.json.Decoder(list[_Entry]).decode
_decode_members = msgspec.json.Decoder(Members).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_size = msgspec.json.Decoder(int).decode
_decode_shape = msgspec.json.Decoder(list[int]).decode
_decode_numbers = msgspec.json.Decoder(int | list[int | list[int]]).decode
_encode = msgspec.json.Encoder().encode


class Tensor(NamedTuple):
    """One input or output, as far as we look at it."""

    name: str
    datatype: str
    data: msgspec.Raw | None
    """As JSON; None when it is among the bytes behind it."""
    start: int
    """Where its bytes begin, behind the JSON."""
    size: int
    """How many they are, as JSON or as bytes."""
    shape: tuple[int, ...] = ()

    def integers(self, tail: bytes) -> list[int]:
        """Return its elements, none where they are no whole numbers of a usual size."""
        if self.datatype not in _INTEGERS:
            return []
        if self.data is None:
            width = ITEM_BYTES[self.datatype]
            is_signed = self.datatype.startswith("I")
            content = tail[self.start : self.start + self.size]
            return [
                int.from_bytes(content[at : at + width], "little", signed=is_signed)
                for at in range(0, len(content), width)
            ]
        return flat_integers(self.data)


def flat_integers(raw: msgspec.Raw) -> list[int]:
    """Return a number or a list of numbers, as JSON, as a list; none where it is something else."""
    try:
        found = _decode_numbers(raw)
    except msgspec.DecodeError:
        return []
    if isinstance(found, int):
        return [found]
    return [each for part in found for each in (part if isinstance(part, list) else [part])]


class InferBody(NamedTuple):
    """A request to infer, as it is sent on."""

    content: bytes
    json_bytes: int | None
    """Size of its JSON, where bytes of tensors follow it."""
    inputs: tuple[Tensor, ...]
    tail: bytes

    @property
    def text_bytes(self) -> int:
        """How much text it has."""
        return text_bytes(self.inputs)

    @property
    def rows(self) -> int:
        """How many texts there may be, by shapes: the first length of one is the batch's."""
        shapes = [tensor.shape for tensor in self.inputs if tensor.datatype == "BYTES"]
        return max([1, *(shape[0] for shape in shapes if shape)])

    def integers(self, name: str) -> list[int] | None:
        """Return the elements of an input, none if they cannot be read; None without such one."""
        for tensor in self.inputs:
            if tensor.name == name:
                return tensor.integers(self.tail)
        return None


def text_bytes(tensors: Iterable[Tensor]) -> int:
    """Return how many bytes of text there are, by which tokens are estimated.

    Lists of token ids are as long as the text of so many tokens; other tensors have no tokens.
    """
    found = 0
    for tensor in tensors:
        if tensor.datatype == "BYTES":
            found += tensor.size
        elif tensor.name in _TOKEN_IDS:
            # A shape is a claim: as JSON each element has two bytes or more, else four or eight.
            found += max(0, min(BYTES_PER_TOKEN * math.prod(tensor.shape), 2 * tensor.size))
    return found


def split(body: bytes, length: bytes | None) -> tuple[bytes, bytes] | Refusal:
    """Return the JSON of a body, and the bytes behind it.

    Args:
        body: The whole.
        length: What the header says of the JSON's size; None when all is JSON.
    """
    if length is None and len(body) > TENSOR_JSON_BYTES:
        most = f"JSON may have {TENSOR_JSON_BYTES} bytes: send larger tensors as bytes behind it."
        return Refusal(MEMBER_INVALID, most, "inputs")
    if length is None:
        return body, b""
    size = int(length) if length.isdigit() and len(length) <= 10 else -1  # noqa: PLR2004 - digits
    if not 0 < size <= min(len(body), TENSOR_HEADER_BYTES):
        most = f"at most {TENSOR_HEADER_BYTES} and no more than the body has"
        message = f"Inference-Header-Content-Length must be a number of bytes, {most}."
        return Refusal(MEMBER_INVALID, message, "Inference-Header-Content-Length")
    return body[:size], body[size:]


def read_infer(
    body: bytes,
    length: bytes | None,
    pseudonym: Pseudonym,
    not_passed: frozenset[str] = NOT_PASSED,
) -> InferBody | Refusal:
    """Judge a request to infer and put it together again.

    Args:
        body: The whole.
        length: As for `split`.
        pseudonym: Names the sequences of one organization.
        not_passed: Parameters that are taken out.
    """
    parts = split(body, length)
    if isinstance(parts, Refusal):
        return parts
    head, tail = parts
    members = read_members(head)
    if isinstance(members, Refusal):
        return members
    refusal = _isolate_parameters(members, pseudonym, not_passed)
    inputs = refusal or _read_tensors(members, "inputs", tail)
    if isinstance(inputs, Refusal):
        return inputs
    if not inputs:
        return Refusal(MEMBER_MISSING, "The member 'inputs' is missing or empty.", "inputs")
    if "outputs" in members:
        outputs = _isolate_list(members, "outputs")
        if isinstance(outputs, Refusal):
            return outputs
    if any(tensor.name == STOP and tensor.datatype == "BOOL" for tensor in inputs):
        return _invalid("Requests are ended by closing their connection, not by a tensor 'stop'.")
    members.pop("model_name", None)
    content = _encode(members)
    json_bytes = None if length is None else len(content)
    return InferBody(content + tail, json_bytes, tuple(inputs), tail)


def flatten(members: Members) -> Members | Refusal:
    """Return the members of `generate` with those of its `parameters` among them.

    Triton reads both alike, as the model's inputs first, so both are judged alike. Of what is there
    twice the outer one counts.
    """
    parameters = _read_parameters(members)
    if isinstance(parameters, Refusal):
        return parameters
    flat = parameters | members
    flat.pop(_PARAMETERS, None)
    return flat


def isolate(
    members: Members, pseudonym: Pseudonym, not_passed: frozenset[str] = NOT_PASSED
) -> None:
    """Take out what steers the server, and give a sequence a name that no other organization's has.

    Args:
        members: Of `generate`, flat, or the parameters of a request to infer.
        pseudonym: Names the sequences of one organization.
        not_passed: What steers.
    """
    for steering in not_passed.intersection(members):
        del members[steering]
    raw = members.get(SEQUENCE)
    if raw is not None and bytes(raw) != b"null":
        members[SEQUENCE] = msgspec.Raw(sequence_name(bytes(raw), pseudonym))


def sequence_name(raw: bytes, pseudonym: Pseudonym) -> bytes:
    """Return what a sequence is called instead, as JSON; what names none stays as it is.

    Args:
        raw: Its name as JSON, a number or a text.
        pseudonym: Names the sequences of one organization.
    """
    if raw in {b"0", b'""'}:
        return raw
    name = pseudonym(b"sequence\0" + raw)
    if raw.startswith(b'"'):
        return b'"%b"' % name
    return b"%d" % (int(name, 16) % _MOST_SEQUENCE + 1)


def _isolate_parameters(
    members: Members, pseudonym: Pseudonym, not_passed: frozenset[str]
) -> Refusal | None:
    parameters = _read_parameters(members)
    if isinstance(parameters, Refusal):
        return parameters
    if _PARAMETERS in members:
        isolate(parameters, pseudonym, not_passed)
        members[_PARAMETERS] = msgspec.Raw(_encode(parameters))
    return None


def _read_parameters(members: Members) -> Members | Refusal:
    parameters = _object(members.get(_PARAMETERS, _NOTHING))
    if parameters is None:
        return _invalid("The member 'parameters' must be an object.", _PARAMETERS)
    return parameters


def _read_tensors(members: Members, name: str, tail: bytes) -> list[Tensor] | Refusal:
    objects = _isolate_list(members, name)
    if isinstance(objects, Refusal):
        return objects
    found: list[Tensor] = []
    start = 0
    for members_, size in objects:
        tensor = _read_tensor(members_, size, start)
        if isinstance(tensor, Refusal):
            return tensor
        if tensor.data is None:
            start += tensor.size
        found.append(tensor)
    if start != len(tail):
        return _invalid(f"The inputs name {start} bytes, and {len(tail)} follow the JSON.")
    return found


def _isolate_list(members: Members, name: str) -> list[tuple[Members, int | None]] | Refusal:
    """Take a list of tensors apart and write it anew; return each with the size of its bytes."""
    entries = _list_of(members, name)
    if isinstance(entries, Refusal):
        return entries
    found: list[tuple[Members, int | None]] = []
    for entry in entries:
        tensor = _object(entry)
        parameters = None if tensor is None else _object(tensor.get("parameters", _NOTHING))
        if tensor is None or parameters is None:
            return _invalid(f"In '{name}', a tensor or its 'parameters' is no object.", name)
        if SHARED_MEMORY in parameters:
            return _invalid("Shared memory cannot be used through a gateway: send the bytes.", name)
        size = None
        if _BINARY_SIZE in parameters:
            size = _number(parameters[_BINARY_SIZE])
            if size is None:
                return _invalid(f"In '{name}', '{_BINARY_SIZE}' is no number of bytes.", name)
        if "parameters" in tensor:
            tensor["parameters"] = msgspec.Raw(_encode(parameters))
        found.append((tensor, size))
    members[name] = msgspec.Raw(_encode([tensor for tensor, _ in found]))
    return found


def _list_of(members: Members, name: str) -> list[msgspec.Raw] | Refusal:
    """Return the entries of a list of tensors; what is long and no such list costs little."""
    raw = members.get(name, _NONE)
    try:
        if len(bytes(raw)) > _LONG_LIST:
            _decode_entries(raw)  # stops at the first that is no tensor
        entries = _decode_list(raw)
    except msgspec.DecodeError:
        return _invalid(f"The member '{name}' must be a list of tensors.", name)
    if len(entries) > TENSORS:
        return _invalid(f"The member '{name}' has more than {TENSORS} tensors.", name)
    return entries


_NOTHING = msgspec.Raw(b"{}")
_NONE = msgspec.Raw(b"[]")


def _read_tensor(members: Members, size: int | None, start: int) -> Tensor | Refusal:
    """Return an input whose name, type, shape and size fit together."""
    try:
        name = _decode_text(members["name"])
        datatype = _decode_text(members["datatype"])
        shape = _decode_shape(bytes(members["shape"])[:_SHAPE_BYTES])
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError):
        return _invalid("Each of 'inputs' needs 'name', 'datatype' and 'shape'.", "inputs")
    if datatype not in ITEM_BYTES:
        return _invalid(f"The datatype of input {name[:64]!r} is not known.", "inputs")
    if any(length < 0 for length in shape):
        return _invalid(f"The shape of input {name[:64]!r} has a negative length.", "inputs")
    data = members.get("data")
    if (data is None) == (size is None):
        return _invalid(f"Input {name[:64]!r} needs 'data' or '{_BINARY_SIZE}'.", "inputs")
    if data is not None:
        if not bytes(data).startswith(b"["):
            return _invalid(f"The data of input {name[:64]!r} must be a list.", "inputs")
        return Tensor(name, datatype, data, 0, len(bytes(data)), tuple(shape))
    assert size is not None  # noqa: S101 - or there were data
    width = ITEM_BYTES[datatype]
    if width and size != math.prod(shape) * width:
        return _invalid(f"The bytes of input {name[:64]!r} do not fill its shape.", "inputs")
    return Tensor(name, datatype, None, start, size, tuple(shape))


def read_outputs(head: bytes, tail_bytes: int) -> tuple[list[Tensor], msgspec.Raw | None]:
    """Return the outputs of an answer and its error, leniently.

    Args:
        head: Its JSON.
        tail_bytes: How many bytes follow it.

    Raises:
        msgspec.DecodeError: Not a JSON object with a list of outputs.
    """
    members = _decode_members(head)
    found: list[Tensor] = []
    start = 0
    for entry in _decode_list(members.get("outputs", msgspec.Raw(b"[]"))):
        tensor = _decode_members(entry)
        name, datatype = _decode_text(tensor["name"]), _decode_text(tensor["datatype"])
        shape = tuple(_decode_shape(tensor.get("shape", _NONE)))
        data = tensor.get("data")
        parameters = _object(tensor.get("parameters", _NOTHING)) or {}
        size = _number(parameters[_BINARY_SIZE]) if _BINARY_SIZE in parameters else None
        if data is not None:
            found.append(Tensor(name, datatype, data, 0, len(bytes(data)), shape))
        elif size is not None and start + size <= tail_bytes:
            found.append(Tensor(name, datatype, None, start, size, shape))
            start += size
    return found, members.get("error")


def _object(raw: msgspec.Raw) -> Members | None:
    try:
        return _decode_members(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _number(raw: msgspec.Raw) -> int | None:
    try:
        number = _decode_size(raw)
    except msgspec.DecodeError:
        return None
    return number if number >= 0 else None


def _invalid(message: str, member: str | None = None) -> Refusal:
    return Refusal(MEMBER_INVALID, message, member)
