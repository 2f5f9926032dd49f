"""What is logged of limits and budgets."""

from penstock.kit.logs.event import Event, Level

HOLDS_EXPIRED = Event(
    "limits.holds_expired", Level.WARNING, "A worker was silent for too long; its holds are free."
)
LIMITS_SHARED = Event("limits.limits_shared", Level.INFO, "Nodes share their limits.")
LIMITS_NOT_SHARED = Event(
    "limits.limits_not_shared",
    Level.WARNING,
    "The server of shared limits is away; this node gives from its share.",
)
