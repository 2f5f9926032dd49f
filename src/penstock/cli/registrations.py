"""`penstock registrations`: engines that register themselves, and what they do it with."""

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.instance import DataOption, connect
from penstock.cli.key_views import show_secret
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import (
    LimitOption,
    YesOption,
    confirm,
    say_done,
    show_list,
    text_of,
    time_of,
)
from penstock.cli.resolving import (
    REGISTRATION_TOKENS,
    REGISTRATIONS,
    UPSTREAMS,
    get_catalog_object,
)

if TYPE_CHECKING:
    from penstock.cli.control_client import Row

app = typer.Typer(
    name="registrations",
    help="See which engines registered themselves, and manage the tokens that they do it with.",
    no_args_is_help=True,
)

UpstreamArgument = Annotated[
    str, typer.Argument(metavar="UPSTREAM", help="Its name or id.", show_default=False)
]


@app.command(
    "list",
    epilog=examples("penstock registrations list gpu-pool"),
)
def list_all(
    *,
    upstream: UpstreamArgument,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the engines that registered for an upstream. With --json: one object a line.

    Those whose leases lapsed within the last hour are among them.
    """
    with connect(data) as client:
        found = get_catalog_object(client, UPSTREAMS, upstream)
        show_list(
            client.rows(REGISTRATIONS, {"upstream_id": found["id"]}),
            (
                ("URL", text_of("url")),
                ("Status", text_of("status")),
                ("Until (UTC)", time_of("expires_at")),
                ("Weight", text_of("weight")),
                ("Engine", text_of("engine")),
                ("Since (UTC)", time_of("created_at")),
            ),
            limit=limit,
            as_json=as_json,
            nothing="No engine is registered.",
            expendable=("Since (UTC)", "Weight"),
        )


@app.command(
    "create-token",
    epilog=examples("penstock registrations create-token gpu-pool"),
)
def create_token(
    *, upstream: UpstreamArgument, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Create a token that engines of an upstream register with, and show it, this once."""
    with connect(data) as client:
        found = get_catalog_object(client, UPSTREAMS, upstream)
        row = client.change("POST", REGISTRATION_TOKENS, {"upstream_id": found["id"]})
    show_secret(row, f"Created token {row['id']} for {found['name']}.", as_json=as_json)


@app.command(
    "tokens",
    epilog=examples("penstock registrations tokens gpu-pool"),
)
def tokens(
    *,
    upstream: UpstreamArgument,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tokens of an upstream, without what is secret. With --json: one object a line."""
    with connect(data) as client:
        found = get_catalog_object(client, UPSTREAMS, upstream)
        show_list(
            client.rows(REGISTRATION_TOKENS, {"upstream_id": found["id"]}),
            (("Id", text_of("id")), ("Created (UTC)", time_of("created_at"))),
            limit=limit,
            as_json=as_json,
            nothing="There is none. Create one with `penstock registrations create-token`.",
        )


@app.command(
    "delete-token",
    epilog=examples("penstock registrations delete-token rgt_9aPd3Xk2LmQz"),
)
def delete_token(
    *,
    token: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="One of `penstock registrations tokens`.", show_default=False
        ),
    ],
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let nobody register with a token any more. What is registered stays until it lapses."""
    with connect(data) as client:
        row: Row = client.get(f"{REGISTRATION_TOKENS}/{token}")
        confirm(f"Nobody registers with token {row['id']} any more.", is_confirmed=yes)
        client.change("DELETE", f"{REGISTRATION_TOKENS}/{row['id']}")
    gone = {"id": row["id"], "is_deleted": True}
    say_done(gone, f"Deleted token {row['id']}.", as_json=as_json)
