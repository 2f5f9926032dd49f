"""How API keys and their secrets look to people."""

from datetime import datetime
from typing import TYPE_CHECKING

from penstock.cli.output import console, print_json
from penstock.cli.records import Column, all_if_none, text_of, time_of
from penstock.cli.resolving import NameBook
from penstock.cli.times import format_duration

if TYPE_CHECKING:
    from penstock.cli.control_client import ControlClient, Row

EXPENDABLE = ("Created (UTC)", "Expires (UTC)", "Role", "Last used (UTC)", "Project")

SECRET_COLUMNS: tuple[Column, ...] = (
    ("Id", text_of("id")),
    ("State", text_of("state")),
    ("Created (UTC)", time_of("created_at")),
    ("Good until (UTC)", time_of("not_after")),
    ("Last used (UTC)", time_of("last_used_at")),
)


PEPPER_COLUMNS: tuple[Column, ...] = (
    ("Pepper", text_of("id")),
    ("Active", text_of("is_active")),
    ("File is there", text_of("is_loaded")),
    ("Secrets", text_of("secrets")),
    ("Keys that are left", text_of("key_ids")),
)
_DUE_WORDS = {
    "rotation_due": "rotate it",
    "retiring_used": "old secret is still used",
}


def due_columns(client: "ControlClient") -> tuple[Column, ...]:
    """Return what a list shows of secrets that somebody must look after."""
    names = NameBook(client)
    return (
        ("Key", text_of("key_name")),
        ("Id", text_of("key_id")),
        ("Project", lambda row: names.project(row["project_id"])),
        ("What", lambda row: _DUE_WORDS.get(row["reason"], row["reason"])),
        ("Secret", text_of("secret_id")),
        ("Good until (UTC)", time_of("not_after")),
        ("Last used (UTC)", time_of("last_used_at")),
    )


def key_columns(client: "ControlClient", now: datetime) -> tuple[Column, ...]:
    """Return what a list shows of a key."""
    names = NameBook(client)
    return (
        ("Name", text_of("name")),
        ("Id", text_of("id")),
        ("Project", lambda row: names.project(row["project_id"])),
        ("State", lambda row: key_state(row, now)),
        ("Role", text_of("role")),
        ("Expires (UTC)", time_of("expires_at")),
        ("Last used (UTC)", time_of("last_used_at")),
        ("Created (UTC)", time_of("created_at")),
    )


def key_fields(client: "ControlClient", now: datetime) -> tuple[Column, ...]:
    """Return what is shown of a single key."""
    names = NameBook(client)
    return (
        *key_columns(client, now),
        ("Organization", lambda row: names.organization(row["organization_id"])),
        ("Scopes", text_of("scopes")),
        ("Aliases", all_if_none("allowed_aliases")),
        ("Networks", all_if_none("allowed_cidrs")),
        ("Labels", text_of("labels")),
        ("Rotated", _rotation_words),
        ("Service account", text_of("service_account_id")),
        ("Member", text_of("member_id")),
        ("Made by", text_of("created_by")),
        ("Changed (UTC)", time_of("updated_at")),
        ("Version", text_of("version")),
    )


def key_state(row: "Row", now: datetime) -> str:
    """Return whether a key works, in a word; that of its organization is not looked at."""
    if row.get("revoked_at"):
        return "revoked"
    expires_at = row.get("expires_at")
    if expires_at and datetime.fromisoformat(expires_at) <= now:
        return "expired"
    if not row.get("is_disabled"):
        return "active"
    return "disabled by operator" if row.get("is_disabled_by_operator") else "disabled"


def show_secret(row: "Row", sentence: str, *, as_json: bool) -> None:
    """Print a key with its new secret: the only time that anybody sees it.

    Args:
        row: What control answered.
        sentence: What was done.
        as_json: The object alone.
    """
    if as_json:
        print_json(row)
        return
    out = console()
    out.print(sentence, style="green", markup=False)
    # On a line of its own, so that it is easily picked up.
    out.print(f"\n    {row['secret']}\n", markup=False)
    out.print("It is shown this once and never again: keep it where secrets are kept.")


def _rotation_words(row: "Row") -> str:
    every_s = row.get("rotation_interval_s")
    if every_s is None:
        return "by hand"
    grace_s = row.get("rotation_grace_s")
    grace = "" if grace_s is None else f", with a grace period of {format_duration(grace_s)}"
    return f"every {format_duration(every_s)}{grace}"
