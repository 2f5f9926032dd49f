"""Whose data a statement may touch."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from sqlalchemy import BindParameter, ColumnElement, String, bindparam, or_, true
from sqlalchemy.orm import InstrumentedAttribute

_PARAMETER: BindParameter[str | None] = bindparam("scope_organization", type_=String)


def within_scope(column: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Return what `Scope.where` does for a statement that is built before the scope is known.

    Such a statement is built once and run with `Scope.parameters`; without them it fails.
    """
    return or_(_PARAMETER.is_(None), column == _PARAMETER)


@dataclass(frozen=True, slots=True)
class Scope:
    """One organization, or by explicit word all of them.

    Every method of every store takes one and applies it in SQL. There is no default, so that
    nobody reads another organization's data by leaving something out.
    """

    organization: str | None
    """The organization; None for all. Use `of` or `all_organizations` to build a scope."""

    @classmethod
    def of(cls, organization: str) -> Self:
        """Return the scope of one organization."""
        return cls(organization)

    @classmethod
    def all_organizations(cls) -> Self:
        """Return the scope of the platform's operator and of its own nodes."""
        return cls(None)

    def where(self, column: InstrumentedAttribute[str]) -> ColumnElement[bool]:
        """Return the condition that keeps a statement within the scope.

        Args:
            column: The table's column that holds the organization.
        """
        if self.organization is None:
            return true()
        return column == self.organization

    @property
    def parameters(self) -> dict[str, str | None]:
        """What a statement with `within_scope` is to be run with."""
        return {_PARAMETER.key: self.organization}

    def require(self, organizations: Iterable[str]) -> None:
        """Check that rows about to be written are within the scope.

        Raises:
            PermissionError: One is not: a programming error, never a caller's.
        """
        if self.organization is None:
            return
        if any(organization != self.organization for organization in organizations):
            message = "a row of another organization was to be written"
            raise PermissionError(message)
