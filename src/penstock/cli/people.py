"""What `penstock members` and `penstock service-accounts` share: places, roles and labels."""

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.records import text_cell
from penstock.cli.resolving import NameBook, Place, find_place
from penstock.tenancy.model import Role

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row
    from penstock.cli.records import Column

NewRoleOption = Annotated[
    Role | None,
    typer.Option("--role", help="What they may do from now on.", show_default=False),
]


def words_of_person(row: "Row") -> str:
    """Return what role and labels somebody has, for sentences."""
    carried = f", and carries {text_cell(row['labels'])}," if row["labels"] else ""
    return f"has the role {row['role']}{carried}"


def require_place(client: "ControlClient", org: str | None, project: str | None) -> Place:
    """Return the organization, and the project if one was named, that are meant.

    Raises:
        CommandError: Neither was named, or one does not exist.
    """
    if org is None and project is None:
        raise CommandError(BAD_OPTION, "It is not said where.", "Add --org ORG or --project NAME.")
    place = find_place(client, org, project)
    return Place(place.whole_organization.organization, place.project)


def place_columns(names: NameBook) -> "tuple[Column, ...]":
    """Return what shows where somebody has a role, or something is granted."""
    return (
        ("Organization", lambda row: names.organization(row["organization_id"])),
        ("Project", lambda row: names.project(row["project_id"]) if row["project_id"] else "all"),
    )
