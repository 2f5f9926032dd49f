"""Durations and deadlines as people type them."""

from datetime import UTC, datetime, timedelta

import pytest

from penstock.cli.errors import CommandError
from penstock.cli.times import format_duration, parse_deadline, parse_duration_s

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("60s", 60), ("15m", 900), ("24h", 86_400), ("7d", 604_800), ("4w", 2_419_200)],
)
def test_durations(text: str, seconds: int) -> None:
    """A whole number with its unit is so many seconds."""
    assert parse_duration_s("--grace", text) == seconds
    assert parse_duration_s("--grace", format_duration(seconds)) == seconds
    if seconds:
        assert parse_deadline("--expires", text, NOW) == NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "60", "s", "-1s", "1.5h", "1 h", "1y", "60S", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    """Anything else is wrong usage that names the option."""
    with pytest.raises(CommandError, match="--grace") as caught:
        parse_duration_s("--grace", text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["0s", "2026-03-01T12:00Z", "2025-01-01", "soon", "999999w"])
def test_what_is_no_deadline(text: str) -> None:
    """A deadline lies ahead, within the years that there are."""
    with pytest.raises(CommandError, match="--expires") as caught:
        parse_deadline("--expires", text, NOW)
    assert caught.value.exit_code == 2
