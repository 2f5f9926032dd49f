"""Puts into the audit log who changed what the control plane logs."""

from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.control import log_events
from penstock.kit.clock import Clock
from penstock.kit.logs.switch import LevelChange
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.scope import Scope


async def record_level(database: Database, clock: Clock, change: LevelChange) -> None:
    """Record a change of the level in the platform's chain.

    It is done by then: who looks for why the database is away must be able to. If it is, the log
    says that the entry is missing.
    """
    at_us = clock.wall_ns() // 1_000
    entry = Entry(
        actor=Actor(kind="local_user", id=str(change.user), at_us=at_us),
        action="log_level.change",
        resource_kind="process",
        resource_id="control",
        organization_id=None,
        before={"level": change.before},
        after={"level": change.now},
    )
    try:
        async with database.write(Scope.all_organizations()) as session:
            await record(session, entry)
    except DatabaseUnavailableError as error:
        log_events.LOG_LEVEL_NOT_AUDITED.log(error=error)
