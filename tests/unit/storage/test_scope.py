"""Whose data a statement may touch."""

import pytest
from sqlalchemy import select

from penstock.metering.tables import UsageEvents
from penstock.storage.scope import Scope


def test_one_organization_is_a_condition() -> None:
    """The scope of one organization ends up in the statement."""
    statement = select(UsageEvents.event_id).where(Scope.of("acme").where(UsageEvents.organization))
    compiled = statement.compile()
    assert "usage_events.organization = :organization_1" in str(compiled)
    assert compiled.params == {"organization_1": "acme"}


def test_all_organizations_is_no_condition() -> None:
    """The scope of all organizations leaves the statement open."""
    statement = select(UsageEvents.event_id).where(
        Scope.all_organizations().where(UsageEvents.organization)
    )
    assert statement.compile().params == {}


def test_rows_of_others_are_not_written() -> None:
    """A scope of one organization refuses rows of another, a scope of all takes them."""
    Scope.all_organizations().require(["acme", "other"])
    Scope.of("acme").require(["acme", "acme"])
    with pytest.raises(PermissionError):
        Scope.of("acme").require(["acme", "other"])
