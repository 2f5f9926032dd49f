"""Old and new side by side: events, batches and journals of one version read by another."""

from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import fields, replace

from penstock.contract.finished import Course, Trace
from penstock.contract.journal import (
    FRAME_BYTES,
    Begin,
    Close,
    Open,
    encode_record,
    read_closes,
    scan,
)
from penstock.contract.money import HoldUse
from penstock.contract.usage import (
    Attempt,
    UsageBatch,
    UsageEvent,
    UsageReceipt,
    decode_batch,
    encode_batch,
)

GOLDEN = Path(__file__).parent / "golden"
OLD_COUNT = 25
"""Members of an event before it said labels."""
T = 1_759_269_599_412_000_000
IDS = (
    "01998f3e-7c1a-7b2e-9d41-0c5d8f6b2a11",
    "01998f3e-7c1b-7b2e-9d41-0c5d8f6b2a12",
    "01998f3e-7c1c-7b2e-9d41-0c5d8f6b2a13",
)
WHO = ["org_4mJ0wq8ZtK1c", "prj_9d21E8c0f1aX", "4mJ0wq8ZtK1c"]
WHAT = ["emulated-70b", "emulated-70b", "emulator", "chat"]
FIRST: list[Any] = [
    *(IDS[0], "req-1", *WHO, *WHAT, True, "ok", 200, None, "engine", 812, 274, 640, 96, 1),
    *(T, T + 31_000_000, T + 2_500_000_000, [], "sec_1", [["hold-1", 10**15]]),
]
SECOND: list[Any] = [
    *(IDS[1], IDS[1], *WHO, *WHAT, False, "upstream_error", 502, "err:gateway:upstream:failed"),
    *("estimated", 0, 0, None, None, 2, T + 1, None, T + 9_000_000, ["usage_negative"], "", []),
]
OLD_BATCH = {"producer": "node-1/0", "epoch": 3, "events": [FIRST, SECOND], "format": 1}


class OldEvent(msgspec.Struct, frozen=True, array_like=True):
    """The event as an older control plane knows it, as far as it looks at it."""

    event_id: str
    request_id: str
    organization: str
    project: str
    key_id: str
    model: str
    served_model: str
    upstream: str
    operation: str
    is_stream: bool
    outcome: str
    status: int
    error_code: str | None
    usage_source: str
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int | None
    reasoning_output_tokens: int | None
    attempt_count: int
    started_at_ns: int
    first_byte_at_ns: int | None
    finished_at_ns: int
    flags: tuple[str, ...] = ()
    key_secret_id: str = ""
    holds: tuple[HoldUse, ...] = ()


class OldClose(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The end of a request as an older agent knows it."""

    event: OldEvent


class OldBatch(msgspec.Struct, frozen=True):
    """The batch as an older control plane knows it."""

    producer: str
    epoch: int
    events: tuple[OldEvent, ...]
    format: int = 1


class OldReceipt(msgspec.Struct, frozen=True):
    """The receipt as an older node knows it."""

    stored: int
    duplicates: int
    conflicts: int = 0


def _members(event: UsageEvent | OldEvent) -> list[Any]:
    members: list[Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(event))
    return members


def _is_read_with_defaults(event: UsageEvent, old: list[Any]) -> None:
    assert _members(event)[:OLD_COUNT] == old
    for field in fields(UsageEvent)[OLD_COUNT:]:
        assert getattr(event, field.name) == field.default


def test_an_old_batch_is_read() -> None:
    """A batch as nodes sent it before there were labels has defaults for what it lacks."""
    content = (GOLDEN / "batch.before-labels.msgpack").read_bytes()
    assert msgspec.msgpack.decode(content) == OLD_BATCH
    batch = decode_batch(content)
    assert (batch.producer, batch.epoch, batch.segment, batch.from_segment) == ("node-1/0", 3, 0, 0)
    for event, old in zip(batch.events, (FIRST, SECOND), strict=True):
        _is_read_with_defaults(event, old)


def test_the_oldest_batch_is_read() -> None:
    """So has one of the time before events named secrets and holds."""
    content = msgspec.msgpack.encode(OLD_BATCH | {"events": [FIRST[:-2]]})
    (event,) = decode_batch(content).events
    _is_read_with_defaults(event, [*FIRST[:-2], "", []])


def test_an_old_journal_is_read() -> None:
    """The records of a segment that an older worker wrote are all there, in their order."""
    content = (GOLDEN / "segment.before-labels.journal").read_bytes()
    begin, first, _, third, *closes = [record for record, _ in scan(content)]
    assert begin == Begin("node-1/0", 3, 1, T - 1)
    assert isinstance(first, Open)
    assert (first.holds, first.labels) == ((HoldUse("hold-1", 10**15),), ())
    assert isinstance(third, Open)
    assert (third.event_id, third.data_class, third.region) == (IDS[2], "", "")
    assert third.trace is None
    for close, old in zip(closes, (FIRST, SECOND), strict=True):
        assert isinstance(close, Close)
        assert close.course is None
        _is_read_with_defaults(close.event, old)


def test_a_new_journal_is_read_by_the_old() -> None:
    """An older agent, or control plane that repairs, passes over how a request went."""
    course = Course(Trace("1" * 32, "2" * 15 + "0", "3" * 16, is_sampled=True), T, T + 1, ("a:1",))
    new = Close(_newest(), course)
    ((read, _),) = scan(encode_record(new))
    assert read == new
    old = msgspec.msgpack.decode(encode_record(new)[FRAME_BYTES:], type=OldClose)
    assert _members(old.event) == FIRST


def test_ends_are_read_alone() -> None:
    """Who wants only the ends of requests finds the same ones, at the same places."""
    content = (GOLDEN / "segment.before-labels.journal").read_bytes()
    records = list(scan(content))
    closes = [record for record, _ in records if isinstance(record, Close)]
    assert read_closes(content) == (closes, records[-1][1])
    assert read_closes(content[: records[-1][1] - 1]) == (closes[:-1], records[-2][1])
    assert isinstance(records[-1][0], Close)


def _newest() -> UsageEvent:
    event = msgspec.convert(FIRST, UsageEvent)
    return replace(
        event,
        labels=(("team", "search"),),
        data_class="eu_only",
        region="eu-de",
        service_tier="flex",
        upstream_request_id="chatcmpl-1",
        cache_write_input_tokens=3,
        audio_input_tokens=2,
        audio_output_tokens=1,
        image_count=1,
        earlier_attempts=(Attempt("away", "connect_failed", T, T + 1),),
    )


def test_a_new_batch_is_read_by_the_old() -> None:
    """An older control plane passes over what it does not know, and reads the rest as ever."""
    batch = UsageBatch(
        "node-1/0", 3, (_newest(),), segment=2, offset=9, from_segment=1, from_offset=5
    )
    content = encode_batch(batch)
    assert decode_batch(content) == batch
    old = msgspec.msgpack.decode(content, type=OldBatch)
    assert (old.producer, old.epoch, old.format) == ("node-1/0", 3, 1)
    assert _members(old.events[0]) == FIRST


def test_a_later_event_is_read() -> None:
    """What a newer node appends is passed over here, too."""
    appended = [*_members(_newest()), "later", {"more": [1]}]
    content = msgspec.msgpack.encode(OLD_BATCH | {"events": [appended], "later": True})
    assert decode_batch(content).events == (_newest(),)


def test_receipts_are_read_either_way() -> None:
    """An older node passes over places, and a newer one makes nothing of their absence."""
    new = msgspec.json.encode(UsageReceipt(1, 2, 3, 4, 5))
    assert msgspec.json.decode(new, type=OldReceipt) == OldReceipt(1, 2, 3)
    old = msgspec.json.encode(OldReceipt(1, 2, 3))
    assert msgspec.json.decode(old, type=UsageReceipt) == UsageReceipt(1, 2, 3, segment=-1)
