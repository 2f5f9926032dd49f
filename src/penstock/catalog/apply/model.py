"""Objects as a platform file sees them: told by names, with their members as JSON values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from penstock.catalog.errors import Finding
from penstock.catalog.references import Identity

Members: TypeAlias = dict[str, Any]
"""The fields of an entry besides those that it is told by, defaults and all, without secrets."""
Action: TypeAlias = Literal["create", "update", "rotate", "delete"]

ORDER = (
    "organizations",
    "projects",
    "members",
    "service_accounts",
    "credentials",
    "upstreams",
    "deployments",
    "routes",
    "aliases",
    "grants",
    "plans",
    "keys",
    "limits",
    "budgets",
)
"""Sections, each behind those that it refers to; `diff` knows where that is not so simple."""

NAMED_BY: Mapping[str, tuple[str, ...]] = {
    "organizations": ("name",),
    "projects": ("organization", "name"),
    "members": ("organization", "project", "subject"),
    "service_accounts": ("organization", "name"),
    "keys": ("organization", "project", "name"),
    "credentials": ("organization", "name"),
    "upstreams": ("name",),
    "deployments": ("name",),
    "routes": ("name",),
    "aliases": ("name",),
    "grants": ("alias", "organization", "project"),
    "plans": ("name",),
    "limits": ("organization", "project", "key", "member", "service_account"),
    "budgets": (
        *("organization", "project", "key", "member", "service_account"),
        *("currency", "period", "alias", "per", "label"),
    ),
}
"""The fields whose values are an object's identity, in their order."""


class Ref(NamedTuple):
    """Which object: a section and what tells it from others there."""

    section: str
    identity: Identity

    @property
    def kind(self) -> str:
        """What an object of the section is called, in one word."""
        return self.section.removesuffix("es" if self.section == "aliases" else "s")

    @property
    def names(self) -> dict[str, str]:
        """The fields that it is told by."""
        named = zip(NAMED_BY[self.section], self.identity, strict=True)
        return {name: value for name, value in named if value is not None}


State: TypeAlias = Mapping[Ref, Members]
"""Objects and what they are like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An object that a document has."""

    members: Members
    secret: str | None = field(default=None, repr=False)
    finding: Callable[[tuple[str, ...], str], Finding]
    """Says what is wrong with one of its fields."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to be done to one object."""

    action: Action
    ref: Ref
    before: Members | None = None
    after: Members | None = None

    @property
    def differences(self) -> dict[str, tuple[Any, Any]]:
        """The members that differ, before and after; None where there is no object."""
        before, after = self.before or {}, self.after or {}
        return {
            name: (before.get(name), after.get(name))
            for name in {**before, **after}
            if before.get(name) != after.get(name)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an application did, or would do."""

    changes: Sequence[Change]
    leftovers: Sequence[Ref]
    """What an earlier application of the same set made and the document has no more: pruning would
    remove it."""
