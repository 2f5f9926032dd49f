"""What ties the entries of penstock.yaml together: names are unique and references lead to one.

It reads the entries as written, whether or not they are valid otherwise, so that one typing error
in an entry does not hide, or cause, another finding.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from penstock.catalog.document import Path
from penstock.catalog.errors import Finding, quoted, suggest
from penstock.catalog.model import Sections, Written, normalize
from penstock.catalog.rules import REFERENCE

Identity: TypeAlias = tuple[str | None, ...]
"""What tells an object from all others of its kind: its name, behind those of its owners."""

MAX_FALLBACKS = 8
"""Routes behind a route that are tried one after the other."""
_MAX_SUGGESTIONS = 50
"""To look for the likeliest name takes as long as there are names: not for each of thousands."""


class _Kind(NamedTuple):
    word: str
    identity: tuple[str, ...]
    """The fields that it is told by; one with a question mark may be left out."""


_KINDS = {
    "organizations": _Kind("organization", ("name",)),
    "projects": _Kind("project", ("organization", "name")),
    "members": _Kind("member", ("organization", "project?", "subject")),
    "service_accounts": _Kind("service account", ("organization", "name")),
    "keys": _Kind("key", ("organization", "project", "name")),
    "credentials": _Kind("credential", ("organization?", "name")),
    "upstreams": _Kind("upstream", ("name",)),
    "deployments": _Kind("deployment", ("name",)),
    "routes": _Kind("route", ("name",)),
    "aliases": _Kind("alias", ("name",)),
    "grants": _Kind("grant", ("alias", "organization", "project?")),
    "plans": _Kind("plan", ("name",)),
    "limits": _Kind(
        "entry of limits", ("organization", "project?", "key?", "member?", "service_account?")
    ),
    "budgets": _Kind(
        "budget",
        (
            *("organization", "project?", "key?", "member?", "service_account?"),
            *("currency", "period", "alias?", "per?", "label?"),
        ),
    ),
}
"""Section -> what an entry of it is called and told by."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An entry's mention of another object."""

    written: Written
    field: Path
    section: str
    """Of which kind the other one is."""
    identity: Identity
    needs: tuple[str, Identity] | None = None
    """What must be there for it to make sense: when that is missing, too, it alone is told."""

    @property
    def target(self) -> tuple[str, Identity]:
        """Section and identity of what it leads to."""
        return self.section, self.identity

    def finding(self, known: Collection[str]) -> Finding:
        """Return the finding that it leads nowhere.

        Args:
            known: Names that it could have meant.
        """
        word, name = _KINDS[self.section].word, str(self.identity[-1])
        if self.section == "credentials":
            # Not repeated: it may be the secret itself.
            remedy = "write env:NAME or file:PATH, or add one under credentials"
            problem = f"is neither a reference to a secret nor the name of a credential; {remedy}"
            return self.written.finding(self.field, problem)
        owner = self.identity[0] if len(self.identity) > 1 else None
        remedy = suggest(name, known, otherwise=f"add it under {self.section}")
        if owner is None:
            problem = f"no {word} is named {quoted(name)}; {remedy}"
        else:
            problem = f"organization {quoted(owner)} has no {word} {quoted(name)}; {remedy}"
        return self.written.finding(self.field, problem)


@dataclass(slots=True)
class Names:
    """The objects that a configuration has, by what they are told by."""

    by_section: dict[str, dict[Identity, Written]] = field(default_factory=dict)
    projects: dict[str, list[str]] = field(default_factory=dict)
    """Organizations that have a project of this name."""

    def has(self, target: tuple[str, Identity]) -> bool:
        """Tell whether an object is there."""
        section, identity = target
        return identity in self.by_section[section]

    def near(self, reference: Reference) -> Collection[str]:
        """Return the names that a reference could have meant."""
        names = self.by_section[reference.section]
        owners = reference.identity[:-1]
        return dict.fromkeys(str(name[-1]) for name in names if name[:-1] == owners)


def read_names(sections: Sections) -> tuple[Names, list[Finding]]:
    """Return the objects that a configuration has, and which are there twice."""
    names = Names({section: {} for section in _KINDS})
    findings: list[Finding] = []

    def add(section: str, written: Written) -> None:
        identity = identify(section, written, names)
        if identity is None:
            return
        first = names.by_section[section].setdefault(identity, written)
        if first is not written:
            findings.append(_duplicate(section, identity, first, written))

    for section in _KINDS:
        for written in sections[section]:
            add(section, written)
            if section == "projects":
                name, owner = written.name("name"), written.name("organization")
                if name is not None and owner is not None:
                    names.projects.setdefault(name, []).append(owner)
    for written in sections["routes"]:
        if is_short(written):
            add("deployments", written)
    return names, findings


def identify(section: str, written: Written, names: Names) -> Identity | None:
    """Return what an entry is told by; None when that is not all there."""
    identity: list[str | None] = []
    for name in _KINDS[section].identity:
        value = written.name(name.removesuffix("?"))
        if section == "keys" and name == "organization" and value is None:
            owners = names.projects.get(written.name("project") or "", [])
            value = owners[0] if len(owners) == 1 else None
        if value is None and not name.endswith("?"):
            return None
        identity.append(value)
    return tuple(identity)


def is_short(written: Written) -> bool:
    """Tell whether a route is written in its short form, with one deployment of its name."""
    return "deployments" not in written.node.fields


def find_references(sections: Sections, names: Names) -> Iterator[Reference]:
    """Yield every mention of another object."""
    for section, field_name, target in _REFERENCES:
        for written in sections[section]:
            for path, text in _texts(written, field_name):
                yield Reference(written, path, target, (normalize(text),))
    for section, field_name, target in _OWNED_REFERENCES:
        for written in sections[section]:
            yield from _owned_reference(section, written, field_name, target, names)
    for written in (*sections["limits"], *sections["budgets"]):
        yield from _limited(written)
    for written in (*sections["upstreams"], *sections["deployments"]):
        name = written.name("credential")
        if name is not None and not REFERENCE.fullmatch(name):
            yield Reference(written, ("credential",), "credentials", (None, name))


def _limited(written: Written) -> Iterator[Reference]:
    """Yield the mention of the key or member that an entry limits."""
    owner, project = written.name("organization"), written.name("project")
    needs = ("projects", (owner, project)) if project else ("organizations", (owner,))
    for field_name, section in (("key", "keys"), ("member", "members")):
        name = written.name(field_name)
        if name is not None and owner is not None and (project or section == "members"):
            yield Reference(written, (field_name,), section, (owner, project, name), needs)


def _owned_reference(
    section: str, written: Written, field_name: str, target: str, names: Names
) -> Iterator[Reference]:
    name = written.name(field_name)
    owner = written.name("organization")
    if section == "keys" and owner is None:
        # Whose it is follows from the project, which is looked for by itself.
        owner = (identify("keys", written, names) or (None,))[0]
    if name is not None and owner is not None:
        needs = ("organizations", (owner,))
        yield Reference(written, (field_name,), target, (owner, name), needs)


_REFERENCES = (
    ("projects", "organization", "organizations"),
    ("members", "organization", "organizations"),
    ("service_accounts", "organization", "organizations"),
    ("keys", "organization", "organizations"),
    ("keys", "aliases", "aliases"),
    ("credentials", "organization", "organizations"),
    ("credentials", "upstream", "upstreams"),
    ("deployments", "upstream", "upstreams"),
    ("routes", "upstream", "upstreams"),
    ("routes", "deployments", "deployments"),
    ("routes", "fallback", "routes"),
    ("aliases", "route", "routes"),
    ("grants", "alias", "aliases"),
    ("grants", "organization", "organizations"),
    ("plans", "rules", "aliases"),
    ("limits", "rules", "aliases"),
    ("limits", "organization", "organizations"),
    ("limits", "plan", "plans"),
    ("budgets", "organization", "organizations"),
    ("budgets", "alias", "aliases"),
)
"""Section, field, and the section that the field's names are of."""


_OWNED_REFERENCES = (
    ("members", "project", "projects"),
    ("service_accounts", "project", "projects"),
    ("keys", "project", "projects"),
    ("keys", "service_account", "service_accounts"),
    ("grants", "project", "projects"),
    ("limits", "project", "projects"),
    ("limits", "service_account", "service_accounts"),
    ("budgets", "project", "projects"),
    ("budgets", "service_account", "service_accounts"),
)
"""The same for names within an organization, which stands in the field `organization`."""


def _texts(written: Written, name: str) -> Iterator[tuple[Path, str]]:
    """Yield the names that a field holds: alone, in a list, or in its choices or rules."""
    node = written.node.fields.get(name)
    if node is None:
        return
    if isinstance(node.value, str):
        yield (name,), node.value
    for index, member in enumerate(node.items):
        if isinstance(member.value, str):
            yield (name, index), member.value
        for inner in ("deployment", "alias"):
            inside = member.fields.get(inner)
            if inside is not None and isinstance(inside.value, str):
                yield (name, index, inner), inside.value


def find_faults(sections: Sections, names: Names) -> Iterator[Finding]:
    """Yield what is wrong with how entries are tied together, wherever references lead."""
    yield from _unclear_projects(sections, names)
    yield from _repeated_endpoints(sections)
    yield from _repeated_choices(sections)
    yield from _cycles(names)


def find_dangling(
    references: Iterable[Reference], is_there: Callable[[tuple[str, Identity]], bool]
) -> list[Reference]:
    """Return the references that lead nowhere.

    Args:
        references: All of them.
        is_there: Tells whether there is such an object, by section and identity.
    """
    return [
        reference
        for reference in references
        if not is_there(reference.target) and (reference.needs is None or is_there(reference.needs))
    ]


def tell_dangling(dangling: Iterable[Reference], names: Names) -> Iterator[Finding]:
    """Yield the findings about references that lead nowhere."""
    for count, reference in enumerate(dangling):
        yield reference.finding(names.near(reference) if count < _MAX_SUGGESTIONS else ())


def _duplicate(section: str, identity: Identity, first: Written, second: Written) -> Finding:
    kind = _KINDS[section]
    named = [name.removesuffix("?") for name in reversed(kind.identity)]
    field_name = next(name for name in named if name in second.node.fields)
    where = f"line {first.node.find_mark((field_name,)).line}"
    if first.source != second.source:
        where = f"{first.source}:{where.removeprefix('line ')}"
    if section in {"grants", "limits", "budgets"}:
        problem = f"is the same {kind.word} as that on {where}; remove one of the two"
    else:
        problem = (
            f"a second {kind.word} is named {quoted(str(identity[-1]))}, the first is on {where}; "
            "rename or remove one of the two"
        )
    return second.finding((field_name,), problem)


def _unclear_projects(sections: Sections, names: Names) -> Iterator[Finding]:
    """Yield the keys whose project is not said for certain."""
    for written in sections["keys"]:
        project = written.name("project")
        if project is None or written.text("organization") is not None:
            continue
        owners = names.projects.get(project, [])
        if not owners:
            otherwise = "add it under projects, or say with organization: whose it is"
            remedy = suggest(project, names.projects, otherwise=otherwise)
            problem = f"no project is named {quoted(project)}; {remedy}"
            yield written.finding(("project",), problem)
        elif len(set(owners)) > 1:
            listed = ", ".join(quoted(owner) for owner in sorted(set(owners))[:5])
            problem = (
                f"several organizations have a project {quoted(project)}: {listed}; "
                "say with organization: which one is meant"
            )
            yield written.finding(("project",), problem)


def _repeated_endpoints(sections: Sections) -> Iterator[Finding]:
    for written in sections["upstreams"]:
        yield from _repeated(written, "endpoints", lambda url: url.lower().removesuffix("/"))


def _repeated_choices(sections: Sections) -> Iterator[Finding]:
    for written in sections["routes"]:
        yield from _repeated(written, "deployments", lambda name: name)


def _repeated(written: Written, name: str, clean: Callable[[str], str]) -> Iterator[Finding]:
    seen: set[str] = set()
    for path, text in _texts(written, name):
        if clean(text) in seen:
            yield written.finding(path, "is listed twice; remove one of the two")
        seen.add(clean(text))


def _cycles(names: Names) -> Iterator[Finding]:
    """Yield each circle of fallbacks once, and where a chain of them becomes too long."""
    routes = {str(identity[0]): written for identity, written in names.by_section["routes"].items()}
    lengths: dict[str, int] = {}
    """How many routes are behind one."""
    for start in routes:
        chain: dict[str, None] = {}
        step: str | None = start
        while step in routes and step not in lengths and step not in chain:
            chain[step] = None
            step = routes[step].name("fallback")
        if step in chain:
            circle = list(chain)[list(chain).index(str(step)) :]
            shown = " -> ".join(map(quoted, (*circle, circle[0])))
            problem = f"leads back to itself: {shown}; remove one of these fallbacks"
            yield routes[circle[0]].finding(("fallback",), problem)
            lengths |= dict.fromkeys(chain, 0)
            continue
        length = lengths.get(str(step), -1)
        for name in reversed(chain):
            length += 1
            lengths[name] = length
            if length == MAX_FALLBACKS + 1:
                problem = f"has more than {MAX_FALLBACKS} fallbacks behind it; shorten the chain"
                yield routes[name].finding(("fallback",), problem)
