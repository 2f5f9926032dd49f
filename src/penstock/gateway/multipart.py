"""Reads `multipart/form-data` as it arrives (RFC 7578), and only what cannot be read in two ways.

Every bound is looked at before anything is kept; bytes of a file are handed on, never collected.
"""

import re
from typing import NamedTuple, Protocol

from penstock.gateway.errors import FORM_INVALID, FORM_TOO_LARGE
from penstock.gateway.limits import FORM_PARTS, PART_HEADER_BYTES
from penstock.kit.errors import Refusal

_CONTENT_TYPE = re.compile(
    rb'(?i:multipart/form-data)[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?;[ \t]*(?i:boundary)='
    rb"(?:\"(?P<quoted>[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-])\""
    rb"|(?P<plain>[A-Za-z0-9'()+_,./:=?-]{1,70}))(?:[ \t]*;[ \t]*charset=\"?utf-8\"?)?[ \t]*"
)
_DISPOSITION = re.compile(
    rb'(?i:form-data)[ \t]*;[ \t]*(?i:name)="(?P<name>[^"\\\x00-\x1f\x7f]{1,128})"'
    rb'(?:[ \t]*;[ \t]*(?i:filename)="(?P<file>[^"\\\x00-\x1f\x7f]{0,512})")?'
    rb"(?:[ \t]*;[ \t]*(?i:filename)\*=[A-Za-z0-9!#$&+.^_`|~%'-]{1,2048})?[ \t]*"
)
_NAME = re.compile(rb"[a-z0-9-]{1,64}")
_TYPE = re.compile(rb"[\x20-\x7e]{1,128}")
_PLAIN_CODINGS = frozenset({b"binary", b"8bit", b"7bit"})
_END = b"\r\n\r\n"


class Part(NamedTuple):
    """The head of one part."""

    name: str
    file_name: bytes | None
    """None for a field."""
    content_type: bytes | None

    def head(self) -> bytes:
        """Return it as it is written to an engine."""
        lines = b'content-disposition: form-data; name="%b"' % self.name.encode()
        if self.file_name is not None:
            lines += b'; filename="%b"' % self.file_name
        if self.content_type is not None:
            lines += b"\r\ncontent-type: %b" % self.content_type
        return lines + _END


class Sink(Protocol):
    """Who wants the parts."""

    def part_begun(self, part: Part) -> Refusal | None:
        """Take the head of a part, or say why it is not taken."""

    def part_content(self, data: bytes) -> Refusal | None:
        """Take a piece of its content, >= 1 byte."""

    def part_ended(self) -> Refusal | None:
        """Take note that all of it came."""


def find_boundary(content_type: bytes | None) -> bytes | None:
    """Return the boundary that a content type names; None when it is no form's.

    >>> find_boundary(b"multipart/form-data; boundary=x1")
    b'x1'
    """
    match = None if content_type is None else _CONTENT_TYPE.fullmatch(content_type)
    return None if match is None else match["plain"] or match["quoted"]


class FormReader:
    """Reads one body.

    Args:
        boundary: Between its parts.
        sink: Gets them.
    """

    __slots__ = ("_buffer", "_count", "_delimiter", "_sink", "_state", "is_done")

    def __init__(self, boundary: bytes, sink: Sink) -> None:
        """See the class."""
        self._delimiter = b"\r\n--" + boundary
        self._buffer = b"\r\n"  # as if a line ended before the first delimiter
        self._sink = sink
        self._state = self._read_nothing
        self._count = 0
        self.is_done = False
        """The last delimiter came: what is behind it says nothing."""

    def feed(self, data: bytes) -> Refusal | None:
        """Take what arrived; return why it is not taken, if so. Nothing is fed after that."""
        content, at = self._buffer + data, 0
        while not self.is_done:
            found = self._state(content, at)
            if isinstance(found, Refusal):
                return found
            if found < 0:  # more is wanted
                break
            at = found
        self._buffer = b"" if self.is_done else self._kept(content, at)
        return None

    def _kept(self, content: bytes, at: int) -> bytes:
        """Return what is looked at again when more came."""
        if self._state != self._read_content:
            return content[at:]
        return content[max(at, len(content) - len(self._delimiter) + 1) :]

    def _read_nothing(self, content: bytes, at: int) -> int | Refusal:
        """Find the first delimiter, with nothing before it."""
        beginning = content[at : at + len(self._delimiter)]
        if not self._delimiter.startswith(beginning):
            return Refusal(FORM_INVALID, "The form does not begin with its boundary.")
        if len(beginning) < len(self._delimiter):
            return -1
        self._state = self._read_line
        return at + len(beginning)

    def _read_line(self, content: bytes, at: int) -> int | Refusal:
        """Read what stands behind a delimiter."""
        rest = content[at : at + 2]
        if len(rest) < 2:  # noqa: PLR2004 - the end of a line
            return -1
        if rest == b"--":
            self.is_done = True
        elif rest != b"\r\n":
            return Refusal(FORM_INVALID, "A boundary does not end its line.")
        self._state = self._read_head
        return at + 2

    def _read_head(self, content: bytes, at: int) -> int | Refusal:
        end = content.find(_END, at)
        if (len(content) if end < 0 else end) - at > PART_HEADER_BYTES:
            return Refusal(FORM_TOO_LARGE, "The head of a part of the form is too large.")
        if end < 0:
            return -1
        self._count += 1
        if self._count > FORM_PARTS:
            return Refusal(FORM_TOO_LARGE, f"The form has more than {FORM_PARTS} parts.")
        part = _read_part(content[at:end])
        if part is None:
            return Refusal(FORM_INVALID, "The head of a part of the form is malformed.")
        self._state = self._read_content
        return self._sink.part_begun(part) or end + len(_END)

    def _read_content(self, content: bytes, at: int) -> int | Refusal:
        end = content.find(self._delimiter, at)
        sure = len(content) - len(self._delimiter) + 1 if end < 0 else end
        if sure > at:
            refusal = self._sink.part_content(content[at:sure])
            if refusal is not None:
                return refusal
        if end < 0:
            return -1
        self._state = self._read_line
        return self._sink.part_ended() or end + len(self._delimiter)


def _read_part(head: bytes) -> Part | None:
    """Return what the head of a part says; None when it is malformed."""
    fields: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or name in fields or _NAME.fullmatch(name) is None:
            return None
        fields[name] = value.strip(b" \t")
    match = _DISPOSITION.fullmatch(fields.get(b"content-disposition", b""))
    content_type = fields.get(b"content-type")
    coding = fields.get(b"content-transfer-encoding", b"binary").lower()
    if match is None or coding not in _PLAIN_CODINGS:
        return None
    if content_type is not None and _TYPE.fullmatch(content_type) is None:
        return None
    try:
        return Part(match["name"].decode(), match["file"], content_type)
    except UnicodeDecodeError:
        return None
