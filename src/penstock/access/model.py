"""Values of the access room. Times are microseconds since the Unix epoch.

What comes from the database is not narrowed: `key_rules.find_key_fault` says whether a row can be
used at all.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypedDict

from penstock.audit.model import Actor, ActorKind
from penstock.tenancy.model import Role


class KeyScope(StrEnum):
    """What a credential may be used for at all; its role says what it may do there."""

    INFERENCE = "inference"
    INFERENCE_STEER = "inference:steer"
    """With `inference`: say to model servers what steers them. Only the platform's operator gives
    it, since servers are shared."""
    INFERENCE_PRIORITY = "inference:priority"
    """With `inference`: go before others at model servers. Given like the one above."""
    MODELS_READ = "models:read"
    USAGE_READ = "usage:read"
    COSTS_READ = "costs:read"
    ADMIN = "admin"
    """The admin API, with the rights of the key's role."""


class SecretState(StrEnum):
    """What a secret of a key is good for."""

    ACTIVE = "active"
    RETIRING = "retiring"
    """Good until its `not_after`: a newer one took its place."""
    REVOKED = "revoked"


class DueReason(StrEnum):
    """Why somebody must look after a secret, or callers are locked out."""

    ROTATION_DUE = "rotation_due"
    """It is as old as the key's policy lets it become, and ends after the grace period."""
    RETIRING_USED = "retiring_used"
    """A newer one took its place, and it was still used late in its grace period."""


class KeyRefusal(StrEnum):
    """Why a key is not let in. Callers learn `WRONG` only, unless they showed the right secret."""

    WRONG = "wrong"
    """Not of the form, of no known id, or not the secret."""
    REVOKED = "revoked"
    EXPIRED = "expired"
    DISABLED = "disabled"
    ORGANIZATION_INACTIVE = "organization_inactive"
    PROJECT_INACTIVE = "project_inactive"
    OWNER_INACTIVE = "owner_inactive"
    """The person or machine that it belongs to is gone, disabled or of another project."""
    ADDRESS = "address"
    """It may not be used from there."""
    DAMAGED = "damaged"
    """Its row holds something that nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A credential of a project, without its secrets."""

    id: str
    """The 12 characters inside the key."""
    organization_id: str
    project_id: str
    service_account_id: str | None
    """The machine that it belongs to: the key can do no more than that."""
    member_id: str | None
    """The person that it belongs to: the key can do no more than they, and goes with them."""
    name: str
    is_live: bool
    """Whether it begins with `ps_live_` or `ps_test_`."""
    role: str
    scopes: list[str]
    allowed_aliases: list[str] | None
    """All when None."""
    allowed_cidrs: list[str] | None
    """From everywhere when None."""
    labels: dict[str, str]
    expires_at_us: int | None
    is_disabled: bool
    is_disabled_by_operator: bool = False
    """Only the operator enables it again."""
    revoked_at_us: int | None
    revoked_reason: str | None
    rotation_interval_s: int | None
    """How old its secret may become before it must be rotated; None for never."""
    rotation_grace_s: int | None
    """How long a secret lives on that was not; see `key_rules.schedule_grace_s`."""
    created_by: str
    last_used_at_us: int | None
    """Some seconds behind: uses are written in batches."""
    version: int
    created_at_us: int
    updated_at_us: int

    @property
    def has_owner(self) -> bool:
        """Whether it belongs to a person or machine, rather than to its project alone."""
        return self.service_account_id is not None or self.member_id is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySecret:
    """One of the at most two live secrets of a key, as its keyed hash."""

    id: str
    organization_id: str
    key_id: str
    mac: bytes = field(repr=False)
    pepper_id: int
    state: str
    created_by: str
    created_at_us: int
    retiring_at_us: int | None
    """When a newer one took its place."""
    not_after_us: int | None
    """When it stops working; None for with the key."""
    revoked_at_us: int | None
    revoked_reason: str | None
    last_used_at_us: int | None
    late_use_at_us: int | None = None
    """When it was noticed that it is still used late in its grace period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What a key is to be."""

    name: str
    role: str = Role.INFERENCE_ONLY
    scopes: list[str] = field(default_factory=lambda: [KeyScope.INFERENCE, KeyScope.MODELS_READ])
    is_live: bool = True
    service_account_id: str | None = None
    member_id: str | None = None
    allowed_aliases: list[str] | None = None
    allowed_cidrs: list[str] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    expires_at_us: int | None = None
    rotation_interval_s: int | None = None
    rotation_grace_s: int | None = None


class KeyChanges(TypedDict, total=False):
    """Members of a key that are to change; those that are not there stay."""

    name: str
    role: str
    scopes: list[str]
    allowed_aliases: list[str] | None
    allowed_cidrs: list[str] | None
    labels: dict[str, str]
    expires_at_us: int | None
    rotation_interval_s: int | None
    rotation_grace_s: int | None


@dataclass(frozen=True, slots=True)
class DueSecret:
    """A secret that somebody must look after."""

    reason: DueReason
    key: ApiKey
    secret: KeySecret


@dataclass(frozen=True, slots=True, kw_only=True)
class PepperCount:
    """How many secrets are hashed under a pepper."""

    id: int
    is_active: bool
    """Whether new keys are hashed under it."""
    is_loaded: bool
    """Whether its file is there; keys under one that is not cannot be used."""
    secrets: int
    """Those that can still open a key."""
    key_ids: list[str]
    """Whose they are, some of them; of the active pepper none."""


@dataclass(frozen=True, slots=True)
class CreatedKey:
    """A key and its new secret, which is told here and never again."""

    key: ApiKey
    secret: KeySecret
    text: str = field(repr=False)
    """`ps_live_...`: what the caller is shown once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyOwner:
    """The person or machine that a key belongs to, as they are now."""

    role: str
    project_id: str | None
    """The project that the role is for; the whole organization when None."""
    is_disabled: bool
    labels: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """Everything that decides about a key."""

    key: ApiKey
    secrets: list[KeySecret]
    organization_status: str | None
    """None when there is no such organization."""
    project_status: str | None
    owner: KeyOwner | None = None
    """None when it belongs to nobody, or to somebody who is not there."""

    @property
    def roles(self) -> frozenset[str]:
        """The key's own role and its owner's: it can do what all of them may."""
        roles = {self.key.role}
        if self.key.has_owner:
            # Without a role, the owner takes all rights away.
            roles.add("" if self.owner is None else self.owner.role)
        return frozenset(roles)


@dataclass(frozen=True, slots=True)
class VerifiedKey:
    """A key that was shown with a live secret of it."""

    record: KeyRecord
    secret: KeySecret
    """The one that was shown."""
    mac: bytes = field(repr=False)
    """What it is under the active pepper, for `rehash.record_macs`."""
    has_old_pepper: bool
    """Whether another pepper is stored with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Whoever is making a request of the admin API, after authentication."""

    kind: ActorKind
    id: str
    roles: frozenset[str]
    """It may do what all of them may: a key's own, and that of whom it belongs to."""
    scopes: frozenset[str]
    organization_id: str | None
    """The only one that it can touch; None for the platform's operator."""
    project_id: str | None = None
    """The only one that it can touch, if any."""
    service_account_id: str | None = None
    """The machine that it belongs to: so do all keys that it gets."""
    member_id: str | None = None
    """The person that it belongs to: so do all keys that it gets."""

    @classmethod
    def of_admin_token(cls) -> "Principal":
        """Return the holder of the bootstrap admin token."""
        return cls(
            kind="admin_token",
            id="admin_token",
            roles=frozenset({Role.PLATFORM_ADMIN}),
            scopes=frozenset({KeyScope.ADMIN}),
            organization_id=None,
        )

    def actor(
        self, at_us: int, *, address: str | None = None, request_id: str | None = None
    ) -> Actor:
        """Return who acts, from where and when, for services and the audit log."""
        return Actor(
            kind=self.kind,
            id=self.id,
            at_us=at_us,
            organization_id=self.organization_id,
            address=address,
            request_id=request_id,
        )
