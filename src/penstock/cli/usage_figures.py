"""`penstock usage buckets` and `penstock usage costs`: figures by time and by group."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.instance import DataOption, connect
from penstock.cli.options import option
from penstock.cli.output import JsonOption, console, examples, print_json, print_table
from penstock.cli.resolving import find_usage_filters
from penstock.cli.times import format_time, parse_time
from penstock.kit.decimals import format_decimal, parse_decimal
from penstock.kit.time_zones import find_zone

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

BUCKETS = "/api/v1/usage/buckets"
COSTS = "/api/v1/costs"

_PAGE_RESULTS = "1000"
_PLACES = 18
_MONTH = re.compile(r"(?P<year>[0-9]{4})-(?P<month>0[1-9]|1[0-2])")
_FIGURES = {
    "Requests": "requests",
    "Input tokens": "input_tokens",
    "Output tokens": "output_tokens",
    "Cached": "cached_input_tokens",
    "Reasoning": "reasoning_output_tokens",
    "Images": "images",
    "Audio seconds": "audio_seconds",
    "Characters": "characters",
}
_EXPENDABLE = (
    "Characters",
    "Audio seconds",
    "Images",
    "Reasoning",
    "Cached",
    "Organization",
    "Project",
    "Key id",
)
_AMOUNTS = {"Amount": "amount", "Cost": "cost", "Margin": "margin"}
_HEADINGS = {"key_id": "Key", "data_class": "Data class", "label_value": "Label"}
_NAMES = {"organization": "organization_name", "project": "project_name", "key_id": "key_name"}
_WORDS = {"key": "key_id", "organization": "organization"}
"""What people may say for a dimension."""

OrganizationOption = Annotated[
    str | None, option("--organization", "Only of this organization, by name or id.", "NAME")
]
ProjectOption = Annotated[
    str | None, option("--project", "Only of this project, by name or id.", "NAME")
]
KeyOption = Annotated[str | None, option("--key", "Only of this API key, by name or id.", "NAME")]
ModelOption = Annotated[
    str | None, option("--model", "Only of this model, by the name asked for.", "NAME")
]
SinceOption = Annotated[
    str | None,
    option("--since", "In the first one: ISO 8601 (UTC without an offset) or an age.", "TIME"),
]
UntilOption = Annotated[
    str | None, option("--until", "The last one begins before it; as --since.", "TIME")
]
MonthOption = Annotated[str | None, option("--month", "In place of the two: a month.", "2026-11")]
ZoneOption = Annotated[
    str | None,
    option("--tz", "Whose days and months: of this time zone; of UTC without.", "Europe/Berlin"),
]
GroupsOption = Annotated[
    str | None,
    option(
        "--group-by",
        "organization, project, key, model, data_class, label:NAME; several with commas.",
        "GROUPS",
    ),
]


class BucketWidth(StrEnum):
    """How long a bucket is."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class CostWidth(StrEnum):
    """How long a bucket of costs is."""

    DAY = "day"
    MONTH = "month"


BUCKETS_EXAMPLES = examples(
    "penstock usage buckets --since 7d --group-by model",
    "penstock usage buckets --bucket month --project search --json",
)
COSTS_EXAMPLES = examples(
    "penstock usage costs --project search --json | jq -r .amount",
    "penstock usage costs --month 2026-11 --group-by organization,model",
    "penstock usage costs --month 2026-11 --bucket day --tz Europe/Berlin",
    "penstock usage costs --since 7d --bucket day --group-by label:cost_center",
)


def buckets(  # noqa: PLR0913  # each option is a parameter: Typer reads them from here
    *,
    bucket: Annotated[BucketWidth, typer.Option(help="How long a bucket is.")] = BucketWidth.DAY,
    organization: OrganizationOption = None,
    project: ProjectOption = None,
    key: KeyOption = None,
    model: ModelOption = None,
    region: Annotated[str | None, option("--region", "Only of this region.", "REGION")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    month: MonthOption = None,
    tz: ZoneOption = None,
    group_by: GroupsOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show requests and tokens by hour, day or month. With --json: one object a line.

    Whole buckets are counted. Results can be grouped by region, too.
    """
    wanted = {
        **find_span(since, until, month, read_zone(tz)),
        **given(
            tz=tz, model=model, region=region, group_by=read_groups(group_by), bucket=bucket.value
        ),
    }
    with connect(data) as client:
        wanted |= find_usage_filters(client, organization, project, key)
        rows = list(list_results(client, BUCKETS, wanted))
    if as_json:
        for row in rows:
            print_json(row)
        return
    if not rows:
        console().print("No request matches.")
        return
    groups = list_dimensions(group_by)
    zone = read_zone(tz)
    headings = [_begins(zone), *(name_heading(name) for name in groups), *_FIGURES]
    cells = [
        [
            format_begin(row, bucket.value, zone),
            *(format_cell(row, name) for name in groups),
            *(f"{row[member]:,}" for member in _FIGURES.values()),
        ]
        for row in rows
    ]
    print_table(headings, cells, right=tuple(_FIGURES), expendable=_EXPENDABLE)


def costs(  # noqa: PLR0913  # as above
    *,
    bucket: Annotated[
        CostWidth | None,
        typer.Option(help="Of each day or month by itself.", show_default="all together"),
    ] = None,
    organization: OrganizationOption = None,
    project: ProjectOption = None,
    key: KeyOption = None,
    model: ModelOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    month: MonthOption = None,
    tz: ZoneOption = None,
    group_by: GroupsOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what usage is charged, exactly. With --json: one object a line, amounts as decimals.

    Whole days are counted. The operator is shown what is paid upstream, too.
    """
    is_day = bucket is CostWidth.DAY or since is not None or until is not None
    wanted = {
        **find_span(since, until, month, read_zone(tz)),
        **given(
            tz=tz, model=model, group_by=read_groups(group_by), bucket="day" if is_day else "month"
        ),
    }
    with connect(data) as client:
        wanted |= find_usage_filters(client, organization, project, key)
        rows = list(list_results(client, COSTS, wanted))
    groups = list_dimensions(group_by)
    if bucket is None:
        rows = _add_up(rows, groups)
        if not rows and not groups:
            rows = [{"currency": None, "amount": "0"}]
    if as_json:
        for row in rows:
            print_json(row)
        return
    _print_costs(rows, groups, None if bucket is None else bucket.value, read_zone(tz))


def _print_costs(
    rows: "Sequence[Row]", groups: Sequence[str], width: str | None, zone: tzinfo
) -> None:
    if not any(row["currency"] for row in rows):
        console().print("Nothing is charged.")
        return
    amounts = {
        heading: member
        for heading, member in _AMOUNTS.items()
        if any(row.get(member) is not None for row in rows)
    }
    begin = [] if width is None else [_begins(zone)]
    headings = [*begin, *(name_heading(name) for name in groups), "Currency", *amounts]
    cells = [
        [
            *([] if width is None else [format_begin(row, width, zone)]),
            *(format_cell(row, name) for name in groups),
            row["currency"],
            *(row.get(member) or "-" for member in amounts.values()),
        ]
        for row in rows
    ]
    print_table(headings, cells, right=tuple(amounts), expendable=_EXPENDABLE)


def list_results(client: "ControlClient", path: str, filters: Mapping[str, str]) -> Iterator["Row"]:
    """Yield the results of all pages, each with the times of its bucket and its own members."""
    page: str | None = None
    while True:
        more = {} if page is None else {"page": page}
        answer = client.get(path, {**filters, "limit": _PAGE_RESULTS, **more})
        for bucket in answer["data"]:
            times = {name: bucket[name] for name in ("start_time", "end_time")}
            for result in bucket["results"]:
                members = {name: value for name, value in result.items() if name != "object"}
                is_asked = {*list_dimensions(filters.get("group_by"))}
                yield times | {
                    name: value
                    for name, value in members.items()
                    if value is not None or name in is_asked or name in _AMOUNTS.values()
                }
        page = answer["next_page"]
        if page is None:
            return


def _add_up(rows: "Sequence[Row]", groups: Sequence[str]) -> "list[Row]":
    """Return the sums of all buckets, exact, in order of the group."""
    sums: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = (*(str(row[name]) for name in groups), str(row["currency"]))
        there = sums.get(key)
        if there is None:
            sums[key] = {name: row[name] for name in row if not name.endswith("_time")}
            continue
        for member in _AMOUNTS.values():
            if row.get(member) is None:
                continue
            there[member] = format_decimal(_atto(there.get(member)) + _atto(row[member]), _PLACES)
    for total in sums.values():
        if total.get("cost") is not None:
            # Of all buckets: some of them may have no cost, and so no margin of their own.
            margin = _atto(total["amount"]) - _atto(total["cost"])
            total["margin"] = format_decimal(margin, _PLACES)
    return [sums[key] for key in sorted(sums)]


def _atto(text: str | None) -> int:
    sign, digits = (-1, text[1:]) if text and text.startswith("-") else (1, text or "0")
    return sign * (parse_decimal(digits, _PLACES) or 0)


def read_zone(tz: str | None) -> tzinfo:
    """Return the time zone that `--tz` names; UTC without.

    Raises:
        CommandError: There is none of that name here.
    """
    if tz is None:
        return UTC
    zone = find_zone(tz)
    if zone is None:
        remedy = "Write it like Europe/Berlin."
        raise CommandError(BAD_OPTION, f"--tz {tz} is no time zone.", remedy)
    return zone


def find_span(
    since: str | None, until: str | None, month: str | None, zone: tzinfo = UTC
) -> dict[str, str]:
    """Return the filters that `--since`, `--until` and `--month` mean.

    Args:
        since: As it was typed; a time without an offset is one of UTC.
        until: The same.
        month: The same, of the zone.
        zone: Whose months are meant.

    Raises:
        CommandError: One is none, or they are given together.
    """
    if month is not None:
        if since is not None or until is not None:
            message = "--month goes with neither --since nor --until."
            raise CommandError(BAD_OPTION, message, "Leave one of them out.")
        first, behind = month_bounds(month, zone)
        return {"since": format_time(first), "until": format_time(behind)}
    now = datetime.now(UTC)
    return given(
        since=since and format_time(parse_time("--since", since, now)),
        until=until and format_time(parse_time("--until", until, now)),
    )


def month_bounds(text: str, zone: tzinfo = UTC) -> tuple[datetime, datetime]:
    """Return the first moments of a month, as `2026-11`, and of the one behind it, in a zone.

    Raises:
        CommandError: It is none.

    >>> [moment.isoformat() for moment in month_bounds("2026-12")]
    ['2026-12-01T00:00:00+00:00', '2027-01-01T00:00:00+00:00']
    """
    match = _MONTH.fullmatch(text)
    if match is None or not 1970 <= int(match["year"]) < 9999:  # noqa: PLR2004  # the calendar's
        raise CommandError(BAD_OPTION, f"--month {text} is no month.", "Write it like 2026-11.")
    year, number = int(match["year"]), int(match["month"])
    behind = (year + number // 12, number % 12 + 1)
    return datetime(year, number, 1, tzinfo=zone), datetime(*behind, 1, tzinfo=zone)


def given(**members: str | None) -> dict[str, str]:
    """Return the filters that are given."""
    return {name: value for name, value in members.items() if value is not None}


def read_groups(text: str | None) -> str | None:
    """Return what `--group-by` says in the words of the API."""
    if text is None:
        return None
    return ",".join(_WORDS.get(word.strip(), word.strip()) for word in text.split(","))


def list_dimensions(group_by: str | None) -> list[str]:
    """Return the members of results that `--group-by` means."""
    groups = read_groups(group_by)
    if groups is None:
        return []
    return ["label_value" if name.startswith("label:") else name for name in groups.split(",")]


def name_heading(name: str) -> str:
    """Return what a column of a dimension is called."""
    return _HEADINGS.get(name, name.capitalize())


def _begins(zone: tzinfo) -> str:
    return f"Begins ({'UTC' if zone is UTC else zone})"


def format_begin(row: Mapping[str, Any], width: str, zone: tzinfo) -> str:
    """Return when the bucket of a row begins, for people."""
    begin = datetime.fromtimestamp(row["start_time"], zone).isoformat(sep=" ")
    return begin[: {"month": 7, "day": 10}.get(width, 16)]


def format_cell(row: Mapping[str, Any], name: str) -> str:
    """Return a dimension of a row for people: the name of what has one."""
    value = row.get(_NAMES.get(name, "")) or row.get(name)
    return "-" if value in {None, ""} else str(value)
