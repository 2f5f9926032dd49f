"""Whose data a statement may touch."""

import pytest
from sqlalchemy import create_engine, insert, select
from sqlalchemy.exc import StatementError

from penstock.audit.tables import AuditHeads
from penstock.metering.tables import UsageEvents
from penstock.storage.scope import Scope, within_scope


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


def test_a_statement_of_any_scope_is_within_the_one_that_it_is_run_with() -> None:
    """Built once, it shows one organization's rows or all, and nothing without saying whose."""
    engine = create_engine("sqlite://")
    rows = [{"chain": name, "number": 1, "hash": b""} for name in ("acme", "other")]
    statement = select(AuditHeads.chain).where(within_scope(AuditHeads.chain))
    with engine.connect() as connection:
        AuditHeads.metadata.tables["audit_heads"].create(connection)
        connection.execute(insert(AuditHeads), rows)

        def show(scope: Scope) -> set[str]:
            return set(connection.execute(statement, scope.parameters).scalars())

        assert show(Scope.of("acme")) == {"acme"}
        assert show(Scope.of("nobody")) == set()
        assert show(Scope.all_organizations()) == {"acme", "other"}
        with pytest.raises(StatementError, match="scope_organization"):
            connection.execute(statement)
    engine.dispose()


def test_rows_of_others_are_not_written() -> None:
    """A scope of one organization refuses rows of another, a scope of all takes them."""
    Scope.all_organizations().require(["acme", "other"])
    Scope.of("acme").require(["acme", "acme"])
    with pytest.raises(PermissionError):
        Scope.of("acme").require(["acme", "other"])
