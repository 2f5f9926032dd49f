"""Protocol buffers are read as their description says, and what is none is refused."""

import pytest

from penstock.kit.protobuf import (
    MalformedError,
    Message,
    join_slices,
    key_of,
    length_field,
    once,
    read_varints,
    signed,
    varint,
    varint_field,
)


def test_a_message_is_read_as_it_was_written() -> None:
    """Numbers, texts and parts; others' fields keep their bytes."""
    part = length_field(1, "ü".encode()) + varint_field(2, 300)
    data = b"??" + length_field(4, part) + b"\x0d" + bytes(4) + b"\x11" + bytes(8)
    message = Message(data, 2)
    fields = message.fields()
    assert [field.key for field in fields] == [key_of(4), 0x0D, 0x11]
    text, number = message.part(fields[0])
    assert (message.text(text), number.value) == ("ü", 300)
    assert join_slices(data, fields) == data[2:]
    assert join_slices(data, [fields[0], fields[2]]) == data[2:-14] + data[-9:]


@pytest.mark.parametrize("value", [0, 1, 127, 128, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
def test_varints_go_both_ways(value: int) -> None:
    """Each number is what it was, and as a signed one what it stands for."""
    assert read_varints(varint(value), 0, len(varint(value)), 1) == [value]
    assert signed(value) % 2**64 == value
    assert -(2**63) <= signed(value) < 2**63


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x08",
        b"\x08\xff",
        b"\x0b\x0c",
        b"\x02\x00",
        b"\x0f",
        b"\x80" * 6,
        b"\x08" + b"\xff" * 11,
        b"\x0d\x00",
        b"\x09" + bytes(7),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """Cut off, a group, a field 0, a number without end."""
    with pytest.raises(MalformedError):
        Message(data).fields()


def test_fields_are_counted_with_those_of_parts() -> None:
    """However they are nested, no more are read than are allowed."""
    data = length_field(1, varint_field(1, 0) * 3) * 2
    message = Message(data, most_fields=7)
    first, second = message.fields()
    assert len(message.part(first)) == 3
    with pytest.raises(MalformedError):
        message.part(second)


def test_a_field_that_is_no_list_is_there_once() -> None:
    """Readers of two could differ."""
    fields = Message(varint_field(1, 1) * 2).fields()
    with pytest.raises(MalformedError):
        once(fields, key_of(1, is_varint=True))
    assert once(fields, key_of(2)) is None
