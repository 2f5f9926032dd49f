"""Days and months of time zones are put together from those of UTC without gap or overlap."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.metering.bucket_model import Width
from penstock.metering.bucket_rules import DAY_US, advance, bucket_start
from penstock.metering.zone_rules import EIGHTH_US, QUARTER_US, Cover, list_covers

_ZONES = sorted(available_timezones() - {"localtime"})
_moments = st.integers(0, 58 * 365 * 86_400).map(
    lambda second: int(datetime(1980, 1, 1, tzinfo=UTC).timestamp() + second) * 1_000_000
)


def _times(cover: Cover, label_end_us: int, at_us: int) -> int:
    """Return how often a moment is counted in a bucket that is put together."""
    edges = sum(sign for _, (first, behind), sign in cover.edges if first <= at_us < behind)
    return (cover.label_us <= at_us < label_end_us) + edges


@settings(max_examples=150)
@given(
    zone=st.sampled_from(_ZONES).map(ZoneInfo),
    at_us=_moments,
    width=st.sampled_from(["day", "month"]),
)
def test_a_moment_counts_once_in_its_bucket(zone: ZoneInfo, at_us: int, width: Width) -> None:
    """In any zone, each quarter of an hour around a day or month is in that one, once, or not."""
    start_us = bucket_start(width, at_us, zone)
    end_us = advance(width, start_us, 1, zone)
    assert start_us <= at_us < end_us
    (cover,) = list_covers(zone, width, start_us, end_us)
    label_end_us = advance(width, cover.label_us, 1)
    assert abs(cover.label_us - start_us) < DAY_US
    moments = {at_us // QUARTER_US * QUARTER_US}
    for edge_us in (start_us, end_us, cover.label_us, label_end_us):
        moments |= {edge_us + quarter * QUARTER_US for quarter in range(-100, 100, 3)}
        moments |= {edge_us - QUARTER_US, edge_us}
    for moment_us in moments:
        assert _times(cover, label_end_us, moment_us) == (start_us <= moment_us < end_us)


@given(zone=st.sampled_from(_ZONES).map(ZoneInfo), at_us=_moments)
def test_edges_are_of_few_figures(zone: ZoneInfo, at_us: int) -> None:
    """An edge is of whole eighths of a day, and of six quarters of an hour at most."""
    start_us = bucket_start("day", at_us, zone)
    (cover,) = list_covers(zone, "day", start_us, advance("day", start_us, 1, zone))
    for grain, (first, behind), _ in cover.edges:
        unit_us = EIGHTH_US if grain == "eighth" else QUARTER_US
        assert first % unit_us == behind % unit_us == 0
        assert 0 < (behind - first) // unit_us <= (7 if grain == "eighth" else 6)


@given(zone=st.sampled_from(_ZONES).map(ZoneInfo), day=st.integers(0, 20_000))
def test_a_day_is_what_the_calendar_says(zone: ZoneInfo, day: int) -> None:
    """A moment is in the day of its date; where clocks go back past midnight, in the new day."""
    moment = datetime(1980, 1, 1, 12, tzinfo=UTC) + timedelta(days=day)
    local = moment.astimezone(zone)
    midnight = datetime(local.year, local.month, local.day, tzinfo=zone)
    found_us = bucket_start("day", int(moment.timestamp()) * 1_000_000, zone)
    assert found_us == int(midnight.timestamp()) * 1_000_000
    clocks = ZoneInfo("America/St_Johns")
    first = datetime(2006, 10, 29, tzinfo=clocks)
    for minutes in (0, 30, 61):
        again = first.astimezone(UTC) + timedelta(minutes=minutes)
        at_us = int(again.timestamp()) * 1_000_000
        assert bucket_start("day", at_us, clocks) == int(first.timestamp()) * 1_000_000
