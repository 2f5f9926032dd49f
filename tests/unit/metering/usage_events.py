"""Usage events for tests."""

from typing import Any

import msgspec

from penstock.contract.usage import UsageBatch, UsageEvent, encode_batch
from penstock.metering.model import Arrival, Delivery
from penstock.metering.rules import hash_event

STARTED_AT_NS = 1_750_000_000_123_456_789

_EVENT = UsageEvent(
    event_id="01977f5e-3c00-7000-8000-000000000000",
    request_id="request-0",
    organization="acme",
    project="search",
    key_id="key-1",
    model="fast",
    served_model="served-fast",
    upstream="engines",
    operation="chat",
    is_stream=True,
    outcome="ok",
    status=200,
    error_code=None,
    usage_source="engine",
    input_tokens=12,
    output_tokens=7,
    cached_input_tokens=None,
    reasoning_output_tokens=3,
    attempt_count=1,
    started_at_ns=STARTED_AT_NS,
    first_byte_at_ns=STARTED_AT_NS + 5_000_000,
    finished_at_ns=STARTED_AT_NS + 90_000_000,
)


def make_event(number: int = 0, **changes: Any) -> UsageEvent:
    """Return an event; each number has its own id, request id and second of start."""
    started_at_ns = changes.get("started_at_ns", STARTED_AT_NS + number * 1_000_000_000)
    return msgspec.structs.replace(
        _EVENT,
        **{
            "event_id": f"01977f5e-3c00-7000-8000-{number:012x}",
            "request_id": f"request-{number}",
            "started_at_ns": started_at_ns,
            "first_byte_at_ns": started_at_ns + 5_000_000,
            "finished_at_ns": started_at_ns + 90_000_000,
            **changes,
        },
    )


def arrive(*events: UsageEvent) -> list[Arrival]:
    """Return events as what one delivery brought."""
    hashed = [hash_event(event) for event in events]
    delivery = Delivery(producer="node-1/0", epoch=1, events=hashed, recorded_at_us=0)
    return [Arrival(one, delivery) for one in hashed]


def make_body(*events: UsageEvent) -> bytes:
    """Return a batch of these events as a node sends it."""
    return encode_batch(UsageBatch(producer="node-1/0", epoch=4, events=events))
