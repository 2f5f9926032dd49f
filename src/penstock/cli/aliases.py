"""`penstock aliases`: the public names of models."""

from typing import Annotated

import typer

from penstock.cli.bodies import given, require_changes
from penstock.cli.instance import DataOption, connect
from penstock.cli.kinds import (
    NAME_AND_ID,
    Kind,
    NameArgument,
    add_delete,
    add_show,
    find_id,
    object_argument,
)
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import LimitOption, text_of
from penstock.cli.resolving import ALIASES, ROUTES, get_catalog_object

KIND = Kind(
    path=ALIASES,
    columns=lambda names: (
        *NAME_AND_ID,
        ("Route", lambda row: names.name(ROUTES, row["route_id"])),
        ("Open", text_of("is_open")),
    ),
    expendable=("Id",),
    effect="; requests for it are answered like those for a model that never was",
    example="chat-large",
)

app = typer.Typer(
    name=KIND.group,
    help="Manage aliases: the names that callers send as `model`.",
    no_args_is_help=True,
)

_ROUTE = option("--route", "Where its requests go: a route by name or id.", "ROUTE")
_OPEN = "--open/--granted"
_OPEN_TEXT = "Let every key use it, or only those of organizations and projects with a grant."


@app.command(
    "create",
    epilog=examples(
        "penstock aliases create chat-large --route llama-70b",
        "penstock aliases create chat-small --route llama-8b --open",
    ),
)
def create(
    *,
    name: NameArgument,
    route: Annotated[str, _ROUTE],
    is_open: Annotated[bool, typer.Option(_OPEN, help=_OPEN_TEXT)] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an alias: a name that callers can send as `model`."""
    with connect(data) as client:
        body = {"name": name, "route_id": find_id(client, ROUTES, route), "is_open": is_open}
        KIND.create(client, body, as_json=as_json)


@app.command("list", epilog=examples("penstock aliases list", "penstock aliases list --json"))
def list_all(
    *,
    route: Annotated[str | None, _ROUTE] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List aliases, oldest first. With --json: one object a line.

    Who is no operator sees those that they may use.
    """
    with connect(data) as client:
        filters = given(route_id=find_id(client, ROUTES, route))
        KIND.show_all(client, filters, limit=limit, as_json=as_json)


add_show(app, KIND)


@app.command(
    "update",
    epilog=examples(
        "penstock aliases update chat-large --route llama-70b-new",
        "penstock aliases update chat-large --granted",
    ),
)
def update(
    *,
    name: Annotated[str, object_argument(KIND)],
    route: Annotated[str | None, _ROUTE] = None,
    is_open: Annotated[
        bool | None, typer.Option(_OPEN, help=_OPEN_TEXT, show_default=False)
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change where an alias goes, or who may use it; what is not named stays."""
    with connect(data) as client:
        changes = given(route_id=find_id(client, ROUTES, route), is_open=is_open)
        require_changes(changes, "aliases update")
        before = get_catalog_object(client, ALIASES, name)
        KIND.change(client, before, changes, as_json=as_json)


add_delete(app, KIND)
