"""The HTTP endpoint of exports."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, Field, ValidationInfo, field_validator

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.audit.schemas import RequestBody, Text
from penstock.kit.errors import PenstockError
from penstock.kit.moments import microseconds
from penstock.metering.bucket_model import BucketQuery
from penstock.metering.model import UsageFilter
from penstock.metering.visibility import narrow
from penstock.rating.exports import pages
from penstock.rating.exports.cloud_events import LinesEncoder, list_cloud_events
from penstock.rating.exports.errors import FORMAT_UNAVAILABLE, SPAN_MISSING
from penstock.rating.exports.focus_rules import COLUMNS as FOCUS_COLUMNS
from penstock.rating.exports.formats import Column, Encoder, create_encoder, write
from penstock.storage.errors import OBJECT_UNKNOWN

GROUP_ROWS = 10_000
"""About as many rows are held at a time, and are a row group of Parquet."""
MAX_FOCUS_US = 366 * 86_400_000_000

_FILTERS = ("organization", "project", "key_id", "model")


class ExportQuery(RequestBody):
    """Which rows are meant, and how they are written."""

    rows: Annotated[
        Literal["events", "costs", "focus"],
        Field(
            description="`events`: each usage event; `costs`: what each day is charged by project, "
            "key, model and data class; `focus`: the same by price and meter, as FOCUS 1.2."
        ),
    ] = "events"
    format: Annotated[
        Literal["csv", "jsonl", "parquet", "cloudevents"],
        Field(description="`cloudevents`: of `events`, a line each, as of `/schemas`."),
    ] = "csv"
    since: Annotated[
        AwareDatetime | None,
        Field(description="ISO 8601 with a time zone. Days of UTC are whole but for `events`."),
    ] = None
    until: Annotated[AwareDatetime | None, Field(description="Before this time.")] = None
    organization: Annotated[Text | None, Field(description="Its id, or name in a file.")] = None
    project: Annotated[Text | None, Field(description="Its id, or name in a file.")] = None
    key_id: Text | None = None
    model: Annotated[Text | None, Field(description="The alias that callers asked for.")] = None

    @field_validator("format")
    @classmethod
    def _check_format(cls, value: str, info: ValidationInfo) -> str:
        if value == "cloudevents" and info.data.get("rows") != "events":
            message = "use csv, jsonl or parquet: only events are CloudEvents"
            raise ValueError(message)
        return value


def create_export_router(provider: str) -> APIRouter:
    """Return the endpoint.

    Args:
        provider: Who runs the platform, for FOCUS.
    """
    router = APIRouter(prefix="/api/v1/usage", tags=["usage"], route_class=AdminRoute)

    @router.get(
        "/export",
        summary="Write usage events, costs or FOCUS rows as a file",
        description=(
            "The file is sent while it is read; one that breaks off was not sent to its end. "
            "Whose rows, and for whom: as of `/api/v1/usage` and `/api/v1/costs`."
        ),
        response_class=StreamingResponse,
        **operation("usage:export", FORMAT_UNAVAILABLE, SPAN_MISSING, OBJECT_UNKNOWN),
    )
    async def export_usage(
        request: Request,
        call: Annotated[Call, Depends(get_call)],
        query: Annotated[ExportQuery, Query()],
    ) -> StreamingResponse:
        call.check_also("usage:read" if query.rows == "events" else "costs:read")
        async with call.read() as session:
            project = await narrow(
                call,
                session,
                organization=query.organization,
                project=query.project,
                key_id=query.key_id,
            )
        encoder: Encoder
        if query.format == "cloudevents":
            source = str(request.base_url).rstrip("/")
            usage_filter = _find_events(query, project)
            encoder, found = LinesEncoder(), list_cloud_events(call.read, usage_filter, source)
        else:
            columns, found = _find_pages(call, query, project, provider)
            encoder = create_encoder(query.format, columns)
        content = write(encoder, found, GROUP_ROWS)
        # What fails before the first row is an answer of its own.
        head = await anext(content)
        first = await anext(content)
        name = f"usage-{query.rows}.{query.format}"
        return StreamingResponse(
            _chain(head + first, content),
            media_type=encoder.media_type,
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    return router


def _find_events(query: ExportQuery, project: str | None) -> UsageFilter:
    return UsageFilter(
        organization=query.organization,
        project=project,
        key_id=query.key_id,
        model=query.model,
        since_us=microseconds(query.since),
        until_us=microseconds(query.until),
    )


def _find_pages(
    call: Call, query: ExportQuery, project: str | None, provider: str
) -> tuple[list[Column], pages.Pages]:
    wanted = {name: getattr(query, name) for name in _FILTERS} | {"project": project}
    filters = {name: value for name, value in wanted.items() if value is not None}
    since_us, until_us = microseconds(query.since), microseconds(query.until)
    if query.rows == "events":
        found = pages.list_event_pages(call.read, _find_events(query, project))
        return pages.event_columns(), found
    if query.rows == "costs":
        costs = BucketQuery(
            width="day",
            since_us=since_us,
            until_us=until_us,
            group_by=pages.COST_GROUPS,
            filters=filters,
        )
        has_costs = call.organization_id is None
        return (
            pages.cost_columns(has_costs=has_costs),
            pages.list_cost_pages(call.read, costs, has_costs=has_costs),
        )
    if since_us is None or until_us is None or not 0 <= until_us - since_us <= MAX_FOCUS_US:
        raise PenstockError(SPAN_MISSING)
    return list(FOCUS_COLUMNS), pages.list_focus_pages(
        call.read, since_us, until_us, filters, provider
    )


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
