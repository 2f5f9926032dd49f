"""How a prompt begins: numbers that stand for its beginnings, of a few lengths (ADR 49).

The next prompt of a conversation, and others with the same long instructions, begin with the same
bytes. Bytes of JSON stand for tokens: nobody here knows how an engine cuts them. Numbers are of
one organization, and of a key that nobody outside knows: whoever else sends the same bytes gets
others, and none can be made to fit.

Source of the idea to look at few lengths, each twice the one before: the "predicted placement" of
the SMG router. Ends of the last messages beside them find a conversation as a whole.
"""

from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from penstock.gateway.limits import PREFIX_LEAST_BYTES, PREFIX_MESSAGES, PREFIX_MOST_BYTES

_NUMBER_BYTES: Final = 8
_STEP_BYTES: Final = 4_096
_MESSAGE: Final = b'{"role"'
"""How most callers write the start of a message. It cannot be inside of a text, where quotes are
escaped; who writes it in another way is found by lengths alone."""


class Prefix(NamedTuple):
    """The beginnings of one prompt."""

    longest_first: tuple[int, ...]
    """By which it is found; none is empty."""
    kept: tuple[int, ...]
    """By which later prompts find it: fewer, since those of earlier messages were kept before."""

    @property
    def home(self) -> int:
        """What stands for the shortest beginning, in all workers and nodes."""
        return self.longest_first[-1]


def read_prefix(
    question: msgspec.Raw, tools: msgspec.Raw | bytes, organization: bytes, key: bytes
) -> Prefix | None:
    """Return how a prompt begins; None when it is short.

    One pass over the first `PREFIX_MOST_BYTES`, and no more than 10 + `PREFIX_MESSAGES` numbers.

    Args:
        question: The messages, or the text, as JSON.
        tools: What templates put before them, as JSON, or nothing.
        organization: Whose prompt it is.
        key: Known to this platform alone.
    """
    size = len(question) + len(tools)
    if size <= PREFIX_LEAST_BYTES:
        return None
    text = bytes(memoryview(tools)[:PREFIX_MOST_BYTES])
    text += bytes(memoryview(question)[: PREFIX_MOST_BYTES - len(text)])
    is_whole = size == len(text)
    ends = _ends(text) if is_whole else []
    # The last byte closes the question: the next turn has another one there.
    steps = ((len(text) - is_whole) // PREFIX_LEAST_BYTES).bit_length()
    lengths = {PREFIX_LEAST_BYTES << step for step in range(steps)}
    whole = ends[0] if ends else None
    least = organization + b"\0" + text[:PREFIX_LEAST_BYTES]
    home = int.from_bytes(blake2b(least, digest_size=_NUMBER_BYTES, key=key).digest())
    found, kept = [home], [home]
    view, at, so_far = memoryview(text), PREFIX_LEAST_BYTES, home
    for end in sorted(lengths.union(ends))[1:]:
        # Python's own hash is keyed by process, and five times as quick. Its steps are the same
        # wherever messages end.
        while at + _STEP_BYTES <= end:
            so_far = hash((so_far, view[at : at + _STEP_BYTES]))
            at += _STEP_BYTES
        number = hash((so_far, view[at:end]))
        found.append(number)
        if end == whole or end in lengths:
            kept.append(number)
    return Prefix(tuple(reversed(found)), tuple(kept))


def _ends(text: bytes) -> list[int]:
    """Return where the last messages end, the last one first, behind the shortest beginning."""
    ends: list[int] = []
    at = len(text)
    while len(ends) <= PREFIX_MESSAGES:
        end = text.rfind(b"}", PREFIX_LEAST_BYTES, at) + 1
        at = text.rfind(_MESSAGE, PREFIX_LEAST_BYTES, end)
        if not end:
            break
        ends.append(end)
        if at < 0:
            break
    return ends
