"""How Python's types are kept."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import make_url
from sqlalchemy.engine import Dialect

from penstock.storage.base import Timestamp

SQLITE = make_url("sqlite://").get_dialect()()
POSTGRESQL = make_url("postgresql://").get_dialect()()
MOMENT_US = 1_781_524_800_000_001
MOMENT = datetime(2026, 6, 15, 12, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("dialect", "kept", "name"),
    [
        (SQLITE, MOMENT_US, "BIGINT"),
        (POSTGRESQL, MOMENT, "TIMESTAMP WITH TIME ZONE"),
    ],
    ids=["sqlite", "postgresql"],
)
def test_moments_survive_every_database(dialect: Dialect, kept: object, name: str) -> None:
    """A moment comes back to the microsecond from the type that each database has for it."""
    timestamp = Timestamp()
    assert timestamp.load_dialect_impl(dialect).compile(dialect) == name
    assert timestamp.process_bind_param(MOMENT_US, dialect) == kept
    assert timestamp.process_result_value(kept, dialect) == MOMENT_US
    assert timestamp.process_bind_param(None, dialect) is None
    assert timestamp.process_result_value(None, dialect) is None


def test_the_zone_that_a_database_answers_in_does_not_matter() -> None:
    """PostgreSQL may answer in the zone of its session."""
    local = MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert Timestamp().process_result_value(local, POSTGRESQL) == MOMENT_US
