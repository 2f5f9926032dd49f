"""What the endpoints in OpenAI's form take and answer; members and their names are OpenAI's."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, Field, field_validator

from penstock.audit.schemas import RequestBody, Text, example
from penstock.kit.errors import PenstockError
from penstock.metering.bucket_model import BucketPosition, Result, UsageResult, Width
from penstock.metering.bucket_schemas import sum_figures
from penstock.metering.errors import CURSOR_INVALID, GROUPING_UNKNOWN
from penstock.metering.openai_rules import OpenAiPage, Span, find_position, find_span

MAX_SECOND = 253_370_764_799
"""The last one of the year 9998."""
LISTS = ("project_ids", "user_ids", "api_key_ids", "models", "group_by")
"""Parameters that may be given several times, with `[]` behind the name or without."""
_WIDTHS: dict[str, tuple[Width, int, int]] = {"1h": ("hour", 24, 168), "1d": ("day", 7, 31)}
"""Of a bucket: our word, and how many a page has unless asked and at most."""
_US = 1_000_000

Ids = Annotated[list[Text], Field(default_factory=list, max_length=100)]
_Second = Annotated[int, Field(ge=0, le=MAX_SECOND)]
_Member = Annotated[str | None, Field(description="Null unless it is grouped by.")]


class OpenAiQuery(RequestBody):
    """Which buckets are meant, and of whom."""

    start_time: Annotated[_Second, Field(description="In the first bucket: Unix seconds.")]
    end_time: Annotated[
        _Second | None, Field(description="The last bucket begins before it; now without.")
    ] = None
    project_ids: Ids
    user_ids: Annotated[Ids, Field(description="Refused: usage is kept by key, not by person.")]
    api_key_ids: Ids
    page: Annotated[Text | None, Field(description="`next_page` of the page before.")] = None

    @field_validator("user_ids")
    @classmethod
    def _refuse_users(cls, value: list[str]) -> list[str]:
        if value:
            message = "usage is kept by API key and not by user: ask for api_key_ids"
            raise ValueError(message)
        return value

    def find_span(self, width: Width, limit: int, group_count: int, now_us: int) -> Span:
        """Return the buckets of the page that is asked for.

        Raises:
            PenstockError: `CURSOR_INVALID`, `GROUPING_UNKNOWN`.
        """
        until_us = now_us if self.end_time is None else min(self.end_time * _US, now_us)
        if self.end_time is not None and self.end_time <= self.start_time:
            raise PenstockError(GROUPING_UNKNOWN, "end_time is not behind start_time")
        after: BucketPosition | None = None
        if self.page is not None:
            after = find_position(self.page, group_count)
            if after is None:
                raise PenstockError(CURSOR_INVALID)
        return find_span(width, self.start_time * _US, until_us, limit, after)


class OpenAiUsageQuery(OpenAiQuery):
    """Which usage is meant."""

    models: Annotated[Ids, Field(description="Aliases that callers asked for.")]
    group_by: Annotated[
        list[Literal["project_id", "api_key_id", "model"]],
        Field(
            default_factory=list,
            description="One result for each; without, one for all.",
            max_length=3,
        ),
    ]
    bucket_width: Annotated[
        Literal["1h", "1d"],
        Field(description="An hour, or a day of UTC; minutes are not kept."),
    ] = "1d"
    limit: Annotated[
        int | None,
        Field(ge=1, description="Buckets of a page: of days 7, 31 at most; of hours 24 and 168."),
    ] = None

    batch: Annotated[bool | None, Field(description="Only false: there are no batches.")] = None

    @field_validator("batch")
    @classmethod
    def _refuse_batches(cls, value: bool | None) -> bool | None:  # noqa: FBT001 - a member's value
        if value:
            message = "there are no batches: leave it out"
            raise ValueError(message)
        return value

    @field_validator("bucket_width", mode="before")
    @classmethod
    def _refuse_minutes(cls, value: Any) -> Any:
        if value == "1m":
            message = "usage is kept by hour, not by minute: use 1h or 1d"
            raise ValueError(message)
        return value

    def span(self, now_us: int) -> Span:
        """Return the buckets of the page that is asked for.

        Raises:
            PenstockError: As `find_span`; a page has not so many buckets.
        """
        width, usual, most = _WIDTHS[self.bucket_width]
        limit = usual if self.limit is None else self.limit
        if limit > most:
            message = f"limit is at most {most} with bucket_width={self.bucket_width}"
            raise PenstockError(GROUPING_UNKNOWN, message)
        return self.find_span(width, limit, len(self.group_by), now_us)


class OpenAiUsageMembers(BaseModel):
    """What both kinds of results have; `user_id` is always null."""

    input_tokens: int
    num_model_requests: int
    project_id: _Member = None
    user_id: None = None
    api_key_id: _Member = None
    model: Annotated[str | None, Field(description="The alias; null unless grouped by.")] = None

    @classmethod
    def of(cls, result: UsageResult, group_by: Sequence[str]) -> Self:
        """Return a result as it is answered."""
        sums = sum_figures(result.figures)
        members: dict[str, Any] = dict(zip(group_by, result.group, strict=True))
        for name in _SUMS.keys() & cls.model_fields.keys():
            members[name] = sums[_SUMS[name]]
        return cls(**members)


_SUMS = {
    "num_model_requests": "requests",
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "input_cached_tokens": "cached_input_tokens",
    "input_cache_write_tokens": "cache_write_input_tokens",
    "input_audio_tokens": "audio_input_tokens",
    "output_audio_tokens": "audio_output_tokens",
}
_EXAMPLE: dict[str, Any] = {
    "object": "organization.usage.completions.result",
    "input_tokens": 25_375_000,
    "output_tokens": 8_562_500,
    "input_cached_tokens": 20_000_000,
    "input_cache_write_tokens": 0,
    "input_audio_tokens": 0,
    "output_audio_tokens": 0,
    "num_model_requests": 31_250,
    "model": "emulated-70b",
}
_EMBEDDINGS_EXAMPLE: dict[str, Any] = {
    "object": "organization.usage.embeddings.result",
    "input_tokens": 512_000,
    "num_model_requests": 800,
}


class CompletionsResultBody(OpenAiUsageMembers):
    """What a group consumed in a bucket, of all but embeddings; `batch` is always null."""

    model_config = example(**_EXAMPLE)

    object: Literal["organization.usage.completions.result"] = (
        "organization.usage.completions.result"
    )
    output_tokens: int
    input_cached_tokens: int
    input_cache_write_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    batch: None = None
    service_tier: None = None


class EmbeddingsResultBody(OpenAiUsageMembers):
    """What a group consumed in a bucket for embeddings."""

    model_config = example(**_EMBEDDINGS_EXAMPLE)

    object: Literal["organization.usage.embeddings.result"] = "organization.usage.embeddings.result"


Body = TypeVar("Body", bound=BaseModel)


class OpenAiBucketBody(BaseModel, Generic[Body]):
    """An hour, or a day of UTC; also one without any result."""

    object: Literal["bucket"] = "bucket"
    start_time: Annotated[int, Field(description="Unix seconds.")]
    end_time: Annotated[int, Field(description="Behind its last second, as above.")]
    results: list[Body]


class OpenAiPageBody(BaseModel, Generic[Body]):
    """Buckets in order of time."""

    object: Literal["page"] = "page"
    data: list[OpenAiBucketBody[Body]]
    has_more: bool
    next_page: str | None


def openai_example(result: dict[str, Any]) -> Any:
    """Return the configuration of a page that shows one result."""
    bucket = {"object": "bucket", "start_time": 1_781_481_600, "end_time": 1_781_568_000}
    data = [bucket | {"results": [result]}]
    return example(object="page", data=data, has_more=False, next_page=None)


class CompletionsUsageBody(OpenAiPageBody[CompletionsResultBody]):
    """Usage of all but embeddings."""

    model_config = openai_example(_EXAMPLE)


class EmbeddingsUsageBody(OpenAiPageBody[EmbeddingsResultBody]):
    """Usage for embeddings."""

    model_config = openai_example(_EMBEDDINGS_EXAMPLE)


def openai_members(
    page: OpenAiPage[Result], build: Callable[[Result], BaseModel]
) -> dict[str, Any]:
    """Return the members of a page, each result as `build` returns it."""
    return {
        "data": [
            {
                "start_time": start_us // _US,
                "end_time": end_us // _US,
                "results": [build(result) for result in results],
            }
            for start_us, end_us, results in page.buckets
        ],
        "has_more": page.next_page is not None,
        "next_page": page.next_page,
    }
