"""`penstock prices books`: lists, contracts of organizations, and what upstreams cost."""

from typing import Annotated, Literal

import typer

from penstock.cli.bodies import given
from penstock.cli.budgets import CurrencyOption
from penstock.cli.instance import DataOption, connect
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import LimitOption, say_done, show_list, text_of, words_of
from penstock.cli.resolving import PRICE_BOOKS, NameBook, OrgOption, find_place

app = typer.Typer(name="books", help="Manage price books.", no_args_is_help=True)

KindOption = Annotated[
    Literal["contract", "list", "cost"],
    typer.Option(
        "--kind",
        help="A contract is for one organization, before the list. Further lists and cost books "
        "are for simulations.",
    ),
]


@app.command(
    "create",
    epilog=examples(
        "penstock prices books create acme-2030 --org acme --currency EUR",
        "penstock prices books create draft --kind list --currency EUR",
    ),
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    *,
    currency: CurrencyOption,
    kind: KindOption = "contract",
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a price book. The list and the cost book of a currency come by themselves."""
    with connect(data) as client:
        place = find_place(client, org, None)
        body = given(name=name, kind=kind, currency=currency) | place.filters
        row = client.change("POST", PRICE_BOOKS, body)
        say_done(row, f"Price book {words_of(row)} is there.", as_json=as_json)


@app.command(
    "list", epilog=examples("penstock prices books list", "penstock prices books list --json")
)
def list_all(
    *,
    org: OrgOption = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List price books, oldest first. With --json: one object a line."""
    with connect(data) as client:
        names = NameBook(client)
        filters = find_place(client, org, None).filters
        show_list(
            client.rows(PRICE_BOOKS, filters),
            (
                ("Name", text_of("name")),
                ("Kind", text_of("kind")),
                ("Currency", text_of("currency")),
                ("Organization", lambda row: names.owner(row["organization_id"])),
                ("Rates usage", text_of("is_used")),
                ("Id", text_of("id")),
            ),
            limit=limit,
            as_json=as_json,
            nothing="There is no price book. The first price of a currency makes its list.",
            expendable=("Id",),
        )
