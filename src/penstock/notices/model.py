"""Values of the notices room. Times are microseconds since the Unix epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

Topic: TypeAlias = Literal[
    "budget.alert", "budget.exhausted", "usage.quarantined", "wallet.depleted"
]
"""What a notice is about."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be told."""

    topic: Topic
    organization_id: str
    key: str
    """What it is told of: of a topic that is once, but for wallets, which are filled again."""
    payload: Mapping[str, Any]
    """JSON: no secrets, nothing of requests."""


class Position(NamedTuple):
    """A place in the feed: just behind one notice."""

    transaction: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class StoredNotice:
    """A notice in the feed."""

    position: Position
    id: str
    topic: Topic
    organization_id: str
    key: str
    payload: Any
    created_at_us: int
