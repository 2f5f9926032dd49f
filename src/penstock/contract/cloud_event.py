"""A usage event as the world sees it: CloudEvents 1.0 in JSON, with a schema that only grows. Pure.

Inside, events travel as `contract.usage.UsageEvent`. What leaves for others' systems has this form:
names instead of places, disjoint quantities instead of totals with parts.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from penstock.contract.usage import METERS, Meter, Outcome, UsageEvent, UsageSource, quantities
from penstock.kit.moments import format_time

TYPE: Final = "penstock.usage.v1"
SCHEMA_NAME = "usage-event.v1.json"
SCHEMA_PATH = f"/schemas/{SCHEMA_NAME}"
"""Where every control plane has the schema."""
CONTENT_TYPE = "application/cloudevents+json"

_ALWAYS: Final = METERS[:9]
"""Meters of the first form: an event without later ones is written as it ever was."""

Count = Annotated[int, Meta(ge=0)]
Time = Annotated[
    str,
    Meta(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
        description="RFC 3339 in UTC, to the microsecond.",
    ),
]


class Model(msgspec.Struct, frozen=True):
    """What was asked for and what served it."""

    requested: Annotated[str, Meta(description="The alias that the caller asked for.")]
    served: Annotated[str, Meta(description="The upstream's own name of the model.")]
    upstream: str
    data_class: Annotated[str, Meta(description="Of the upstream; empty when nothing served.")]
    region: Annotated[str, Meta(description="Where it was processed; empty as above.")]


class Timing(msgspec.Struct, frozen=True):
    """When."""

    admitted: Time
    first_byte: Annotated[Time | None, Meta(description="Of the engine's answer.")]
    finished: Time


class EarlierAttempt(msgspec.Struct, frozen=True):
    """An endpoint that was given up for another one; it is never paid for."""

    upstream: str
    reason: str
    started: Time
    finished: Time


class UsageData(msgspec.Struct, frozen=True, kw_only=True):
    """What one request consumed. It holds nothing of prompts and answers."""

    request_id: Annotated[str, Meta(description="`x-request-id` of the answer.")]
    organization: str
    project: str
    key_id: str
    operation: str
    is_stream: bool
    model: Model
    outcome: Outcome
    status: Annotated[Count, Meta(description="HTTP status answered; 0 when none was.")]
    error_code: str | None
    quantities: Annotated[
        dict[Meter, Count],
        Meta(description="What is counted, by meter; the first nine always. No token is in two."),
    ]
    usage_source: UsageSource
    flags: Annotated[list[str], Meta(description="What was odd about the engine's figures.")]
    timing: Timing
    attempt_count: Count
    earlier_attempts: list[EarlierAttempt]
    service_tier: Annotated[str, Meta(description="As the engine named it; empty when it did not.")]
    upstream_request_id: Annotated[str, Meta(description="The engine's own name of the request.")]
    labels: dict[str, str]


class UsageCloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A usage event of Penstock in the form of CloudEvents 1.0. Readers ignore unknown members."""

    specversion: Literal["1.0"]
    id: Annotated[str, Meta(description="UUIDv7: with `source` the identity of the event.")]
    source: Annotated[str, Meta(description="The same for all nodes of a deployment.")]
    type: Literal["penstock.usage.v1"]
    subject: Annotated[str, Meta(description="`organization/<id>/project/<id>`")]
    time: Annotated[Time, Meta(description="Admission: prices and windows of that time count.")]
    datacontenttype: Literal["application/json"]
    dataschema: str
    data: UsageData


def cloud_event(event: UsageEvent, source: str) -> UsageCloudEvent:
    """Return a usage event as a CloudEvent; the same for the same event.

    Args:
        event: Of a journal or a batch.
        source: URL of the deployment's control plane, which has the schema; no slash at its end.
    """
    counted = quantities(event)
    return UsageCloudEvent(
        specversion="1.0",
        id=event.event_id,
        source=source,
        type=TYPE,
        subject=f"organization/{event.organization}/project/{event.project}",
        time=_time(event.started_at_ns),
        datacontenttype="application/json",
        dataschema=source + SCHEMA_PATH,
        data=UsageData(
            request_id=event.request_id,
            organization=event.organization,
            project=event.project,
            key_id=event.key_id,
            operation=event.operation,
            is_stream=event.is_stream,
            model=Model(
                event.model, event.served_model, event.upstream, event.data_class, event.region
            ),
            outcome=event.outcome,
            status=max(event.status, 0),
            error_code=event.error_code,
            quantities=dict.fromkeys(_ALWAYS, 0) | counted,
            usage_source=event.usage_source,
            flags=list(event.flags),
            timing=Timing(
                _time(event.started_at_ns),
                None if event.first_byte_at_ns is None else _time(event.first_byte_at_ns),
                _time(event.finished_at_ns),
            ),
            attempt_count=event.attempt_count,
            earlier_attempts=[
                EarlierAttempt(
                    attempt.upstream,
                    attempt.reason,
                    _time(attempt.started_at_ns),
                    _time(attempt.finished_at_ns),
                )
                for attempt in event.earlier_attempts
            ],
            service_tier=event.service_tier,
            upstream_request_id=event.upstream_request_id,
            labels=dict(event.labels),
        ),
    )


def event_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `UsageCloudEvent`.

    Within version 1 members are only added. Whoever takes one away, or makes it something else,
    makes a version 2 with another type.
    """
    schema = msgspec.json.schema(UsageCloudEvent)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:penstock:schemas:{SCHEMA_NAME.removesuffix('.json')}",
        "title": "Usage event of Penstock, version 1",
        **schema,
    }


def _time(time_ns: int) -> str:
    return format_time(time_ns // 1_000)
