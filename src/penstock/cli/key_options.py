"""What can be said about an API key on the command line, and the body that says it to control."""

from datetime import datetime
from typing import Annotated

import typer

from penstock.access.model import KeyScope
from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.cli.options import option
from penstock.cli.times import format_time, parse_deadline, parse_duration_s
from penstock.tenancy.model import Role

NEVER = "never"


KeyArgument = Annotated[str, typer.Argument(metavar="KEY", help="Id or name.", show_default=False)]
RoleOption = Annotated[
    Role | None,
    typer.Option("--role", help="What it may do.", show_default="inference_only"),
]
ScopeOption = Annotated[
    list[KeyScope] | None,
    typer.Option(
        "--scope",
        help="What it may be used for; repeat it for several.",
        show_default="inference and models:read",
    ),
]
AliasOption = Annotated[
    list[str] | None,
    option("--alias", "Model name it may ask for; repeat it. All without it.", "NAME"),
]
CidrOption = Annotated[
    list[str] | None,
    option("--cidr", "Network it may be used from; repeat it. All without it.", "CIDR"),
]
ExpiresOption = Annotated[
    str | None,
    option("--expires", "When it stops working: 24h, 90d, or ISO 8601 in UTC.", "TIME"),
]
RotateEveryOption = Annotated[
    str | None,
    option("--rotate-every", "How old its secret may become: 30d, 90d. Then it ends.", "TIME"),
]
RotateGraceOption = Annotated[
    str | None, option("--rotate-grace", "How long such a secret works on; 1d by default.", "TIME")
]
ReasonOption = Annotated[str, option("--reason", "Why, for the audit log.", "TEXT")]


def parse_expiry(expires: str, now: datetime) -> str | None:
    """Return an `--expires` as the API takes it; None for `never`.

    Raises:
        CommandError: It is no point in time, or does not lie ahead.
    """
    if expires == NEVER:
        return None
    return format_time(parse_deadline("--expires", expires, now))


def parse_rotation(every: str | None, grace: str | None) -> dict[str, int | None]:
    """Return the members of a key that a policy of scheduled rotation sets.

    Raises:
        CommandError: One is no duration.

    >>> parse_rotation("90d", "7d")
    {'rotation_interval_s': 7776000, 'rotation_grace_s': 604800}
    >>> parse_rotation("never", None)
    {'rotation_interval_s': None, 'rotation_grace_s': None}
    """
    if every == NEVER:
        if grace is not None:
            raise CommandError(BAD_OPTION, "--rotate-grace is for keys that are rotated.")
        return {"rotation_interval_s": None, "rotation_grace_s": None}
    given = {"rotation_interval_s": ("--rotate-every", every)}
    given["rotation_grace_s"] = ("--rotate-grace", grace)
    return {
        member: parse_duration_s(option, text)
        for member, (option, text) in given.items()
        if text is not None
    }
