"""A form on its way through: fields are judged, all parts written anew, a large file never kept.

What the engine gets begins with a part that names its own model. Everything else follows in the
order in which it came, with heads of our making between boundaries of the caller's.
"""

from collections.abc import Callable
from typing import Final, Protocol

from penstock.engines.isolation import IDENTIFYING, STEERING
from penstock.gateway.dialects.errors import MEMBER_INVALID
from penstock.gateway.dialects.media import TEXT_FORMATS
from penstock.gateway.errors import FIELD_TOO_LATE, FORM_INVALID, FORM_TOO_LARGE
from penstock.gateway.limits import FORM_FIELD_BYTES, FORM_HELD_BYTES
from penstock.gateway.multipart import FormReader, Part
from penstock.kit.errors import Refusal

_OURS: Final = frozenset({"stream_include_usage", "stream_continuous_usage_stats"})
"""What we ask engines for, whatever the caller does."""
JUDGED: Final = frozenset({"model", "stream", "response_format"})
"""Fields that decide what is done: written by whoever sends the form on."""


class Outlet(Protocol):
    """Where a form goes that is sent on while it arrives."""

    def write(self, data: bytes) -> None:
        """Take a piece."""


class Upload:
    """One form that arrives.

    Args:
        boundary: Between its parts.
        most_bytes: How large it may be.
        pseudonym: Returns what stands for a name of a person, both as JSON.
    """

    __slots__ = (
        "_field",
        "_field_bytes",
        "_most_bytes",
        "_outlet",
        "_part",
        "_pseudonym",
        "_reader",
        "_received_bytes",
        "boundary",
        "fields",
        "file_bytes",
        "held",
        "held_bytes",
        "is_complete",
        "is_stream",
        "sent_fields",
        "text_format",
    )

    def __init__(
        self, boundary: bytes, most_bytes: int, pseudonym: Callable[[bytes], bytes]
    ) -> None:
        """See the class."""
        self.boundary = boundary
        self.fields: dict[str, str] = {}
        """Those of `JUDGED` that it has."""
        self.held: list[bytes] = []
        """What is to be sent and nobody took yet."""
        self.held_bytes = 0
        self.file_bytes = 0
        """Of its files, so far."""
        self.is_complete = False
        self.is_stream = False
        self.text_format = ""
        """The caller wants text, and the engine is asked for JSON, which says its usage."""
        self.sent_fields: dict[str, str] = {}
        """Of `JUDGED`, as the engine gets them, without its model."""
        self._reader = FormReader(boundary, self)
        self._most_bytes = most_bytes
        self._received_bytes = 0
        self._pseudonym = pseudonym
        self._outlet: Outlet | None = None
        self._part: Part | None = None
        self._field: list[bytes] | None = None
        """The value of the field under way; None within a file."""
        self._field_bytes = 0

    @property
    def is_large(self) -> bool:
        """Whether it is sent on while it arrives."""
        return self.held_bytes > FORM_HELD_BYTES

    def decide(self, response_format: str, *, is_stream: bool) -> None:
        """Take note of what was judged.

        Args:
            response_format: As the caller wants the transcript.
            is_stream: Whether it wants events.
        """
        self.is_stream = is_stream
        if response_format in TEXT_FORMATS and not is_stream:
            self.text_format = response_format
        engines = TEXT_FORMATS.get(response_format, response_format)
        self.sent_fields = {"response_format": engines}
        if is_stream:
            self.sent_fields["stream"] = "true"

    def write_fields(self, fields: dict[str, str]) -> list[bytes]:
        """Return parts for fields of our own."""
        return [
            b"--%b\r\n%b%b\r\n" % (self.boundary, Part(name, None, None).head(), value.encode())
            for name, value in fields.items()
        ]

    def feed(self, data: bytes) -> Refusal | None:
        """Take a piece of the body; return why it is not taken, if so."""
        self._received_bytes += len(data)
        if self._received_bytes > self._most_bytes:
            return Refusal(FORM_TOO_LARGE, f"The form is larger than {self._most_bytes} bytes.")
        return self._reader.feed(data)

    def finish(self) -> Refusal | None:
        """Take note that the body ended."""
        if not self._reader.is_done:
            return Refusal(FORM_INVALID, "The form ends before its last boundary.")
        self._put(b"--%b--\r\n" % self.boundary)
        self.is_complete = True
        return None

    def send_to(self, outlet: Outlet) -> None:
        """Give what comes from now on to an outlet, which has what is held."""
        self._outlet = outlet
        self.held = []

    # What the reader calls

    def part_begun(self, part: Part) -> Refusal | None:
        """Take the head of a part."""
        self._part, self._field, self._field_bytes = part, [], 0
        if part.file_name is None:
            return None
        if part.name in JUDGED or part.name in IDENTIFYING or part.name in STEERING:
            message = f"The field '{part.name}' must not be a file."
            return Refusal(MEMBER_INVALID, message, part.name)
        self._field = None
        self._put_head(part)
        return None

    def part_content(self, data: bytes) -> Refusal | None:
        """Take a piece of a part: of a file it goes on at once."""
        field = self._field
        if field is None:
            self.file_bytes += len(data)
            self._put(data)
            return None
        field.append(data)
        self._field_bytes += len(data)
        if self._field_bytes > FORM_FIELD_BYTES:
            return Refusal(FORM_TOO_LARGE, "A field of the form is larger than 64 KiB.")
        return None

    def part_ended(self) -> Refusal | None:
        """Judge a field, or end a file."""
        part, field = self._part, self._field
        assert part is not None  # noqa: S101 - it began
        if field is None:
            self._put(b"\r\n")
            return None
        value = b"".join(field)
        if part.name in JUDGED:
            return self._judge(part.name, value)
        if part.name in STEERING or part.name in _OURS:
            return None
        if part.name in IDENTIFYING:
            value = self._pseudonym(value)
        self._put_head(part)
        self._put(value + b"\r\n")
        return None

    def _judge(self, name: str, value: bytes) -> Refusal | None:
        if name in self.fields:
            return Refusal(MEMBER_INVALID, f"The field '{name}' is there twice.", name)
        if self._outlet is not None:
            message = f"The field '{name}' of a form this large must stand before its file."
            return Refusal(FIELD_TOO_LATE, message, name)
        try:
            self.fields[name] = value.decode()
        except UnicodeDecodeError:
            return Refusal(MEMBER_INVALID, f"The field '{name}' is no text.", name)
        return None

    def _put_head(self, part: Part) -> None:
        self._put(b"--%b\r\n%b" % (self.boundary, part.head()))

    def _put(self, data: bytes) -> None:
        if self._outlet is not None:
            self._outlet.write(data)
            return
        self.held.append(data)
        self.held_bytes += len(data)
