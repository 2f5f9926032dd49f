"""`penstock keys`: the credentials of projects, and their secrets."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from penstock.cli import key_actions
from penstock.cli.bodies import given, list_change, require_changes
from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.instance import DataOption, connect
from penstock.cli.key_options import (
    AliasOption,
    CidrOption,
    ExpiresOption,
    KeyArgument,
    RoleOption,
    RotateEveryOption,
    RotateGraceOption,
    ScopeOption,
    parse_expiry,
    parse_rotation,
)
from penstock.cli.key_views import (
    EXPENDABLE,
    key_columns,
    key_fields,
    show_secret,
)
from penstock.cli.labels import (
    LabelChanges,
    LabelOption,
    RemoveLabelOption,
    change_labelled,
    parse_labels,
)
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import (
    LimitOption,
    say_done,
    show_list,
    show_one,
    words_of,
)
from penstock.cli.resolving import (
    KEYS,
    OrgOption,
    ProjectOption,
    find_key,
    find_place,
    get_member,
    get_service_account,
)

app = typer.Typer(
    name="keys", help="Manage API keys: what programs call with.", no_args_is_help=True
)
app.add_typer(key_actions.app)


@app.command(
    "create",
    epilog=examples(
        "penstock keys create --project chat --name ci",
        "penstock keys create --project chat --name ci --expires 90d --alias emulated-70b",
        "penstock keys create --project chat --name laptop --member ada@example.com",
        "penstock keys create --project chat --name ci --json | jq -r .secret",
    ),
)
def create(  # noqa: PLR0913  # each option is a parameter: Typer reads them from here
    *,
    project: Annotated[
        str,
        typer.Option(
            "--project", help="Project, by name or id.", metavar="PROJECT", show_default=False
        ),
    ],
    name: Annotated[
        str, typer.Option("--name", help="Its name.", metavar="NAME", show_default=False)
    ],
    org: OrgOption = None,
    role: RoleOption = None,
    scope: ScopeOption = None,
    alias: AliasOption = None,
    cidr: CidrOption = None,
    label: LabelOption = None,
    expires: ExpiresOption = None,
    rotate_every: RotateEveryOption = None,
    rotate_grace: RotateGraceOption = None,
    service_account: Annotated[
        str | None,
        typer.Option(
            help="Machine that it belongs to, by name or id: it can do no more than that.",
            metavar="ACCOUNT",
            show_default=False,
        ),
    ] = None,
    member: Annotated[
        str | None,
        typer.Option(
            help="Person that it belongs to, by subject or id: it goes with them.",
            metavar="MEMBER",
            show_default=False,
        ),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Begin it with ps_test_ instead of ps_live_.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create an API key in a project and show its secret, this once.

    With --json: one object, with `id` and `secret` among its members.
    """
    body = given(
        name=name,
        role=role and role.value,
        scopes=scope and [one.value for one in scope],
        allowed_aliases=alias or None,
        allowed_cidrs=cidr or None,
        labels=parse_labels(label) if label else None,
        expires_at=expires and parse_expiry(expires, datetime.now(UTC)),
        is_live=False if test else None,
    )
    body |= given(**parse_rotation(rotate_every, rotate_grace))
    if member is not None and service_account is not None:
        raise CommandError(BAD_OPTION, "--member and --service-account exclude each other.")
    with connect(data) as client:
        place = find_place(client, org, project)
        if service_account is not None:
            owner = get_service_account(client, service_account, place.whole_organization)
            body["service_account_id"] = owner["id"]
        if member is not None:
            body["member_id"] = get_member(client, member, place.whole_organization)["id"]
        row = client.change("POST", KEYS, {"project_id": place.filters["project_id"], **body})
    show_secret(row, f"Created key {words_of(row)}{place.words}.", as_json=as_json)


@app.command(
    "list",
    epilog=examples(
        "penstock keys list --project chat", "penstock keys list --json | jq -r .last_used_at"
    ),
)
def list_all(
    *,
    project: ProjectOption = None,
    org: OrgOption = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Only of this name.", show_default=False)
    ] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List API keys, revoked ones too, oldest first. With --json: one object a line."""
    with connect(data) as client:
        filters = {**find_place(client, org, project).filters, **given(name=name)}
        show_list(
            client.rows(KEYS, filters),
            key_columns(client, datetime.now(UTC)),
            limit=limit,
            as_json=as_json,
            nothing="There is no key. Create one with `penstock keys create`.",
            expendable=EXPENDABLE,
        )


@app.command("show", epilog=examples("penstock keys show ci --project chat"))
def show(
    *,
    key: KeyArgument,
    project: ProjectOption = None,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show an API key, without its secret."""
    with connect(data) as client:
        row = find_key(client, key, project, org)
        show_one(row, key_fields(client, datetime.now(UTC)), as_json=as_json)


@app.command(
    "update",
    epilog=examples(
        "penstock keys update ci --expires 30d --label stage=production",
        "penstock keys update ci --alias small --alias large",
        "penstock keys update ci --all-aliases --expires never",
    ),
)
def update(  # noqa: PLR0913  # as create
    *,
    key: KeyArgument,
    name: Annotated[
        str | None, typer.Option("--name", help="Its name from now on.", show_default=False)
    ] = None,
    role: RoleOption = None,
    scope: ScopeOption = None,
    alias: AliasOption = None,
    all_aliases: Annotated[
        bool, typer.Option("--all-aliases", help="Let it ask for every model again.")
    ] = False,
    cidr: CidrOption = None,
    all_cidrs: Annotated[
        bool, typer.Option("--all-cidrs", help="Let it be used from everywhere again.")
    ] = False,
    label: LabelOption = None,
    remove_label: RemoveLabelOption = None,
    expires: ExpiresOption = None,
    rotate_every: RotateEveryOption = None,
    rotate_grace: RotateGraceOption = None,
    project: ProjectOption = None,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change an API key; what is not named stays, and so does the secret.

    --scope, --alias and --cidr replace the whole list; --label adds to the labels or replaces the
    one of its name; `--expires never` and `--rotate-every never` take these away.
    """
    changes: dict[str, Any] = given(
        name=name, role=role and role.value, scopes=scope and [one.value for one in scope]
    )
    changes |= list_change("allowed_aliases", alias, "--alias", all_aliases and "--all-aliases")
    changes |= list_change("allowed_cidrs", cidr, "--cidr", all_cidrs and "--all-cidrs")
    if expires is not None:
        changes["expires_at"] = parse_expiry(expires, datetime.now(UTC))
    changes |= parse_rotation(rotate_every, rotate_grace)
    require_changes(changes or label or remove_label, "keys update")
    with connect(data) as client:
        before = find_key(client, key, project, org)
        row = change_labelled(client, KEYS, before, changes, LabelChanges(label, remove_label))
    say_done(row, f"Changed key {words_of(row)}.", as_json=as_json)
