"""What a question refers to that is not in it: state and tools of model servers, and media. Pure.

Servers keep responses, conversations and files for whoever has their credential: for all
organizations. What their own tools do is seen by nobody here, and priced by nobody.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from penstock.gateway.dialects.errors import (
    MEMBER_INVALID,
    STATE_UNSUPPORTED,
    TOOL_UNSUPPORTED,
)
from penstock.gateway.dialects.members import Members
from penstock.gateway.dialects.openai import Operation
from penstock.gateway.dialects.parts import HOLDER_TYPES, SOURCE_TYPES, TEXT_TYPES
from penstock.gateway.limits import QUESTION_PARTS, QUESTION_PIECES
from penstock.kit.errors import Refusal

_STATE: Final = frozenset(
    {
        # Responses
        "background",
        "continuation_id",
        "conversation",
        "previous_response_id",
        "prompt",
        # Messages
        "container",
        "mcp_servers",
    }
)
"""Members that stand for what a server keeps or does by itself."""
_NOTHING: Final = frozenset({b"null", b"false", b"[]", b'""'})
_NO_MEDIA: Final = TEXT_TYPES | HOLDER_TYPES | SOURCE_TYPES
_KEPT_TYPES: Final = frozenset({"item_reference", "container_upload"})
_CALLERS_TOOLS: Final = re.compile(
    r"function|custom|local_shell|apply_patch|(?:bash|text_editor|computer|memory)_[0-9]{8}"
)
_DEEPEST: Final = 8
"""How deeply parts have parts: a result of a tool has a document, that a page, that an image."""
_NULL: Final = msgspec.Raw(b"null")
_OPENING: Final = b"[{"
_BRACKET: Final = _OPENING[0]


class _Tool(msgspec.Struct, frozen=True):
    type: str | None = None


_decode_tools = msgspec.json.Decoder(list[_Tool] | None).decode


def check_kept(members: Members) -> Refusal | None:
    """Refuse members that stand for what a server keeps, and tools that it runs."""
    for name in sorted(_STATE.intersection(members)):
        if bytes(members[name]).replace(b" ", b"") not in _NOTHING:
            return Refusal(STATE_UNSUPPORTED, param=name)
    raw = members.get("tools")
    if raw is None:
        return None
    if _has_too_many(raw):
        return Refusal(MEMBER_INVALID, "The member 'tools' has too many parts.", "tools")
    try:
        tools = _decode_tools(raw) or ()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Refusal(MEMBER_INVALID, "The member 'tools' must be a list of objects.", "tools")
    for tool in tools:
        if tool.type is not None and _CALLERS_TOOLS.fullmatch(tool.type) is None:
            return Refusal(TOOL_UNSUPPORTED, param="tools")
    return None


class _Part(msgspec.Struct, frozen=True, gc=False):
    """A message, an item or a part: what it is, what it stands for, and which parts it has.

    What a tool was called with is no part of it, and the caller's own.
    """

    type: str | None = None
    id: msgspec.Raw = _NULL
    role: msgspec.Raw = _NULL
    file_id: msgspec.Raw = _NULL
    file_ids: msgspec.Raw = _NULL
    content: msgspec.Raw = _NULL
    output: msgspec.Raw = _NULL
    source: msgspec.Raw = _NULL

    @property
    def is_kept(self) -> bool:
        """Whether it stands for a file or an item that a server has."""
        if self.file_id != _NULL or self.file_ids != _NULL or self.type in _KEPT_TYPES:
            return True
        # OpenAI takes what only has a name for an `item_reference`.
        return self.type is None and self.id != _NULL and self.role == _NULL

    @property
    def is_media(self) -> bool:
        """Whether it may be more tokens than bytes: a message need not say that it is one."""
        if self.type is None:
            return self.role == _NULL
        return self.type not in _NO_MEDIA


_decode_part = msgspec.json.Decoder(_Part).decode
_decode_parts = msgspec.json.Decoder(list[_Part]).decode


def survey(members: Members, operation: Operation) -> int | Refusal:
    """Return how many parts of a question are not known to be text; refuse what a server keeps.

    Args:
        members: Of its body.
        operation: What for.
    """
    name = operation.input_member
    too_many = Refusal(MEMBER_INVALID, f"The member '{name}' has too many parts.", name)
    if _has_too_many(members[name]):
        return too_many
    count = depth = seen = 0
    level = _nested(members[name])
    while level:
        depth += 1
        if depth > _DEEPEST:
            return Refusal(MEMBER_INVALID, f"The member '{name}' is nested too deeply.", name)
        try:
            parts = [part for raw in level for part in _parts(raw)]
        except (msgspec.DecodeError, UnicodeDecodeError):
            message = f"The member '{name}' has parts that are no objects, or of no known form."
            return Refusal(MEMBER_INVALID, message, name)
        seen += len(parts)
        if seen > QUESTION_PARTS:
            return too_many
        level = []
        for part in parts:
            if part.is_kept:
                return Refusal(STATE_UNSUPPORTED, param=name)
            count += part.is_media
            level += _nested(part.content, part.output, part.source)
    return count


def _has_too_many(raw: msgspec.Raw) -> bool:
    """Whether it may have more objects than are worth the time and memory to look at each."""
    return len(raw) > QUESTION_PIECES and bytes(raw).count(b"{") > QUESTION_PIECES


def _nested(*found: msgspec.Raw) -> list[msgspec.Raw]:
    """Return what has parts: lists and objects."""
    return [raw for raw in found if memoryview(raw)[0] in _OPENING]


def _parts(raw: msgspec.Raw) -> Sequence[_Part]:
    return _decode_parts(raw) if memoryview(raw)[0] == _BRACKET else (_decode_part(raw),)
