"""`penstock prices`: what models cost, from a moment on."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli import price_books, price_files, price_runs
from penstock.cli.bodies import given
from penstock.cli.budgets import CurrencyOption
from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.instance import DataOption, connect
from penstock.cli.kinds import find_id
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import LimitOption, say_done, show_list, text_of, time_cell, time_of
from penstock.cli.resolving import ALIASES, PRICE_BOOKS, PRICES, get_catalog_object
from penstock.cli.times import format_time, parse_deadline, parse_time
from penstock.kit.files import why_unread

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient

app = typer.Typer(
    name="prices",
    help="Manage prices: what a million tokens of a model cost.",
    no_args_is_help=True,
)
app.add_typer(price_books.app)
app.command("import", epilog=price_files.IMPORT_EXAMPLES)(price_files.import_prices)
app.command("export", epilog=price_files.EXPORT_EXAMPLES)(price_files.export_prices)
app.command("simulate", epilog=price_runs.SIMULATE_EXAMPLES)(price_runs.simulate)
app.command("rerate", epilog=price_runs.RERATE_EXAMPLES)(price_runs.rerate)
app.command("runs", epilog=price_runs.RUNS_EXAMPLES)(price_runs.runs)

BookOption = Annotated[
    str | None,
    option("--book", "Price book, by name or id; the currency's list without.", "BOOK"),
]


@app.command(
    "set",
    epilog=examples(
        "penstock prices set --model llama-70b --currency EUR --input 0.15 --output 0.6",
        "penstock prices set --model llama-70b --currency EUR --input 0.2 --output 0.7 --from 7d",
        "penstock prices set --model llama-70b --currency EUR --input 0.1 --output 0.4 "
        "--book acme-2030",
        "penstock prices set --model llama-70b --currency EUR --rates steps.json",
    ),
)
def set_price(  # noqa: PLR0913  # each option is a parameter: Typer reads them from here
    *,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "--alias",
            help="Public model name, or its id; with --cost, the upstream's own name of it.",
            metavar="MODEL",
            show_default=False,
        ),
    ],
    currency: CurrencyOption,
    input_price: Annotated[
        str | None, option("--input", "For a million input tokens.", "PRICE")
    ] = None,
    output_price: Annotated[
        str | None, option("--output", "For a million output tokens.", "PRICE")
    ] = None,
    cached_input: Annotated[
        str | None,
        option("--cached-input", "For a million cached input tokens; as --input without.", "PRICE"),
    ] = None,
    rates: Annotated[
        Path | None,
        option("--rates", "JSON file of the prices of meters, with steps or packages.", "FILE"),
    ] = None,
    book: BookOption = None,
    is_cost: Annotated[
        bool, typer.Option("--cost", help="What an upstream's model costs us, not callers.")
    ] = False,
    upstream: Annotated[
        str | None, option("--upstream", "With --cost: at this upstream only.", "UPSTREAM")
    ] = None,
    tier: Annotated[
        str | None, option("--tier", "For requests that were served in this tier.", "TIER")
    ] = None,
    starts: Annotated[
        str | None,
        option("--from", "When it begins: 7d or ISO 8601 in UTC; soon without.", "TIME"),
    ] = None,
    ends: Annotated[
        str | None,
        option("--to", "When it ends; with the next price without.", "TIME"),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set what a model costs. What has begun stays; a higher price begins in ten minutes."""
    body = given(
        currency=currency,
        input=input_price,
        output=output_price,
        cached_input=cached_input,
        rates=None if rates is None else _read_rates(rates),
        upstream=upstream,
        service_tier=tier,
        valid_from=_moment("--from", starts),
        valid_to=_moment("--to", ends),
    )
    with connect(data) as client:
        body |= _find_place(client, model, book, is_cost=is_cost)
        row = client.change("POST", PRICES, body)
        begins = time_cell(row["valid_from"])
        prices = f"{row['input']} and {row['output']} {currency}"
        at_most = " at most" if row.get("rates") else ""
        sentence = f"{row['alias']} costs {prices}{at_most} from {begins} UTC."
        say_done(row, sentence, as_json=as_json)


def _find_place(
    client: "ControlClient", model: str, book: str | None, *, is_cost: bool
) -> dict[str, str]:
    place: dict[str, str] = {}
    if book is not None:
        found = get_catalog_object(client, PRICE_BOOKS, book)
        place["book_id"] = str(found["id"])
        is_cost = found["kind"] == "cost"
    if is_cost:
        return place | {"model": model}
    return place | {"alias_id": str(find_id(client, ALIASES, model))}


def _moment(name: str, text: str | None) -> str | None:
    if text is None:
        return None
    # Whether what has passed is allowed depends on the book: control knows.
    parse = parse_deadline if text[:-1].isdecimal() else parse_time
    return format_time(parse(name, text, datetime.now(UTC)).replace(microsecond=0))


def _read_rates(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        detail = f"--rates {path} cannot be read as JSON: {why_unread(error)}."
        raise CommandError(BAD_OPTION, detail) from None


@app.command(
    "list",
    epilog=examples("penstock prices list", "penstock prices list --model llama-70b --json"),
)
def list_all(
    *,
    alias: Annotated[
        str | None,
        typer.Option(
            "--model",
            "--alias",
            help="Of this public model name, or an upstream's own.",
            metavar="MODEL",
            show_default=False,
        ),
    ] = None,
    book: BookOption = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List prices, past and to come, oldest first. With --json: one object a line."""
    with connect(data) as client:
        filters = given(alias=alias)
        if book is not None:
            filters["book_id"] = str(get_catalog_object(client, PRICE_BOOKS, book)["id"])
        show_list(
            client.rows(PRICES, filters),
            (
                ("Model", text_of("alias")),
                ("Book", text_of("book_id")),
                ("Currency", text_of("currency")),
                ("Input", text_of("input")),
                ("Cached", text_of("cached_input")),
                ("Output", text_of("output")),
                ("From (UTC)", time_of("valid_from")),
                ("To (UTC)", time_of("valid_to")),
                ("Id", text_of("id")),
            ),
            limit=limit,
            as_json=as_json,
            nothing="Nothing has a price. See `penstock prices set --help`.",
            expendable=("To (UTC)", "Id", "Cached", "Book"),
        )
