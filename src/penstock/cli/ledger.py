"""`penstock ledger`: how organizations pay, their credit and balances, and whether all is right."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from penstock.cli.bodies import given
from penstock.cli.errors import EXIT_FAILURE
from penstock.cli.instance import DataOption, connect
from penstock.cli.options import option
from penstock.cli.output import JsonOption, console, examples, print_json, print_table
from penstock.cli.records import (
    LimitOption,
    say_done,
    show_list,
    text_of,
    time_of,
)
from penstock.cli.resolving import NameBook, get_organization
from penstock.cli.times import format_time, parse_deadline, parse_time

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

TERMS = "/api/v1/billing-terms"
TOP_UPS = "/api/v1/top-ups"
CREDIT_GRANTS = "/api/v1/credit-grants"
BALANCES = "/api/v1/balances"
STATEMENTS = "/api/v1/statements"
VERIFY = "/api/v1/ledger/verify"
_VERIFY_TIMEOUT_S = 3_600.0

app = typer.Typer(
    name="ledger",
    help="Sell credit, see what organizations have and owe, and check the books.",
    no_args_is_help=True,
)
terms = typer.Typer(name="terms", help="How organizations pay.", no_args_is_help=True)
grants = typer.Typer(name="grants", help="Give credit.", no_args_is_help=True)
app.add_typer(terms)
app.add_typer(grants)

OrganizationOption = Annotated[str, option("--organization", "By name or id.", "ORG")]
AmountOption = Annotated[str, option("--amount", "How much, a decimal.", "AMOUNT")]
CurrencyOption = Annotated[
    str | None, option("--currency", "Three capitals; that of its terms without.", "CURRENCY")
]


@terms.command(
    "set",
    epilog=examples(
        "penstock ledger terms set --organization acme --currency EUR --mode prepaid",
        "penstock ledger terms set --organization acme --currency EUR --mode postpaid "
        "--unpriced allow",
    ),
)
def set_terms(
    *,
    organization: OrganizationOption,
    currency: Annotated[str, option("--currency", "Three capitals: EUR.", "CURRENCY")],
    mode: Annotated[
        Literal["prepaid", "postpaid"],
        typer.Option("--mode", help="Whether it pays before it uses something, or after."),
    ],
    unpriced: Annotated[
        Literal["refuse", "allow"] | None,
        typer.Option(
            "--unpriced",
            help="Whether it may use models that have no price in the currency. As it is without; "
            "`refuse` at first.",
            show_default=False,
        ),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how an organization pays from now on. What was booked stays where it is."""
    with connect(data) as client:
        owner = get_organization(client, organization)
        body = given(currency=currency, mode=mode, unpriced=unpriced)
        row = client.change("PUT", f"{TERMS}/{owner['id']}", body)
        say_done(row, f"{owner['name']} pays {mode}, in {currency}.", as_json=as_json)


@terms.command("show", epilog=examples("penstock ledger terms show --organization acme"))
def show_terms(
    *, organization: OrganizationOption, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Show how an organization pays."""
    with connect(data) as client:
        owner = get_organization(client, organization)
        row = client.get(f"{TERMS}/{owner['id']}")
        own = "" if row["version"] else " (nobody has set any terms)"
        say_done(
            row, f"{owner['name']} pays {row['mode']}, in {row['currency']}{own}.", as_json=as_json
        )


@app.command(
    "topup",
    epilog=examples(
        "penstock ledger topup --organization acme --amount 100 --currency EUR",
        "penstock ledger topup --organization acme --amount 100 --reference payment-4711",
    ),
)
def top_up(
    *,
    organization: OrganizationOption,
    amount: AmountOption,
    currency: CurrencyOption = None,
    reference: Annotated[
        str | None,
        option("--reference", "Of the payment: booked once, for ever.", "REFERENCE"),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put money into the prepaid wallet of an organization."""
    with connect(data) as client:
        owner = get_organization(client, organization)
        body = given(amount=amount, currency=currency, reference=reference)
        row = client.change("POST", TOP_UPS, {"organization_id": owner["id"], **body})
        sentence = f"The wallet of {owner['name']} got {row['amount']} {row['currency']}."
        say_done(row, sentence, as_json=as_json)


@grants.command(
    "create",
    epilog=examples(
        "penstock ledger grants create --organization acme --amount 25 --name welcome",
        "penstock ledger grants create --organization acme --amount 25 --expires 30d",
    ),
)
def create_grant(  # noqa: PLR0913  # each option is a parameter: Typer reads them from here
    *,
    organization: OrganizationOption,
    amount: AmountOption,
    currency: CurrencyOption = None,
    kind: Annotated[
        Literal["promo", "paid"],
        typer.Option("--kind", help="A present, or something that was paid for."),
    ] = "promo",
    priority: Annotated[int, typer.Option("--priority", help="Lower ones are used first.")] = 0,
    expires: Annotated[
        str | None,
        option("--expires", "When it ends: 30d or ISO 8601 in UTC; never without.", "TIME"),
    ] = None,
    name: Annotated[str, option("--name", "What it is called.", "NAME")] = "",
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give credit to an organization. It pays before anything else does, until it expires."""
    from datetime import UTC, datetime  # noqa: PLC0415  # start-up time

    expires_at = None
    if expires is not None:
        expires_at = format_time(parse_deadline("--expires", expires, datetime.now(UTC)))
    with connect(data) as client:
        owner = get_organization(client, organization)
        body = given(amount=amount, currency=currency, expires_at=expires_at)
        body |= {"kind": kind, "priority": priority, "name": name}
        row = client.change("POST", CREDIT_GRANTS, {"organization_id": owner["id"], **body})
        sentence = f"{owner['name']} has {row['amount']} {row['currency']} more to use."
        say_done(row, sentence, as_json=as_json)


@grants.command("list", epilog=examples("penstock ledger grants list --organization acme"))
def list_grants(
    *,
    organization: Annotated[
        str | None, option("--organization", "By name or id; all without.", "ORG")
    ] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List credit grants and what is left of each. With --json: one object a line."""
    with connect(data) as client:
        names = NameBook(client)
        show_list(
            client.rows(CREDIT_GRANTS, _whose(client, organization)),
            (
                ("Organization", lambda row: names.organization(row["organization_id"])),
                ("Name", text_of("name")),
                ("Kind", text_of("kind")),
                ("Amount", lambda row: f"{row['amount']} {row['currency']}"),
                ("Left", text_of("remaining")),
                ("Priority", text_of("priority")),
                ("Expires (UTC)", time_of("expires_at")),
                ("Id", text_of("id")),
            ),
            limit=limit,
            as_json=as_json,
            nothing="There is no credit. See `penstock ledger grants create --help`.",
            expendable=("Id", "Priority", "Kind"),
        )


@app.command(
    "balance",
    epilog=examples(
        "penstock ledger balance --organization acme",
        "penstock ledger balance --organization acme --as-of 2026-11-01T00:00:00Z --json",
    ),
)
def balance(
    *,
    organization: OrganizationOption,
    as_of: Annotated[
        str | None, option("--as-of", "What was booked before: 24h or ISO 8601; now.", "TIME")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what an organization has and owes."""
    from datetime import UTC, datetime  # noqa: PLC0415  # start-up time

    with connect(data) as client:
        filters = _whose(client, organization)
        if as_of is not None:
            filters["as_of"] = format_time(parse_time("--as-of", as_of, datetime.now(UTC)))
        found = client.get(BALANCES, filters)
    if as_json:
        print_json(found)
        return
    names = ("total", "prepaid", "promo", "accrued", "receivable")
    rows = [[row["currency"], *(row[name] for name in names)] for row in found["data"]]
    if not rows:
        console().print("Nothing was booked.", markup=False)
        return
    headings = ("Total", "Wallet", "Promotion", "Used, not billed", "Billed, not paid")
    print_table(["Currency", *headings], rows, right=headings)
    for row in found["data"]:
        if row["is_overdrawn"]:
            sentence = f"More was used than the wallet had{_causes_of(row)}."
            console().print(sentence, style="yellow", markup=False)


@app.command(
    "statement",
    epilog=examples("penstock ledger statement --organization acme --month 2026-11 --json"),
)
def statement(
    *,
    organization: OrganizationOption,
    month: Annotated[
        str | None, option("--month", "YYYY-MM, in UTC; the current one without.", "MONTH")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what happened to the balances of an organization in a month."""
    with connect(data) as client:
        found = client.get(STATEMENTS, {**_whose(client, organization), **given(month=month)})
    if as_json:
        print_json(found)
        return
    if not found["data"]:
        console().print(f"Nothing was booked until the end of {found['month']}.", markup=False)
        return
    for one in found["data"]:
        _print_statement(found["month"], one)


_LINES = (
    ("Opening balance", "opening"),
    ("Paid in", "top_ups"),
    ("Credit given", "grants"),
    ("Credit expired", "expiries"),
    ("Charged", "charges"),
    ("Taken back", "corrections"),
    ("Other", "others"),
)


def _print_statement(month: str, found: "Row") -> None:
    rows = [[heading, *_cells(found[name])] for heading, name in _LINES]
    rows += [[f"  {line['model']}", *_cells(line)] for line in found["models"]]
    if found["models"]:
        rows.append(["  of other months' use", *_cells(found["elsewhere"])])
    rows.append(["Closing balance", *_cells(found["closing"])])
    right = (found["currency"], "Exact")
    print_table([month, *right], rows, right=right, expendable=("Exact",))
    if found["overdrafts"]:
        console().print(f"Beyond what was free{_causes_of(found)}.", markup=False)


def _causes_of(found: "Row") -> str:
    causes = [f"{one['cause']} {one['amount']}" for one in found["overdrafts"]]
    return f": {', '.join(causes)} {found['currency']}" if causes else ""


def _cells(line: dict[str, Any]) -> list[str]:
    return [line["shown"], line["amount"]]


@app.command("verify", epilog=examples("penstock ledger verify", "penstock ledger verify --json"))
def verify(*, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Check that the books have nothing that they should not have. Exit code 1 when they do."""
    with connect(data) as client:
        found = client.change("POST", VERIFY, timeout_s=_VERIFY_TIMEOUT_S)
    is_right = found.get("is_right") is True
    if as_json:
        print_json(found)
    elif is_right:
        sentence = f"The books are right: {len(found['checks'])} checks found nothing."
        console().print(sentence, style="bold green")
    else:
        rows = [[row["check"], row["subject"]] for row in found.get("violations", [])]
        print_table(["Check", "What it is about"], rows)
        console().print("The books are wrong.", style="bold red")
    if not is_right:
        raise typer.Exit(EXIT_FAILURE)


def _whose(client: "ControlClient", organization: str | None) -> dict[str, str]:
    if organization is None:
        return {}
    return {"organization_id": str(get_organization(client, organization)["id"])}
