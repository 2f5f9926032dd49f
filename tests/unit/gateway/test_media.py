"""What answers about sound say of themselves, however odd."""

import pytest

from penstock.gateway.dialects.media import as_text, read_media_answer


@pytest.mark.parametrize(
    ("duration", "seconds", "flags"),
    [
        (b"2.1", 3, ()),
        (b'"2.1"', 3, ()),
        (b"-1", 0, ("usage_negative",)),
        (b'"-inf"', 0, ("usage_negative",)),
        (b'"nan"', None, ("usage_absurd",)),
        (b'"inf"', None, ("usage_absurd",)),
        (b"1e9", None, ("usage_absurd",)),
        (b"9" * 400, None, ("usage_absurd",)),
        (b"[]", None, ("usage_not_a_number",)),
    ],
)
def test_seconds_that_make_no_sense_are_flagged(
    duration: bytes, seconds: int | None, flags: tuple[str, ...]
) -> None:
    """They are rounded up, and nobody pays for absurd ones."""
    for body in (b'{"text":"x","duration":%b}', b'{"text":"x","usage":{"seconds":%b}}'):
        reading = read_media_answer(body % duration)
        found = None if reading.usage is None else reading.usage.audio_seconds
        assert (found, reading.flags) == (seconds, flags)


@pytest.mark.parametrize("end", [b'"inf"', b"1e300", b'"nan"', b"-5"])
def test_subtitles_are_made_of_any_moments(end: bytes) -> None:
    """A moment that cannot be is written as the nearest that can."""
    body = b'{"text":"x","segments":[{"start":1.5,"end":%b,"text":"a"}]}' % end
    shown = "2777:46:40.000" if end in {b'"inf"', b"1e300"} else "00:00:00.000"
    assert as_text(body, "vtt").decode() == f"WEBVTT\n\n00:00:01.500 --> {shown}\na\n\n"
