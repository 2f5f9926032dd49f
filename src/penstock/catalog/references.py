"""What ties the entries of penstock.yaml together: names are unique and references lead to one.

It reads the entries as written, whether or not they are valid otherwise, so that one typing error
in an entry does not hide, or cause, another finding.
"""

from collections.abc import Iterator

from penstock.catalog.document import Node, Path, format_path
from penstock.catalog.errors import Finding, quoted, suggest

_UNIQUE = {
    "organizations": ("organization", "name"),
    "projects": ("project", "name"),
    "keys": ("key", "id"),
    "upstreams": ("upstream", "name"),
    "routes": ("route", "name"),
    "aliases": ("alias", "name"),
}
"""Section -> what an entry is called, and the field that names it."""

_MAX_SUGGESTIONS = 50
"""To look for the likeliest name takes as long as there are names: not for each of thousands."""

_REFERENCES = (
    ("projects", "organization", "organizations"),
    ("keys", "project", "projects"),
    ("keys", "aliases", "aliases"),
    ("routes", "upstream", "upstreams"),
    ("aliases", "route", "routes"),
)
"""Section, field, and the section that the field's names are of."""


def check_references(root: Node, source: str) -> Iterator[Finding]:
    """Yield every duplicate name, dangling reference and endpoint listed twice."""
    for section in _UNIQUE:
        yield from _duplicates(root, source, section)
    names = {section: _names(root, section) for section in _UNIQUE}
    found = 0
    for section, field, target in _REFERENCES:
        kind = _UNIQUE[target][0]
        for path, node in _texts(root, section, field):
            name = str(node.value)
            if name not in names[target]:
                found += 1
                known = names[target] if found <= _MAX_SUGGESTIONS else ()
                remedy = suggest(name, known, otherwise=f"add it under {target}")
                problem = f"no {kind} is named {quoted(name)}; {remedy}"
                yield Finding(source, node.mark, format_path(path), problem)
    yield from _repeated_endpoints(root, source)


def _entries(root: Node, section: str) -> Iterator[tuple[Path, Node]]:
    listed = root.fields.get(section)
    for index, node in enumerate(listed.items if listed else ()):
        yield (section, index), node


def _texts(root: Node, section: str, field: str) -> Iterator[tuple[Path, Node]]:
    """Yield the texts that a field of a section's entries holds, alone or in a list."""
    for path, entry in _entries(root, section):
        node = entry.fields.get(field)
        if node is None:
            continue
        if isinstance(node.value, str):
            yield (*path, field), node
        for index, member in enumerate(node.items):
            if isinstance(member.value, str):
                yield (*path, field, index), member


def _names(root: Node, section: str) -> dict[str, None]:
    """Return the names of a section in their order, quick to look up."""
    field = _UNIQUE[section][1]
    return dict.fromkeys(str(node.value) for _, node in _texts(root, section, field))


def _duplicates(root: Node, source: str, section: str) -> Iterator[Finding]:
    kind, field = _UNIQUE[section]
    lines: dict[str, int] = {}
    for path, node in _texts(root, section, field):
        name = str(node.value)
        if name in lines:
            problem = (
                f"a second {kind} is named {quoted(name)}, the first is on line {lines[name]}; "
                "rename or remove one of the two"
            )
            yield Finding(source, node.mark, format_path(path), problem)
        else:
            lines[name] = node.mark.line


def _repeated_endpoints(root: Node, source: str) -> Iterator[Finding]:
    for path, entry in _entries(root, "upstreams"):
        urls = entry.fields.get("endpoints")
        seen: set[str] = set()
        for index, node in enumerate(urls.items if urls else ()):
            url = str(node.value).lower().removesuffix("/")
            if url in seen:
                where = format_path((*path, "endpoints", index))
                yield Finding(source, node.mark, where, "is listed twice; remove one of the two")
            seen.add(url)
