"""A configuration as it was written: its entries, each with its place in the file."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
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
class Written:
    """An entry of a section as it was written, whether or not it is valid."""

    node: Node
    path: FieldPath
    """Where it is, e.g. `("keys", 0)`."""
    source: str
    """The file, as the user named it."""
    folder: Path
    """What relative paths in it are relative to."""

    def finding(self, field: FieldPath, problem: str) -> Finding:
        """Return what is wrong with one of its fields."""
        path = (*self.path, *field)
        return Finding(self.source, self.node.find_mark(field), format_path(path), problem, path)

    def text(self, field: str) -> str | None:
        """Return a field's value if it is a text."""
        node = self.node.fields.get(field)
        return node.value if node is not None and isinstance(node.value, str) else None

    def name(self, field: str) -> str | None:
        """Return a field's value if it is a text, in the one form of names."""
        text = self.text(field)
        return None if text is None else normalize(text)


def normalize(name: str) -> str:
    """Return a name in its one form, so that two spellings of one character are the same."""
    return unicodedata.normalize("NFC", name)


Sections: TypeAlias = Mapping[str, Sequence[Written]]
"""The entries of each section, in their order."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[_Item_co]):
    """One valid entry of a section."""

    item: _Item_co
    written: Written

    def finding(self, field: FieldPath, problem: str) -> Finding:
        """Return what is wrong with one of its fields."""
        return self.written.finding(field, problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformFile:
    """The valid entries of a configuration; all of it, where it was parsed without findings.

    Short routes are here in their long form, each with its deployment.
    """

    organizations: tuple[Entry[schemas.OrganizationItem], ...]
    projects: tuple[Entry[schemas.ProjectItem], ...]
    members: tuple[Entry[schemas.MemberItem], ...]
    service_accounts: tuple[Entry[schemas.ServiceAccountItem], ...]
    keys: tuple[Entry[schemas.KeyItem], ...]
    """Each with its organization, also where it was left out."""
    credentials: tuple[Entry[schemas.CredentialItem], ...]
    upstreams: tuple[Entry[schemas.UpstreamItem], ...]
    deployments: tuple[Entry[schemas.DeploymentItem], ...]
    routes: tuple[Entry[schemas.RouteItem], ...]
    aliases: tuple[Entry[schemas.AliasItem], ...]
    grants: tuple[Entry[schemas.GrantItem], ...]
    plans: tuple[Entry[schemas.PlanItem], ...]
    limits: tuple[Entry[schemas.LimitsItem], ...]
    budgets: tuple[Entry[schemas.BudgetItem], ...]


def merge_sections(files: Iterable[Sections]) -> Sections:
    """Return the entries of several files as those of one, in the order of the files."""
    merged: dict[str, list[Written]] = {section: [] for section in schemas.SECTIONS}
    for sections in files:
        for section, entries in sections.items():
            merged[section] += entries
    return merged
