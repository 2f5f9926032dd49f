"""JSON columns."""

import pytest
from sqlalchemy import make_url

from penstock.storage.base import Json

SQLITE = make_url("sqlite://").get_dialect()()
POSTGRESQL = make_url("postgresql://").get_dialect()()


@pytest.mark.parametrize("value", [None, [], {}, ["a", None], {"a": {"b": [1, True]}}, "é\0"])
def test_json_survives_every_database(value: object) -> None:
    """A value comes back as it was from the type that each database has for it."""
    for dialect in (SQLITE, POSTGRESQL):
        kept = Json().process_bind_param(value, dialect)
        assert Json().process_result_value(kept, dialect) == value


@pytest.mark.parametrize("kept", ["{broken", "", b"\xff", "[" * 100_000, "NaNa"])
def test_what_is_no_json_is_none(kept: object) -> None:
    """A value that somebody wrote by hand, and that is none, breaks no query."""
    assert Json().process_result_value(kept, SQLITE) is None
