"""Limits as planes share them: the rules of an owner, buckets, and leases of what is in them."""

from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec


class Metric(StrEnum):
    """What is limited."""

    REQUESTS = "requests"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    TOKENS = "tokens"
    """Input and output together."""
    CONCURRENCY = "concurrency"
    """Requests in flight; it has no window."""


class Enforcement(StrEnum):
    """What happens when a limit is reached."""

    HARD = "hard"
    """The request is refused."""
    SOFT = "soft"
    """It is let through, and the answer and metrics say that the limit is exceeded."""
    SHADOW = "shadow"
    """It is let through, and only metrics say that it would have been refused."""


MAX_LIMIT = 10**15
"""Most that a rule may give, in whatever it counts."""
MAX_WINDOW_S = 31 * 86_400
_LAST_SECOND = 253_402_300_799

Per: TypeAlias = Literal["", "key", "member"]
"""Who shares what a rule gives: all of its owner, or each key or member on its own."""


class Limit(msgspec.Struct, frozen=True):
    """A rule of an owner: an organization, a project, a key or a member."""

    id: str
    metric: Metric
    limit: int
    """What may be used in a window, or be in flight; >= 0."""
    window_s: int = 60
    """Length of the sliding window, 1 s to 31 days; 0 for concurrency."""
    alias: str | None = None
    """Counts requests for this alias only."""
    model: str | None = None
    """Counts requests that go to this model of an upstream only."""
    per: Per = ""
    enforcement: Enforcement = Enforcement.HARD
    raised_limit: int | None = None
    """Holds instead of `limit` until `raised_until`."""
    raised_until: int | None = None
    """Seconds since the Unix epoch."""
    label: str | None = None
    """`name=value`: counts requests of keys that carry this label only."""


def find_limit_fault(limit: Limit) -> str | None:
    """Return what is wrong with the figures of a rule, and behind a semicolon what to do about it.

    None for nothing. Where rules come from, other things are looked at, too.
    """
    figures = [("limit", limit.limit)]
    if limit.raised_limit is not None:
        figures.append(("raised_limit", limit.raised_limit))
    for name, figure in figures:
        if not 1 <= figure <= MAX_LIMIT:
            return f"{name} is out of range; use a whole number, 1 to {MAX_LIMIT:,}"
    if limit.metric is Metric.CONCURRENCY:
        if limit.window_s != 0:
            return "concurrency has no window; leave window_s out"
    elif not 1 <= limit.window_s <= MAX_WINDOW_S:
        return f"window_s is out of range; use 1 to {MAX_WINDOW_S:,} seconds"
    if (limit.raised_limit is None) != (limit.raised_until is None):
        return "raised_limit and raised_until go together; give both or none"
    if limit.raised_until is not None and not 0 <= limit.raised_until <= _LAST_SECOND:
        return "raised_until is out of range; use a time before the year 10000"
    return None


class OwnerLimits(msgspec.Struct, frozen=True):
    """What limits an owner: its plan's rules, but for those that a rule of its own replaces."""

    plan: str | None = None
    """Name of the plan whose rules are a record of their own."""
    limits: tuple[Limit, ...] = ()
    """A rule replaces the plan's of the same metric, window, alias, model and `per`."""


class Bucket(msgspec.Struct, frozen=True):
    """Where amounts of one rule for one subject are counted."""

    id: str
    """Organization, a slash, the rule's id, a colon, and the subject's: all that may be taken from
    together belongs to one organization."""
    limit: int
    """What may be used in a window, or be in flight; >= 0."""
    sub_window_ms: int = 1_000
    """Length of a sub-window; 0 for concurrency, whose leases are permits."""
    count: int = 60
    """Sub-windows in a window, >= 1."""

    @property
    def is_permits(self) -> bool:
        """Whether it counts what is in flight."""
        return self.sub_window_ms == 0


class Ask(msgspec.Struct, frozen=True):
    """What somebody wants of a bucket."""

    bucket: Bucket
    least: int
    """With less it is of no use, >= 0."""
    want: int
    """As much as this would be welcome, >= `least`."""
    is_ahead: bool = False
    """For use in the next sub-window instead of this one."""


class Lease(msgspec.Struct, frozen=True):
    """An amount that was deducted from a bucket and that its holder may use."""

    amount: int
    sub_window: int
    """The sub-window that it is for; 0 of permits."""
    remaining: int
    """What is left in the bucket for others, >= 0."""


class Shortage(msgspec.Struct, frozen=True):
    """Nothing was given: a bucket has less than the least that was asked of it."""

    index: int
    """Which of the asks."""
    remaining: int
    """What it has, >= 0."""
    retry_at_ms: int | None
    """When it will have enough if nobody takes any; None for never: more than the limit was
    asked, or, of permits, nobody knows."""


class Return(msgspec.Struct, frozen=True):
    """An amount that goes back to a bucket; negative when more was used than was leased."""

    bucket: Bucket
    sub_window: int
    amount: int


class BucketUse(msgspec.Struct, frozen=True, array_like=True):
    """How much of a bucket is used, as a node last saw it."""

    bucket: str
    """Its id."""
    limit: int
    used: int
    """In the window that ends at `at_ms`, or in flight; what is leased and unused is in it."""
    at_ms: int
    """Milliseconds since the Unix epoch."""


class UseReport(msgspec.Struct, frozen=True):
    """Node to control plane, every few seconds: buckets whose use has changed."""

    node_id: str
    uses: tuple[BucketUse, ...]
    """1..5,000."""
    format: int = 1
