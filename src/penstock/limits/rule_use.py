"""Which rules bear on somebody, and how much of them is used, as far as nodes have reported."""

from collections.abc import Iterator, Mapping, Sequence

from penstock.access import store as access_store
from penstock.contract.limits import BucketUse, Limit, UseReport
from penstock.kit.errors import PenstockError
from penstock.limits import store
from penstock.limits.errors import USE_REPORT_INVALID
from penstock.limits.model import Limits, Owner, RuleInForce
from penstock.limits.rule_forms import read_rules
from penstock.limits.rules import bucket_of, limit_at, merge, subject_of
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy import people
from penstock.tenancy.labels import join_labels, known_labels

MAX_USES = 5_000
"""Buckets of one report."""
MAX_BUCKET_CHARS = 255
KEEP_USES_S = 32 * 86_400
"""Longer than any window: what was reported before says nothing any more."""
_MAX_COUNT = 2**63 - 1
_MAX_AT_MS = 253_402_300_799_000


async def list_in_force(session: ReadSession, owner: Owner, now_us: int) -> list[RuleInForce]:
    """Return the rules that bear on an owner: its own, and those of all above it.

    Those of all above it that are for a label bear on keys that carry it, and on people and
    machines that do.

    Args:
        session: Where from.
        owner: Whom they limit.
        now_us: The time.
    """
    member_id = owner.member_id or owner.service_account_id
    labels = await _find_labels(session, owner)
    if owner.key_id is not None:
        key = await access_store.keys.get(session, session.scope, owner.key_id)
        member_id = key.member_id or key.service_account_id
    ids = [owner.organization_id, owner.project_id, member_id, owner.key_id]
    found = await store.list_limits_of(session, session.scope, [one for one in ids if one])
    found = sorted(found, key=lambda one: ids.index(one.owner_id))
    plan_ids = {one.plan_id for one in found if one.plan_id is not None}
    plans = await store.find_assigned_plans(session, session.scope, plan_ids)
    names = {plan.id: plan.name for plan in plans.values()}
    of_plans = {plan.id: _read(plan.id, plan.rules) for plan in plans.values()}
    told = [
        (one, rule)
        for one, rule in _list_rules(found, of_plans)
        if rule.label is None or rule.label in labels or one.owner_id == owner.owner_id
    ]
    buckets = [
        # Of a rule that counts each key there is no such bucket while it is not said which key.
        _bucket_id(one, rule, key=owner.key_id or "", member=member_id or "")
        for one, rule in told
    ]
    uses = await store.find_uses(session, session.scope, set(buckets))
    return [
        _in_force(one, rule, names, uses.get(bucket), now_us)
        for (one, rule), bucket in zip(told, buckets, strict=True)
    ]


async def record_report(session: WriteSession, report: UseReport) -> None:
    """Store what a node has seen of buckets.

    Raises:
        PenstockError: `USE_REPORT_INVALID`.
    """
    if len(report.uses) > MAX_USES:
        raise PenstockError(USE_REPORT_INVALID, f"It has more than {MAX_USES} buckets.")
    if not all(map(_is_possible, report.uses)):
        raise PenstockError(USE_REPORT_INVALID, "A bucket has an impossible name or figure.")
    await store.record_uses(session, session.scope, report.uses)


async def forget_old_uses(session: WriteSession, now_us: int) -> None:
    """Remove reports that say nothing any more."""
    await store.forget_uses(session, session.scope, now_us - KEEP_USES_S * 1_000_000)


async def _find_labels(session: ReadSession, owner: Owner) -> list[str]:
    """Return what a key, a member or a service account carries; nothing of others."""
    if owner.key_id is not None:
        found = await access_store.find_labels(session, session.scope, [owner.key_id])
        return found.get(owner.key_id, [])
    if owner.member_id is not None:
        member = await people.get_member(session, owner.member_id)
        return join_labels(known_labels(member.labels))
    if owner.service_account_id is not None:
        account = await people.get_service_account(session, owner.service_account_id)
        return join_labels(known_labels(account.labels))
    return []


def _list_rules(
    found: Sequence[Limits], plans: Mapping[str, tuple[Limit, ...]]
) -> Iterator[tuple[Limits, Limit]]:
    for one in found:
        of_plan = plans.get(one.plan_id or "", ())
        for rule in merge(_read(one.id, one.rules), of_plan):
            yield one, rule


def _bucket_id(owner: Owner, rule: Limit, *, key: str, member: str) -> str:
    subject = subject_of(owner.owner_kind, owner.owner_id, rule.per, key=key, member=member)
    return bucket_of(rule, owner.organization_id, subject, 0).id


def _in_force(
    owner: Limits,
    rule: Limit,
    plans: Mapping[str, str],
    use: tuple[int, int] | None,
    now_us: int,
) -> RuleInForce:
    used, used_at_us = use or (None, None)
    if used_at_us is not None and 0 < rule.window_s * 1_000_000 <= now_us - used_at_us:
        used = 0
    is_own = rule.id.startswith(f"{owner.id}.")
    return RuleInForce(
        owner=owner,
        plan=None if is_own else plans.get(owner.plan_id or ""),
        rule=rule,
        limit_now=limit_at(rule, now_us // 1_000_000),
        used=used,
        used_at_us=used_at_us,
    )


def _read(owner_id: str, kept: object) -> tuple[Limit, ...]:
    try:
        return read_rules(owner_id, kept)
    except ValueError:
        return ()


def _is_possible(use: BucketUse) -> bool:
    organization, slash, _ = use.bucket.partition("/")
    return (
        bool(organization and slash)
        and len(use.bucket) <= MAX_BUCKET_CHARS
        and "\0" not in use.bucket
        and 0 <= use.used <= _MAX_COUNT
        and 0 <= use.at_ms <= _MAX_AT_MS
    )
