"""What options say, as members of the bodies that control takes."""

from typing import Any, Literal

from penstock.cli.errors import BAD_OPTION, CommandError

NOTHING = "none"
"""Said of an option to take away what was set."""


def given(**members: Any) -> dict[str, Any]:
    """Return the members that were given: a body without those that are None."""
    return {name: value for name, value in members.items() if value is not None}


def clearable(**members: str | None) -> dict[str, str | None]:
    """Return the members that were given; those that were given as `none` are None.

    >>> clearable(region="eu-de", data_class="none", tls_ca_file=None)
    {'region': 'eu-de', 'data_class': None}
    """
    return {
        name: None if value == NOTHING else value
        for name, value in members.items()
        if value is not None
    }


def list_change(
    member: str, values: list[str] | None, option: str, opposite: str | Literal[False]
) -> dict[str, Any]:
    """Return the member that a list option sets, or that its opposite opens to all.

    Args:
        member: What it is called in the body.
        values: What the option was given, if it was.
        option: What it is called, for the error.
        opposite: Name of the option that says "all", if that was given.

    Raises:
        CommandError: Both were given.

    >>> list_change("allowed_regions", None, "--region", "--all-regions")
    {'allowed_regions': None}
    """
    if values and opposite:
        raise CommandError(BAD_OPTION, f"{option} and {opposite} exclude each other.")
    if opposite:
        return {member: None}
    return {member: values} if values else {}


def require_changes(changes: object, command: str) -> None:
    """Return when there is something to change.

    Raises:
        CommandError: No option says what.
    """
    if not changes:
        message = "There is nothing to change."
        raise CommandError(BAD_OPTION, message, f"Say what: see `penstock {command} --help`.")
