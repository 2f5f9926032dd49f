"""Use cases of what limits organizations, projects, keys, members and service accounts.

None commits. Each change records an entry in the audit log and, by owner, a change for data planes,
in the transaction of its session. The time is the actor's.
"""

import dataclasses
from typing import Any

from penstock.audit.model import Actor
from penstock.audit.service import record
from penstock.catalog.collection import entry_of
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.limits import store
from penstock.limits.errors import LIMITS_EXIST, LIMITS_INVALID
from penstock.limits.model import Limits, LimitsChanges, NewLimits
from penstock.limits.owners import require_changeable
from penstock.limits.rule_checks import check_named, parse_rules
from penstock.limits.rule_feed import format_owner
from penstock.limits.rule_forms import read_rules
from penstock.storage.changes import record_change
from penstock.storage.errors import RowConflictError
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession


async def create_limits(session: WriteSession, actor: Actor, new: NewLimits) -> Limits:
    """Limit somebody who had no limits.

    Raises:
        PenstockError: `LIMITS_INVALID`, `LIMITS_EXIST`, `STATUS_CONFLICT` when the organization or
            project is archived.
    """
    await session.lock_configuration()
    await require_changeable(session, new.owner)
    limits = Limits(
        **dataclasses.asdict(new.owner),
        id=create_id("lim"),
        plan_id=new.plan_id,
        rules=new.rules,
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )
    await check_named(session, parse_rules(limits.id, limits.rules))
    await _check_plan(session, new.plan_id)
    try:
        await store.limits.insert(session, session.scope, limits)
    except RowConflictError:
        raise PenstockError(LIMITS_EXIST) from None
    await _tell(session, actor, "limits.create", limits, after=limits)
    return limits


async def get_limits(session: ReadSession, limits_id: str) -> Limits:
    """Return somebody's limits.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.limits.get(session, session.scope, limits_id)


async def list_limits(session: ReadSession, page: PageRequest, **equal: str | None) -> Page[Limits]:
    """Return limits that the session may see, oldest first.

    Args:
        session: Where from.
        page: Which part.
        **equal: Members of `Limits` and the values that they must have; None leaves one open.
    """
    return await store.limits.list(session, session.scope, page, **equal)


async def update_limits(
    session: WriteSession,
    actor: Actor,
    limits_id: str,
    changes: LimitsChanges,
    *,
    expected_version: int | None = None,
) -> Limits:
    """Give somebody another plan or other rules; what changes nothing leaves no trace.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `LIMITS_INVALID`, `STATUS_CONFLICT`.
    """
    before = await store.limits.lock(session, session.scope, limits_id, expected_version)
    values: dict[str, Any] = {
        name: value for name, value in changes.items() if getattr(before, name) != value
    }
    if not values:
        return before
    await require_changeable(session, before)
    wanted = dataclasses.replace(before, **values)
    await check_named(session, parse_rules(before.id, wanted.rules), _read_old(before))
    await _check_plan(session, values.get("plan_id"))
    after = await store.limits.update(
        session, session.scope, before, updated_at_us=actor.at_us, **values
    )
    await _tell(session, actor, "limits.update", after, before=before, after=after)
    return after


async def delete_limits(
    session: WriteSession, actor: Actor, limits_id: str, *, expected_version: int | None = None
) -> None:
    """Limit somebody no more; those above them still do.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`.
    """
    limits = await store.limits.lock(session, session.scope, limits_id, expected_version)
    await store.limits.delete(session, session.scope, limits)
    await _tell(session, actor, "limits.delete", limits, before=limits)


def _read_old(limits: Limits) -> Any:
    try:
        return read_rules(limits.id, limits.rules)
    except ValueError:
        return ()


async def _check_plan(session: ReadSession, plan_id: str | None) -> None:
    if plan_id is not None and await store.plans.find(session, session.scope, plan_id) is None:
        raise PenstockError(LIMITS_INVALID, "`plan_id` names no plan.")


async def _tell(
    session: WriteSession, actor: Actor, action: str, limits: Limits, **states: Limits
) -> None:
    await record_change(session, "limits", format_owner(limits), actor.at_us)
    await record(session, entry_of(actor, action, limits, **states))
