"""`penstock projects`: parts of organizations, which own keys."""

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
from penstock.cli.resolving import (
    PROJECTS,
    NameBook,
    OrgOption,
    find_place,
    get_organization,
    get_project,
)

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row
    from penstock.cli.records import Column

app = typer.Typer(
    name="projects",
    help="Manage projects: parts of organizations, which own API keys.",
    no_args_is_help=True,
)

ProjectArgument = Annotated[
    str, typer.Argument(metavar="PROJECT", help="Name or id.", show_default=False)
]


@app.command(
    "create",
    epilog=examples(
        "penstock projects create chat --org acme",
        "penstock projects create chat --org acme --json | jq -r .id",
    ),
)
def create(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.", show_default=False)],
    org: Annotated[
        str,
        typer.Option(
            "--org", help="Organization, by name or id.", metavar="ORG", show_default=False
        ),
    ],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a project in an organization."""
    with connect(data) as client:
        organization = get_organization(client, org)
        row = client.change("POST", PROJECTS, {"organization_id": organization["id"], "name": name})
    sentence = f"Created project {words_of(row)} in organization {organization['name']}."
    say_done(row, sentence, as_json=as_json)


@app.command(
    "list", epilog=examples("penstock projects list", "penstock projects list --org acme --json")
)
def list_all(
    *,
    org: OrgOption = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List projects, oldest first. With --json: one object a line."""
    with connect(data) as client:
        show_list(
            client.rows(PROJECTS, find_place(client, org, None).filters),
            _columns(client),
            limit=limit,
            as_json=as_json,
            nothing="There is no project. Create one with `penstock projects create`.",
            expendable=("Created (UTC)", "Status"),
        )


@app.command("show", epilog=examples("penstock projects show chat --org acme"))
def show(
    *,
    project: ProjectArgument,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a project."""
    with connect(data) as client:
        row = _find(client, project, org)
        fields = (
            *_columns(client),
            *RESIDENCY_FIELDS,
            ("Changed (UTC)", time_of("updated_at")),
            ("Version", text_of("version")),
        )
        show_one(row, fields, as_json=as_json)


@app.command(
    "update",
    epilog=examples(
        "penstock projects update chat --org acme --name assistant",
        "penstock projects update chat --org acme --data-class eu_only",
    ),
)
def update(  # noqa: PLR0913  # each option is a parameter: Typer reads them from here
    *,
    project: ProjectArgument,
    org: OrgOption = None,
    name: NewNameOption = None,
    data_class: DataClassOption = None,
    all_data_classes: AllDataClassesOption = False,
    region: RegionOption = None,
    all_regions: AllRegionsOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a project's name, or where its data may go; what is not named stays.

    Id, keys and usage stay in any case. --data-class and --region replace the whole list; they
    narrow what the organization allows and cannot widen it.
    """
    changes = given(name=name)
    changes |= residency_changes(data_class, all_data_classes, region, all_regions)
    require_changes(changes, "projects update")
    with connect(data) as client:
        before = _find(client, project, org)
        row = client.change("PATCH", f"{PROJECTS}/{before['id']}", changes)
    say_done(row, f"Changed project {words_of(row)}.", as_json=as_json)


@app.command("delete", epilog=examples("penstock projects delete chat --org acme --yes"))
def delete(
    *,
    project: ProjectArgument,
    org: OrgOption = None,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Archive a project for ever: its keys stop working, its usage is kept."""
    with connect(data) as client:
        before = _find(client, project, org)
        question = f"Project {words_of(before)} is archived for ever; its keys stop working."
        confirm(question, is_confirmed=yes)
        client.change("DELETE", f"{PROJECTS}/{before['id']}")
    row = {"id": before["id"], "name": before["name"], "status": "archived"}
    say_done(row, f"Archived project {words_of(row)}.", as_json=as_json)


def _find(client: "ControlClient", project: str, org: str | None) -> "Row":
    return get_project(client, project, find_place(client, org, None).organization)


def _columns(client: "ControlClient") -> "tuple[Column, ...]":
    names = NameBook(client)
    return (
        ("Name", text_of("name")),
        ("Id", text_of("id")),
        ("Organization", lambda row: names.organization(row["organization_id"])),
        ("Status", text_of("status")),
        ("Created (UTC)", time_of("created_at")),
    )
