"""Windows of budgets: days and months of any time zone, whatever its clocks do."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.kit.time_zones import find_zone
from penstock.limits.budget_windows import LAST_US, Period, Window, window_at

DAY_US = 86_400_000_000
ZONES = sorted(available_timezones())
LAST_TRIED_US = LAST_US - 40 * DAY_US


def _zone(name: str) -> ZoneInfo:
    zone = find_zone(name)
    assert zone is not None
    return zone


def _us(text: str) -> int:
    moment = datetime.fromisoformat(text).astimezone(UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@given(
    period=st.sampled_from(["day", "month"]),
    name=st.sampled_from(ZONES),
    at_us=st.integers(0, LAST_TRIED_US),
)
# A night whose clocks went back over midnight, a date that a country left out, nights without one.
@example(period="day", name="America/St_Johns", at_us=_us("2006-10-29T00:30:00-03:30"))
@example(period="day", name="Pacific/Apia", at_us=_us("2011-12-30T12:00:00+00:00"))
@example(period="day", name="Africa/Cairo", at_us=_us("2024-04-26T01:30:00+03:00"))
@example(period="day", name="America/Havana", at_us=_us("2024-11-03T00:30:00-05:00"))
def test_each_moment_is_in_one_window(period: Period, name: str, at_us: int) -> None:
    """Windows follow one another without a gap, and all moments of one give the same."""
    zone = _zone(name)
    window = window_at(period, zone, at_us)
    assert window.ends_at_us is not None
    assert window.starts_at_us <= at_us < window.ends_at_us
    for moment in (window.starts_at_us, window.ends_at_us - 1):
        assert window_at(period, zone, moment) == window
    after = window_at(period, zone, window.ends_at_us)
    assert after.starts_at_us == window.ends_at_us
    assert window_at(period, zone, window.starts_at_us - 1).ends_at_us == window.starts_at_us


@pytest.mark.parametrize(
    ("period", "name", "at", "begins", "ends"),
    [
        ("day", "UTC", "2026-03-01T00:00+00", "2026-03-01T00Z", "2026-03-02T00Z"),
        ("month", "UTC", "2024-02-29T23:59+00", "2024-02-01T00Z", "2024-03-01T00Z"),
        # 23 and 25 hours
        (
            "day",
            "Europe/Berlin",
            "2026-03-29T12:00+02",
            "2026-03-28T23Z",
            "2026-03-29T22Z",
        ),
        (
            "day",
            "Europe/Berlin",
            "2026-10-25T12:00+01",
            "2026-10-24T22Z",
            "2026-10-25T23Z",
        ),
        (
            "month",
            "Europe/Berlin",
            "2026-10-31T23:30+01",
            "2026-09-30T22Z",
            "2026-10-31T23Z",
        ),
        (
            "month",
            "Asia/Kolkata",
            "2026-12-31T23:59+05:30",
            "2026-11-30T18:30Z",
            "2026-12-31T18:30Z",
        ),
    ],
)
def test_windows_are_those_of_the_calendar(
    period: Period, name: str, at: str, begins: str, ends: str
) -> None:
    """A day begins at midnight of its zone and a month on its first, also where clocks change."""
    assert window_at(period, _zone(name), _us(at)) == Window(_us(begins), _us(ends))


def test_once_has_no_end() -> None:
    """All moments are in it."""
    assert window_at("once", _zone("UTC"), 5) == window_at("once", _zone("UTC"), 2**62)
    assert window_at("once", _zone("UTC"), 5).ends_at_us is None


@pytest.mark.parametrize(
    "name",
    [
        *("", "Nowhere", "../../etc/passwd", "/etc/localtime", "Europe", "A\0b"),
        *("localtime", "posixrules", "right/Europe/Berlin"),
    ],
)
def test_what_is_no_zone_is_none(name: str) -> None:
    """Neither an unknown name nor a path or a zone of the machine is a time zone."""
    assert find_zone(name) is None


def test_moments_too_far_away_are_the_last_one() -> None:
    """A node whose clock is wild fails nothing."""
    assert window_at("day", _zone("UTC"), 2**62) == window_at("day", _zone("UTC"), LAST_US)
