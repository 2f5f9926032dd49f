"""In which form sound and images are asked for, and how their answers are read; see `form`."""

from typing import TYPE_CHECKING

import msgspec

from penstock.gateway.admit import Admission
from penstock.gateway.dialects.media import as_text, read_media_answer, read_media_chunk
from penstock.gateway.dialects.openai import SPEECH
from penstock.gateway.dialects.openai_usage import Usage
from penstock.gateway.form import Answer, Form
from penstock.gateway.offer import Target
from penstock.gateway.tap import Tap

if TYPE_CHECKING:
    from penstock.gateway.forward import Pool, UpstreamConnection

_JSON = b"application/json"
_PLAIN = b"text/plain; charset=utf-8"


class _Spoken(msgspec.Struct, frozen=True):
    input: str


_decode_spoken = msgspec.json.Decoder(_Spoken).decode


class MediaTap(Tap):
    """Reads a stream of events, as `Tap` does, in which usage is told as of sound."""

    __slots__ = ()
    lead_frames = 0
    _read = staticmethod(read_media_chunk)


class SoundTap(Tap):
    """Passes sound on as it comes: it says nothing, and is known by the text that it speaks.

    Args:
        counted: What that consumes.
    """

    __slots__ = ("_counted",)

    def __init__(self, counted: Usage) -> None:
        """See the class."""
        super().__init__(hides_usage=False)
        self._counted = counted

    @property
    def counted(self) -> Usage:
        """What it consumes."""
        return self._counted

    def feed(self, data: bytes) -> bytes:
        """Take what was read; return it."""
        self.frame_count += 1
        return data


class MediaForm(Form):
    """JSON that is answered with images or sound."""

    def put(self, admission: Admission, pool: "Pool", cap: int | None) -> tuple[bytes, bytes]:
        """Return the start of a request's head, and its body."""
        del cap  # there is no member for it
        return pool.head(admission.operation.path), admission.body

    def make_tap(self, admission: Admission, cap: int | None) -> Tap:
        """Return what reads its stream."""
        del cap
        return MediaTap(hides_usage=admission.hides_usage)

    def make_plain_tap(self, admission: Admission, connection: "UpstreamConnection") -> Tap | None:
        """Return what sound is relayed through as it comes; None for all else."""
        is_json = connection.content_type.lower().startswith(_JSON)
        if admission.operation is not SPEECH or is_json:
            return None
        characters = len(_decode_spoken(admission.body).input)
        return SoundTap(Usage(admission.estimated_input_tokens, 0, characters=characters))

    def read(
        self,
        admission: Admission,
        connection: "UpstreamConnection",
        body: bytes,
        cap: int | None,
    ) -> Answer:
        """Return what a whole plain answer says, and how the caller gets it."""
        del admission, connection, cap
        return Answer(read_media_answer(body), body)


class UploadForm(MediaForm):
    """A form with sound in it, whose parts were judged; see `upload`."""

    def put(self, admission: Admission, pool: "Pool", cap: int | None) -> tuple[bytes, bytes]:
        """Return the start of a request's head, and its body."""
        del cap
        upload, target = admission.upload, admission.target
        assert upload is not None  # noqa: S101 - it is what makes it one of this form
        engine, path = target.upstream.engine, admission.operation.path
        boundary = upload.boundary.decode("ascii")
        head = pool.make_head(
            "POST", engine.paths.get(path, path), f'multipart/form-data; boundary="{boundary}"'
        )
        fields = {"model": target.deployment.model, **upload.sent_fields}
        if admission.is_stream and engine.audio_usage_field:
            fields[engine.audio_usage_field] = "true"
        return head, b"".join([*upload.write_fields(fields), *upload.held])

    def readdress(self, admission: Admission, target: Target) -> Admission | None:
        """Return a request as it is sent to another target; None when that does not take it."""
        if not target.upstream.engine.speaks_openai:
            return None
        return msgspec.structs.replace(admission, target=target)

    def read(
        self,
        admission: Admission,
        connection: "UpstreamConnection",
        body: bytes,
        cap: int | None,
    ) -> Answer:
        """Return what a whole plain answer says, and how the caller gets it."""
        del connection, cap
        assert admission.upload is not None  # noqa: S101 - as above
        reading, text_format = read_media_answer(body), admission.upload.text_format
        if not text_format or reading.error is not None:
            return Answer(reading, body)
        text = as_text(body, text_format)
        reading = msgspec.structs.replace(reading, text_bytes=len(text))
        return Answer(reading, text, content_type=_PLAIN)
