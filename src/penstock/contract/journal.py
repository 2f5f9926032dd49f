"""The journal's form on disk: what a worker writes and the agent reads.

One folder a worker start, `<slot>-<epoch>/`, with segments `<number>.journal`. The worker holds
an exclusive `flock` on the folder's file `lock` for as long as it lives: that is how the agent
knows, whatever happened to process ids, whether more records can come.

A segment is a sequence of frames `length (u32 LE) | crc32c(payload) (u32 LE) | payload`. Segments
are allocated ahead, so the rest of one is zeros: a zero length ends the records, and so does a
frame that is cut short or whose checksum is wrong. What was read before it is intact.
"""

import struct
from collections.abc import Iterator

import google_crc32c
import msgspec

from penstock.contract.finished import Course, Trace
from penstock.contract.money import HoldUse
from penstock.contract.usage import UsageEvent

FRAME_BYTES = 8
MAX_RECORD_BYTES = 64 * 1024
"""No record is longer; a longer length is damage."""
LOCK_FILE = "lock"
SEGMENT_SUFFIX = ".journal"

_frame = struct.Struct("<II")
_pack = _frame.pack
_unpack = _frame.unpack_from


class Begin(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """First record of a segment: whose it is."""

    producer: str
    """`<node id>/<worker slot>`."""
    epoch: int
    segment: int
    """1, 2, ... within the epoch."""
    created_at_ns: int


class Open(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """A request was admitted and is about to be sent to an engine.

    It holds all that is needed to end the request's record when the worker dies. A request that
    goes to another target, since connecting to the first failed, has another one: the last counts.
    """

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
    started_at_ns: int
    estimated_input_tokens: int
    holds: tuple[HoldUse, ...] = ()
    """What is held of hard budgets for it."""
    labels: tuple[tuple[str, str], ...] = ()
    """As in the usage event; the same for those that follow."""
    data_class: str = ""
    region: str = ""
    trace: Trace | None = None


class Close(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """A request ended: its usage event, and how it went."""

    event: UsageEvent
    course: Course | None = None


Record = Begin | Open | Close

_CLOSE_MARK = b"\x02"
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Record)
_decode_close = msgspec.msgpack.Decoder(Close).decode
_crc32c = google_crc32c.value


def encode_record(record: Record) -> bytes:
    """Return the record as one frame."""
    payload = _encode(record)
    return _pack(len(payload), _crc32c(payload)) + payload


def scan(content: bytes | memoryview, offset: int = 0) -> Iterator[tuple[Record, int]]:
    """Read the intact records of a segment, from `offset` on.

    Args:
        content: The segment, or what is there of it.
        offset: Where a frame begins, as an earlier call returned it.

    Yields:
        Each record with the offset behind its frame. Ends, without an error, at the first frame
        that is absent, cut short or damaged; whether that is the end of the records or damage
        is for the caller to tell from what follows.
    """
    for payload, end in _frames(content, offset):
        try:
            record = _decoder.decode(payload)
        except msgspec.DecodeError:
            return
        yield record, end


def read_closes(content: bytes) -> tuple[list[Close], int]:
    """Read only the ends of requests of a segment: for those to whom nothing else means anything.

    Args:
        content: Of a segment, from a frame's beginning on.

    Returns:
        Each of the intact records that is a CLOSE, and the offset behind the last one of all: see
        `scan`. The others are not decoded.
    """
    closes: list[Close] = []
    behind = 0
    for payload, end in _frames(content, 0):
        # The tag stands behind one byte for the array's head: a CLOSE has fewer than 16 members.
        if payload[1:2] == _CLOSE_MARK:
            try:
                closes.append(_decode_close(payload))
            except msgspec.DecodeError:
                break
        behind = end
    return closes, behind


def _frames(content: bytes | memoryview, offset: int) -> Iterator[tuple[bytes, int]]:
    """Yield the payload of each intact frame, with the offset behind it."""
    end = len(content)
    while offset + FRAME_BYTES <= end:
        length, checksum = _unpack(content, offset)
        start = offset + FRAME_BYTES
        if not 0 < length <= MAX_RECORD_BYTES or start + length > end:
            return
        payload = bytes(content[start : start + length])
        if _crc32c(payload) != checksum:
            return
        offset = start + length
        yield payload, offset


def interrupted_event(opened: Open, finished_at_ns: int) -> UsageEvent:
    """Return the terminal event of a request whose worker died.

    The same record and time give the same event, so ending it twice counts once.

    Args:
        opened: The OPEN record that has no CLOSE.
        finished_at_ns: When the worker was last known to write (e.g. the segment's mtime).
    """
    return UsageEvent(
        event_id=opened.event_id,
        request_id=opened.request_id,
        organization=opened.organization,
        project=opened.project,
        key_id=opened.key_id,
        model=opened.model,
        served_model=opened.served_model,
        upstream=opened.upstream,
        operation=opened.operation,
        is_stream=opened.is_stream,
        outcome="interrupted",
        status=0,
        error_code="err:gateway:internal:interrupted",
        usage_source="estimated",
        input_tokens=opened.estimated_input_tokens,
        output_tokens=0,
        cached_input_tokens=None,
        reasoning_output_tokens=None,
        attempt_count=1,
        started_at_ns=opened.started_at_ns,
        first_byte_at_ns=None,
        finished_at_ns=max(finished_at_ns, opened.started_at_ns),
        holds=opened.holds,
        labels=opened.labels,
        data_class=opened.data_class,
        region=opened.region,
    )
