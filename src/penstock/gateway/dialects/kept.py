"""What a question refers to that is not in it: state and tools of model servers, and media. Pure.

Servers keep responses, conversations and files for whoever has their credential: for all
organizations. What their own tools do is seen by nobody here, and priced by nobody.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from penstock.gateway.dialects.errors import (
    MEMBER_INVALID,
    STATE_UNSUPPORTED,
    TOOL_UNSUPPORTED,
)
from penstock.gateway.dialects.members import Members
from penstock.gateway.dialects.openai import Operation
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
_ODD: Final = re.compile(
    rb'"(?:input_|computer_)?(?:image|file|audio|video|document|container|screenshot)'
    rb'|"item_reference"|\\u00'
)
"""Found in each list in which there is more than text: ASCII may be written as `\\u00..`, too."""
_MEDIA: Final = re.compile(
    r"(?:input_|computer_)?(?:image|file|audio|video|document|screenshot)(?:_url)?"
)
_INSIDE: Final = ("content", "output", "source")
"""Members of parts that have parts. What a tool was called with is the caller's own."""
_FILES: Final = ("file_id", "file_ids")
_KEPT_TYPES: Final = frozenset({"item_reference", "container_upload"})
_CALLERS_TOOLS: Final = re.compile(
    r"function|custom|local_shell|apply_patch|(?:bash|text_editor|computer|memory)_[0-9]{8}"
)
_decode = msgspec.json.decode


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
    try:
        tools = _decode_tools(raw) or ()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Refusal(MEMBER_INVALID, "The member 'tools' must be a list of objects.", "tools")
    for tool in tools:
        if tool.type is not None and _CALLERS_TOOLS.fullmatch(tool.type) is None:
            return Refusal(TOOL_UNSUPPORTED, param="tools")
    return None


def survey(members: Members, operation: Operation) -> int | Refusal:
    """Return how many parts of a question are not text; refuse what a server keeps.

    Args:
        members: Of its body.
        operation: What for.
    """
    name = operation.input_member
    raw = bytes(members[name])
    if _ODD.search(raw) is None:
        return 0
    count = 0
    try:
        for part in _parts(_decode(raw)):
            kind = part.get("type")
            is_kept = isinstance(kind, str) and kind in _KEPT_TYPES
            if is_kept or any(part.get(file) is not None for file in _FILES):
                return Refusal(STATE_UNSUPPORTED, param=name)
            count += isinstance(kind, str) and _MEDIA.fullmatch(kind) is not None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Refusal(MEMBER_INVALID, f"The member '{name}' is nested too deeply.", name)
    return count


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every message, part, and part of a part."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, list):
            waiting += found
        elif isinstance(found, dict):
            yield found
            waiting += [found[name] for name in _INSIDE if name in found]
