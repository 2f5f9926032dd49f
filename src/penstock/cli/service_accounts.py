"""`penstock service-accounts`: machines in organizations and their projects."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.cli.bodies import given, require_changes
from penstock.cli.instance import DataOption, connect
from penstock.cli.labels import (
    LabelChanges,
    LabelOption,
    RemoveLabelOption,
    change_labelled,
    parse_labels,
)
from penstock.cli.output import JsonOption, examples
from penstock.cli.people import (
    NewRoleOption,
    place_columns,
    require_place,
    words_of_person,
)
from penstock.cli.records import (
    LimitOption,
    YesOption,
    confirm,
    say_done,
    show_list,
    show_one,
    text_cell,
    text_of,
    time_of,
    words_of,
)
from penstock.cli.resolving import (
    SERVICE_ACCOUNTS,
    NameBook,
    OrgOption,
    ProjectOption,
    find_place,
    get_service_account,
)
from penstock.tenancy.model import Role

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row
    from penstock.cli.records import Column

app = typer.Typer(
    name="service-accounts", help="Manage machines and their roles.", no_args_is_help=True
)

AccountArgument = Annotated[
    str,
    typer.Argument(metavar="ACCOUNT", help="Name or id.", show_default=False),
]

RoleOption = Annotated[Role, typer.Option("--role", help="What it may do.", show_default=False)]


@app.command(
    "create",
    epilog=examples("penstock service-accounts create ci --org acme --role project_admin"),
)
def create(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.", show_default=False)],
    role: RoleOption,
    label: LabelOption = None,
    org: OrgOption = None,
    project: ProjectOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a service account in an organization, or in one project of it."""
    with connect(data) as client:
        place = require_place(client, org, project)
        body: dict[str, Any] = {**place.filters, "name": name, "role": role.value}
        if label:
            body["labels"] = parse_labels(label)
        row = client.change("POST", SERVICE_ACCOUNTS, body)
    sentence = f"Created service account {words_of(row)} as {row['role']}{place.words}."
    say_done(row, sentence, as_json=as_json)


@app.command("list", epilog=examples("penstock service-accounts list --org acme"))
def list_all(
    *,
    org: OrgOption = None,
    project: ProjectOption = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List service accounts, oldest first. With --json: one object a line."""
    with connect(data) as client:
        place = find_place(client, org, project)
        show_list(
            client.rows(SERVICE_ACCOUNTS, place.filters),
            _columns(client),
            limit=limit,
            as_json=as_json,
            nothing=f"There is no service account{place.words}.",
            expendable=("Created (UTC)", "Organization"),
        )


@app.command("show", epilog=examples("penstock service-accounts show ci --org acme"))
def show(
    *,
    account: AccountArgument,
    org: OrgOption = None,
    project: ProjectOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a service account."""
    with connect(data) as client:
        row = _find(client, account, org, project)
        show_one(row, (*_columns(client), ("Version", text_of("version"))), as_json=as_json)


@app.command(
    "update",
    epilog=examples(
        "penstock service-accounts update ci --org acme --role developer",
        "penstock service-accounts update ci --org acme --label team=search",
    ),
)
def update(
    *,
    account: AccountArgument,
    role: NewRoleOption = None,
    label: LabelOption = None,
    remove_label: RemoveLabelOption = None,
    org: OrgOption = None,
    project: ProjectOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a service account another role, or other labels; its keys follow at once.

    --label adds to the labels, or replaces the one of its name.
    """
    require_changes(role or label or remove_label, "service-accounts update")
    with connect(data) as client:
        before = _find(client, account, org, project)
        changes = given(role=role and role.value)
        row = change_labelled(
            client, SERVICE_ACCOUNTS, before, changes, LabelChanges(label, remove_label)
        )
    say_done(row, f"{words_of(before)} {words_of_person(row)} now.", as_json=as_json)


@app.command("disable", epilog=examples("penstock service-accounts disable ci --org acme --yes"))
def disable(
    *,
    account: AccountArgument,
    org: OrgOption = None,
    project: ProjectOption = None,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse all keys of a service account until it is enabled."""
    with connect(data) as client:
        before = _find(client, account, org, project)
        question = f"All keys of service account {words_of(before)} are refused from now on."
        confirm(question, is_confirmed=yes)
        row = client.change("PATCH", f"{SERVICE_ACCOUNTS}/{before['id']}", {"is_disabled": True})
    say_done(row, f"Disabled service account {words_of(before)}.", as_json=as_json)


@app.command("enable", epilog=examples("penstock service-accounts enable ci --org acme"))
def enable(
    *,
    account: AccountArgument,
    org: OrgOption = None,
    project: ProjectOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the keys of a disabled service account work again."""
    with connect(data) as client:
        before = _find(client, account, org, project)
        row = client.change("PATCH", f"{SERVICE_ACCOUNTS}/{before['id']}", {"is_disabled": False})
    say_done(row, f"Enabled service account {words_of(before)}.", as_json=as_json)


def _find(client: "ControlClient", account: str, org: str | None, project: str | None) -> "Row":
    return get_service_account(client, account, find_place(client, org, project))


def _disabled_cell(row: "Row") -> str:
    return "by operator" if row.get("is_disabled_by_operator") else text_cell(row["is_disabled"])


def _columns(client: "ControlClient") -> "tuple[Column, ...]":
    return (
        ("Name", text_of("name")),
        ("Id", text_of("id")),
        ("Role", text_of("role")),
        ("Labels", text_of("labels")),
        ("Disabled", _disabled_cell),
        *place_columns(NameBook(client)),
        ("Created (UTC)", time_of("created_at")),
    )
