"""Values of plans and of owners' limits in the database. Times are microseconds since the epoch.

Rules are kept as JSON with the members of `contract.limits.Limit` but for its id, which follows
from the rest. What comes from the database is not narrowed: `rule_forms` say what it is good for.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypedDict

from penstock.contract.limits import Limit
from penstock.contract.snapshot_store import OwnerKind

KeptRules: TypeAlias = list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPlan:
    """A named set of rules that is to be."""

    name: str
    rules: KeptRules = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(NewPlan):
    """A named set of rules."""

    id: str
    version: int
    created_at_us: int
    updated_at_us: int


class PlanChanges(TypedDict, total=False):
    """Members of a plan that are to change; those that are not there stay."""

    rules: KeptRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whom limits and budgets are for, and where that is."""

    organization_id: str
    project_id: str | None = None
    """The owner, or the project that the owner is in."""
    owner_kind: OwnerKind
    key_id: str | None = None
    member_id: str | None = None
    service_account_id: str | None = None

    @property
    def owner_id(self) -> str:
        """Its id."""
        if self.owner_kind == "organization":
            return self.organization_id
        if self.owner_kind == "project":
            return self.project_id or ""
        return self.key_id or self.member_id or self.service_account_id or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLimits:
    """What is to limit an owner."""

    owner: Owner
    plan_id: str | None = None
    rules: KeptRules = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Owner):
    """What limits an owner."""

    id: str
    plan_id: str | None
    rules: KeptRules
    version: int
    created_at_us: int
    updated_at_us: int


class LimitsChanges(TypedDict, total=False):
    """Members of an owner's limits that are to change; those that are not there stay."""

    plan_id: str | None
    rules: KeptRules


@dataclass(frozen=True, slots=True)
class RuleInForce:
    """A rule that bears on somebody, and how much of it they have used."""

    owner: Owner
    plan: str | None
    """Name of the plan that it is of; None for one of the owner's own."""
    rule: Limit
    limit_now: int
    """With a raise that holds."""
    used: int | None
    """In the window, or in flight; None when no node has reported it, or the rule counts each key
    or member on its own and it is not said which."""
    used_at_us: int | None
    """When it was reported."""
