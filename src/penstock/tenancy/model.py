"""Values of the tenancy room. Times are microseconds since the Unix epoch.

Members that come from the database are not narrowed: a row that somebody wrote by hand may hold
a status or a role that nobody knows. `rules` say what such a row is good for: nothing.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias, TypedDict


class Status(StrEnum):
    """Whether what belongs to an organization or project may be used."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    """All its keys are refused until it is resumed. Projects are never suspended."""
    ARCHIVED = "archived"
    """Final; kept because usage and invoices name it."""


class Role(StrEnum):
    """A named set of operations; `access.matrix` says which."""

    PLATFORM_ADMIN = "platform_admin"
    ORG_OWNER = "org_owner"
    ORG_ADMIN = "org_admin"
    BILLING_ADMIN = "billing_admin"
    PROJECT_ADMIN = "project_admin"
    DEVELOPER = "developer"
    INFERENCE_ONLY = "inference_only"
    AUDITOR = "auditor"


PROJECT_ROLES = (Role.PROJECT_ADMIN, Role.DEVELOPER, Role.INFERENCE_ONLY, Role.AUDITOR)
"""Roles that can be had in a single project."""
ORGANIZATION_ROLES = tuple(role for role in Role if role is not Role.PLATFORM_ADMIN)
"""Roles that can be had in an organization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """The unit that pays and is isolated."""

    id: str
    name: str
    status: str
    allowed_data_classes: list[str] | None
    """Where its data may go: only to upstreams of these classes; all when None."""
    allowed_regions: list[str] | None
    """Only to upstreams in these regions; all when None."""
    version: int
    created_at_us: int
    updated_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A subdivision of an organization; owns keys."""

    id: str
    organization_id: str
    name: str
    status: str
    allowed_data_classes: list[str] | None
    """Where its data may go: only to upstreams of these classes; all when None."""
    allowed_regions: list[str] | None
    """Only to upstreams in these regions; all when None."""
    version: int
    created_at_us: int
    updated_at_us: int


Owner: TypeAlias = Organization | Project
OwnerKind: TypeAlias = Literal["organization", "project"]


class OwnerChanges(TypedDict, total=False):
    """Members of an organization or project that are to change; those that are not there stay."""

    name: str
    allowed_data_classes: list[str] | None
    allowed_regions: list[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A person in an organization, or in one project of it."""

    id: str
    organization_id: str
    project_id: str | None
    """The project that the role is for; the whole organization when None."""
    subject: str
    """Who it is, in the words of the identity provider."""
    email: str | None
    role: str
    labels: dict[str, str]
    """Their keys carry them, too."""
    version: int
    created_at_us: int
    updated_at_us: int


class PersonChanges(TypedDict, total=False):
    """Members of a member that are to change; those that are not there stay."""

    role: str
    labels: dict[str, str]


class AccountChanges(PersonChanges, total=False):
    """The same of a service account."""

    is_disabled: bool
    is_disabled_by_operator: bool
    """Follows from who changes `is_disabled`; nobody gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A machine in an organization, or in one project of it."""

    id: str
    organization_id: str
    project_id: str | None
    """The project that the role is for; the whole organization when None."""
    name: str
    role: str
    is_disabled: bool
    is_disabled_by_operator: bool = False
    """Only the operator enables it again."""
    labels: dict[str, str]
    """Its keys carry them, too."""
    version: int
    created_at_us: int
    updated_at_us: int
