"""Forms as they arrive: read to the byte wherever they are cut, bounded, never in two ways."""

import pytest
from tests.fakes.cpu_time import least_cpu_s

from penstock.gateway.errors import FORM_INVALID, FORM_TOO_LARGE
from penstock.gateway.limits import FORM_PARTS, PART_HEADER_BYTES
from penstock.gateway.multipart import FormReader, Part, find_boundary
from penstock.kit.errors import Refusal

FORM = (
    b'--b1\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
    b'--b1\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\nRIFF\r\n--b\r\n--b0 \r\n\r\n\r\n--b1--\r\nepilogue"
)
CONTENT = b"RIFF\r\n--b\r\n--b0 \r\n\r\n"


class _Parts:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.parts: list[tuple[Part, bytearray]] = []
        self.ended = 0

    def part_begun(self, part: Part) -> Refusal | None:
        self.parts.append((part, bytearray()))
        return None

    def part_content(self, data: bytes) -> Refusal | None:
        assert data
        self.parts[-1][1].extend(data)
        return None

    def part_ended(self) -> Refusal | None:
        self.ended += 1
        return None


def _read(content: bytes, size: int) -> tuple[_Parts, FormReader, Refusal | None]:
    sink = _Parts()
    reader = FormReader(b"b1", sink)
    for at in range(0, len(content), size):
        refusal = reader.feed(content[at : at + size])
        if refusal is not None:
            return sink, reader, refusal
    return sink, reader, None


def test_parts_are_read_wherever_they_are_cut() -> None:
    """The same of a byte at a time as of all at once, with what only resembles a boundary."""
    for size in range(1, len(FORM) + 1):
        sink, reader, refusal = _read(FORM, size)
        assert refusal is None
        assert reader.is_done
        assert sink.ended == 2
        (model, name), (file, content) = sink.parts
        assert (model.name, bytes(name)) == ("model", b"whisper")
        assert (file.file_name, file.content_type) == (b"a.wav", b"audio/wav")
        assert bytes(content) == CONTENT


@pytest.mark.parametrize(
    "head",
    [
        b'Content-Disposition: form-data; name="model"; name="other"',
        b'Content-Disposition: form-data; name="model"\r\nContent-Disposition: form-data; name="x"',
        b'Content-Disposition: form-data; filename="a.wav"',
        b'Content-Disposition: attachment; name="model"',
        b'Content-Disposition: form-data; name="a\\"; name="model"',
        b'Content-Disposition: form-data; name="a"; filename="x\\"; y="z"',
        b"Content-Disposition: form-data; name*=utf-8''model",
        b'Content-Disposition: form-data; name="a\nb"',
        b'Content-Disposition: form-data; name="\xff"',
        b'Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64',
        b'Content-Disposition: form-data; name="a"\r\n folded: yes',
        b'Content-Disposition: form-data;\r\n name="a"',
        b"no colon",
    ],
)
def test_heads_that_can_be_read_in_two_ways_are_refused(head: bytes) -> None:
    """Whatever another parser would make of them."""
    _, _, refusal = _read(b"--b1\r\n" + head + b"\r\n\r\nx\r\n--b1--\r\n", 1_000)
    assert refusal is not None
    assert refusal.error is FORM_INVALID


@pytest.mark.parametrize("content", [b"preamble\r\n--b1\r\n", b"--b2\r\n", b"--b1 \r\n", b"--b1xy"])
def test_boundaries_are_where_they_should_be(content: bytes) -> None:
    """Nothing stands before the first one, or behind one on its line."""
    _, _, refusal = _read(content, 3)
    assert refusal is not None
    assert refusal.error is FORM_INVALID


def test_an_unfinished_form_is_known() -> None:
    """Its reader is not done."""
    _, reader, refusal = _read(FORM.partition(b"--b1--")[0], 7)
    assert refusal is None
    assert not reader.is_done


def test_bounds_are_found_before_anything_is_kept() -> None:
    """A million parts, or a head without an end, cost less than 100 ms of CPU."""
    part = b'--b1\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'

    def read() -> None:
        sink, _, refusal = _read(part * 1_000_000, 65_536)
        assert refusal is not None
        assert refusal.error is FORM_TOO_LARGE
        assert len(sink.parts) == FORM_PARTS
        _, _, refusal = _read(b"--b1\r\nA: " + b"a" * 10_000_000, 65_536)
        assert refusal is not None
        assert refusal.error is FORM_TOO_LARGE

    assert least_cpu_s(read, 0.4) < 0.4  # 100 ms, and a slow machine under coverage
    _, _, refusal = _read(b"--b1\r\nA: " + b"a" * PART_HEADER_BYTES, 1_000)
    assert refusal is not None


def test_boundaries_are_taken_as_they_may_be() -> None:
    """Up to 70 characters, quoted or not; no others, and of no other type."""
    found = find_boundary
    assert found(b"multipart/form-data; boundary=x-1") == b"x-1"
    assert found(b'Multipart/Form-Data; charset=utf-8; Boundary="a b"') == b"a b"
    assert found(b"multipart/form-data; boundary=" + b"x" * 70) == b"x" * 70
    for content_type in (
        None,
        b"application/json",
        b"multipart/mixed; boundary=x",
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary="a "',
        b"multipart/form-data; boundary=" + b"x" * 71,
        b"multipart/form-data; boundary=x; boundary=y",
        b"multipart/form-data; boundary=" + b"x" * 1_000_000,
    ):
        assert found(content_type) is None
