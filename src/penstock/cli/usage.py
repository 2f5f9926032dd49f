"""`penstock usage`: who used how many tokens, as rows and totals."""

import sys
import time
from collections import deque
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli import usage_corrections, usage_export, usage_figures, usage_latency
from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.instance import DataOption, get_control
from penstock.cli.output import JsonOption, console, examples, print_json, print_table
from penstock.cli.resolving import find_usage_filters
from penstock.cli.times import format_time, parse_time
from penstock.cli.usage_feed import UsageFeed

if TYPE_CHECKING:
    from penstock.cli.control_client import Row

DEFAULT_ROWS = 50
_FOLLOW_S = 1.0
_COLUMNS = (
    ("Started (UTC)", "started_at"),
    ("Organization", "organization"),
    ("Project", "project"),
    ("Key", "key_id"),
    ("Model", "model"),
    ("Input", "input_tokens"),
    ("Output", "output_tokens"),
    ("Outcome", "outcome"),
    ("Usage from", "usage_source"),
    ("Request", "request_id"),
)
_NAMES = {
    "organization": "organization_name",
    "project": "project_name",
    "key_id": "key_name",
}
"""What stands in place of ids for people, when there is such an object."""
_EXPENDABLE = ("Organization", "Project", "Request", "Usage from", "Key")
_FIGURES = ("requests", "input_tokens", "output_tokens")
_FIGURE_HEADINGS = ("Requests", "Input tokens", "Output tokens")


class By(StrEnum):
    """What totals are summed by."""

    ORGANIZATION = "organization"
    PROJECT = "project"
    KEY = "key"
    MODEL = "model"

    @property
    def member(self) -> str:
        """Name of the row's member."""
        return "key_id" if self is By.KEY else self.value


app = typer.Typer(
    name="usage",
    epilog=examples(
        "penstock usage                          the latest requests, and totals",
        "penstock usage --by model --since 24h   totals of each model over a day",
        "penstock usage --key dev-key --follow   requests of a key as they end",
        "penstock usage --json | jq .input_tokens",
        "penstock usage costs --project search   what it is charged",
    ),
)
app.command("buckets", epilog=usage_figures.BUCKETS_EXAMPLES)(usage_figures.buckets)
app.command("latency", epilog=usage_latency.EXAMPLES)(usage_latency.latency)
app.command("costs", epilog=usage_figures.COSTS_EXAMPLES)(usage_figures.costs)
app.command("export", epilog=usage_export.EXAMPLES)(usage_export.export)
app.command("correct", epilog=usage_corrections.CORRECT_EXAMPLES)(usage_corrections.correct)
app.command("void", epilog=usage_corrections.VOID_EXAMPLES)(usage_corrections.void)
app.command("corrections", epilog=usage_corrections.LIST_EXAMPLES)(usage_corrections.corrections)


def _filter(name: str, what: str) -> Any:
    return typer.Option(name, help=f"Only of this {what}.", show_default=False, metavar="NAME")


@app.callback(invoke_without_command=True)
def usage(  # noqa: PLR0913  # each option is a parameter: Typer reads them from here
    ctx: typer.Context,
    *,
    organization: Annotated[
        str | None, _filter("--organization", "organization, by name or id")
    ] = None,
    project: Annotated[str | None, _filter("--project", "project, by name or id")] = None,
    key: Annotated[str | None, _filter("--key", "API key, by name or id")] = None,
    model: Annotated[str | None, _filter("--model", "model, by the name asked for")] = None,
    request_id: Annotated[str | None, _filter("--request-id", "x-request-id")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Started at this time or later: ISO 8601 (UTC unless it has an offset), "
            "or an age: 15m, 2h, 7d.",
            metavar="TIME",
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Started before this time; as --since.", metavar="TIME")
    ] = None,
    by: Annotated[By | None, typer.Option(help="Show only totals, summed by this.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Show so many of the latest rows.",
            show_default=f"{DEFAULT_ROWS}; all with --json",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new rows until Ctrl-C.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show requests and their tokens, and the totals.

    Asks the control plane of the dev instance in the data folder, or the one that PENSTOCK_URL
    and PENSTOCK_TOKEN name. With --json: one object a line, all rows, oldest first.
    """
    if ctx.invoked_subcommand is not None:
        return
    if follow and (by is not None or until is not None):
        message = "--follow goes with neither --by nor --until."
        raise CommandError(BAD_OPTION, message, "Leave one of them out.")
    now = datetime.now(UTC)
    filters = {
        "model": model,
        "request_id": request_id,
        "since": since and format_time(parse_time("--since", since, now)),
        "until": until and format_time(parse_time("--until", until, now)),
    }
    wanted = {name: value for name, value in filters.items() if value}

    from penstock.cli.control_client import ControlClient  # noqa: PLC0415  # start-up time

    with ControlClient(get_control(data)) as client:
        wanted |= find_usage_filters(client, organization, project, key)
        if by is not None:
            _print_totals_by(client.usage_totals(by.member, wanted), by, as_json=as_json)
            return
        feed = UsageFeed(client, wanted, lambda: datetime.now(UTC))
        if as_json:
            rows = feed.all() if limit is None else deque(feed.all(), maxlen=limit)
            for row in rows:
                print_json(row)
        else:
            latest = feed.latest(limit or DEFAULT_ROWS)
            _print_latest(latest, client.usage_totals(By.ORGANIZATION.member, wanted))
        if follow:
            _follow(feed, as_json=as_json)


def _print_latest(rows: list["Row"], totals: list["Row"]) -> None:
    requests, input_tokens, output_tokens = _sums(totals)
    if not requests:
        console().print("No request matches.")
        return
    headings = [heading for heading, _ in _COLUMNS]
    cells = [[_cell(row, name) for _, name in _COLUMNS] for row in rows]
    print_table(headings, cells, right=("Input", "Output"), expendable=_EXPENDABLE)
    shown = f" (the latest {len(rows):,} are shown)" if len(rows) < requests else ""
    noun = "request" if requests == 1 else "requests"
    console().print(
        f"Total: {requests:,} {noun}{shown}, {input_tokens:,} input tokens, "
        f"{output_tokens:,} output tokens"
    )


def _print_totals_by(totals: list["Row"], by: By, *, as_json: bool) -> None:
    if as_json:
        for total in totals:
            print_json(total)
        return
    rows = [[_cell(t, by.member), *(f"{t[figure]:,}" for figure in _FIGURES)] for t in totals]
    rows.append(["Total", *(f"{figure:,}" for figure in _sums(totals))])
    headings = [by.value.capitalize(), *_FIGURE_HEADINGS]
    print_table(headings, rows, right=_FIGURE_HEADINGS)


def _follow(feed: UsageFeed, *, as_json: bool) -> None:
    try:
        while True:
            time.sleep(_FOLLOW_S)
            for row in feed.fresh():
                if as_json:
                    print_json(row)
                else:
                    typer.echo("  ".join(_cell(row, name) for _, name in _COLUMNS))
            sys.stdout.flush()
    except KeyboardInterrupt:
        # The way to end it, so no failure.
        return


def _sums(totals: list["Row"]) -> tuple[int, int, int]:
    requests, input_tokens, output_tokens = (
        sum(int(total[figure]) for total in totals) for figure in _FIGURES
    )
    return requests, input_tokens, output_tokens


def _cell(row: "Row", name: str) -> str:
    value = row.get(_NAMES.get(name, "")) or row.get(name)
    if name == "started_at":
        # Seconds are enough for eyes.
        return str(value)[:19].replace("T", " ")
    return f"{value:,}" if isinstance(value, int) else str(value)
