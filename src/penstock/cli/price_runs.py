"""`penstock prices simulate`, `rerate`, `runs`: usage by other prices, in thought or for good."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.bodies import given
from penstock.cli.errors import BAD_OPTION, CommandError, ControlRefusedError
from penstock.cli.instance import DataOption, connect
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples, print_json
from penstock.cli.records import (
    LimitOption,
    YesOption,
    confirm,
    say_done,
    show_list,
    text_of,
    time_of,
)
from penstock.cli.resolving import (
    PRICE_BOOKS,
    NameBook,
    find_usage_filters,
    get_catalog_object,
    get_organization,
)
from penstock.cli.times import format_time, parse_time

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

RUNS = "/api/v1/price_runs"
SIMULATION_TIMEOUT_S = 600.0
_WAIT_S = 1.0
_MAX_WAITS = 60

SinceOption = Annotated[
    str, option("--since", "Let in at this time or later: ISO 8601 in UTC, or an age: 7d.", "TIME")
]
UntilOption = Annotated[
    str | None, option("--until", "Let in before this time; now without.", "TIME")
]
OrganizationOption = Annotated[
    str | None,
    typer.Option(
        "--organization",
        "--org",
        help="Only of this organization, by name or id.",
        metavar="ORG",
        show_default=False,
    ),
]

SIMULATE_EXAMPLES = examples(
    "penstock prices simulate --since 2026-05-01 --until 2026-06-01 --book draft",
    "penstock prices simulate --since 30d --book draft --organization acme --json",
)
RERATE_EXAMPLES = examples(
    "penstock prices rerate --since 2026-05-01 --until 2026-06-01 --book draft",
    "penstock prices rerate --since 7d",
)
RUNS_EXAMPLES = examples("penstock prices runs", "penstock prices runs --organization acme --json")


def simulate(
    *,
    since: SinceOption,
    book: Annotated[str, option("--book", "Price book, by name or id.", "BOOK")],
    until: UntilOption = None,
    organization: OrganizationOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what stored usage would have cost by another book. Nothing is booked.

    Totals of each organization and model, exactly, with the difference to what is charged. Steps
    begin with --since and with each month. With --json: one object a line.
    """
    begin, end = _span(since, until)
    with connect(data) as client:
        found = get_catalog_object(client, PRICE_BOOKS, book)
        filters = _organization(client, organization)
        path = f"{PRICE_BOOKS}/{found['id']}/simulation"
        sums: dict[tuple[str, str, str], Row] = {}
        for start, stop in _months(begin, end):
            asked = {"since": format_time(start), "until": format_time(stop), **filters}
            answer = client.get(path, asked, timeout_s=SIMULATION_TIMEOUT_S)
            for row in answer["data"]:
                _add(sums, row, str(answer["currency"]))
        rows = [sums[key] for key in sorted(sums)]
        if as_json:
            for row in rows:
                print_json(row)
            return
        names = NameBook(client)
        show_list(
            iter(rows),
            (
                ("Organization", lambda row: names.organization(row["organization"])),
                ("Model", text_of("model")),
                ("Events", text_of("events")),
                ("Unpriced", text_of("unpriced")),
                ("Charged", lambda row: f"{row['charged']} {row['currency']}"),
                ("By the book", lambda row: f"{row['simulated']} {row['book_currency']}"),
                ("Difference", text_of("difference")),
            ),
            limit=None,
            as_json=False,
            nothing="There was no usage at that time.",
            expendable=("Unpriced", "Events"),
        )


def rerate(
    *,
    since: SinceOption,
    until: UntilOption = None,
    book: Annotated[
        str | None,
        option("--book", "By this book only; as usage that comes in without.", "BOOK"),
    ] = None,
    organization: OrganizationOption = None,
    reason: Annotated[str | None, option("--reason", "For whoever asks later.", "TEXT")] = None,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rate stored usage again, and book the differences.

    What was rated stays; what changes is added to it. Usage without a price in the book stays as
    it is.
    """
    begin, end = _span(since, until)
    confirm(
        f"Rate all usage from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC again, and book "
        "the differences?",
        is_confirmed=yes,
    )
    with connect(data) as client:
        body = {
            "since": format_time(begin),
            "until": format_time(end),
            **_organization(client, organization),
            **given(reason=reason),
        }
        if book is not None:
            body["book_id"] = str(get_catalog_object(client, PRICE_BOOKS, book)["id"])
        run = client.change("POST", RUNS, body)
        while run["finished_at"] is None:
            run = _step(client, run)
        sentence = (
            f"Looked at {run['event_count']:,} events; {run['changed_count']:,} are rated anew "
            f"(run {run['id']})."
        )
        say_done(run, sentence, as_json=as_json)


def runs(
    *,
    organization: Annotated[
        str | None,
        typer.Option(
            "--organization",
            "--org",
            help="Those that looked at this one's usage, by name or id.",
            metavar="ORG",
            show_default=False,
        ),
    ] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs that rated usage again, oldest first. With --json: one object a line."""
    with connect(data) as client:
        names = NameBook(client)
        whose = find_usage_filters(client, organization, None, None)
        show_list(
            client.rows(RUNS, whose),
            (
                ("Begun (UTC)", time_of("created_at")),
                ("Since (UTC)", time_of("since")),
                ("Until (UTC)", time_of("until")),
                ("Organization", lambda row: _name(names, row["organization"])),
                ("Book", lambda row: row["book_id"] or "as new usage"),
                ("Events", text_of("event_count")),
                ("Changed", text_of("changed_count")),
                ("Finished (UTC)", time_of("finished_at")),
                ("Reason", text_of("reason")),
                ("Id", text_of("id")),
            ),
            limit=limit,
            as_json=as_json,
            nothing="No usage was rated again.",
            expendable=("Id", "Reason", "Book"),
        )


def _name(names: NameBook, organization: str | None) -> str:
    return "all" if organization is None else names.organization(organization)


def _step(client: "ControlClient", run: "Row") -> "Row":
    for _ in range(_MAX_WAITS):
        try:
            return client.change("POST", f"{RUNS}/steps", {"price_run_id": run["id"]})
        except ControlRefusedError as error:
            if error.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            time.sleep(_WAIT_S)
    return client.change("POST", f"{RUNS}/steps", {"price_run_id": run["id"]})


def _span(since: str, until: str | None) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    begin = parse_time("--since", since, now)
    end = now if until is None else parse_time("--until", until, now)
    if end <= begin:
        raise CommandError(BAD_OPTION, "--until is not behind --since.", "Swap them.")
    return begin, end


def _organization(client: "ControlClient", name: str | None) -> dict[str, str]:
    return {} if name is None else {"organization": str(get_organization(client, name)["id"])}


def _months(begin: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the parts of a time that are in one month of UTC each.

    >>> [
    ...     (start.day, stop.month)
    ...     for start, stop in _months(
    ...         datetime(2026, 11, 7, tzinfo=UTC), datetime(2027, 1, 2, tzinfo=UTC)
    ...     )
    ... ]
    [(7, 12), (1, 1), (1, 1)]
    """
    while begin < end:
        next_year, next_month = divmod(begin.year * 12 + begin.month, 12)
        following = datetime(next_year, next_month + 1, 1, tzinfo=UTC)
        yield begin, min(following, end)
        begin = following


def _add(sums: dict[tuple[str, str, str], "Row"], row: "Row", currency: str) -> None:
    """Add a month's sums to those of the months before, exactly."""
    from decimal import Decimal  # noqa: PLC0415  # start-up time

    key = (str(row["organization"]), str(row["model"]), str(row["currency"]))
    into: dict[str, Any] = sums.setdefault(
        key,
        {
            "organization": row["organization"],
            "model": row["model"],
            "currency": row["currency"],
            "book_currency": currency,
            "events": 0,
            "unpriced": 0,
            "charged": "0",
            "simulated": "0",
            "difference": None,
        },
    )
    for name in ("events", "unpriced"):
        into[name] += row[name]
    for name in ("charged", "simulated"):
        into[name] = _plain(Decimal(into[name]) + Decimal(row[name]))
    if currency == row["currency"]:
        into["difference"] = _plain(Decimal(into["simulated"]) - Decimal(into["charged"]))


def _plain(amount: Any) -> str:
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
