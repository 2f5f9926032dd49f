"""`penstock grants`: which organizations and projects may use an alias that is not open."""

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from penstock.cli.bodies import given
from penstock.cli.errors import BAD_OPTION, NOT_FOUND, CommandError
from penstock.cli.instance import DataOption, connect
from penstock.cli.kinds import Kind, find_id
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples
from penstock.cli.people import place_columns, require_place
from penstock.cli.records import LimitOption, YesOption, text_of
from penstock.cli.resolving import ALIASES, GRANTS, OrgOption, ProjectOption, find_place

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

KIND = Kind(
    path=GRANTS,
    columns=lambda names: (
        ("Id", text_of("id")),
        ("Alias", lambda row: names.name(ALIASES, row["alias_id"])),
        *place_columns(names),
    ),
    effect="; requests for the alias are refused there at once, unless another grant covers them",
    example="grt_4fZk9QmT0aXb",
    words=lambda row: str(row["id"]),
)

app = typer.Typer(
    name=KIND.group,
    help="Manage grants: who may use the aliases that are not open.",
    no_args_is_help=True,
)


_ALIAS = option("--alias", "Alias, by name or id.", "ALIAS")
_WHICH = "Give its id, or --alias together with --org or --project."
AliasOption = Annotated[str | None, _ALIAS]
GrantArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="GRANT",
        help="Its id; or say which with --alias, and --org or --project.",
        show_default=False,
    ),
]


@app.command(
    "create",
    epilog=examples(
        "penstock grants create --alias chat-large --org acme",
        "penstock grants create --alias chat-large --org acme --project chat",
    ),
)
def create(
    *,
    alias: Annotated[str, _ALIAS],
    org: OrgOption = None,
    project: ProjectOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an organization, or one project of it, use an alias."""
    with connect(data) as client:
        place = require_place(client, org, project)
        body = {"alias_id": find_id(client, ALIASES, alias), **place.filters}
        KIND.create(client, body, as_json=as_json)


@app.command(
    "list",
    epilog=examples("penstock grants list --alias chat-large", "penstock grants list --org acme"),
)
def list_all(
    *,
    alias: AliasOption = None,
    org: OrgOption = None,
    project: ProjectOption = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List grants, oldest first. With --json: one object a line."""
    with connect(data) as client:
        place = find_place(client, org, project)
        filters = {**place.filters, **given(alias_id=find_id(client, ALIASES, alias))}
        KIND.show_all(client, filters, limit=limit, as_json=as_json)


@app.command("show", epilog=examples("penstock grants show grt_4fZk9QmT0aXb"))
def show(
    *,
    grant: GrantArgument = None,
    alias: AliasOption = None,
    org: OrgOption = None,
    project: ProjectOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a grant."""
    with connect(data) as client:
        row = _find(client, grant, alias, org, project)
        KIND.show(client, row, as_json=as_json)


@app.command(
    "delete",
    epilog=examples(
        "penstock grants delete --alias chat-large --org acme --yes",
        "penstock grants delete grt_4fZk9QmT0aXb --yes",
    ),
)
def delete(
    *,
    grant: GrantArgument = None,
    alias: AliasOption = None,
    org: OrgOption = None,
    project: ProjectOption = None,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a grant away; others that cover the same alias stay."""
    with connect(data) as client:
        row = _find(client, grant, alias, org, project)
        KIND.delete(client, row, yes=yes, as_json=as_json)


def _find(
    client: "ControlClient",
    grant: str | None,
    alias: str | None,
    org: str | None,
    project: str | None,
) -> "Row":
    """Return the grant of this id, or the one of this alias for exactly this place."""
    if grant is not None:
        row = client.find(f"{GRANTS}/{quote(grant, safe='')}")
        what = f"grant {grant!r}"
    else:
        if alias is None:
            raise CommandError(BAD_OPTION, "It is not said which.", _WHICH)
        place = require_place(client, org, project)
        wanted = {"project_id": None, **place.filters, "alias_id": find_id(client, ALIASES, alias)}
        rows = client.rows(GRANTS, given(**wanted))
        row = next((row for row in rows if row.items() >= wanted.items()), None)
        what = f"grant of alias {alias!r}{place.words}"
    if row is None:
        raise CommandError(NOT_FOUND, f"There is no {what}.", "See `penstock grants list`.")
    return row
