"""Messages of the Open Inference Protocol: what is sent on of them, and what answers say."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.cpu_time import least_cpu_s
from tests.fakes.effort import tries
from tests.fakes.grpc_caller import fields_of, named, number_parameter, raw, tensor, text_request

from penstock.gateway.admit_oip import check_infer
from penstock.gateway.dialects.errors import MEMBER_INVALID
from penstock.gateway.dialects.grpc import (
    FrameReader,
    Status,
    frame,
    read_timeout_s,
    read_words,
    status_of,
    write_timeout,
    write_words,
)
from penstock.gateway.dialects.oip_grpc import (
    InferMessage,
    address,
    error_message,
    read_infer_message,
    read_infer_response,
    renamed,
)
from penstock.gateway.dialects.oip_tensors import NOT_PASSED_OF_URGENT
from penstock.gateway.errors import ENCODING_UNSUPPORTED, KEY_MISSING, OVERLOADED
from penstock.gateway.tap_grpc import GrpcTap
from penstock.kit.errors import Refusal
from penstock.kit.protobuf import length_field, varint, varint_field

HEAD = named("alias", "1") + length_field(3, b"42")


def _pseudonym(name: bytes) -> bytes:
    return b"%032x" % (int.from_bytes(name[-4:], "big") + 1)


def _read(message: bytes) -> InferMessage:
    found = read_infer_message(message, 0, _pseudonym)
    assert isinstance(found, InferMessage), found
    return found


def _damaged(change: tuple[int, bytes, int]) -> bytes:
    """Return a good message with some bytes of it replaced."""
    at, content, taken = change
    message = text_request("alias") + number_parameter("sequence_id", 1)
    return message[:at] + content + message[at + taken :]


def _text_parameter(name: str, value: str) -> bytes:
    entry = length_field(1, name.encode()) + length_field(2, length_field(3, value.encode()))
    return length_field(4, entry)


def test_a_message_goes_on_under_the_servers_name() -> None:
    """Model, version, id and tensors; bytes of tensors as they were."""
    message = HEAD + tensor("a", "FP32", [2]) + raw(struct.pack("<2f", 1, 2))
    found = _read(message)
    assert (bytes(found.name.model), found.name.version) == (b'"alias"', "1")
    sent = fields_of(address(found.body.content, "theirs"))
    assert sent == [(1, b"theirs"), *fields_of(message)[1:]]


def test_what_steers_and_what_nobody_knows_stays_behind() -> None:
    """Priority and the like, and fields that the protocol does not have; sequences are renamed."""
    tensors = tensor("a", "BYTES", [1]) + raw(b"\1\0\0\0x")
    kept = _text_parameter("temperature", "1")
    steering = number_parameter("priority", 1) + number_parameter("kv_transfer_params", 1)
    sent = _read(HEAD + steering + kept + number_parameter("sequence_id", 5) + tensors)
    parameters = [content for number, content in fields_of(sent.body.content) if number == 4]
    assert parameters[0] == kept[2:]
    assert isinstance(parameters[1], bytes)
    assert number_parameter("sequence_id", 5)[2:] != parameters[1]
    assert dict(fields_of(parameters[1]))[1] == b"sequence_id"
    assert len(parameters) == 2
    again = _read(HEAD + _text_parameter("sequence_id", "mine") + tensors)
    assert b"mine" not in again.body.content
    unknown = _read(HEAD + length_field(9, b"who knows") + tensors)
    assert b"who knows" not in unknown.body.content
    free = _read(HEAD + number_parameter("sequence_id", 0) + tensors)  # names none
    assert number_parameter("sequence_id", 0) in free.body.content


def test_who_may_go_first_says_so() -> None:
    """A priority stays where it is not taken out."""
    priority, other = (number_parameter(name, 1) for name in ("priority", "rid"))
    tensors = tensor("a", "BYTES", [1]) + raw(b"\1\0\0\0x")
    message = HEAD + priority + other + tensors
    found = read_infer_message(message, 0, _pseudonym, NOT_PASSED_OF_URGENT)
    assert isinstance(found, InferMessage)
    assert priority in found.body.content
    assert other not in found.body.content


def test_caps_are_read_however_they_are_sent() -> None:
    """Raw, packed, and one by one."""
    number = length_field(2, varint(9)), varint_field(2, 9)
    for message in (
        tensor("max_tokens", "INT32", [1]) + raw(struct.pack("<i", 9)),
        tensor("max_tokens", "INT32", [1], number[0]),
        tensor("max_tokens", "INT32", [1], number[1]),
    ):
        body = _read(HEAD + message).body
        assert body.integers("max_tokens") == [9]
        assert check_infer(body, 9) is None
        refusal = check_infer(body, 8)
        assert refusal is not None
        assert refusal.error is MEMBER_INVALID
    many = tensor("max_tokens", "INT32", [5_000], length_field(2, b"\1" * 5_000))
    assert check_infer(_read(HEAD + many).body, 9) is not None  # more than are looked at


def test_an_answers_outputs_are_counted() -> None:
    """Counts and the size of its text, and the name of a model's metadata is the alias."""
    counts = tensor("num_input_tokens", "INT32", [1]) + tensor("num_output_tokens", "INT32", [1])
    raws = b"".join(
        length_field(6, content) for content in (b"\5\0\0\0hello", b"\7\0\0\0", b"\3\0\0\0")
    )
    answer = named("theirs", "1") + tensor("text_output", "BYTES", [1]) + counts + raws
    reading = read_infer_response(b"_____" + answer, 5)
    assert reading.usage is not None
    assert (reading.usage.input_tokens, reading.usage.output_tokens) == (7, 3)
    assert reading.text_bytes == 9
    assert fields_of(renamed(answer, 0, "alias"))[:2] == [(1, b"alias"), (2, b"1")]


@pytest.mark.parametrize("size", [1, 2, 7, 100_000])
def test_frames_are_found_however_they_are_cut(size: int) -> None:
    """The same messages come out; of a stream, the same bytes pass."""
    answers = [length_field(2, named("m")), length_field(2, b""), error_message("no")]
    whole = b"".join(map(frame, answers))
    reader, tap, found, shown = FrameReader(100), GrpcTap(), [], b""
    for start in range(0, len(whole), size):
        messages = reader.feed(whole[start : start + size])
        assert not isinstance(messages, Refusal)
        found += messages
        if tap.error is None:
            shown += tap.feed(whole[start : start + size])
    assert found == list(map(frame, answers))
    assert (shown, tap.error) == (b"".join(map(frame, answers[:2])), b"no")
    assert reader.held_bytes == 0


def test_messages_that_are_compressed_or_too_large_are_refused() -> None:
    """By what stands before them."""
    for start in (b"\1\0\0\0\1", b"\0\0\0\0\x65"):
        assert isinstance(FrameReader(100).feed(start), Refusal)
    tap = GrpcTap()
    tap.feed(b"\1\0\0\0\1x")
    assert tap.is_malformed


def test_large_messages_of_a_stream_pass_unseen() -> None:
    """Unless they begin with an error, whose words might tell of our network."""
    large = frame(length_field(2, bytes(2 * 1024 * 1024)))
    tap = GrpcTap()
    shown = [tap.feed(large[start : start + 65_536]) for start in range(0, len(large), 65_536)]
    assert b"".join(shown) == large
    assert tap.is_whole
    tap = GrpcTap()
    assert tap.feed(frame(error_message("x" * 2 * 1024 * 1024))) == b""
    assert tap.is_malformed


def test_words_and_times_go_both_ways() -> None:
    """Whatever is in them."""
    assert write_words("50% of grün\n") == b"50%25 of gr%C3%BCn%0A"
    assert read_words(write_words("50% of grün\n")) == "50% of grün\n"
    assert (read_timeout_s(b"250m"), read_timeout_s(b"2S")) == (0.25, 2.0)
    assert read_timeout_s(b"1x") is read_timeout_s(b"123456789S") is read_timeout_s(b"") is None
    assert (write_timeout(0.25), write_timeout(-1), write_timeout(1e12)) == (
        b"250m",
        b"1m",
        b"99999999m",
    )


def test_refusals_have_a_status() -> None:
    """That of their code, or of what HTTP would say."""
    assert status_of(Refusal(KEY_MISSING)) is Status.UNAUTHENTICATED
    assert status_of(Refusal(OVERLOADED)) is Status.RESOURCE_EXHAUSTED
    assert status_of(Refusal(ENCODING_UNSUPPORTED)) is Status.UNIMPLEMENTED
    assert status_of(Refusal(MEMBER_INVALID)) is Status.INVALID_ARGUMENT


@settings(max_examples=tries(120))
@given(
    st.binary(max_size=200)
    | st.tuples(
        st.integers(0, 200), st.binary(min_size=1, max_size=4), st.sampled_from([0, 1, 3])
    ).map(_damaged)
)
def test_hostile_messages_are_refused_or_read(message: bytes) -> None:
    """Never anything else: what passes has a name and inputs that fit."""
    found = read_infer_message(message, 0, _pseudonym)
    if isinstance(found, InferMessage):
        assert found.body.inputs
        assert isinstance(
            read_infer_message(HEAD + found.body.content, 0, _pseudonym), tuple | Refusal
        )
    else:
        assert found.error.status == 400


@pytest.mark.parametrize(
    "message",
    [
        b"\x08\x01" * 2**20,
        tensor("a", "BYTES", [1]) * 2**17,
        tensor("a", "INT32", [1] * 2**20),
        tensor("max_tokens", "INT32", [2**20], length_field(2, bytes(2**20))),
        length_field(5, length_field(4, b"") * 2**19),
        number_parameter("x", 1) * 2**17,
        raw(b"") * 2**20,
        b"\x82" * 2**20,
    ],
    ids=range(8),
)
def test_hostile_messages_cost_little(message: bytes) -> None:
    """A megabyte of fields is given up long before its end."""

    def read() -> None:
        found = read_infer_message(HEAD + message, 0, _pseudonym)
        if isinstance(found, InferMessage):
            check_infer(found.body, 100)

    assert least_cpu_s(read, 0.1) < 0.1
