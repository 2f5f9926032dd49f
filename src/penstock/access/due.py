"""Secrets that somebody must look after, and what is done about them by the clock. None commits.

Nobody can be handed a new secret by a clock. So a policy of rotation is enforced by ending the old
one, with notice: the audit log and the report say so a grace period ahead.
"""

from penstock.access import store
from penstock.access.key_rules import find_scheduled_end
from penstock.access.model import DueReason, DueSecret
from penstock.access.tables import ApiKeys, KeySecrets
from penstock.access.telling import tell_late_use, tell_secrets
from penstock.audit.model import Actor
from penstock.storage.sessions import ReadSession, WriteSession

MAX_DUE = 1_000
"""Most secrets that a report has of each reason."""
MAX_CHANGES = 200
"""Most that one transaction does something about."""


async def list_due(
    session: ReadSession,
    now_us: int,
    *,
    organization_id: str | None = None,
    project_id: str | None = None,
) -> list[DueSecret]:
    """Return secrets that somebody must look after, those that matter longest or soonest first.

    Args:
        session: Where from.
        now_us: The time.
        organization_id: Only of this organization.
        project_id: Only of this project.
    """
    conditions = [
        column == value
        for column, value in (
            (ApiKeys.organization_id, organization_id),
            (ApiKeys.project_id, project_id),
        )
        if value is not None
    ]
    scope = session.scope
    overdue = await store.list_overdue(session, scope, now_us, MAX_DUE, *conditions)
    used = await store.list_used_late(session, scope, now_us, MAX_DUE, *conditions)
    return [
        *(DueSecret(DueReason.ROTATION_DUE, key, secret) for key, secret in overdue),
        *(DueSecret(DueReason.RETIRING_USED, key, secret) for key, secret in used),
    ]


async def end_overdue(session: WriteSession, actor: Actor) -> int:
    """Give active secrets that are too old an end, as their keys' policies want.

    Returns:
        How many got one: as long as it is `MAX_CHANGES`, there may be more.
    """
    await session.lock_configuration()
    pairs = await store.list_overdue(
        session, session.scope, actor.at_us, MAX_CHANGES, KeySecrets.not_after.is_(None)
    )
    for key, secret in pairs:
        end_us = find_scheduled_end(key, secret, actor.at_us)
        ended = await store.change_secret(session, session.scope, secret, not_after_us=end_us)
        await tell_secrets(session, actor, "key.rotation_due", key, before=[secret], after=[ended])
    return len(pairs)


async def note_late_uses(session: WriteSession, actor: Actor) -> int:
    """Put into the audit log, once for each, which retiring secrets are still used late.

    Returns:
        How many were new: as long as it is `MAX_CHANGES`, there may be more.
    """
    await session.lock_configuration()
    pairs = await store.list_used_late(
        session, session.scope, actor.at_us, MAX_CHANGES, KeySecrets.late_use_at.is_(None)
    )
    for key, secret in pairs:
        noted = await store.change_secret(
            session, session.scope, secret, late_use_at_us=actor.at_us
        )
        await tell_late_use(session, actor, key, noted)
    return len(pairs)
