"""What the API of hours, days and months takes and answers, in the shape that OpenAI's has."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Annotated, Any, Generic, Literal, Self, TypeVar
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BaseModel, Field, field_validator

from penstock.audit.schemas import RequestBody, Text, example
from penstock.contract.usage import Meter
from penstock.kit.errors import PenstockError
from penstock.kit.moments import microseconds
from penstock.kit.time_zones import find_zone
from penstock.metering.bucket_model import (
    DIMENSIONS,
    LABEL,
    MAX_RESULTS,
    BucketPage,
    BucketPosition,
    BucketQuery,
    InBucket,
    UsageResult,
    Width,
)
from penstock.metering.bucket_rules import advance, find_fault, find_page
from penstock.metering.errors import CURSOR_INVALID, GROUPING_UNKNOWN

TIME = "ISO 8601 with a time zone, e.g. `2026-06-15T12:00:00Z`; write `+` as `%2B`."
_LABEL_PREFIX = "label:"
_NAMED = {"organization": "organization_name", "project": "project_name", "key_id": "key_name"}
_SUMS: Mapping[str, tuple[Meter, ...]] = {
    "requests": ("requests",),
    "input_tokens": ("input", "cached_input", "cache_write_input", "audio_input"),
    "output_tokens": ("output", "reasoning_output", "audio_output"),
    "cached_input_tokens": ("cached_input",),
    "cache_write_input_tokens": ("cache_write_input",),
    "audio_input_tokens": ("audio_input",),
    "reasoning_output_tokens": ("reasoning_output",),
    "audio_output_tokens": ("audio_output",),
    "images": ("images",),
    "audio_seconds": ("audio_seconds",),
    "characters": ("characters",),
}
"""Members of an answer, and the meters that each is the sum of."""

Whole = Annotated[int, Field(description="Never rounded, at any size.")]
Member = Annotated[str | None, Field(description="Null unless it is grouped by.")]
_Name = Annotated[
    str | None, Field(description="What it is called now; null for what was booked under a name.")
]
Names = Mapping[str, Mapping[str, str]]
"""Of ids, by dimension."""


class SpanQuery(RequestBody):
    """Which buckets are meant, and of whom."""

    since: Annotated[
        AwareDatetime | None,
        Field(description=f"In the first bucket that is meant; the oldest without. {TIME}"),
    ] = None
    until: Annotated[
        AwareDatetime | None,
        Field(description=f"The last bucket begins before it; the newest without. {TIME}"),
    ] = None
    group_by: Annotated[
        Text | None,
        Field(
            description=f"One result for each of: {', '.join(f'`{name}`' for name in DIMENSIONS)}, "
            "`label:NAME`; several with commas between them. Labels go with `organization`, "
            "`project` and, of usage, `model` only; a request with two values of a label is in "
            "both.",
            examples=["project,model"],
        ),
    ] = None
    tz: Annotated[
        Text | None,
        Field(
            description="Whose days and months are meant, e.g. `Europe/Berlin`; those of UTC "
            "without.",
            examples=["Europe/Berlin"],
        ),
    ] = None
    organization: Annotated[Text | None, Field(description="Its id, or name in a file.")] = None
    project: Annotated[Text | None, Field(description="Its id, or name in a file.")] = None
    key_id: Text | None = None
    model: Annotated[Text | None, Field(description="The alias that callers asked for.")] = None
    data_class: Text | None = None
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
        labels = [group for group in groups if group.startswith(_LABEL_PREFIX)]
        known = {*cls.dimensions(), *(label for label in labels if label != _LABEL_PREFIX)}
        if len(labels) > 1 or len({*groups}) < len(groups) or not known.issuperset(groups):
            names = ", ".join(cls.dimensions())
            message = f"use {names} or label:NAME, with commas between them, each once"
            raise ValueError(message)
        return value

    @field_validator("tz")
    @classmethod
    def _check_zone(cls, value: str | None) -> str | None:
        zone = None if value is None else find_zone(value)
        if value is not None and zone is None:
            message = "use a name of the IANA database, like Europe/Berlin"
            raise ValueError(message)
        return value

    @property
    def zone(self) -> ZoneInfo | None:
        """Whose days and months are meant."""
        return None if self.tz in {None, "UTC"} else find_zone(self.tz or "")

    @classmethod
    def dimensions(cls) -> tuple[str, ...]:
        """Return what can be grouped by, besides a label."""
        return DIMENSIONS

    @classmethod
    def label_dimensions(cls) -> tuple[str, ...]:
        """Return what can be grouped by and asked for together with a label."""
        return "organization", "project", "model"

    def build(self, width: Width, only_project: str | None, *, ranks: int = 0) -> BucketQuery:
        """Return what is asked for.

        Args:
            width: How long a bucket is.
            only_project: The one that the caller may see, or asks for, if it is one only.
            ranks: How many values tell results apart besides the group.

        Raises:
            PenstockError: `GROUPING_UNKNOWN`, `CURSOR_INVALID`.
        """
        groups = [] if self.group_by is None else self.group_by.split(",")
        labels = [group for group in groups if group.startswith(_LABEL_PREFIX)]
        wanted = {name: getattr(self, name, None) for name in DIMENSIONS} | {
            "project": only_project
        }
        query = BucketQuery(
            width=width,
            since_us=microseconds(self.since),
            until_us=microseconds(self.until),
            group_by=tuple(LABEL if group in labels else group for group in groups),
            label=labels[0].removeprefix(_LABEL_PREFIX) if labels else None,
            filters={name: value for name, value in wanted.items() if value is not None},
            zone=self.zone,
            after=self._find_after(len(groups) + ranks),
            limit=self.limit,
        )
        fault = find_fault(query, self.label_dimensions())
        if fault is not None:
            raise PenstockError(GROUPING_UNKNOWN, fault)
        return query

    def _find_after(self, group_count: int) -> BucketPosition | None:
        if self.page is None:
            return None
        after = find_page(self.page, group_count)
        if after is None:
            raise PenstockError(CURSOR_INVALID)
        return after


class BucketsQuery(SpanQuery):
    """Which figures of usage are meant."""

    bucket: Annotated[Width, Field(description="How long a bucket is.")] = "day"
    region: Text | None = None


class GroupMembers(BaseModel):
    """The group that a result is of."""

    organization: Member = None
    organization_name: _Name = None
    project: Member = None
    project_name: _Name = None
    key_id: Member = None
    key_name: _Name = None
    model: Annotated[
        str | None, Field(description="The alias that callers asked for; null as above.")
    ] = None
    data_class: Member = None
    label_value: Annotated[
        str | None, Field(description="Of the label that is grouped by; null as above.")
    ] = None


def group_members(group_by: Sequence[str], group: Sequence[str], names: Names) -> dict[str, Any]:
    """Return the members of a result that say which group it is of."""
    members: dict[str, Any] = dict(zip(group_by, group, strict=True))
    for dimension, member in _NAMED.items():
        value = members.get(dimension)
        if value is not None:
            members[member] = names.get(dimension, {}).get(value)
    return members


_FIGURES = {
    "requests": 31_250,
    "input_tokens": 25_375_000,
    "output_tokens": 8_562_500,
    "cached_input_tokens": 20_000_000,
    "cache_write_input_tokens": 0,
    "audio_input_tokens": 0,
    "reasoning_output_tokens": 3_000_000,
    "audio_output_tokens": 0,
    "images": 0,
    "audio_seconds": 0,
    "characters": 0,
}
_EXAMPLE: dict[str, Any] = {"object": "usage.result", "model": "emulated-70b", **_FIGURES}


def sum_figures(figures: Mapping[Meter, int]) -> dict[str, int]:
    """Return figures of meters as the members of an answer."""
    return {
        member: sum(figures.get(meter, 0) for meter in meters) for member, meters in _SUMS.items()
    }


class UsageResultBody(GroupMembers):
    """What a group consumed in a bucket; parts are of the input and of the output tokens."""

    model_config = example(**_EXAMPLE)

    object: Literal["usage.result"] = "usage.result"
    region: Member = None
    requests: Annotated[Whole, Field(description="Those that an engine began to answer.")]
    input_tokens: Whole
    output_tokens: Whole
    cached_input_tokens: Whole
    cache_write_input_tokens: Whole
    audio_input_tokens: Whole
    reasoning_output_tokens: Whole
    audio_output_tokens: Whole
    images: Whole
    audio_seconds: Annotated[Whole, Field(description="Of sound that was heard.")]
    characters: Annotated[Whole, Field(description="Of text that was spoken.")]

    @classmethod
    def of(cls, result: UsageResult, group_by: Sequence[str], names: Names) -> Self:
        """Return a result as it is answered."""
        sums: dict[str, Any] = {**sum_figures(result.figures)}
        return cls(**group_members(group_by, result.group, names), **sums)


Body = TypeVar("Body", bound=BaseModel)
_Moment = Annotated[int, Field(description="Seconds since the Unix epoch.")]


class BucketBody(BaseModel, Generic[Body]):
    """An hour, a day or a month."""

    object: Literal["bucket"] = "bucket"
    start_time: _Moment
    end_time: Annotated[int, Field(description="Behind its last second, as above.")]
    results: list[Body]


class BucketPageBody(BaseModel, Generic[Body]):
    """Results in order of time and group. A bucket may go on at the beginning of the next page."""

    object: Literal["page"] = "page"
    data: list[BucketBody[Body]]
    has_more: bool
    next_page: Annotated[
        str | None, Field(description="Where to go on; null when there is nothing more.")
    ]


def bucket_example(result: Mapping[str, Any]) -> Any:
    """Return the configuration of a page that shows one result."""
    bucket = {
        "object": "bucket",
        "start_time": 1_781_481_600,
        "end_time": 1_781_568_000,
        "results": [result],
    }
    return example(object="page", data=[bucket], has_more=False, next_page=None)


class UsageBucketsBody(BucketPageBody[UsageResultBody]):
    """Usage in order of time and group. A bucket may go on at the beginning of the next page."""

    model_config = bucket_example(_EXAMPLE)


def build_buckets(
    width: Width,
    page: BucketPage[Any],
    bodies: Sequence[BaseModel],
    zone: ZoneInfo | None,
) -> dict[str, Any]:
    """Return the members of a page.

    Args:
        width: How long a bucket is.
        page: The results.
        bodies: Them as they are answered, in the same order.
        zone: Whose days and months they are.
    """
    pairs: Sequence[tuple[InBucket, BaseModel]] = list(zip(page.results, bodies, strict=True))
    data = [
        {
            "start_time": start_us // 1_000_000,
            "end_time": advance(width, start_us, 1, zone) // 1_000_000,
            "results": [body for _, body in of_bucket],
        }
        for start_us, of_bucket in groupby(pairs, key=lambda pair: pair[0].start_us)
    ]
    return {"data": data, "has_more": page.next_page is not None, "next_page": page.next_page}
