"""What a request asks for, as far as limits and budgets are about it. Pure."""

import re
from functools import lru_cache

import msgspec

from penstock.gateway.dialects.members import Members
from penstock.gateway.dialects.openai import (
    CAP_MEMBERS,
    RERANK,
    SCORE,
    UNKNOWN_CAPS,
    Operation,
)
from penstock.gateway.dialects.parts import TEXT_TYPES
from penstock.gateway.limits import INPUT_OVERHEAD_TOKENS, MEDIA_TOKENS, QUESTION_PIECES

_TIMES = frozenset({"n", "best_of"})
_SPECIAL = UNKNOWN_CAPS.union(CAP_MEMBERS, _TIMES, {"prompt"})
"""Members that tell of output, or of several answers."""
_SIDES = ("query", "queries", "text_1", "text_2", "data_1", "data_2", "documents", "items")
"""Members of which engines make pairs: one text, or a list of as many as the other side has."""
_CAP = CAP_MEMBERS[0].encode()
_HAS_OBJECT = re.compile(rb":[ \t\r\n]*\{")
_HAS_PROMPTS = re.compile(rb'\[[ \t\r\n]*["\[]')
_decode_number = msgspec.json.Decoder(int | None).decode
_decode_members = msgspec.json.Decoder(Members).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_NONE = msgspec.Raw(b"")


class _Part(msgspec.Struct, frozen=True, gc=False):
    """A part of a chat's message; those of other protocols have parts of their own."""

    type: str = ""
    content: msgspec.Raw = _NONE
    output: msgspec.Raw = _NONE
    source: msgspec.Raw = _NONE


class _Message(msgspec.Struct, frozen=True):
    content: str | list[_Part] | None = None


_decode_messages = msgspec.json.Decoder(list[_Message]).decode


class Demand(msgspec.Struct, frozen=True, gc=False):
    """What a request asks for."""

    body_bytes: int
    cap: int | None
    """The output tokens that it names as the most, for each answer; None when it names none."""
    answers: int
    """How many answers it wants; 0 when it is for something else than text."""
    most_input_tokens: int
    """No tokenizer makes more of it; 0 when nobody wants to know."""
    has_other_caps: bool
    """It names the most also in ways that not all engines know."""
    names_nothing: bool = False
    """It has no member that names the most, in whatever way."""
    kind: int = 0
    """Requests of a kind ask for about as much of everything, see `kind_of`; 0 for odd ones."""
    can_be_capped: bool = True
    """Whether there is a place in it for the most: else it gets what it asks for, or nothing."""


NO_TOKENS = Demand(0, None, 0, 0, has_other_caps=False, names_nothing=True)
"""Of a request that the model itself has nothing to do with."""


def kind_of(size: int, cap: int | None, answers: int) -> int:
    """Return the kind of a request: others of it are less than twice as large, and so are caps.

    Args:
        size: Bytes of its body, or input tokens at most.
        cap: As in `Demand`.
        answers: 0 or 1.
    """
    return size.bit_length() << 8 | (0 if cap is None else cap.bit_length() << 1) | answers


def largest_of(kind: int) -> Demand:
    """Return what a request of a kind asks for at most."""
    size, cap_bits = (1 << (kind >> 8)) - 1, kind >> 1 & 0x7F
    cap = (1 << cap_bits) - 1 if cap_bits else None
    return Demand(size, cap, kind & 1, size, has_other_caps=False, names_nothing=cap is None)


def worst_input_tokens(members: Members, body_bytes: int, media: int) -> int:
    """Return how many input tokens a question has at most, of whatever protocol: what is held.

    Args:
        members: Of its body.
        body_bytes: Size of the body: no tokenizer makes more tokens of it than it has bytes.
        media: How many of its parts are not known to be text.
    """
    # Templates write tools in a longer form than they are sent in.
    tools = len(members.get("tools", b"")) + len(members.get("functions", b""))
    return body_bytes + tools + media * MEDIA_TOKENS + INPUT_OVERHEAD_TOKENS


def read_demand(
    members: Members, operation: Operation, body_bytes: int, *, is_for_money: bool
) -> Demand:
    """Return what a request asks for.

    Args:
        members: Of its body; numbers in them were found good.
        operation: What for.
        body_bytes: Size of the body.
        is_for_money: The worst case is wanted, too.
    """
    answers = 1 if operation.has_output else 0
    most_input = 0
    if is_for_money:
        has_parts = operation.input_member == "messages"
        media = _count_media(bytes(members["messages"])) if has_parts else 0
        most_input = worst_input_tokens(members, body_bytes, media)
        if operation is RERANK or operation is SCORE:
            most_input += _repeated_tokens(members)
    if _SPECIAL.isdisjoint(members):
        kind = (most_input or body_bytes).bit_length() << 8 | answers  # as `kind_of` has it
        # By place, which is faster: no other cap, and it names nothing.
        return Demand(body_bytes, None, answers, most_input, False, True, kind)  # noqa: FBT003
    return _read_special(members, body_bytes, answers, most_input)


def _read_special(members: Members, body_bytes: int, answers: int, most_input: int) -> Demand:
    """Go on where a member tells of output, or of several answers."""
    cap: int | None = None
    times = prompts = 1
    names_nothing, has_other_caps = True, False
    for name in _SPECIAL.intersection(members):
        if name == "prompt":
            prompts = _count_prompts(bytes(members[name]))
        elif name in _TIMES:
            times = max(times, _number(members, name) or 1)
        else:
            names_nothing = False
            if name in UNKNOWN_CAPS:
                has_other_caps = True
            elif (named := _number(members, name)) is not None:
                cap = named if cap is None else min(cap, named)
    answers *= times * prompts
    is_usual = answers <= 1 and not has_other_caps
    kind = kind_of(most_input or body_bytes, cap, answers) if is_usual else 0
    return Demand(body_bytes, cap, answers, most_input, has_other_caps, names_nothing, kind)


@lru_cache(maxsize=256)
def cap_tail(cap: int) -> bytes:
    """Return what stands for the last byte of a body that names nothing, to name a cap.

    Args:
        cap: As for `write_cap`.
    """
    return b',"%b":%d}' % (_CAP, cap)


def write_cap(body: bytes, cap: int) -> bytes:
    """Return a body that asks for so many output tokens an answer at most.

    Args:
        body: As `admit` writes it: an object without white space that has members.
        cap: How many.
    """
    members = _decode_members(body)
    for name in UNKNOWN_CAPS:
        members.pop(name, None)
    raw = msgspec.Raw(b"%d" % cap)
    named = [name for name in CAP_MEMBERS if _number(members, name) is not None]
    for name in named or CAP_MEMBERS[:1]:
        members[name] = raw
    return _encode(members)


def _number(members: Members, name: str) -> int | None:
    raw = members.get(name)
    return None if raw is None else _decode_number(raw)


def _count_prompts(question: bytes) -> int:
    """Return how many prompts there are: a list of texts, or of lists of tokens, has several."""
    if _HAS_PROMPTS.match(question) is None:
        return 1
    if len(question) > QUESTION_PIECES and (commas := question.count(b",")) > QUESTION_PIECES:
        return commas + 1
    return len(_decode_list(question))


def _repeated_tokens(members: Members) -> int:
    """Return how many tokens are read besides those sent, at most: one text is in each pair."""
    sides = [bytes(members[name]) for name in _SIDES if name in members]
    counts = [_count_texts(side) for side in sides]
    pairs = max(counts, default=1)
    alone = sum(len(side) for side, count in zip(sides, counts, strict=True) if count == 1)
    return max(0, pairs - 1) * (alone + INPUT_OVERHEAD_TOKENS)


def _count_texts(side: bytes) -> int:
    """Return how many texts a side of pairs has; too many where it is long."""
    if side.startswith(b"{"):  # of parts, each of which is one
        return max(1, side.count(b"{") - 1)
    if not side.startswith(b"["):
        return 1
    if len(side) > QUESTION_PIECES and (commas := side.count(b",")) > QUESTION_PIECES:
        return commas + 1
    return len(_decode_list(side))


def _count_media(messages: bytes) -> int:
    """Return how many parts of a chat are not text; too many when their form is not known."""
    # Most have no parts, which is seen at once: a lone one has only the brace that it begins with.
    has_object = messages.rfind(b"{") > 1 and _HAS_OBJECT.search(messages) is not None
    if messages.rfind(b"[") <= 0 and not has_object:
        return 0
    if len(messages) > QUESTION_PIECES and (braces := messages.count(b"{")) > QUESTION_PIECES:
        return braces
    try:
        read = _decode_messages(messages)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return messages.count(b"{")
    count = 0
    for message in read:
        content = message.content
        if isinstance(content, list):
            for part in content:
                if part.type not in TEXT_TYPES:
                    if part.content or part.output or part.source:
                        return messages.count(b"{")
                    count += 1
    return count
