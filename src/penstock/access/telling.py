"""What every change of a key leaves behind: an audit entry and a line in the change feed."""

import dataclasses
from typing import Any

from penstock.access.model import ApiKey, KeySecret
from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.storage.changes import record_change
from penstock.storage.sessions import WriteSession


async def tell_key(
    session: WriteSession,
    actor: Actor,
    action: str,
    before: ApiKey | None,
    after: ApiKey,
) -> None:
    """Record that a key was changed."""
    await record_change(session, "key", after.id, actor.at_us)
    await record(
        session,
        Entry(
            actor=actor,
            action=action,
            resource_kind="key",
            resource_id=after.id,
            organization_id=after.organization_id,
            before=None if before is None else dataclasses.asdict(before),
            after=dataclasses.asdict(after),
        ),
    )


async def tell_secrets(
    session: WriteSession,
    actor: Actor,
    action: str,
    key: ApiKey,
    *,
    before: list[KeySecret],
    after: list[KeySecret],
) -> None:
    """Record that secrets of a key were changed."""
    await record_change(session, "key", key.id, actor.at_us)
    await record(
        session,
        Entry(
            actor=actor,
            action=action,
            resource_kind="key",
            resource_id=key.id,
            organization_id=key.organization_id,
            before={"live": [_facts(secret) for secret in before]},
            after={"live": [_facts(secret) for secret in after]},
        ),
    )


async def tell_late_use(
    session: WriteSession, actor: Actor, key: ApiKey, secret: KeySecret
) -> None:
    """Record that a retiring secret is still used; data planes have nothing to do with it."""
    await record(
        session,
        Entry(
            actor=actor,
            action="key.retiring_used",
            resource_kind="key",
            resource_id=key.id,
            organization_id=key.organization_id,
            after=_facts(secret) | {"last_used_at_us": secret.last_used_at_us},
        ),
    )


def _facts(secret: KeySecret) -> dict[str, Any]:
    return {
        "id": secret.id,
        "state": secret.state,
        "created_at_us": secret.created_at_us,
        "not_after_us": secret.not_after_us,
        "revoked_reason": secret.revoked_reason,
    }
