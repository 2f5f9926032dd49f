"""The usage event: the immutable fact that one attempt consumed these quantities."""

from typing import Literal

import msgspec

from penstock.contract.money import HoldUse

Outcome = Literal["ok", "caller_gone", "upstream_error", "timeout", "refused", "interrupted"]
UsageSource = Literal["engine", "counted", "estimated"]


class UsageEvent(msgspec.Struct, frozen=True, array_like=True):
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
    """`chat`, `completions` or `embeddings`."""
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
    """First byte of the engine's answer."""
    finished_at_ns: int
    flags: tuple[str, ...] = ()
    """What was odd about the engine's figures: `usage_negative`, `usage_not_a_number`,
    `usage_absurd`, `usage_missing`, `usage_inconsistent`."""
    key_secret_id: str = ""
    """Which secret of the key was shown; "" when that is not known."""
    holds: tuple[HoldUse, ...] = ()
    """What was held of hard budgets for this request; nothing of it is held when this is stored."""


class UsageBatch(msgspec.Struct, frozen=True):
    """Events of one producer on their way from a node to the usage store, 1..500 of them."""

    producer: str
    """`<node id>/<worker slot>`."""
    epoch: int
    """Start number of that worker."""
    events: tuple[UsageEvent, ...]
    format: int = 1


class UsageReceipt(msgspec.Struct, frozen=True):
    """The answer to a batch: every event in it is now stored, whoever stored it."""

    stored: int
    """Events that were new."""
    duplicates: int
    """Events that were stored before."""
    conflicts: int = 0
    """Events with a stored id but another content: quarantined, totals unchanged."""


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
