"""Values of the limits room that planes share: buckets, and leases of what is in them."""

from enum import StrEnum

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
