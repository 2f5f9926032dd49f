"""`penstock usage latency`: how long requests took, and how they ended."""

from collections.abc import Mapping
from datetime import UTC
from enum import StrEnum
from typing import Annotated, Any

import typer

from penstock.cli.instance import DataOption, connect
from penstock.cli.options import option
from penstock.cli.output import JsonOption, console, examples, print_json, print_table
from penstock.cli.resolving import find_usage_filters
from penstock.cli.usage_figures import (
    ModelOption,
    OrganizationOption,
    ProjectOption,
    SinceOption,
    UntilOption,
    find_span,
    format_begin,
    format_cell,
    given,
    list_dimensions,
    list_results,
    name_heading,
    read_groups,
)

LATENCY = "/api/v1/usage/latency"
EXAMPLES = examples(
    "penstock usage latency --since 24h --bucket hour --group-by model",
    "penstock usage latency --project search --since 7d --json",
)
_MEASURES = {
    "First token": "time_to_first_token",
    "Each token": "time_per_output_token",
    "Request": "request_duration",
}
_PARTS = ("p50_ms", "p90_ms", "p99_ms")


class LatencyWidth(StrEnum):
    """How long a bucket of latency is."""

    HOUR = "hour"
    DAY = "day"


def latency(  # noqa: PLR0913  # each option is a parameter: Typer reads them from here
    *,
    bucket: Annotated[LatencyWidth, typer.Option(help="How long a bucket is.")] = LatencyWidth.DAY,
    organization: OrganizationOption = None,
    project: ProjectOption = None,
    model: ModelOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    group_by: Annotated[
        str | None,
        option("--group-by", "organization, project, model; several with commas.", "GROUPS"),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how long requests took: p50 / p90 / p99 in ms. With --json: one object a line.

    Of the last day, unless --since says otherwise; 32 days at most. Whole buckets are counted.
    First and each token are those of streams, requests those that ended well.
    """
    wanted = {
        **find_span(since, until, None),
        **given(model=model, group_by=read_groups(group_by), bucket=bucket.value),
    }
    with connect(data) as client:
        wanted |= find_usage_filters(client, organization, project, None)
        rows = list(list_results(client, LATENCY, wanted))
    if as_json:
        for row in rows:
            print_json(row)
        return
    if not rows:
        console().print("No request matches.")
        return
    groups = list_dimensions(group_by)
    headings = ["Begins (UTC)", *map(name_heading, groups), "Requests", "Failed", *_MEASURES]
    cells = [
        [
            format_begin(row, bucket.value, UTC),
            *(format_cell(row, name) for name in groups),
            f"{row['requests']:,}",
            _share(row),
            *(_times(row.get(member)) for member in _MEASURES.values()),
        ]
        for row in rows
    ]
    print_table(headings, cells, right=("Requests", "Failed", *_MEASURES))


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['failed_requests'] * 100 / row['requests']:.1f} %" if row["requests"] else "-"


def _times(times: Mapping[str, float] | None) -> str:
    return "-" if times is None else " / ".join(f"{times[part]:,.0f}" for part in _PARTS)
