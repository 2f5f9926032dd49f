"""YAML with every value's place kept, so that each fault can be shown where it is.

It reads a small, unsurprising part of YAML: one document of mappings, lists and scalars. Plain
scalars are what YAML 1.2 says (`no`, `on` and `1:30` are text). Tags are refused. An alias stands
for what its anchor holds, up to a bound that no honest file meets.
"""

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from penstock.catalog.errors import DOCUMENT_INVALID, Finding, Mark, PlatformFileError, quoted

MAX_DEPTH = 16
"""The format needs 5."""
MAX_VALUES = 1_000_000
"""Values in a file once its aliases are expanded."""

Path: TypeAlias = tuple[str | int, ...]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LITERALS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place."""

    mark: Mark
    value: "str | int | float | bool | list[Node] | dict[str, Node] | None"
    key_marks: dict[str, Mark]
    """Of a mapping: where each key is written."""
    size: int
    """How many values it holds, itself included."""

    @property
    def fields(self) -> "dict[str, Node]":
        """The members of a mapping; none for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> "list[Node]":
        """The members of a list; none for anything else."""
        return self.value if isinstance(self.value, list) else []

    def plain(self) -> Any:
        """Return the value as plain Python objects."""
        match self.value:
            case dict(fields):
                return {name: node.plain() for name, node in fields.items()}
            case list(items):
                return [node.plain() for node in items]
            case value:
                return value

    def find_mark(self, path: Path) -> Mark:
        """Return the place of the value at `path`, or of the deepest value on the way to it."""
        return self.find(path).mark

    def find(self, path: Path) -> "Node":
        """Return the value at `path`, or the deepest value on the way to it."""
        node = self
        for step in path:
            match node.value, step:
                case dict(fields), str(name) if name in fields:
                    node = fields[name]
                case list(items), int(index) if index < len(items):
                    node = items[index]
                case _:
                    break
        return node


@dataclass(slots=True)
class _Container:
    """A list or mapping that is not read to its end yet."""

    mark: Mark
    anchor: str | None
    path: Path
    content: "list[Node] | dict[str, Node]"
    key_marks: dict[str, Mark]
    size: int = 1
    key: str | None = None
    """Of a mapping: the key whose value comes next."""
    is_repeated: bool = False
    """The coming value's key was there before: it is read, and not kept."""


def format_path(path: Path) -> str:
    """Return a path as people write it.

    >>> format_path(("keys", 0, "secret"))
    'keys[0].secret'
    """
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".") or "file"


def read_document(text: str, source: str) -> tuple[Node, list[Finding]]:
    """Return the file's value, and what is wrong with it that does not stop the reading.

    Args:
        text: The file's content.
        source: The file's name, for findings.

    Raises:
        PlatformFileError: It is no YAML, or uses what is refused here.
    """
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Mark() if mark is None else Mark(mark.line + 1, mark.column + 1)
        problem = f"is no valid YAML: {error.problem}; correct the line or the one before it"
        raise PlatformFileError([Finding(source, place, "file", problem)]) from None
    except yaml.reader.ReaderError as error:
        # The position counts bytes or characters, as the parser likes; the character is certain.
        place = _mark_at(text, max(text.find(chr(error.character)), 0))
        problem = f"holds the character U+{error.character:04X}; remove it"
        raise PlatformFileError([Finding(source, place, "file", problem)]) from None
    return builder.root or Node(Mark(), None, {}, 1), builder.findings


def build_node(value: Any) -> Node:
    """Return JSON values as a document's; their places are unknown.

    Raises:
        PlatformFileError: They are nested too deep.
    """
    return _build(value, 0)


def _build(value: Any, depth: int) -> Node:
    if depth > MAX_DEPTH:
        problem = f"is nested more than {MAX_DEPTH} deep; the format needs less"
        raise PlatformFileError([Finding("document", Mark(), "file", problem)], DOCUMENT_INVALID)
    match value:
        case dict():
            fields = {str(name): _build(member, depth + 1) for name, member in value.items()}
            return Node(Mark(), fields, {}, 1)
        case list():
            return Node(Mark(), [_build(member, depth + 1) for member in value], {}, 1)
        case _:
            return Node(Mark(), value, {}, 1)


def write_document(value: Any) -> str:
    """Return JSON values as YAML that `read_document`, and any other reader, takes for the same."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what our reader, or YAML 1.1, would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # an override
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _resolve(text) is text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _mark_at(text: str, position: int) -> Mark:
    before = text[:position]
    return Mark(before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)


class _Builder:
    """Builds the tree from the parser's events, without recursion: depth cannot hurt it."""

    def __init__(self, source: str) -> None:
        self.root: Node | None = None
        self.findings: list[Finding] = []
        self._source = source
        self._stack: list[_Container] = []
        self._anchors: dict[str, Node] = {}
        self._values = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        begin = event.start_mark
        mark = Mark() if begin is None else Mark(begin.line + 1, begin.column + 1)
        if getattr(event, "tag", None):
            raise self._refusal(mark, "YAML tags are not used here; remove the tag")
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self._refusal(mark, 'a second document begins; remove the line "---"')
            case yaml.MappingStartEvent():
                self._begin(mark, event.anchor, {})
            case yaml.SequenceStartEvent():
                self._begin(mark, event.anchor, [])
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._end()
            case yaml.AliasEvent():
                self._alias(mark, event.anchor or "")
            case yaml.ScalarEvent():
                self._scalar(mark, event)

    def _begin(
        self, mark: Mark, anchor: str | None, content: "list[Node] | dict[str, Node]"
    ) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise self._refusal(
                mark, f"is nested more than {MAX_DEPTH} deep; the format needs less"
            )
        path = self._next_path(mark)
        self._stack.append(_Container(mark, anchor, path, content, {}))

    def _end(self) -> None:
        done = self._stack.pop()
        node = Node(done.mark, done.content, done.key_marks, done.size)
        self._anchor(done.anchor, node)
        self._place(node)

    def _alias(self, mark: Mark, anchor: str) -> None:
        node = self._anchors.get(anchor)
        if node is None:
            problem = f"no value before this one has the anchor {quoted(anchor)}; add it"
            raise self._refusal(mark, problem)
        self._next_path(mark)
        self._place(node, node.size)

    def _scalar(self, mark: Mark, event: yaml.ScalarEvent) -> None:
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.content, dict) and top.key is None:
            self._key(top, mark, event.value)
            return
        is_plain = event.implicit[0]
        node = Node(mark, _resolve(event.value) if is_plain else event.value, {}, 1)
        self._anchor(event.anchor, node)
        self._place(node)

    def _key(self, mapping: _Container, mark: Mark, name: str) -> None:
        mapping.key = name
        first = mapping.key_marks.get(name)
        mapping.is_repeated = first is not None
        if first is None:
            mapping.key_marks[name] = mark
        else:
            problem = f"is there a second time, first on line {first.line}; remove one of the two"
            where = format_path((*mapping.path, _shown_key(name)))
            self.findings.append(Finding(self._source, mark, where, problem))

    def _place(self, node: Node, count: int = 1) -> None:
        """Put a finished value where it belongs; `count` of its values are new."""
        self._values += count
        if self._values > MAX_VALUES:
            problem = f"holds more than {MAX_VALUES} values with its aliases expanded"
            raise self._refusal(node.mark, f"{problem}; write fewer")
        if not self._stack:
            self.root = node
            return
        top = self._stack[-1]
        top.size += node.size
        if isinstance(top.content, list):
            top.content.append(node)
        elif top.key is not None:
            if not top.is_repeated:
                top.content[top.key] = node
            top.key = None

    def _next_path(self, mark: Mark) -> Path:
        """Return the path of the value that begins now; it cannot be a mapping's key."""
        if not self._stack:
            return ()
        top = self._stack[-1]
        if isinstance(top.content, list):
            return (*top.path, len(top.content))
        if top.key is None:
            raise self._refusal(mark, "a field's name is no text; write name: value")
        return (*top.path, _shown_key(top.key))

    def _anchor(self, name: str | None, node: Node) -> None:
        if name is not None:
            self._anchors[name] = node

    def _refusal(self, mark: Mark, problem: str) -> PlatformFileError:
        return PlatformFileError([Finding(self._source, mark, "file", problem)])


def _shown_key(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else quoted(name)


def _resolve(text: str) -> str | int | float | bool | None:
    """Return what a plain scalar means: YAML 1.2's core schema, without octal and hexadecimal."""
    if text in _LITERALS:
        return _LITERALS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text) and not text.lstrip("+-").isdigit():
        return float(text)
    return text
