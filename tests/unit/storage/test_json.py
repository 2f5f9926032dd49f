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


@pytest.mark.parametrize(
    "kept", ["{broken", "", b"\xff", "[" * 100_000, "NaNa", "null", " null\n", 7.5]
)
def test_what_is_no_json_is_never_none(kept: object) -> None:
    """A value that somebody wrote by hand breaks no query, and is not taken for NULL."""
    value = Json().process_result_value(kept, SQLITE)
    assert value is not None
    assert not isinstance(value, list | dict)
