"""What an import from LiteLLM reads, makes and has to say."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from penstock.catalog.document import Node, format_path
from penstock.catalog.document import Path as FieldPath
from penstock.catalog.errors import Finding, Mark, quoted


class NoteKind(StrEnum):
    """What became of something that was not carried as it was."""

    LOST = "lost"
    """Penstock will behave differently; the note says what to do instead."""
    CHANGED = "changed"
    """It was carried in another form, or needs a hand."""
    NEEDLESS = "needless"
    """Nothing is missing: it is about LiteLLM itself, or Penstock does it anyway."""


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that was not carried as it was. It never holds the text of a secret."""

    kind: NoteKind
    finding: Finding
    """Where it is, why it was not carried and, behind a semicolon, what to do instead."""

    def __str__(self) -> str:
        """One line, in the form that editors and terminals make clickable."""
        finding = self.finding
        place = f"{finding.source}:{finding.mark.line}:{finding.mark.column}"
        return f"{place}: {finding.where}: {self.kind}: {finding.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LitellmImport:
    """What became of a LiteLLM configuration."""

    text: str
    """A penstock.yaml that passes `penstock config check` once its variables are set."""
    notes: tuple[Note, ...]
    """In the order of LiteLLM's file."""
    variables: tuple[str, ...]
    """Names of the environment variables that the text refers to, sorted."""


@dataclass(slots=True)
class Notes:
    """Collects what there is to say about one file."""

    source: str
    listed: dict[Note, None] = field(default_factory=dict)
    """Each once, in the order of coming."""

    def add(self, kind: NoteKind, place: "Place", problem: str) -> None:
        """Add a note about a place of the file."""
        where = format_path(place.path)
        self.listed[Note(kind, Finding(self.source, place.mark, where, problem))] = None


@dataclass(frozen=True, slots=True)
class Place:
    """A value of the file, or the start of the file for what is not in it."""

    path: FieldPath
    node: Node
    mark: Mark
    """Where its name is written; where it begins itself when it is in a list."""
    name: str = ""
    """What it is called in its mapping."""

    def member(self, name: str) -> "Place | None":
        """Return a member of a mapping that is there and not empty."""
        node = self.node.fields.get(name)
        if node is None or node.value is None:
            return None
        # A name of the file may hold anything: the path is shown, so it is one line.
        shown = name if name.isidentifier() and name.isascii() else quoted(name)
        mark = self.node.key_marks.get(name, node.mark)
        return Place((*self.path, shown), node, mark, name)

    def members(self) -> "list[Place]":
        """Return the members of a mapping, or of a list."""
        if isinstance(self.node.value, dict):
            found = (self.member(name) for name in self.node.fields)
            return [place for place in found if place is not None]
        return [
            Place((*self.path, index), node, node.mark)
            for index, node in enumerate(self.node.items)
        ]

    @property
    def text(self) -> str | None:
        """The value, if it is a text."""
        return self.node.value if isinstance(self.node.value, str) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One entry of `model_list` that can be carried."""

    place: Place
    alias: str
    """The public name, as LiteLLM's file has it."""
    upstream_name: str
    """What an upstream for it would be called."""
    provider: str
    endpoint: str
    """URL, in canonical form."""
    credential: str | None
    """Secret reference."""
    timeout_ms: int | None
    model: str
    weight: float
    """Its share among those of one name; 1 when the file does not say."""

    @property
    def upstream_key(self) -> tuple[object, ...]:
        """What endpoints must share to be interchangeable in one upstream."""
        return (self.provider, self.credential, self.timeout_ms)


Variables = Mapping[str, str]
"""Environment variables whose values are known; only addresses and model names are read."""
