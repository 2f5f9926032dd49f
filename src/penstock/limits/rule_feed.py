"""What nodes are told of plans and owners' limits.

Rules that cannot be read let nothing through, rather than everything; other rows are not harmed.
The same checks keep such rules from being written.
"""

from collections.abc import Collection, Iterable
from typing import TypeAlias, cast

from penstock.contract.limits import Limit, Metric, OwnerLimits
from penstock.contract.snapshot_store import (
    OwnerKind,
    limits_record,
    owner_name,
    plan_record,
)
from penstock.limits import store
from penstock.limits.model import Limits, Owner, Plan
from penstock.limits.rule_forms import read_rules
from penstock.storage.sessions import ReadSession

Records: TypeAlias = dict[bytes, bytes]


def format_owner(owner: Owner) -> str:
    """Return the name of an owner in the change feed: it stays when its row has gone."""
    return f"{owner.owner_kind}\n{owner.organization_id}\n{owner.owner_id}"


def name_record(name: str) -> bytes:
    """Return what names an owner in records, from what `format_owner` made."""
    kind, organization_id, owner_id = name.split("\n")
    return owner_name(
        cast("OwnerKind", kind), organization_id, "" if kind == "organization" else owner_id
    )


async def find_changed_limits(
    session: ReadSession, names: Collection[str]
) -> tuple[Records, set[bytes]]:
    """Return the records that nodes shall have of owners' limits, and names of those to go.

    Args:
        session: Where from.
        names: As `format_owner` makes them.
    """
    ids = {name.rpartition("\n")[2] for name in names}
    found = await store.list_limits_of(session, session.scope, ids)
    puts = await _tell_limits(session, (one for one in found if format_owner(one) in names))
    return puts, {b"l" + name_record(name) for name in names} - puts.keys()


async def list_limits_page(session: ReadSession, after_id: str, limit: int) -> tuple[Records, str]:
    """Return the records of limits behind an id, and the id to go on behind; "" at the end."""
    found = await store.limits.list_by_id(session, session.scope, after=after_id, limit=limit)
    return await _tell_limits(session, found), found[-1].id if len(found) == limit else ""


async def find_changed_plans(
    session: ReadSession, names: Collection[str]
) -> tuple[Records, set[bytes]]:
    """Return the records that nodes shall have of plans of these names, and those to go."""
    puts = _tell_plans(await store.list_plans_of(session, session.scope, names))
    return puts, {b"n" + name.encode() for name in names} - puts.keys()


async def list_plans_page(session: ReadSession, after_id: str, limit: int) -> tuple[Records, str]:
    """Return the records of plans behind an id, and the id to go on behind; "" at the end."""
    found = await store.plans.list_by_id(session, session.scope, after=after_id, limit=limit)
    return _tell_plans(found), found[-1].id if len(found) == limit else ""


def _tell_plans(plans: Iterable[Plan]) -> Records:
    return dict(plan_record(plan.name, _read(plan.id, plan.rules)) for plan in plans)


async def _tell_limits(session: ReadSession, found: Iterable[Limits]) -> Records:
    found = list(found)
    plan_ids = {one.plan_id for one in found if one.plan_id is not None}
    plans = await store.find_assigned_plans(session, session.scope, plan_ids)
    records: Records = {}
    for one in found:
        plan = plans.get(one.plan_id or "")
        told = OwnerLimits(None if plan is None else plan.name, _read(one.id, one.rules))
        name, value = limits_record(name_record(format_owner(one)), told)
        records[name] = value
    return records


def _read(owner_id: str, kept: object) -> tuple[Limit, ...]:
    try:
        return read_rules(owner_id, kept)
    except ValueError:
        return (Limit(f"{owner_id}.damaged", Metric.REQUESTS, 0),)
