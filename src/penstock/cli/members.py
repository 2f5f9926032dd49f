"""`penstock members`: people in organizations and their projects."""

from typing import TYPE_CHECKING, Annotated

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
    text_of,
    time_of,
)
from penstock.cli.resolving import (
    MEMBERS,
    NameBook,
    OrgOption,
    ProjectOption,
    find_place,
    get_member,
)
from penstock.tenancy.model import Role

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row
    from penstock.cli.records import Column

app = typer.Typer(name="members", help="Manage people and their roles.", no_args_is_help=True)

MemberArgument = Annotated[
    str,
    typer.Argument(metavar="MEMBER", help="Subject or id.", show_default=False),
]
RoleOption = Annotated[Role, typer.Option("--role", help="What they may do.", show_default=False)]


@app.command(
    "add",
    epilog=examples(
        "penstock members add ada@example.com --org acme --role org_admin",
        "penstock members add ada@example.com --org acme --project chat --role developer",
    ),
)
def add(
    *,
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT", help="Who, as the identity provider says it.", show_default=False
        ),
    ],
    role: RoleOption,
    label: LabelOption = None,
    email: Annotated[
        str | None, typer.Option(help="Where to reach them.", metavar="EMAIL", show_default=False)
    ] = None,
    org: OrgOption = None,
    project: ProjectOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a person a role in an organization, or in one project of it."""
    with connect(data) as client:
        place = require_place(client, org, project)
        body = {**place.filters, **given(subject=subject, role=role.value, email=email)}
        if label:
            body["labels"] = parse_labels(label)
        row = client.change("POST", MEMBERS, body)
    sentence = f"Added {row['subject']} ({row['id']}) as {row['role']}{place.words}."
    say_done(row, sentence, as_json=as_json)


@app.command("list", epilog=examples("penstock members list --org acme"))
def list_all(
    *,
    org: OrgOption = None,
    project: ProjectOption = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List members, oldest first. With --json: one object a line."""
    with connect(data) as client:
        place = find_place(client, org, project)
        show_list(
            client.rows(MEMBERS, place.filters),
            _columns(client),
            limit=limit,
            as_json=as_json,
            nothing=f"There is no member{place.words}.",
            expendable=("Added (UTC)", "E-mail", "Organization"),
        )


@app.command("show", epilog=examples("penstock members show ada@example.com --org acme"))
def show(
    *,
    member: MemberArgument,
    org: OrgOption = None,
    project: ProjectOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a member."""
    with connect(data) as client:
        row = get_member(client, member, find_place(client, org, project))
        show_one(row, (*_columns(client), ("Version", text_of("version"))), as_json=as_json)


@app.command(
    "update",
    epilog=examples(
        "penstock members update ada@example.com --org acme --role auditor",
        "penstock members update ada@example.com --org acme --label team=search",
    ),
)
def update(
    *,
    member: MemberArgument,
    role: NewRoleOption = None,
    label: LabelOption = None,
    remove_label: RemoveLabelOption = None,
    org: OrgOption = None,
    project: ProjectOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a member another role, or other labels; their keys follow at once.

    --label adds to the labels, or replaces the one of its name.
    """
    require_changes(role or label or remove_label, "members update")
    with connect(data) as client:
        before = get_member(client, member, find_place(client, org, project))
        changes = given(role=role and role.value)
        row = change_labelled(client, MEMBERS, before, changes, LabelChanges(label, remove_label))
    say_done(row, f"{_words(before)} {words_of_person(row)} now.", as_json=as_json)


@app.command("remove", epilog=examples("penstock members remove ada@example.com --org acme --yes"))
def remove(
    *,
    member: MemberArgument,
    org: OrgOption = None,
    project: ProjectOption = None,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a person's role away."""
    with connect(data) as client:
        before = get_member(client, member, find_place(client, org, project))
        confirm(f"{_words(before)} loses the role {before['role']}.", is_confirmed=yes)
        client.change("DELETE", f"{MEMBERS}/{before['id']}")
    row = {"id": before["id"], "subject": before["subject"], "is_removed": True}
    say_done(row, f"Removed {_words(before)}.", as_json=as_json)


def _columns(client: "ControlClient") -> "tuple[Column, ...]":
    return (
        ("Subject", text_of("subject")),
        ("Id", text_of("id")),
        ("E-mail", text_of("email")),
        ("Role", text_of("role")),
        ("Labels", text_of("labels")),
        *place_columns(NameBook(client)),
        ("Added (UTC)", time_of("created_at")),
    )


def _words(row: "Row") -> str:
    return f"{row['subject']} ({row['id']})"
