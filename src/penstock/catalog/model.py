"""A configuration as it was written: its entries, each with its place in the file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from penstock.catalog import schemas
from penstock.catalog.document import Node, format_path
from penstock.catalog.document import Path as FieldPath
from penstock.catalog.errors import Finding

_Item_co = TypeVar("_Item_co", bound=schemas.Item, covariant=True)

ResolveSecret: TypeAlias = Callable[[str], str]
"""Returns what a secret reference names; raises `SecretUnavailableError`."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[_Item_co]):
    """One valid entry of a section."""

    item: _Item_co
    path: FieldPath
    """Where it is, e.g. `("keys", 0)`."""
    node: Node
    source: str

    def finding(self, field: FieldPath, problem: str) -> Finding:
        """Return what is wrong with one of its fields."""
        return Finding(
            self.source, self.node.find_mark(field), format_path((*self.path, *field)), problem
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformFile:
    """The valid entries of a configuration; all of it, where it was parsed without findings."""

    folder: Path
    """What relative paths in it are relative to."""
    organizations: tuple[Entry[schemas.OrganizationItem], ...]
    projects: tuple[Entry[schemas.ProjectItem], ...]
    keys: tuple[Entry[schemas.KeyItem], ...]
    upstreams: tuple[Entry[schemas.UpstreamItem], ...]
    routes: tuple[Entry[schemas.RouteItem], ...]
    aliases: tuple[Entry[schemas.AliasItem], ...]
