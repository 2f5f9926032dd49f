"""Rules of the metering room."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.metering.usage_events import arrive, make_event

from penstock.contract.usage import UsageEvent
from penstock.metering.model import Position
from penstock.metering.rules import (
    MAX_NUMBER,
    find_conflicts,
    find_fault,
    find_position,
    format_cursor,
    hash_event,
    split_repeats,
)


class _NextEvent(UsageEvent, frozen=True, array_like=True):
    """What a later version might make of the event."""

    region: str = ""
    tier: int = 0


def test_equal_events_have_one_fingerprint() -> None:
    """The fingerprint depends on the content alone."""
    assert hash_event(make_event(1)).content_hash == hash_event(make_event(1)).content_hash


@pytest.mark.parametrize("name", [field.name for field in msgspec.structs.fields(UsageEvent)])
def test_every_field_changes_the_fingerprint(name: str) -> None:
    """Two events that differ in any field have different fingerprints."""
    event = make_event(1)
    other = {"flags": ("usage_missing",), "is_stream": False}.get(name, f"other {name}")
    changed = msgspec.structs.replace(event, **{name: other})
    assert hash_event(event).content_hash != hash_event(changed).content_hash


def test_appended_defaults_do_not_change_the_fingerprint() -> None:
    """A newer version that appends fields still knows an event that an older one shipped."""
    event = make_event(1)
    newer = msgspec.convert(msgspec.structs.astuple(event), _NextEvent)
    assert hash_event(newer).content_hash == hash_event(event).content_hash


def test_every_appended_field_has_a_plain_default() -> None:
    """Fields that may be missing have a default that the fingerprint can compare with."""
    optional = [field for field in msgspec.structs.fields(UsageEvent) if not field.required]
    assert all(field.default is not msgspec.NODEFAULT for field in optional)


def test_a_sound_event_has_no_fault() -> None:
    """An event as workers write it can be stored."""
    assert find_fault(make_event(1)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"event_id": ""},
        {"event_id": "x" * 65},
        {"event_id": "a b"},
        {"event_id": "a\n"},
        {"organization": "a\0b"},
        {"model": "m" * 1_025},
        {"error_code": "e" * 1_025},
        {"flags": ("\0",)},
        {"input_tokens": -1},
        {"output_tokens": MAX_NUMBER + 1},
        {"cached_input_tokens": -1},
        {"status": -1},
        {"started_at_ns": -1},
        {"finished_at_ns": 2**64 - 1},
    ],
    ids=str,
)
def test_an_impossible_event_has_a_fault(changes: dict[str, Any]) -> None:
    """What no column can keep, or no request can have consumed, is found before the database."""
    assert find_fault(make_event(1, **changes)) is not None


def test_a_fault_names_the_event_and_no_value() -> None:
    """The sentence tells where to look without repeating what is there."""
    event = make_event(1, organization="secret\0name")
    fault = find_fault(event)
    assert fault is not None
    assert event.event_id in fault
    assert "secret" not in fault


def test_repeats_are_parted_from_the_first_of_each_id() -> None:
    """The first event of each id comes back in order of id, and every other one as a repeat."""
    events = arrive(*map(make_event, (2, 1, 2, 1, 1)))
    first, repeats = split_repeats(events)
    assert list(first.values()) == [events[1], events[0]]
    assert repeats == events[2:]


def test_the_same_object_twice_is_a_repeat() -> None:
    """An event counts as often as it is in the batch, even when it is one object."""
    (one,) = arrive(make_event(1))
    assert split_repeats([one, one]) == ({one.event.event_id: one}, [one])


def test_conflicts_are_events_whose_stored_content_differs() -> None:
    """Same content is no conflict, another content is, and so is what the asker may not see."""
    same, other, unseen = arrive(*map(make_event, (1, 2, 3)))
    stored = {same.event.event_id: same.hashed.content_hash, other.event.event_id: b"another"}
    assert find_conflicts([same, other, unseen], stored) == [other, unseen]


@given(
    st.integers(0, MAX_NUMBER // 1_000),
    st.from_regex(r"[0-9A-Za-z-]{1,64}", fullmatch=True),
)
def test_cursors_survive_the_round_trip(started_at_us: int, event_id: str) -> None:
    """A cursor leads back to exactly the position that it was made of."""
    position = Position(started_at_us, event_id)
    assert find_position(format_cursor(position)) == position


@given(st.text() | st.binary().map(lambda content: content.decode("latin-1")))
def test_any_text_is_a_cursor_or_none(text: str) -> None:
    """A made-up cursor is refused, and never an error."""
    position = find_position(text)
    assert position is None or find_position(format_cursor(position)) == position
