"""`penstock credentials`: what lets us in at upstreams, kept encrypted by the control plane."""

from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.bodies import given, require_changes
from penstock.cli.errors import EXIT_FAILURE
from penstock.cli.instance import DataOption, connect
from penstock.cli.kinds import NAME_AND_ID, Kind, find_id, object_argument
from penstock.cli.options import option
from penstock.cli.output import JsonOption, console, examples, print_json
from penstock.cli.records import (
    LimitOption,
    NewNameOption,
    YesOption,
    text_of,
)
from penstock.cli.resolving import (
    CREDENTIALS,
    UPSTREAMS,
    OrgOption,
    find_place,
    get_credential,
)
from penstock.cli.secret_input import SecretFileOption, read_secret

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

KIND = Kind(
    path=CREDENTIALS,
    columns=lambda names: (
        *NAME_AND_ID,
        ("Provider", text_of("provider")),
        ("Owner", lambda row: names.owner(row["organization_id"])),
        ("Upstream", lambda row: names.name(UPSTREAMS, row["upstream_id"])),
        ("State", text_of("state")),
    ),
    fields=lambda _: (("Made by", text_of("created_by")),),
    expendable=("Id",),
    effect=", and its secret cannot be read again",
    example="openai",
)

app = typer.Typer(
    name=KIND.group,
    help="Manage credentials: what upstreams let us in with, kept encrypted.",
    no_args_is_help=True,
)

CredentialArgument = Annotated[str, object_argument(KIND)]


@app.command(
    "create",
    epilog=examples(
        "penstock credentials create openai --provider openai_compatible \\",
        "  --secret-file openai.key",
        "vault kv get -field=key kv/openai | \\",
        "  penstock credentials create openai --provider openai_compatible",
        "penstock credentials create own --provider openai_compatible \\",
        "  --org acme --upstream openai",
    ),
)
def create(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.", show_default=False)],
    provider: Annotated[
        str,
        option("--provider", "What it is for, one of `penstock providers list`.", "PROVIDER"),
    ],
    secret_file: SecretFileOption = None,
    org: OrgOption = None,
    upstream: Annotated[
        str | None,
        option(
            "--upstream",
            "With --org: where the organization's requests use it in place of the platform's.",
            "UPSTREAM",
        ),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a credential: the platform's, or with --org an organization's own.

    Its secret is encrypted, goes to the nodes, and is never shown again.
    """
    with connect(data) as client:
        body = {
            "name": name,
            "provider": provider,
            **find_place(client, org, None).filters,
            **given(upstream_id=find_id(client, UPSTREAMS, upstream)),
            # Last: nobody types a secret only to learn that a name was wrong.
            "secret": read_secret(secret_file),
        }
        KIND.create(client, body, as_json=as_json)


@app.command(
    "list",
    epilog=examples("penstock credentials list", "penstock credentials list --org acme --json"),
)
def list_all(
    *,
    org: OrgOption = None,
    provider: Annotated[str | None, option("--provider", "Only for this.", "PROVIDER")] = None,
    limit: LimitOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List credentials without their secrets, oldest first. With --json: one object a line."""
    with connect(data) as client:
        filters = {**find_place(client, org, None).filters, **given(provider=provider)}
        KIND.show_all(client, filters, limit=limit, as_json=as_json)


@app.command("show", epilog=examples("penstock credentials show openai"))
def show(
    *,
    credential: CredentialArgument,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a credential, without its secret."""
    with connect(data) as client:
        KIND.show(client, _find(client, credential, org), as_json=as_json)


@app.command(
    "set",
    epilog=examples(
        "penstock credentials set openai --secret-file openai.key",
        "penstock credentials set own --org acme < own.key",
    ),
)
def set_secret(
    *,
    credential: CredentialArgument,
    secret_file: SecretFileOption = None,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a credential a new secret; requests use it as soon as it has reached the nodes."""
    with connect(data) as client:
        before = _find(client, credential, org)
        changes = {"secret": read_secret(secret_file)}
        KIND.change(client, before, changes, as_json=as_json, done="Gave a new secret to")


@app.command("update", epilog=examples("penstock credentials update openai --name openai-eu"))
def update(
    *,
    credential: CredentialArgument,
    name: NewNameOption = None,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a credential another name; its secret stays (`set` replaces that)."""
    changes = given(name=name)
    require_changes(changes, "credentials update")
    with connect(data) as client:
        KIND.change(client, _find(client, credential, org), changes, as_json=as_json)


@app.command("delete", epilog=examples("penstock credentials delete openai --yes"))
def delete(
    *,
    credential: CredentialArgument,
    org: OrgOption = None,
    yes: YesOption = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a credential for ever; refused while an upstream or a deployment uses it."""
    with connect(data) as client:
        KIND.delete(client, _find(client, credential, org), yes=yes, as_json=as_json)


@app.command("rewrap", epilog=examples("penstock credentials rewrap"))
def rewrap(*, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Encrypt all data keys with the current version of the key-encryption key.

    Do it after that was rotated where it is kept; secrets themselves stay as they are. Exit code 1
    as long as something still needs an older version. An interrupted run goes on where it ended.
    """
    with connect(data) as client:
        report = client.change("POST", f"{CREDENTIALS}/rewrap")
    _say_report(report, "data keys", "older version of the key-encryption key", as_json=as_json)


@app.command(
    "rotate",
    epilog=examples("penstock credentials rotate", "penstock credentials rotate --org acme"),
)
def rotate(*, org: OrgOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Make a new data key and encrypt all credentials of the platform, or of --org, with it.

    The secrets themselves stay as they are. Exit code 1 as long as something still needs an older
    key. An interrupted run goes on where it ended.
    """
    with connect(data) as client:
        body = find_place(client, org, None).filters
        report = client.change("POST", f"{CREDENTIALS}/rotate", body)
    _say_report(report, "credentials", "older data key", as_json=as_json)


def _find(client: "ControlClient", credential: str, org: str | None) -> "Row":
    return get_credential(client, credential, find_place(client, org, None))


def _say_report(report: "Row", what: str, old_key: str, *, as_json: bool) -> None:
    if as_json:
        print_json(report)
    elif report["is_complete"]:
        sentence = f"Encrypted {report['renewed']:,} {what} anew; nothing needs an {old_key}."
        console().print(sentence, style="green")
    else:
        sentence = (
            f"Encrypted {report['renewed']:,} {what} anew; {report['outdated']:,} still need an "
            f"{old_key}, {report['unreadable']:,} of them because they cannot be read. Keep that "
            "key, and run this again."
        )
        console().print(sentence, style="bold red")
    if not report["is_complete"]:
        raise typer.Exit(EXIT_FAILURE)
