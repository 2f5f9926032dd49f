"""Texts as tokens, piece by piece: what was read before need not be read again.

A conversation comes again with each turn, and many begin with the same instructions. Tokenizers cut
a text at their special tokens first, so what lies between two of them has the same tokens wherever
it stands; whether that holds is tried out when a tokenizer is loaded. Pieces are kept by hashes,
for their organization alone.

Text that is tokenized anew goes at some 3 MB/s, so that this decides whether a long prompt has its
tokens in time.
"""

import re
from collections import OrderedDict
from hashlib import blake2b
from typing import Any, Final

from penstock.node.caches.blocks import pack

KEPT_BYTES: Final = 64 * 1024 * 1024
"""Of tokens and their names, for each tokenizer; what was used longest ago goes first."""
KEPT_LEAST_CHARS: Final = 256
"""Shorter pieces are read anew."""
_NAME_BYTES, _KEY_BYTES = 16, 64
_ENTRY_BYTES: Final = 256
"""What an entry takes beside its tokens."""
_PROBES: Final = (("Hello world ", " Hello\n"), ("\n a", "b "), ("", "x"), ("Ünï", "  y\t"))


class Pieces:
    """Turns texts into tokens.

    Args:
        tokenizer: The model's.
        most_bytes: How much is kept.
    """

    def __init__(self, tokenizer: Any, most_bytes: int = KEPT_BYTES) -> None:
        """See the class."""
        self._tokenizer = tokenizer
        self._left = most_bytes
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._specials = _find_specials(tokenizer)
        self._cut = _cut_at(self._specials)
        if self._cut is not None and not all(map(self._can_cut, self._specials)):
            self._cut = None

    def read(self, text: str, salt: str | None) -> bytes:
        """Return the tokens of a text, packed; none is added in front of it or behind.

        Args:
            text: The text.
            salt: What keeps its organization's prompts apart. With another one, or none, nothing is
                found of it: nobody learns from how long it takes what others asked.
        """
        if self._cut is None or not salt:
            return self._encode(text)
        key = salt.encode(errors="surrogatepass")[:_KEY_BYTES]
        found = []
        for at, piece in enumerate(self._cut.split(text)):
            if at % 2:
                found.append(self._specials[piece])
            elif len(piece) < KEPT_LEAST_CHARS:
                found.append(self._encode(piece) if piece else b"")
            else:
                found.append(self._read_piece(piece, key))
        return b"".join(found)

    def _read_piece(self, piece: str, key: bytes) -> bytes:
        content = piece.encode(errors="surrogatepass")
        name = blake2b(content, digest_size=_NAME_BYTES, key=key).digest()
        tokens = self._kept.get(name)
        if tokens is not None:
            self._kept.move_to_end(name)
            return tokens
        tokens = self._encode(piece)
        self._kept[name] = tokens
        self._left -= len(tokens) + _ENTRY_BYTES
        while self._left < 0:
            self._left += len(self._kept.popitem(last=False)[1]) + _ENTRY_BYTES
        return tokens

    def _encode(self, text: str) -> bytes:
        return pack(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _can_cut(self, special: str) -> bool:
        """Try out whether a text has the same tokens as what is before and behind its special."""
        return all(
            self._encode(before + special + behind)
            == self._encode(before) + self._specials[special] + self._encode(behind)
            for before, behind in _PROBES
        )


def _find_specials(tokenizer: Any) -> dict[str, bytes]:
    added = tokenizer.get_added_tokens_decoder()
    return {each.content: pack([number]) for number, each in added.items() if each.special}


def _cut_at(specials: dict[str, bytes]) -> "re.Pattern[str] | None":
    """Return what finds special tokens, longer ones before those that they begin with."""
    if not specials:
        return None
    return re.compile(f"({'|'.join(map(re.escape, sorted(specials, key=len, reverse=True)))})")
