"""Usage events as CloudEvents: their form, their schema, and what never changes of both."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.fakes.fake_worker import make_event, make_open

from penstock.contract.cloud_event import (
    SCHEMA_NAME,
    SCHEMA_PATH,
    UsageCloudEvent,
    cloud_event,
    event_schema,
)
from penstock.contract.usage import METERS, Attempt, UsageEvent

GOLDEN = Path(__file__).parent / "golden"
SOURCE = "https://penstock.example.com"
T = 1_759_269_599_412_000_000
PLAIN = make_event(make_open("01998f3e-7c1a-7b2e-9d41-0c5d8f6b2a11", T))
FULL = replace(
    PLAIN,
    input_tokens=812,
    output_tokens=274,
    cached_input_tokens=640,
    reasoning_output_tokens=96,
    cache_write_input_tokens=100,
    audio_input_tokens=12,
    audio_output_tokens=8,
    outcome="caller_gone",
    error_code="err:gateway:caller:gone",
    flags=("usage_negative",),
    labels=(("cost_center", "4711"), ("team", "search")),
    data_class="eu_only",
    region="eu-de",
    service_tier="flex",
    upstream_request_id="chatcmpl-1",
    attempt_count=2,
    earlier_attempts=(Attempt("away", "connect_failed", T, T + 5_000),),
)
UNSERVED = replace(
    PLAIN,
    outcome="upstream_error",
    status=0,
    first_byte_at_ns=None,
    input_tokens=0,
    output_tokens=0,
)


def _encoded(event: UsageEvent) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(msgspec.json.encode(cloud_event(event, SOURCE)))
    return found


def _golden_schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / SCHEMA_NAME).read_bytes())
    return found


def test_events_are_written_as_ever() -> None:
    """The same events give the same bytes that they gave when the form was published."""
    lines = (GOLDEN / "usage-events.v1.jsonl").read_bytes().splitlines()
    made = [msgspec.json.encode(cloud_event(event, SOURCE)) for event in (PLAIN, FULL, UNSERVED)]
    assert made == lines


def test_events_of_the_first_writers_are_read() -> None:
    """A reader of today understands every event that was ever written in this version."""
    for text in (GOLDEN / "usage-events.v1.jsonl").read_bytes().splitlines():
        read = msgspec.json.decode(text, type=UsageCloudEvent)
        assert read.source + SCHEMA_PATH == read.dataschema
        assert sorted(read.data.quantities) == sorted(METERS[:9])
    assert read.data.timing.first_byte is None


def test_quantities_are_disjoint() -> None:
    """No token is in two of them, and they add up to what was read and written."""
    counted = _encoded(FULL)["data"]["quantities"]
    assert counted == {
        "requests": 1,
        "input": 60,
        "cached_input": 640,
        "cache_write_input": 100,
        "audio_input": 12,
        "output": 170,
        "reasoning_output": 96,
        "audio_output": 8,
        "images": 0,
    }


_counts = st.integers(0, 10**12)
_words = st.text(st.characters(codec="ascii", min_codepoint=33), max_size=12)


@given(
    st.builds(
        replace,
        st.sampled_from((PLAIN, FULL, UNSERVED)),
        input_tokens=_counts,
        output_tokens=_counts,
        cached_input_tokens=st.none() | _counts,
        audio_output_tokens=st.none() | _counts,
        outcome=st.sampled_from(("ok", "caller_gone", "timeout", "refused", "interrupted")),
        labels=st.lists(st.tuples(_words, _words), max_size=3).map(tuple),
        status=st.integers(0, 599),
        upstream_request_id=_words,
    )
)
def test_every_event_fits_the_first_schema(event: UsageEvent) -> None:
    """What is written today is what those who took the schema when it was published expect."""
    for schema in (_golden_schema(), event_schema()):
        jsonschema_rs.validate(schema, _encoded(event))


@pytest.mark.parametrize(
    ("member", "value"),
    [("type", "penstock.usage.v2"), ("specversion", "0.3"), ("time", "yesterday"), ("data", {})],
)
def test_the_schema_refuses_what_is_none(member: str, value: object) -> None:
    """It is no schema that takes everything."""
    jsonschema_rs.validate(event_schema(), _encoded(FULL))
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(event_schema(), _encoded(FULL) | {member: value})


def test_a_reader_passes_over_what_is_new() -> None:
    """Members that a later writer adds do no harm to the schema's readers, nor to ours."""
    later = _encoded(FULL) | {"traceparent": "00-1-2-01"}
    later["data"]["carbon_grams"] = 0.2
    jsonschema_rs.validate(_golden_schema(), later)
    read = msgspec.json.decode(json.dumps(later), type=UsageCloudEvent)
    assert read == cloud_event(FULL, SOURCE)


def test_the_schema_only_grows() -> None:
    """No member, requirement or word of the schema that was published is gone or another."""
    new, old = event_schema(), _golden_schema()
    jsonschema_rs.meta.validate(new)
    for name, kind in old["$defs"].items():
        assert set(kind["required"]) == set(new["$defs"][name]["required"])
        for member, form in kind["properties"].items():
            now = new["$defs"][name]["properties"][member]
            words = set(form.get("enum", ()))
            assert words <= set(now.get("enum", ()))
            assert _shape(form) == _shape(now), (name, member)


def _shape(form: dict[str, Any]) -> dict[str, Any]:
    ignored = {"description", "enum", "default"}
    return {name: value for name, value in form.items() if name not in ignored}
