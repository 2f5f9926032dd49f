"""Every SQL statement about plans, owners' limits and their use, each within a scope.

Plans are the platform's: no organization's scope reaches them, but for the name of one that it has.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import bindparam, delete, exists, or_, select, update

from penstock.contract.limits import BucketUse
from penstock.limits.model import Limits, Plan
from penstock.limits.tables import Limits as LimitRows
from penstock.limits.tables import LimitUses, Plans
from penstock.storage.objects import ObjectStore
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

plans = ObjectStore(Plans, Plan, None)
limits = ObjectStore(LimitRows, Limits, "organization_id")

_PLATFORM = Scope.all_organizations()
SHOWN_USERS = 5
"""Most users of a plan that are told of."""
_OWNERS = (LimitRows.key_id, LimitRows.member_id, LimitRows.service_account_id)


async def list_limits_of(
    session: ReadSession, scope: Scope, owner_ids: Collection[str]
) -> Sequence[Limits]:
    """Return the limits of owners: organizations, projects, keys, members and accounts, by id."""
    own = (
        (LimitRows.owner_kind == "organization") & LimitRows.organization_id.in_(owner_ids),
        (LimitRows.owner_kind == "project") & LimitRows.project_id.in_(owner_ids),
    )
    others = (column.in_(owner_ids) for column in _OWNERS)
    return await limits.list_by_id(session, scope, or_(*own, *others))


async def list_plans_of(
    session: ReadSession, scope: Scope, names: Collection[str]
) -> Sequence[Plan]:
    """Return the plans of these names."""
    return await plans.list_by_id(session, scope, Plans.name.in_(names))


async def find_assigned_plans(
    session: ReadSession, scope: Scope, plan_ids: Collection[str]
) -> dict[str, Plan]:
    """Return plans by id; those that limits within the scope name, and no others."""
    is_assigned = exists().where(
        LimitRows.plan_id == Plans.id, scope.where(LimitRows.organization_id)
    )
    found = await plans.list_by_id(session, _PLATFORM, Plans.id.in_(plan_ids), is_assigned)
    return {plan.id: plan for plan in found}


async def list_plan_users(
    session: ReadSession, scope: Scope, _kind: str, plan_id: str
) -> list[str]:
    """Return some of the limits that name a plan, as words."""
    statement = (
        select(LimitRows.id)
        .where(LimitRows.plan_id == plan_id, scope.where(LimitRows.organization_id))
        .order_by(LimitRows.id)
        .limit(SHOWN_USERS)
    )
    return [f"limits {limits_id}" for (limits_id,) in await session.rows(statement)]


async def find_uses(
    session: ReadSession, scope: Scope, buckets: Collection[str]
) -> dict[str, tuple[int, int]]:
    """Return how much of buckets is used and when that was so; those never reported are left out.

    Times are microseconds since the Unix epoch.
    """
    statement = select(LimitUses.bucket, LimitUses.used, LimitUses.at).where(
        LimitUses.bucket.in_(buckets), scope.where(LimitUses.organization_id)
    )
    return {bucket: (used, at_us) for bucket, used, at_us in await session.rows(statement)}


_UPDATE_USE = (
    update(LimitUses)
    .where(LimitUses.bucket == bindparam("used_bucket"), LimitUses.at < bindparam("used_at"))
    .values(used=bindparam("used_amount"), at=bindparam("used_at"))
    .execution_options(synchronize_session=False)
)


async def record_uses(session: WriteSession, scope: Scope, uses: Sequence[BucketUse]) -> None:
    """Store how much of buckets is used; what is older than that which is stored changes nothing.

    Args:
        session: Where to.
        scope: Whose.
        uses: Writers of several buckets come in order of name, so that none waits for one that
            waits for it.
    """
    latest = {use.bucket: use for use in sorted(uses, key=lambda use: use.at_ms)}
    ordered = [latest[bucket] for bucket in sorted(latest)]
    scope.require(_organization_of(use.bucket) for use in ordered)
    await session.change_many(
        _UPDATE_USE,
        [
            {"used_bucket": use.bucket, "used_amount": use.used, "used_at": use.at_ms * 1_000}
            for use in ordered
        ],
    )
    rows = [
        {
            "bucket": use.bucket,
            "organization_id": _organization_of(use.bucket),
            "used": use.used,
            "at": use.at_ms * 1_000,
        }
        for use in ordered
    ]
    await session.insert_new(LimitUses, rows, LimitUses.bucket)


async def forget_uses(session: WriteSession, scope: Scope, before_us: int) -> int:
    """Remove what was reported before a moment, and return how many buckets that were."""
    return await session.change(
        delete(LimitUses).where(LimitUses.at < before_us, scope.where(LimitUses.organization_id))
    )


def _organization_of(bucket: str) -> str:
    """Return whose a bucket is; see `limits.rules.bucket_of`."""
    return bucket.partition("/")[0]
