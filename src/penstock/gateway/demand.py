"""What a request asks for, as far as limits and budgets are about it. Pure."""

import re
from collections.abc import Mapping, Sequence
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
_HOLDERS = frozenset({*_SIDES, "input", "inputs", "prompt", "messages"})
"""Members of what is no chat that may hold media: some engines take several of them."""
_CAP = CAP_MEMBERS[0].encode()
_HAS_OBJECT = re.compile(rb":[ \t\r\n]*\{")
_HAS_PROMPTS = re.compile(rb'\[[ \t\r\n]*["\[]')
_decode_number = msgspec.json.Decoder(int | None).decode
_decode_members = msgspec.json.Decoder(Members).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_NONE = msgspec.Raw(b"")
_QUOTE = b'"'[0]


class _Part(msgspec.Struct, frozen=True, gc=False):
    """A part of a chat's message; those of other protocols have parts of their own."""

    type: str = ""
    content: msgspec.Raw = _NONE
    output: msgspec.Raw = _NONE
    source: msgspec.Raw = _NONE


class _Message(msgspec.Struct, frozen=True):
    content: str | list[_Part] | None = None


_decode_parts = msgspec.json.Decoder(list[_Part]).decode
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
        if operation.input_member == "messages":
            media = _count_media(bytes(members["messages"]))
            most_input = worst_input_tokens(members, body_bytes, media)
        else:
            most_input = _worst_of_others(members, operation, body_bytes)
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


def _worst_of_others(members: Members, operation: Operation, body_bytes: int) -> int:
    """Return the most input tokens of what is no chat."""
    media = {each: _count_in(each, members) for each in _HOLDERS.intersection(members)}
    most = worst_input_tokens(members, body_bytes, sum(media.values()))
    if operation is RERANK or operation is SCORE:
        most += _repeated_tokens(members, media)
    return most


def _repeated_tokens(members: Members, media: Mapping[str, int]) -> int:
    """Return how many tokens are read besides those sent, at most: one text is in each pair.

    Args:
        members: Of the body.
        media: How many each of them has.
    """
    counts = {name: _count_texts(bytes(members[name])) for name in _SIDES if name in members}
    pairs = max((most for _, most in counts.values()), default=1)
    repeated = max(0, pairs - 1) * INPUT_OVERHEAD_TOKENS
    for name, (least, _) in counts.items():
        if least == 1:
            times = max((most for each, (_, most) in counts.items() if each != name), default=1)
            tokens = len(members[name]) + media[name] * MEDIA_TOKENS
            repeated += max(0, times - 1) * tokens
    return repeated


def _count_texts(side: bytes) -> tuple[int, int]:
    """Return how many texts a side of pairs has, at least and at most; too many where it is long.

    To some engines an object is as many texts as it has parts, to others one.
    """
    if side.startswith(b"{"):
        return 1, max(1, side.count(b"{") - 1)
    if not side.startswith(b"["):
        return 1, 1
    if len(side) > QUESTION_PIECES and (commas := side.count(b",")) > QUESTION_PIECES:
        return commas + 1, commas + 1
    count = len(_decode_list(side))
    return count, count


def _count_in(name: str, members: Members) -> int:
    """Return how many parts of a member are not text, as far as can be told."""
    question = bytes(members[name])
    if name == "messages":
        return _count_media(question)
    if question[:1] not in (b"[", b"{") or b"{" not in question:  # text, or tokens
        return 0
    if len(question) > QUESTION_PIECES and question.count(b"{") > QUESTION_PIECES:
        return question.count(b'"')
    try:
        pieces = _decode_list(question) if question.startswith(b"[") else [question]
        return sum(_count_in_piece(bytes(each)) for each in pieces if memoryview(each)[0] != _QUOTE)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return question.count(b'"')


def _count_in_piece(piece: bytes) -> int:
    """Return how many parts of an element are not text: of an object, or a list of tokens."""
    if not piece.startswith(b"{"):
        return piece.count(b'"')
    members = _decode_members(piece)
    if "type" in members:
        return _count_parts(_decode_parts(b"[" + piece + b"]"), piece)
    if len(members) == 1 and ("text" in members or "content" in members):
        (text,) = map(bytes, members.values())
        if text.startswith(b'"'):
            return 0
        if "content" in members:
            return _count_parts(_decode_parts(text), text)
    # In words that nobody knows: each of its texts may be a medium, or say where one is.
    return max(1, piece.count(b'"') // 2 - len(members))


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
    lists = [message.content for message in read if isinstance(message.content, list)]
    return _count_parts([part for each in lists for part in each], messages)


def _count_parts(parts: Sequence[_Part], whole: bytes) -> int:
    """Return how many of some parts are not text; too many when one has parts of its own.

    Args:
        parts: What there is.
        whole: Where they stand.
    """
    count = 0
    for part in parts:
        if part.type not in TEXT_TYPES:
            if part.content or part.output or part.source:
                return whole.count(b"{")
            count += 1
    return count
