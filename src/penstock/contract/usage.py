"""The usage event: the immutable fact that one attempt consumed these quantities."""

from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

from penstock.contract.money import HoldUse

Outcome = Literal["ok", "caller_gone", "upstream_error", "timeout", "refused", "interrupted"]
UsageSource = Literal["engine", "counted", "estimated"]
Meter = Literal[
    "requests",
    "input",
    "cached_input",
    "cache_write_input",
    "audio_input",
    "output",
    "reasoning_output",
    "audio_output",
    "images",
    "audio_seconds",
    "characters",
]
"""What is counted of a request, for prices: no token is in two of them. Sound that was heard has
seconds, text that was spoken has characters: of engines that say no tokens."""
METERS: tuple[Meter, ...] = get_args(Meter)


class Attempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A try of an endpoint that was given up for another one. It is never paid for."""

    upstream: str
    reason: str
    """Why it was given up: `connect_failed`, `timeout` ..."""
    started_at_ns: int
    finished_at_ns: int


class UsageEvent(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one request consumed. Fields are only ever appended, with a default.

    It holds no content of prompts or answers.
    """

    event_id: str
    """UUIDv7 minted by the worker at admission: the idempotency key of every effect."""
    request_id: str
    """`x-request-id` of the answer: the caller's own when it sent a sane one, else `event_id`."""
    organization: str
    project: str
    key_id: str
    model: str
    """The alias that the caller asked for."""
    served_model: str
    """The upstream's own name of the model."""
    upstream: str
    operation: str
    """`chat`, `completions`, `embeddings`, `oip_infer` and others: see the gateway's dialects."""
    is_stream: bool
    outcome: Outcome
    status: int
    """HTTP status answered, 0 when the caller was gone before one was."""
    error_code: str | None
    """`err:...` when the outcome is not `ok`."""
    usage_source: UsageSource
    """`engine`: its own figures; `counted`: output counted from what was relayed;
    `estimated`: from sizes alone."""
    input_tokens: int
    """>= 0, cached ones included."""
    output_tokens: int
    """>= 0, reasoning ones included."""
    cached_input_tokens: int | None
    """Part of `input_tokens`; None when the engine did not say."""
    reasoning_output_tokens: int | None
    """Part of `output_tokens`; None when the engine did not say."""
    attempt_count: int
    """Endpoints tried, >= 1."""
    started_at_ns: int
    """Admission, nanoseconds since the Unix epoch."""
    first_byte_at_ns: int | None
    """First byte of the engine's answer, of a stream the end of its first event; None when it gave
    none, only an error or nonsense, or an error ended its stream."""
    finished_at_ns: int
    flags: tuple[str, ...] = ()
    """What was odd about the engine's figures: `usage_negative`, `usage_not_a_number`,
    `usage_absurd`, `usage_missing`, `usage_inconsistent`."""
    key_secret_id: str = ""
    """Which secret of the key was shown; "" when that is not known."""
    holds: tuple[HoldUse, ...] = ()
    """What was held of hard budgets for this request; nothing of it is held when this is stored."""
    labels: tuple[tuple[str, str], ...] = ()
    """Names and values that the caller gave to find its costs by, in order of name; 0..16."""
    data_class: str = ""
    """Of the deployment that served it; "" when nothing did, or when it has none."""
    region: str = ""
    """The same: where it was processed."""
    service_tier: str = ""
    """As the engine named it; "" when it did not."""
    upstream_request_id: str = ""
    """The engine's own name of the request."""
    cache_write_input_tokens: int | None = None
    """Part of `input_tokens`, of those that are not cached; None when the engine did not say."""
    audio_input_tokens: int | None = None
    """The same."""
    audio_output_tokens: int | None = None
    """Part of `output_tokens`, of those that are no reasoning; None as above."""
    image_count: int = 0
    """Images made."""
    earlier_attempts: tuple[Attempt, ...] = ()
    """What was tried before the endpoint that the figures above are of."""
    audio_seconds: int = 0
    """Of sound that was heard, rounded up; 0 where the engine counts tokens instead."""
    characters: int = 0
    """Of text that was spoken; 0 as above."""


class UsageBatch(msgspec.Struct, frozen=True):
    """Events of one producer on their way from a node to the usage store, 1..500 of them."""

    producer: str
    """`<node id>/<worker slot>`."""
    epoch: int
    """Start number of that worker."""
    events: tuple[UsageEvent, ...]
    format: int = 1
    segment: int = 0
    """Segment of that worker's journal behind whose `offset` nothing of it is delivered yet, once
    this batch is stored; 0 when it is not said. Places grow from batch to batch."""
    offset: int = 0
    from_segment: int = 0
    """Where this batch begins: all of the journal before is stored, as far as its node knows. Where
    the control plane knows less, its own place stays until the journal is shipped from there."""
    from_offset: int = 0


class UsageReceipt(msgspec.Struct, frozen=True):
    """The answer to a batch: every event in it is now stored, whoever stored it."""

    stored: int
    """Events that were new."""
    duplicates: int
    """Events that were stored before."""
    conflicts: int = 0
    """Events with a stored id but another content: quarantined, totals unchanged."""
    segment: int = -1
    """The farthest place of this life of the producer that was stored before this batch; 0 when
    none was, -1 from a control plane that keeps no places."""
    offset: int = 0


class WorkerLife(msgspec.Struct, frozen=True, array_like=True):
    """One life of one worker, as batches name it."""

    producer: str
    epoch: int


class StoredPlace(msgspec.Struct, frozen=True, array_like=True):
    """The farthest place of one life's journal that is stored; 0 and 0 when none is."""

    segment: int = 0
    offset: int = 0


class PlacesQuestion(msgspec.Struct, frozen=True):
    """How far is each of these stored? Asked by nodes, of journals that they still have."""

    lives: tuple[WorkerLife, ...]
    """1..500 of them."""


class PlacesAnswer(msgspec.Struct, frozen=True):
    """One place for each life that was asked for, in their order."""

    places: tuple[StoredPlace, ...]


PLACES_PATH = "/internal/v1/usage/positions"
"""Where a control plane answers a `PlacesQuestion`, both as MessagePack."""


def quantities(event: UsageEvent) -> dict[Meter, int]:
    """Return what an event counts on each meter, without those that stand at 0.

    Whatever an engine says, no figure is negative, and those of input and of output add up to
    `input_tokens` and `output_tokens`: a part that is larger than what is left of the whole is cut.
    """
    found: dict[Meter, int] = {"requests": int(event.first_byte_at_ns is not None)}
    inputs: tuple[tuple[Meter, int | None], ...] = (
        ("cached_input", event.cached_input_tokens),
        ("cache_write_input", event.cache_write_input_tokens),
        ("audio_input", event.audio_input_tokens),
    )
    outputs: tuple[tuple[Meter, int | None], ...] = (
        ("reasoning_output", event.reasoning_output_tokens),
        ("audio_output", event.audio_output_tokens),
    )
    found["input"] = _take_parts(found, event.input_tokens, inputs)
    found["output"] = _take_parts(found, event.output_tokens, outputs)
    found["images"] = max(event.image_count, 0)
    found["audio_seconds"] = max(event.audio_seconds, 0)
    found["characters"] = max(event.characters, 0)
    return {meter: amount for meter, amount in found.items() if amount}


def _take_parts(
    found: dict[Meter, int], whole: int, parts: Iterable[tuple[Meter, int | None]]
) -> int:
    """Note parts of a whole, and return what is left of it."""
    left = max(whole, 0)
    for meter, part in parts:
        found[meter] = min(max(part or 0, 0), left)
        left -= found[meter]
    return left


_batch_encoder = msgspec.msgpack.Encoder()
_batch_decoder = msgspec.msgpack.Decoder(UsageBatch)


def encode_batch(batch: UsageBatch) -> bytes:
    """Return the batch as MessagePack."""
    return _batch_encoder.encode(batch)


def decode_batch(content: bytes) -> UsageBatch:
    """Return the batch that `encode_batch` wrote.

    Raises:
        msgspec.DecodeError: Not a batch.
    """
    return _batch_decoder.decode(content)
