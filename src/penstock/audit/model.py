"""Values of the audit room. Times are microseconds since the Unix epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PLATFORM_CHAIN = "platform"
"""Chain of what belongs to no organization; those of organizations are named by their ids."""

ActorKind = Literal["admin_token", "api_key", "local_user", "system"]
Outcome = Literal["done", "denied"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does something, from where, and when: one for each request."""

    kind: ActorKind
    id: str
    """The key's id, a local user's number; for the admin token and for jobs their name."""
    at_us: int
    """When it is done: the time that everything of this request happened at."""
    organization_id: str | None = None
    """The organization that it acts for; None for the platform's operator."""
    address: str | None = None
    """The caller's IP address. Personal, so it is kept beside the chain and can be erased."""
    request_id: str | None = None

    @property
    def is_operator(self) -> bool:
        """Whether it is the platform's operator, and no chore."""
        return self.organization_id is None and self.kind != "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that was done, or that somebody was not allowed to do."""

    actor: Actor
    action: str
    """`<resource>.<verb>`, e.g. `key.rotate`."""
    resource_kind: str
    resource_id: str
    organization_id: str | None
    """In whose chain it belongs; None for the platform's."""
    before: Mapping[str, Any] | None = None
    """The object as it was, None when there was none; secrets are taken out when recorded."""
    after: Mapping[str, Any] | None = None
    """The object as it is."""
    outcome: Outcome = "done"
    detail: str = ""
    """A sentence, e.g. why it was denied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEntry:
    """A link of a chain."""

    chain: str
    number: int
    """1 for the first."""
    recorded_at_us: int
    actor_kind: str
    actor_id: str
    action: str
    resource_kind: str
    resource_id: str
    outcome: str
    detail: str
    request_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    address: str | None
    """Not under the hash; None after it was erased."""
    hash: bytes
    """SHA-256 of the hash before it and of the canonical JSON of the members above, but address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A signed statement: at that time, the chain was that long and ended in that hash."""

    chain: str
    number: int
    hash: bytes
    signed_at_us: int
    signer: str
    """Id of the signing key."""
    signature: bytes
    """Ed25519."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a walk along a chain found."""

    chain: str
    entries: int
    """How many links were checked and found whole."""
    checkpoints: int
    """How many signed statements hold."""
    broken_at: int | None = None
    """Number of the first link that is not what it was; None when the chain is whole."""
    reason: str = ""
    """What is wrong with it."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.broken_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryFilter:
    """Which entries are meant; None leaves a member open."""

    actor_id: str | None = None
    action: str | None = None
    resource_kind: str | None = None
    resource_id: str | None = None
    outcome: Outcome | None = None
    since_us: int | None = None
    until_us: int | None = None
