"""The cache of prefixes that the emulator plays, and the events by which it is told of.

Text is cut as its tokens are counted, into pieces of four characters; a prompt's full blocks of
tokens are kept, the longest unused ones go first. Hashes are of the whole prefix up to a block's
end, and of what keeps caches apart (`cache_salt`).

Source: wire forms of vLLM's and SGLang's `kv_events`.
"""

from collections import OrderedDict
from hashlib import sha256
from typing import Any, TypeAlias
from zlib import crc32

import msgspec

from penstock.emulator.generation import CHARACTERS_PER_TOKEN

BLOCK_TOKENS = 16
_VOCABULARY = 128_000
_MEDIUM = "GPU"


class BlockStored(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Blocks that follow one another were put into the cache."""

    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None
    lora_name: str | None
    extra_keys: list[tuple[str, ...] | None] | None = None
    """What is hashed beside the tokens, by block: the salt, in the first one."""


class BlockRemoved(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Blocks had to go."""

    block_hashes: list[int]
    medium: str | None


class AllBlocksCleared(msgspec.Struct, frozen=True, tag=True):
    """The cache is empty."""


Event: TypeAlias = BlockStored | BlockRemoved | AllBlocksCleared


class _Message(msgspec.Struct):
    content: Any = None


class _Prompt(msgspec.Struct):
    messages: list[_Message] = []
    prompt: Any = None
    input: Any = None
    cache_salt: str | None = None


_decode_prompt = msgspec.json.Decoder(_Prompt).decode


class KvCache:
    """Blocks of prompts.

    Args:
        most_blocks: How many it holds.
        tells_salts: Whether events say by which salt caches are kept apart; SGLang's do not.
    """

    def __init__(self, most_blocks: int, *, tells_salts: bool) -> None:
        """See the class."""
        self._most_blocks = most_blocks
        self._tells_salts = tells_salts
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self.known_tokens = 0
        """How many tokens of the last prompt it had before."""

    def read(self, body: bytes) -> list[Event]:
        """Take in what a request asks; return what became of the cache by it.

        Args:
            body: Of a request; one without a prompt changes nothing.
        """
        self.known_tokens = 0
        try:
            prompt = _decode_prompt(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        text = "".join(str(message.content) for message in prompt.messages)
        text = text or str(prompt.prompt or prompt.input or "")
        return self._store(_tokens(text), prompt.cache_salt)

    def clear(self) -> list[Event]:
        """Forget all blocks."""
        self._blocks.clear()
        return [AllBlocksCleared()]

    def _store(self, tokens: list[int], salt: str | None) -> list[Event]:
        parent, known = None, 0
        new: list[int] = []
        for end in range(BLOCK_TOKENS, len(tokens) + 1, BLOCK_TOKENS):
            block = tuple(tokens[end - BLOCK_TOKENS : end])
            key = _hash(new[-1] if new else parent, block, salt)
            if key in self._blocks and not new:
                self._blocks.move_to_end(key)
                parent, known = key, known + 1
            else:
                new.append(key)
        self.known_tokens = known * BLOCK_TOKENS
        new = new[: self._most_blocks]
        if not new:
            return []
        for key in new:  # one whose beginning had to go is there already, and was used just now
            self._blocks[key] = None
            self._blocks.move_to_end(key)
        gone = [
            self._blocks.popitem(last=False)[0]
            for _ in range(len(self._blocks) - self._most_blocks)
        ]
        first = self.known_tokens
        extra_keys: list[tuple[str, ...] | None] | None = None
        if salt and self._tells_salts:
            extra_keys = [(salt,) if not known and not at else None for at in range(len(new))]
        stored = BlockStored(
            block_hashes=new,
            parent_block_hash=parent,
            token_ids=tokens[first : first + len(new) * BLOCK_TOKENS],
            block_size=BLOCK_TOKENS,
            lora_id=None,
            medium=_MEDIUM,
            lora_name=None,
            extra_keys=extra_keys,
        )
        return [BlockRemoved(gone, _MEDIUM), stored] if gone else [stored]


def _tokens(text: str) -> list[int]:
    pieces = range(0, len(text), CHARACTERS_PER_TOKEN)
    return [
        crc32(text[at : at + CHARACTERS_PER_TOKEN].encode(errors="replace")) % _VOCABULARY
        for at in pieces
    ]


def _hash(parent: int | None, tokens: tuple[int, ...], salt: str | None) -> int:
    """Return a number of 63 bits, which every form of integers holds."""
    content = repr((parent, tokens, salt)).encode()
    return int.from_bytes(sha256(content).digest()[:8], "big") >> 1
