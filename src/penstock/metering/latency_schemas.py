"""What the API of latency takes and answers; times are milliseconds."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, Field, field_validator

from penstock.audit.schemas import RequestBody, Text, example
from penstock.kit.errors import PenstockError
from penstock.kit.moments import microseconds
from penstock.metering.bucket_model import MAX_RESULTS, BucketQuery, LatencyResult
from penstock.metering.bucket_rules import DAY_US, find_page
from penstock.metering.bucket_schemas import (
    TIME,
    BucketPageBody,
    GroupMembers,
    Names,
    bucket_example,
    group_members,
)
from penstock.metering.errors import CURSOR_INVALID, SPAN_TOO_LONG
from penstock.metering.latency_rules import MEASURES, OUTCOMES, quantile_us

DIMENSIONS = ("organization", "project", "model")
MAX_SPAN = timedelta(days=32)
"""Histograms are added up one by one."""
_TIMES: dict[str, Any] = {"count": 980, "p50_ms": 184.32, "p90_ms": 409.599, "p99_ms": 950.271}
_EXAMPLE: dict[str, Any] = {
    "object": "latency.result",
    "model": "emulated-70b",
    "requests": 1_000,
    "failed_requests": 4,
    "outcomes": {"ok": 980, "caller_gone": 16, "upstream_error": 4},
    "time_to_first_token": _TIMES,
    "time_per_output_token": _TIMES,
    "request_duration": _TIMES,
}


class LatencyQuery(RequestBody):
    """Which requests are meant."""

    bucket: Annotated[
        Literal["hour", "day"], Field(description="How long a bucket is, in UTC.")
    ] = "day"
    since: Annotated[
        AwareDatetime | None,
        Field(description=f"In the first bucket that is meant; a day ago without. {TIME}"),
    ] = None
    until: Annotated[
        AwareDatetime | None,
        Field(
            description="The last bucket begins before it; now without. "
            f"At most {MAX_SPAN.days} days after `since`."
        ),
    ] = None
    group_by: Annotated[
        Text | None,
        Field(
            description=f"One result for each of: {', '.join(f'`{name}`' for name in DIMENSIONS)}; "
            "several with commas between them.",
            examples=["project,model"],
        ),
    ] = None
    organization: Annotated[Text | None, Field(description="Its id, or name in a file.")] = None
    project: Annotated[Text | None, Field(description="Its id, or name in a file.")] = None
    model: Annotated[Text | None, Field(description="The alias that callers asked for.")] = None
    limit: Annotated[
        int, Field(ge=1, le=MAX_RESULTS, description="Most results, of all buckets together.")
    ] = 100
    page: Annotated[
        Text | None, Field(description="`next_page` of the page before; the first page without.")
    ] = None

    @field_validator("group_by")
    @classmethod
    def _check_groups(cls, value: str | None) -> str | None:
        groups = [] if value is None else value.split(",")
        if len({*groups}) < len(groups) or not {*DIMENSIONS}.issuperset(groups):
            message = f"use {', '.join(DIMENSIONS)}, with commas between them, each once"
            raise ValueError(message)
        return value

    def build(self, only_project: str | None, now_us: int) -> BucketQuery:
        """Return what is asked for.

        Args:
            only_project: The one that the caller may see, or asks for, if it is one only.
            now_us: The time.

        Raises:
            PenstockError: `CURSOR_INVALID`, `SPAN_TOO_LONG`.
        """
        groups = () if self.group_by is None else tuple(self.group_by.split(","))
        until_us = microseconds(self.until) or now_us
        since_us = microseconds(self.since)
        if since_us is None:
            since_us = until_us - DAY_US
        if until_us - since_us > MAX_SPAN // timedelta(microseconds=1):
            raise PenstockError(SPAN_TOO_LONG, f"ask for {MAX_SPAN.days} days at most")
        after = None if self.page is None else find_page(self.page, len(groups))
        if self.page is not None and after is None:
            raise PenstockError(CURSOR_INVALID)
        wanted = {
            "organization": self.organization,
            "project": only_project,
            "model": self.model,
        }
        return BucketQuery(
            width=self.bucket,
            since_us=since_us,
            until_us=until_us,
            group_by=groups,
            filters={name: value for name, value in wanted.items() if value is not None},
            after=after,
            limit=self.limit,
        )


_Ms = Annotated[float, Field(description="Within 1/16 of what it was.")]


class TimesBody(BaseModel):
    """How long something took: of every hundred so many took at most that long."""

    count: Annotated[int, Field(description="Requests that it is known of.")]
    p50_ms: _Ms
    p90_ms: _Ms
    p99_ms: _Ms

    @classmethod
    def of(cls, buckets: Mapping[str, int]) -> Self | None:
        """Return a histogram as it is answered, or None when nothing is in it."""
        count = sum(buckets.values())
        if not count:
            return None
        p50, p90, p99 = (round(quantile_us(buckets, part) / 1_000, 3) for part in (50, 90, 99))
        return cls(count=count, p50_ms=p50, p90_ms=p90, p99_ms=p99)


class LatencyResultBody(GroupMembers):
    """How long requests of a group took in a bucket, and how they ended."""

    model_config = example(**_EXAMPLE)

    object: Literal["latency.result"] = "latency.result"
    requests: Annotated[int, Field(description="All that were sent to an engine.")]
    failed_requests: Annotated[
        int, Field(description="Those that ended neither well nor because their caller was gone.")
    ]
    outcomes: Annotated[dict[str, int], Field(description="How many ended so.")]
    time_to_first_token: Annotated[
        TimesBody | None, Field(description="Of streams, from admission on; null of none.")
    ]
    time_per_output_token: Annotated[
        TimesBody | None, Field(description="Of streams, of each token behind the first.")
    ]
    request_duration: Annotated[
        TimesBody | None, Field(description="Of requests that ended well, from admission on.")
    ]

    @classmethod
    def of(cls, result: LatencyResult, group_by: Sequence[str], names: Names) -> Self:
        """Return a result as it is answered."""
        outcomes = dict(sorted(result.counts.get(OUTCOMES, {}).items()))
        requests = sum(outcomes.values())
        times: dict[str, Any] = {one: TimesBody.of(result.counts.get(one, {})) for one in MEASURES}
        return cls(
            **group_members(group_by, result.group, names),
            requests=requests,
            failed_requests=requests - outcomes.get("ok", 0) - outcomes.get("caller_gone", 0),
            outcomes=outcomes,
            **times,
        )


class LatencyBody(BucketPageBody[LatencyResultBody]):
    """Latency in order of time and group. A bucket may go on at the beginning of the next page."""

    model_config = bucket_example(_EXAMPLE)
