"""`penstock prices`: what aliases cost, from a moment on."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from penstock.cli.bodies import given
from penstock.cli.budgets import CurrencyOption
from penstock.cli.instance import DataOption, connect
from penstock.cli.kinds import find_id
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import LimitOption, say_done, show_list, text_of, time_cell, time_of
from penstock.cli.resolving import ALIASES, PRICES
from penstock.cli.times import format_time, parse_deadline

app = typer.Typer(
    name="prices",
    help="Manage prices: what a million tokens of an alias cost.",
    no_args_is_help=True,
)


@app.command(
    "set",
    epilog=examples(
        "penstock prices set --alias llama-70b --currency EUR --input 0.15 --output 0.6",
        "penstock prices set --alias llama-70b --currency EUR --input 0.2 --output 0.7 --from 7d",
    ),
)
def set_price(
    *,
    alias: Annotated[str, option("--alias", "Public model name, or its id.", "ALIAS")],
    currency: CurrencyOption,
    input_price: Annotated[str, option("--input", "For a million input tokens.", "PRICE")],
    output_price: Annotated[str, option("--output", "For a million output tokens.", "PRICE")],
    cached_input: Annotated[
        str | None,
        option("--cached-input", "For a million cached input tokens; as --input without.", "PRICE"),
    ] = None,
    starts: Annotated[
        str | None,
        option("--from", "When it begins: 7d or ISO 8601 in UTC; soon without.", "TIME"),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set what an alias costs. What has begun stays; a higher price begins in ten minutes."""
    valid_from = None
    if starts is not None:
        moment = parse_deadline("--from", starts, datetime.now(UTC)).replace(microsecond=0)
        valid_from = format_time(moment)
    body = given(
        currency=currency,
        input=input_price,
        output=output_price,
        cached_input=cached_input,
        valid_from=valid_from,
    )
    with connect(data) as client:
        body["alias_id"] = find_id(client, ALIASES, alias)
        row = client.change("POST", PRICES, body)
        begins = time_cell(row["valid_from"])
        sentence = f"{alias} costs {input_price} and {output_price} {currency} from {begins} UTC."
        say_done(row, sentence, as_json=as_json)


@app.command(
    "list",
    epilog=examples("penstock prices list", "penstock prices list --alias llama-70b --json"),
)
def list_all(
    *,
    alias: Annotated[str | None, option("--alias", "Of this public model name.", "ALIAS")] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List prices, past and to come, oldest first. With --json: one object a line."""
    with connect(data) as client:
        show_list(
            client.rows(PRICES, given(alias=alias)),
            (
                ("Alias", text_of("alias")),
                ("Currency", text_of("currency")),
                ("Input", text_of("input")),
                ("Cached", text_of("cached_input")),
                ("Output", text_of("output")),
                ("From (UTC)", time_of("valid_from")),
                ("Id", text_of("id")),
            ),
            limit=limit,
            as_json=as_json,
            nothing="Nothing has a price. See `penstock prices set --help`.",
            expendable=("Id", "Cached"),
        )
