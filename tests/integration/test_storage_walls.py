"""What PostgreSQL does for organizations: it shows and takes nothing of others."""

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError, ProgrammingError
from tests.fakes.databases import count_events, write_event
from tests.unit.metering.usage_events import arrive, make_event

from penstock.metering import figure_store, store
from penstock.metering.figure_rules import add_up
from penstock.metering.tables import UsageDays, UsageEvents
from penstock.storage.database import Database
from penstock.storage.scope import Scope

ALL = Scope.all_organizations()
ACME = Scope.of("acme")


async def test_the_role_is_no_superuser(pg_database: Database) -> None:
    """Tests connect as somebody whom walls hold: otherwise they would prove nothing."""
    async with pg_database._reader.connect() as connection:
        row = (
            await connection.execute(
                text("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
            )
        ).one()
    assert tuple(row) == (False, False)


async def test_a_forgotten_condition_shows_nothing_of_others(pg_database: Database) -> None:
    """A statement without any condition sees, changes and deletes the session's rows only."""
    events = [make_event(1), make_event(2, organization="other")]
    async with pg_database.write(ALL) as session:
        await store.record_events(session, ALL, arrive(*events))
        await figure_store.add_figures(session, ALL, add_up(events))
    assert await count_events(pg_database, ALL) == 2
    assert await count_events(pg_database, ACME) == 1
    assert await count_events(pg_database, Scope.of("nobody")) == 0
    async with pg_database.write(ACME) as session:
        assert await session.change(update(UsageDays).values(images=4)) == 1
        assert await session.change(delete(UsageDays)) == 1
    async with pg_database.read(Scope.of("other")) as session:
        assert (await session.rows(select(UsageDays.images)))[0][0] == 0


async def test_a_row_of_another_organization_is_not_taken(pg_database: Database) -> None:
    """PostgreSQL refuses what the store's own check let through."""
    with pytest.raises((ProgrammingError, DBAPIError), match="row-level security"):
        async with pg_database.write(ACME) as session:
            await write_event(session, 1, "other")
    assert await count_events(pg_database, ALL) == 0


async def test_a_connection_forgets_whose_it_was(pg_database: Database) -> None:
    """A connection that goes back to the pool shows nothing until the next scope is set."""
    async with pg_database.write(ALL) as session:
        await write_event(session, 1)
    for _ in range(3):
        assert await count_events(pg_database, ALL) == 1
    async with pg_database._reader.connect() as connection:
        count = await connection.execute(select(func.count(UsageEvents.event_id)))
        assert count.scalar() == 0
