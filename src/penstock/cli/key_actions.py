"""What ends, pauses and renews API keys: the rest of `penstock keys`."""

from typing import Annotated
from urllib.parse import quote

import typer

from penstock.cli.bodies import require_changes
from penstock.cli.instance import DataOption, connect
from penstock.cli.key_options import KeyArgument, ReasonOption
from penstock.cli.key_views import PEPPER_COLUMNS, SECRET_COLUMNS, due_columns, show_secret
from penstock.cli.labels import LabelChanges, change_labelled
from penstock.cli.options import option
from penstock.cli.output import JsonOption, examples
from penstock.cli.records import (
    YesOption,
    confirm,
    say_done,
    show_list,
    text_cell,
    time_cell,
    words_of,
)
from penstock.cli.resolving import KEYS, OrgOption, ProjectOption, find_key, find_place
from penstock.cli.times import parse_duration_s

PEPPERS = "/api/v1/peppers"

app = typer.Typer()


@app.command("due", epilog=examples("penstock keys due --org acme", "penstock keys due --json"))
def list_due(
    *,
    project: ProjectOption = None,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List secrets that somebody must look after, or callers are locked out.

    Rotations that are due, and old secrets that are still used although their end is near. With
    --json: one object a line.
    """
    with connect(data) as client:
        filters = find_place(client, org, project).filters
        show_list(
            iter(client.get(f"{KEYS}/due", filters)["data"]),
            due_columns(client),
            limit=None,
            as_json=as_json,
            nothing="No secret is due.",
            expendable=("Project", "Last used (UTC)"),
        )


@app.command(
    "label",
    epilog=examples(
        "penstock keys label web-1 team=search stage=production",
        "penstock keys label web-1 --remove stage",
    ),
)
def label(
    *,
    key: KeyArgument,
    labels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE", help="Labels that it is to carry.", show_default=False
        ),
    ] = None,
    remove: Annotated[
        list[str] | None, option("--remove", "Label to remove; repeat it.", "NAME")
    ] = None,
    project: ProjectOption = None,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an API key labels, or take some away; the others stay.

    Limits and budgets may be for keys with a label.
    """
    require_changes(labels or remove, "keys label")
    with connect(data) as client:
        before = find_key(client, key, project, org)
        row = change_labelled(client, KEYS, before, {}, LabelChanges(labels, remove))
    carried = text_cell(row["labels"])
    say_done(row, f"Key {words_of(row)} carries {carried} now.", as_json=as_json)


@app.command("peppers", epilog=examples("penstock keys peppers"))
def list_peppers(*, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Count the secrets under each pepper: when an old one has none left, its file can go.

    With --json: one object a line, with ids of keys that are left.
    """
    with connect(data) as client:
        show_list(
            iter(client.get(PEPPERS)["data"]),
            PEPPER_COLUMNS,
            limit=None,
            as_json=as_json,
            nothing="There is no pepper.",
        )


@app.command(
    "rotate",
    epilog=examples(
        "penstock keys rotate ci --grace 24h",
        "penstock keys rotate 0aB1cD2eF3gH --grace 60s --json | jq -r .secret",
    ),
)
def rotate(
    *,
    key: KeyArgument,
    grace: Annotated[
        str,
        typer.Option(help="How long the old secret works on: 0s, 60s, 24h, 7d.", metavar="TIME"),
    ] = "24h",
    project: ProjectOption = None,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an API key a new secret and show it, this once; the old one works on for a while.

    Id, limits and usage of the key stay.
    """
    grace_s = parse_duration_s("--grace", grace)
    with connect(data) as client:
        before = find_key(client, key, project, org)
        row = client.change("POST", f"{KEYS}/{before['id']}/rotate", {"grace_s": grace_s})
    until = row.get("retiring_until")
    old = f"works until {time_cell(until)} UTC" if until else "stopped working"
    sentence = f"Rotated key {words_of(before)}; its old secret {old}."
    show_secret(row, sentence, as_json=as_json)


@app.command("revoke", epilog=examples('penstock keys revoke ci --reason "it was in a log"'))
def revoke(
    *,
    key: KeyArgument,
    reason: ReasonOption = "",
    yes: YesOption = False,
    project: ProjectOption = None,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """End an API key and all its secrets for ever, at once."""
    with connect(data) as client:
        before = find_key(client, key, project, org)
        confirm(f"Key {words_of(before)} is revoked for ever, at once.", is_confirmed=yes)
        row = client.change("POST", f"{KEYS}/{before['id']}/revoke", {"reason": reason})
    say_done(row, f"Revoked key {words_of(before)}.", as_json=as_json)


@app.command("disable", epilog=examples("penstock keys disable ci"))
def disable(
    *,
    key: KeyArgument,
    project: ProjectOption = None,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have an API key refused until it is enabled."""
    with connect(data) as client:
        before = find_key(client, key, project, org)
        row = client.change("POST", f"{KEYS}/{before['id']}/disable")
    say_done(row, f"Disabled key {words_of(before)}.", as_json=as_json)


@app.command("enable", epilog=examples("penstock keys enable ci"))
def enable(
    *,
    key: KeyArgument,
    project: ProjectOption = None,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a disabled API key work again."""
    with connect(data) as client:
        before = find_key(client, key, project, org)
        row = client.change("POST", f"{KEYS}/{before['id']}/enable")
    say_done(row, f"Enabled key {words_of(before)}.", as_json=as_json)


@app.command("secrets", epilog=examples("penstock keys secrets ci"))
def secrets(
    *,
    key: KeyArgument,
    project: ProjectOption = None,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the secrets of an API key by their ids: which works, until when, last used when.

    With --json: one object a line.
    """
    with connect(data) as client:
        before = find_key(client, key, project, org)
        show_list(
            iter(client.get(f"{KEYS}/{before['id']}/secrets")["data"]),
            SECRET_COLUMNS,
            limit=None,
            as_json=as_json,
            nothing=f"Key {words_of(before)} has no secret.",
            expendable=("Created (UTC)",),
        )


@app.command("revoke-secret", epilog=examples("penstock keys revoke-secret ci sec_0aB1cD2eF3gH"))
def revoke_secret(
    *,
    key: KeyArgument,
    secret_id: Annotated[
        str,
        typer.Argument(
            metavar="SECRET_ID",
            help="Id of the secret, as `penstock keys secrets` lists it.",
            show_default=False,
        ),
    ],
    yes: YesOption = False,
    project: ProjectOption = None,
    org: OrgOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """End one secret of an API key for ever, at once, e.g. the old one before its grace ends."""
    with connect(data) as client:
        before = find_key(client, key, project, org)
        question = f"Secret {secret_id} of key {words_of(before)} stops working at once."
        confirm(question, is_confirmed=yes)
        client.change("DELETE", f"{KEYS}/{before['id']}/secrets/{quote(secret_id, safe='')}")
    row = {"id": secret_id, "key_id": before["id"], "state": "revoked"}
    say_done(row, f"Revoked secret {secret_id} of key {words_of(before)}.", as_json=as_json)
