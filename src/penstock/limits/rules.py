"""Which buckets decide about a request, by the limits of those who own its key. Pure."""

from collections.abc import Iterable

from penstock.contract.limits import Bucket, Limit, Metric, Per

STEP_MS = 250
"""All sub-windows are multiples of it."""
_SUB_WINDOWS = 120


def geometry_of(window_s: int) -> tuple[int, int]:
    """Return length in milliseconds and count of the sub-windows of a window.

    There is one more of them than the window needs: clocks of nodes that share an authority may be
    apart by a sub-window, and still no stretch of the window's length holds too much.

    Args:
        window_s: Length of the window in seconds; 0 for what is in flight.

    >>> geometry_of(60)
    (500, 121)
    >>> geometry_of(86_400)
    (720000, 121)
    """
    if window_s == 0:
        return 0, 1
    steps = -(-window_s * 1_000 // (_SUB_WINDOWS * STEP_MS))
    sub_window_ms = steps * STEP_MS
    return sub_window_ms, -(-window_s * 1_000 // sub_window_ms) + 1


def bucket_of(limit: Limit, organization: str, subject: str, now_s: int) -> Bucket:
    """Return where a rule counts.

    Args:
        limit: The rule.
        organization: Whose it is.
        subject: Whom it counts, unique within the organization: `o`, `p.<project id>`,
            `k.<key id>` or `m.<member id>`; of a rule with `per` a key or member of its owner.
        now_s: Seconds since the Unix epoch: a raise may hold.
    """
    sub_window_ms, count = geometry_of(limit.window_s)
    name = f"{organization}/{limit.id}:{subject}"
    return Bucket(name, limit_at(limit, now_s), sub_window_ms, count)


def organization_of(bucket_id: str) -> str:
    """Return whose a bucket is."""
    return bucket_id.partition("/")[0]


def subject_of(kind: str, owner: str, per: Per, *, key: str, member: str) -> str:
    """Return whom a rule counts, for `bucket_of`.

    Args:
        kind: Of its owner: `organization`, `project`, `key` or `member`.
        owner: Id of the owner.
        per: Whom it counts each on its own.
        key: Id of the key that a request has.
        member: Id of whom the key belongs to; one that belongs to nobody is its own member.
    """
    if per == "member" and member:
        return f"m.{member}"
    if per:
        return f"k.{key}"
    return "o" if kind == "organization" else f"{kind[0]}.{owner}"


def limit_at(limit: Limit, now_s: int) -> int:
    """Return what may be used at a moment: the raised limit until its end."""
    if limit.raised_limit is None or limit.raised_until is None or now_s >= limit.raised_until:
        return limit.limit
    return limit.raised_limit


def merge(own: Iterable[Limit], plan: Iterable[Limit]) -> tuple[Limit, ...]:
    """Return the rules of an owner: its own, and those of its plan that none of them replaces."""
    own = tuple(own)
    replaced = {slot_of(limit) for limit in own}
    return own + tuple(limit for limit in plan if slot_of(limit) not in replaced)


def slot_of(limit: Limit) -> tuple[Metric, int, str | None, str | None, str, str | None]:
    """Return what an owner has one rule for at most: what is counted, in which window, of whom."""
    return limit.metric, limit.window_s, limit.alias, limit.model, limit.per, limit.label
