"""Points in time as people type them: ISO 8601, or how long ago."""

import re
from datetime import UTC, datetime, timedelta

from penstock.cli.errors import BAD_OPTION, CommandError

_AGO = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[smhdw])")
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


def parse_duration_s(option: str, text: str) -> int:
    """Return the seconds that a duration such as `60s`, `15m`, `24h`, `7d` or `4w` has.

    Args:
        option: Name of the option, for the error.
        text: A whole number with its unit.

    Raises:
        CommandError: It is none.

    >>> parse_duration_s("--grace", "24h")
    86400
    """
    duration = _AGO.fullmatch(text)
    if duration is None:
        detail = f"{option} {text} is no duration."
        remedy = "Give a whole number with a unit: 60s, 15m, 24h, 7d or 4w."
        raise CommandError(BAD_OPTION, detail, remedy)
    unit = timedelta(**{_UNITS[duration["unit"]]: 1})
    return int(duration["number"]) * int(unit.total_seconds())


def format_duration(duration_s: int) -> str:
    """Return seconds as people type them, in the largest unit that holds them exactly.

    >>> format_duration(2_592_000), format_duration(90), format_duration(0)
    ('30d', '90s', '0s')
    """
    for unit, unit_s in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if duration_s and duration_s % unit_s == 0:
            return f"{duration_s // unit_s}{unit}"
    return f"{duration_s}s"


def parse_deadline(option: str, text: str, now: datetime) -> datetime:
    """Return the point in time that an `--expires` names, in UTC.

    Args:
        option: Name of the option, for the error.
        text: ISO 8601 (UTC when it has no offset), or how long from now: `24h`, `90d`.
        now: The present, with a time zone.

    Raises:
        CommandError: It is neither, or does not lie ahead.

    >>> now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> parse_deadline("--expires", "30d", now).isoformat()
    '2026-03-31T12:00:00+00:00'
    """
    remedy = "Give a time that lies ahead: 24h, 90d, 2030-01-31 or 2030-01-31T12:00:00Z."
    try:
        if _AGO.fullmatch(text) is not None:
            moment = now.astimezone(UTC) + timedelta(seconds=parse_duration_s(option, text))
        else:
            moment = parse_time(option, text, now)
    except (CommandError, OverflowError):
        detail = f"{option} {text} is no point in time."
        raise CommandError(BAD_OPTION, detail, remedy) from None
    if moment <= now:
        raise CommandError(BAD_OPTION, f"{option} {text} lies in the past.", remedy)
    return moment


def format_time(moment: datetime) -> str:
    """Return a point in time as the APIs write it: UTC, microseconds, `Z`.

    >>> format_time(datetime(2026, 3, 1, 12, tzinfo=UTC))
    '2026-03-01T12:00:00.000000Z'
    """
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
