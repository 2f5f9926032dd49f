"""`penstock orgs`: organizations, which pay and are kept apart."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.bodies import given, require_changes
from penstock.cli.instance import DataOption, connect
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import (
    LimitOption,
    NewNameOption,
    YesOption,
    confirm,
    say_done,
    show_list,
    show_one,
    text_of,
    time_of,
    words_of,
)
from penstock.cli.residency import (
    RESIDENCY_FIELDS,
    AllDataClassesOption,
    AllRegionsOption,
    DataClassOption,
    RegionOption,
    residency_changes,
)
from penstock.cli.resolving import ORGANIZATIONS, get_organization

if TYPE_CHECKING:
    from penstock.cli.records import Column

app = typer.Typer(
    name="orgs",
    help="Manage organizations: who pays, and is kept apart from others.",
    no_args_is_help=True,
)

_COLUMNS: "tuple[Column, ...]" = (
    ("Name", text_of("name")),
    ("Id", text_of("id")),
    ("Status", text_of("status")),
    ("Created (UTC)", time_of("created_at")),
)
_FIELDS: "tuple[Column, ...]" = (
    *_COLUMNS,
    *RESIDENCY_FIELDS,
    ("Changed (UTC)", time_of("updated_at")),
    ("Version", text_of("version")),
)

OrgArgument = Annotated[str, typer.Argument(metavar="ORG", help="Name or id.", show_default=False)]


class OrganizationStatus(StrEnum):
    """What organizations can be listed by."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    ARCHIVED = "archived"


@app.command(
    "create",
    epilog=examples("penstock orgs create acme", "penstock orgs create acme --json | jq -r .id"),
)
def create(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.", show_default=False)],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an organization."""
    with connect(data) as client:
        row = client.change("POST", ORGANIZATIONS, {"name": name})
    say_done(row, f"Created organization {words_of(row)}.", as_json=as_json)


@app.command("list", epilog=examples("penstock orgs list --status suspended"))
def list_all(
    *,
    status: Annotated[
        OrganizationStatus | None, typer.Option(help="Only in this status.", show_default=False)
    ] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List organizations, oldest first. With --json: one object a line."""
    with connect(data) as client:
        show_list(
            client.rows(ORGANIZATIONS, given(status=status and status.value)),
            _COLUMNS,
            limit=limit,
            as_json=as_json,
            nothing="There is no organization. Create one with `penstock orgs create NAME`.",
            expendable=("Created (UTC)",),
        )


@app.command("show", epilog=examples("penstock orgs show acme"))
def show(*, org: OrgArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Show an organization."""
    with connect(data) as client:
        show_one(get_organization(client, org), _FIELDS, as_json=as_json)


@app.command(
    "update",
    epilog=examples(
        "penstock orgs update acme --name acme-europe",
        "penstock orgs update acme --data-class eu_only --region eu-de --region eu-fr",
        "penstock orgs update acme --all-data-classes --all-regions",
    ),
)
def update(
    *,
    org: OrgArgument,
    name: NewNameOption = None,
    data_class: DataClassOption = None,
    all_data_classes: AllDataClassesOption = False,
    region: RegionOption = None,
    all_regions: AllRegionsOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change an organization's name, or where its data may go; what is not named stays.

    Id, keys and usage stay in any case. --data-class and --region replace the whole list.
    """
    changes = given(name=name)
    changes |= residency_changes(data_class, all_data_classes, region, all_regions)
    require_changes(changes, "orgs update")
    with connect(data) as client:
        before = get_organization(client, org)
        row = client.change("PATCH", f"{ORGANIZATIONS}/{before['id']}", changes)
    say_done(row, f"Changed organization {words_of(row)}.", as_json=as_json)


@app.command(
    "suspend", epilog=examples('penstock orgs suspend acme --reason "invoice 7 is overdue"')
)
def suspend(
    *,
    org: OrgArgument,
    reason: Annotated[
        str, typer.Option(help="Why, for the audit log.", metavar="TEXT", show_default=False)
    ] = "",
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse all keys of an organization until it is resumed."""
    with connect(data) as client:
        before = get_organization(client, org)
        question = f"All keys of organization {words_of(before)} are refused from now on."
        confirm(question, is_confirmed=yes)
        row = client.change("POST", f"{ORGANIZATIONS}/{before['id']}/suspend", {"reason": reason})
    say_done(row, f"Suspended organization {words_of(row)}.", as_json=as_json)


@app.command("resume", epilog=examples("penstock orgs resume acme"))
def resume(*, org: OrgArgument, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Let a suspended organization work again."""
    with connect(data) as client:
        before = get_organization(client, org)
        row = client.change("POST", f"{ORGANIZATIONS}/{before['id']}/resume")
    say_done(row, f"Resumed organization {words_of(row)}.", as_json=as_json)


@app.command("delete", epilog=examples("penstock orgs delete acme --yes"))
def delete(
    *,
    org: OrgArgument,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Archive an organization for ever: its keys stop working, its usage is kept."""
    with connect(data) as client:
        before = get_organization(client, org)
        question = f"Organization {words_of(before)} is archived for ever; its keys stop working."
        confirm(question, is_confirmed=yes)
        client.change("DELETE", f"{ORGANIZATIONS}/{before['id']}")
    row = {"id": before["id"], "name": before["name"], "status": "archived"}
    say_done(row, f"Archived organization {words_of(row)}.", as_json=as_json)
