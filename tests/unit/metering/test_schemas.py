"""What the usage API says."""

import pytest
from pydantic import BaseModel, ValidationError

from penstock.kit.moments import format_time
from penstock.metering.model import UsageTotal
from penstock.metering.schemas import (
    FilterQuery,
    KeyTotal,
    ModelTotal,
    OrganizationTotal,
    ProjectTotal,
    TotalsBody,
    UsageRecord,
)


@pytest.mark.parametrize(
    ("time_us", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_781_524_800_000_001, "2026-06-15T12:00:00.000001Z"),
        (9_223_372_036_854_775, "2262-04-11T23:47:16.854775Z"),
    ],
)
def test_times_have_six_digits_and_a_zone(time_us: int, text: str) -> None:
    """Every time is ISO 8601 in UTC with all digits to the microsecond."""
    assert format_time(time_us) == text


@pytest.mark.parametrize(
    "since", ["2026-06-15T12:00:00Z", "2026-06-15T14:00:00+02:00", "2026-06-15T12:00:00.000000Z"]
)
def test_bounds_are_moments_whatever_their_zone(since: str) -> None:
    """A bound means the same moment in every zone that it is written in."""
    query = FilterQuery.model_validate({"since": since})
    assert query.to_filter(None).since_us == 1_781_524_800_000_000


@pytest.mark.parametrize(
    "query", [{"since": "2026-06-15T12:00:00"}, {"organisation": "acme"}, {"outcome": "good"}]
)
def test_queries_are_strict(query: dict[str, str]) -> None:
    """A time without a zone, an unknown name and an unknown word are refused."""
    with pytest.raises(ValidationError):
        FilterQuery.model_validate(query)


def test_totals_have_the_name_that_was_grouped_by() -> None:
    """A total names its group by what it was grouped by and by nothing else."""
    figures = {"requests": 3, "input_tokens": 20, "output_tokens": 10}
    body = TotalsBody.from_totals([UsageTotal("prj_1", "search", 3, 20, 10)], "project")
    named = {"project": "prj_1", "project_name": "search"}
    assert body.model_dump() == {"data": [named | figures]}
    body = TotalsBody.from_totals([UsageTotal("fast", None, 3, 20, 10)], "model")
    assert body.model_dump() == {"data": [{"model": "fast"} | figures]}


@pytest.mark.parametrize(
    "model", [UsageRecord, OrganizationTotal, ProjectTotal, KeyTotal, ModelTotal]
)
def test_examples_are_what_they_show(model: type[BaseModel]) -> None:
    """The examples of the OpenAPI document have the form that they are examples of."""
    for example in model.model_json_schema()["examples"]:
        assert model.model_validate(example).model_dump(exclude_unset=True) == example
