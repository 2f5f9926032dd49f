"""Operations of engines as they are kept. Times are microseconds since the Unix epoch."""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

CLAIM_WITHIN_S: Final = 60
"""What no node has taken by then is not done any more."""
REPORT_WITHIN_S: Final = 660
"""A node that has not said by then what came of it will not say it."""

Status = Literal["waiting", "running", "done", "expired", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEngineOperation:
    """An operation that somebody wants."""

    upstream_id: str
    operation: str
    arguments: dict[str, str] = field(default_factory=dict)
    endpoint: str | None = None
    """URL of the only endpoint that is meant; all of them when None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOperation(NewEngineOperation):
    """An operation that somebody wanted, and what came of it."""

    id: str
    upstream: str
    """The upstream's name, by which nodes know it."""
    node_id: str | None = None
    """Which node took it."""
    claimed_at_us: int | None = None
    finished_at_us: int | None = None
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    """Each with the members of `contract.operations.Outcome`."""
    fault: str | None = None
    """Why nobody was asked."""
    version: int
    created_at_us: int
    updated_at_us: int
