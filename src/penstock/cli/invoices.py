"""`penstock invoices`: who they are from and to, drafts, and what becomes of them."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from penstock.cli.bodies import given
from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.instance import DataOption, connect
from penstock.cli.options import option
from penstock.cli.output import JsonOption, console, examples, print_json, print_table
from penstock.cli.records import (
    LimitOption,
    YesOption,
    confirm,
    say_done,
    show_list,
    text_of,
    time_of,
)
from penstock.cli.resolving import NameBook, get_organization
from penstock.kit.files import why_unread

if TYPE_CHECKING:
    from penstock.cli.control_client import Row

INVOICES = "/api/v1/invoices"
ISSUER = "/api/v1/billing-issuer"
RECIPIENTS = "/api/v1/billing-recipients"
_READ_TIMEOUT_S = 3_600.0
"""The control plane reads all of a month meanwhile."""

app = typer.Typer(
    name="invoices", help="Bill what organizations used and nobody has paid.", no_args_is_help=True
)
issuer = typer.Typer(name="issuer", help="Who sends the invoices.", no_args_is_help=True)
recipient = typer.Typer(name="recipient", help="Who gets them.", no_args_is_help=True)
app.add_typer(issuer)
app.add_typer(recipient)

OrganizationOption = Annotated[str, option("--organization", "By name or id.", "ORG")]
FileOption = Annotated[
    Path, option("--file", "JSON, with the members that `show --json` prints.", "FILE")
]
InvoiceArgument = Annotated[
    str, typer.Argument(metavar="INVOICE", help="Its id.", show_default=False)
]


@issuer.command("set", epilog=examples("penstock invoices issuer set --file issuer.json"))
def set_issuer(*, file: FileOption, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Say who sends the invoices from now on. What was issued stays as it is."""
    body = _read(file)
    with connect(data) as client:
        row = client.change("PUT", ISSUER, body)
        say_done(row, f"{row['party']['name']} sends the invoices.", as_json=as_json)


@issuer.command("show", epilog=examples("penstock invoices issuer show --json"))
def show_issuer(*, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show who sends the invoices."""
    with connect(data) as client:
        row = client.get(ISSUER)
        say_done(row, f"{_line_of(row['party'])} sends the invoices.", as_json=as_json)


@recipient.command(
    "set", epilog=examples("penstock invoices recipient set --organization acme --file acme.json")
)
def set_recipient(
    *,
    organization: OrganizationOption,
    file: FileOption,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say who gets an organization's invoices from now on, and how it is taxed."""
    body = _read(file)
    with connect(data) as client:
        owner = get_organization(client, organization)
        row = client.change("PUT", f"{RECIPIENTS}/{owner['id']}", body)
        sentence = f"{row['party']['name']} gets the invoices of {owner['name']}."
        say_done(row, sentence, as_json=as_json)


@recipient.command("show", epilog=examples("penstock invoices recipient show --organization acme"))
def show_recipient(
    *, organization: OrganizationOption, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Show who gets an organization's invoices, and how it is taxed."""
    with connect(data) as client:
        owner = get_organization(client, organization)
        row = client.get(f"{RECIPIENTS}/{owner['id']}")
        vat = row["vat"]
        sentence = f"{_line_of(row['party'])} gets them, VAT {vat['category']} {vat['rate']} %."
        say_done(row, sentence, as_json=as_json)


@app.command(
    "draft", epilog=examples("penstock invoices draft --organization acme --month 2026-10 --json")
)
def draft(
    *,
    organization: OrganizationOption,
    month: Annotated[str, option("--month", "YYYY-MM, in UTC; one that is over.", "MONTH")],
    currency: Annotated[
        str | None, option("--currency", "Three capitals; that of its terms without.", "CURRENCY")
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draft the invoice of an organization over a month. It takes nothing yet."""
    with connect(data) as client:
        owner = get_organization(client, organization)
        body = {"organization_id": owner["id"], **given(month=month, currency=currency)}
        row = client.change("POST", INVOICES, body)
        say_done(row, f"Drafted {row['id']} over {row['month']}.", as_json=as_json)


@app.command("finalize", epilog=examples("penstock invoices finalize inv_7Gk3Wz9xMnRt"))
def finalize(
    invoice: InvoiceArgument, *, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Issue a draft: number, amounts and parties are fixed, and it is booked."""
    with connect(data) as client:
        row = client.change("POST", _path(invoice, "/finalize"), timeout_s=_READ_TIMEOUT_S)
        sentence = f"Issued {row['number']} over {row['gross']} {row['currency']}."
        say_done(row, sentence, as_json=as_json)


@app.command("list", epilog=examples("penstock invoices list --organization acme"))
def list_invoices(
    *,
    organization: Annotated[
        str | None, option("--organization", "By name or id; all without.", "ORG")
    ] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List invoices, credit notes and drafts, oldest first. With --json: one object a line."""
    with connect(data) as client:
        names = NameBook(client)
        filters = {}
        if organization is not None:
            filters["organization_id"] = str(get_organization(client, organization)["id"])
        show_list(
            client.rows(INVOICES, filters),
            (
                ("Number", text_of("number")),
                ("Organization", lambda row: names.organization(row["organization_id"])),
                ("Kind", text_of("kind")),
                ("State", text_of("state")),
                ("Month", text_of("month")),
                ("Gross", lambda row: f"{row['gross'] or '-'} {row['currency']}"),
                ("Issued (UTC)", time_of("issued_at")),
                ("Id", text_of("id")),
            ),
            limit=limit,
            as_json=as_json,
            nothing="There are no invoices. See `penstock invoices draft --help`.",
            expendable=("Kind", "Issued (UTC)"),
        )


@app.command("show", epilog=examples("penstock invoices show inv_7Gk3Wz9xMnRt --json"))
def show(invoice: InvoiceArgument, *, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show an invoice and its lines; of a draft what they would be now."""
    with connect(data) as client:
        row = client.get(_path(invoice), timeout_s=_READ_TIMEOUT_S)
    if as_json:
        print_json(row)
        return
    title = f"{row['kind'].replace('_', ' ').capitalize()} {row['number'] or row['id']}"
    console().print(f"{title}, {row['state']}, over {row['month']}", markup=False)
    said = row["content"]
    if said is None:
        console().print("See `penstock invoices recipient set`: nobody gets it yet.", markup=False)
        return
    _print_content(said)


def _print_content(said: "Row") -> None:
    rows = [
        [line["project_id"], line["model"], line["month"], line["net"]] for line in said["lines"]
    ]
    sums = (
        ("Paid by credit", str(-Decimal(said["credit"]["net"]))),
        ("Net", said["net"]),
        (f"VAT {said['vat']['category']} {said['vat']['rate']} %", said["tax"]),
        ("Gross", said["gross"]),
    )
    rows += [[heading, "", "", amount] for heading, amount in sums]
    amount = said["currency"]
    print_table(["Project", "Model", "Used in", amount], rows, right=(amount,))


@app.command("xml", epilog=examples("penstock invoices xml inv_7Gk3Wz9xMnRt > invoice.xml"))
def xml(invoice: InvoiceArgument, *, data: DataOption = None) -> None:
    """Write an issued invoice to stdout as XML: EN 16931, in the syntax of UN/CEFACT (CII)."""
    with connect(data) as client:
        for part in client.download(_path(invoice, "/xml"), {}):
            typer.echo(part, nl=False)


@app.command(
    "pay", epilog=examples("penstock invoices pay inv_7Gk3Wz9xMnRt --reference payment-4711")
)
def pay(
    invoice: InvoiceArgument,
    *,
    reference: Annotated[str, option("--reference", "Of the payment.", "REFERENCE")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Book that an invoice was paid in full."""
    with connect(data) as client:
        row = client.change("POST", _path(invoice, "/pay"), {"reference": reference})
        say_done(row, f"{row['number']} is paid.", as_json=as_json)


@app.command("void", epilog=examples("penstock invoices void inv_7Gk3Wz9xMnRt --yes"))
def void(
    invoice: InvoiceArgument,
    *,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an invoice back that nobody paid, by a credit note."""
    confirm(f"Take {invoice} back, for good?", is_confirmed=yes)
    with connect(data) as client:
        row = client.change("POST", _path(invoice, "/void"))
        say_done(row, f"Credit note {row['number']} takes it back.", as_json=as_json)


def _path(invoice: str, step: str = "") -> str:
    """Return where an invoice is, whatever was typed as its id: it is one step of the path."""
    return f"{INVOICES}/{quote(invoice, safe='')}{step}"


def _read(path: Path) -> dict[str, Any]:
    import json  # noqa: PLC0415  # start-up time

    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        detail = f"--file {path}: cannot be read as JSON: {why_unread(error)}."
        raise CommandError(BAD_OPTION, detail) from None
    if not isinstance(found, dict):
        raise CommandError(BAD_OPTION, f"--file {path}: is no JSON object.")
    return found


def _line_of(party: Mapping[str, Any]) -> str:
    return ", ".join([party["name"], *party["address"], party["city"], party["country"]])
