"""Points in time as people type them: ISO 8601, or how long ago."""

import re
from datetime import UTC, datetime, timedelta

from penstock.cli.errors import BAD_OPTION, CommandError

_AGO = re.compile(r"(?P<number>\d{1,6})(?P<unit>[smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_time(option: str, text: str, now: datetime) -> datetime:
    """Return the point in time that a `--since` or `--until` names, in UTC.

    Args:
        option: Name of the option, for the error.
        text: ISO 8601 (UTC when it has no offset; a date is its first moment), or an age such
            as `90s`, `15m`, `2h`, `7d`, `4w`.
        now: The present, with a time zone.

    Raises:
        CommandError: It is neither.

    >>> now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> parse_time("--since", "2h", now).isoformat()
    '2026-03-01T10:00:00+00:00'
    >>> parse_time("--since", "2026-02-01T10:00+02:00", now).isoformat()
    '2026-02-01T08:00:00+00:00'
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return now.astimezone(UTC) - timedelta(**{_UNITS[ago["unit"]]: int(ago["number"])})
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        detail = f"{option} {text} is no point in time."
        remedy = "Give ISO 8601 (2026-03-01 or 2026-03-01T12:00:00Z) or an age (15m, 2h, 7d)."
        raise CommandError(BAD_OPTION, detail, remedy) from None
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC)


def format_time(moment: datetime) -> str:
    """Return a point in time as the APIs write it: UTC, microseconds, `Z`.

    >>> format_time(datetime(2026, 3, 1, 12, tzinfo=UTC))
    '2026-03-01T12:00:00.000000Z'
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
