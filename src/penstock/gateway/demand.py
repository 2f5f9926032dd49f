"""What a request asks for, as far as limits and budgets are about it. Pure."""

import msgspec

from penstock.gateway.dialects.openai import CAP_MEMBERS, UNKNOWN_CAPS, Operation
from penstock.gateway.limits import INPUT_OVERHEAD_TOKENS, MEDIA_TOKENS

Members = dict[str, msgspec.Raw]

_ALL_CAPS = UNKNOWN_CAPS.union(CAP_MEMBERS)
_CAP = CAP_MEMBERS[0].encode()
_decode_number = msgspec.json.Decoder(int | None).decode
_decode_members = msgspec.json.Decoder(Members).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class _Part(msgspec.Struct, frozen=True):
    type: str = ""


class _Message(msgspec.Struct, frozen=True):
    content: str | list[_Part] | None = None


_decode_messages = msgspec.json.Decoder(list[_Message]).decode


class Demand(msgspec.Struct, frozen=True):
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
    cap: int | None = None
    names_nothing = _ALL_CAPS.isdisjoint(members)
    if not names_nothing:
        for name in CAP_MEMBERS:
            if name in members and (named := _number(members, name)) is not None:
                cap = named if cap is None else min(cap, named)
    answers = 1 if operation.has_output else 0
    if "n" in members or "best_of" in members:
        answers *= max(_number(members, "n") or 1, _number(members, "best_of") or 1)
    if operation.input_member == "prompt":
        answers *= _count_prompts(bytes(members["prompt"]))
    most_input = _most_input(members, operation, body_bytes) if is_for_money else 0
    has_other_caps = not names_nothing and not UNKNOWN_CAPS.isdisjoint(members)
    return Demand(body_bytes, cap, answers, most_input, has_other_caps, names_nothing)


def write_cap(body: bytes, cap: int, *, names_nothing: bool = False) -> bytes:
    """Return a body that asks for so many output tokens an answer at most.

    Args:
        body: As `admit` writes it: an object without white space that has members.
        cap: How many.
        names_nothing: See `Demand`.
    """
    if names_nothing:
        return b'%b,"%b":%d}' % (body[:-1], _CAP, cap)
    members = _decode_members(body)
    for name in UNKNOWN_CAPS:
        members.pop(name, None)
    raw = msgspec.Raw(b"%d" % cap)
    named = [name for name in CAP_MEMBERS if _number(members, name) is not None]
    for name in named or CAP_MEMBERS[:1]:
        members[name] = raw
    return _encode(members)


def _most_input(members: Members, operation: Operation, body_bytes: int) -> int:
    tokens = body_bytes + INPUT_OVERHEAD_TOKENS
    if operation.input_member == "messages":
        messages = bytes(members["messages"])
        if messages.find(b"[", 1) >= 0 or b":{" in messages:  # something in it may have parts
            tokens += _count_media(messages) * MEDIA_TOKENS
    for name in ("tools", "functions"):
        if name in members:  # written into the prompt in a longer form than it is sent in
            tokens += len(bytes(members[name]))
    return tokens


def _number(members: Members, name: str) -> int | None:
    raw = members.get(name)
    return None if raw is None else _decode_number(raw)


def _count_prompts(question: bytes) -> int:
    """Return how many prompts there are: a list of texts, or of lists of tokens, has several."""
    if not question.startswith(b"["):
        return 1
    prompts = _decode_list(question)
    return len(prompts) if bytes(prompts[0])[:1] in {b'"', b"["} else 1


def _count_media(messages: bytes) -> int:
    """Return how many parts of messages are not text; too many when their form is not known."""
    try:
        read = _decode_messages(messages)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return messages.count(b"{")
    count = 0
    for message in read:
        content = message.content
        if isinstance(content, list):
            count += sum(part.type != "text" for part in content)
    return count
