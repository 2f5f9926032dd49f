"""Texts as tokens, piece by piece: the same tokens as all at once, and nothing of others."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from penstock.node.caches.blocks import pack
from penstock.node.caches.pieces import KEPT_LEAST_CHARS, Pieces

WORDS = "You are a helpful assistant. The caller's words come here, in many languages: Übermut!\n"
SPECIALS = ("<|im_start|>", "<|im_end|>", "<|im_end|>more")


class _Counting:
    """Counts what a tokenizer reads."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.read_chars = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, text: str, **options: Any) -> Any:
        self.read_chars += len(text)
        return self._tokenizer.encode(text, **options)


def _bytes_tokenizer() -> Any:
    """Return one as most models have, of pairs of bytes."""
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*SPECIALS], show_progress=False, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator([WORDS] * 3, trainer)
    return tokenizer


def _words_tokenizer() -> Any:
    """Return one that marks only the first word of all."""
    tokenizer: Any = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=["[UNK]", *SPECIALS], show_progress=False
    )
    tokenizer.train_from_iterator([WORDS] * 3, trainer)
    return tokenizer


BYTES = _bytes_tokenizer()
LONG = WORDS * (KEPT_LEAST_CHARS // len(WORDS) + 1)
_texts = st.lists(
    st.sampled_from([*SPECIALS, LONG, WORDS, " ", "\n", "<|im_"]) | st.text(max_size=20)
).map("".join)


def _whole(tokenizer: Any, text: str) -> bytes:
    return pack(tokenizer.encode(text, add_special_tokens=False).ids)


@settings(max_examples=tries(200))
@given(st.lists(_texts, max_size=4), st.sampled_from([0, 3_000, 1 << 20]))
def test_pieces_are_the_whole(texts: list[str], most_bytes: int) -> None:
    """Whatever is between special tokens, and however much is kept of it."""
    pieces = Pieces(BYTES, most_bytes)
    for text in [*texts, *texts]:
        assert pieces.read(text, "salt") == _whole(BYTES, text)


def test_what_was_read_is_not_read_again() -> None:
    """The next turn of a conversation costs what is new in it."""
    tokenizer = _Counting(BYTES)
    pieces = Pieces(tokenizer)
    turn = f"<|im_start|>{LONG}<|im_end|>\n"
    pieces.read(turn, "salt")
    before = tokenizer.read_chars
    pieces.read(turn + "<|im_start|>new", "salt")
    assert tokenizer.read_chars - before == len("\n") + len("new")


def test_nothing_is_kept_for_others() -> None:
    """With another salt, or none, all is read anew."""
    tokenizer = _Counting(BYTES)
    pieces = Pieces(tokenizer)
    for salt in ("a", "b", None, None):
        before = tokenizer.read_chars
        assert pieces.read(LONG, salt) == _whole(BYTES, LONG)
        assert tokenizer.read_chars - before == len(LONG)


def test_a_tokenizer_that_looks_further_reads_all_at_once() -> None:
    """Where what is before a special token decides what is behind it, texts are not cut."""
    tokenizer = _words_tokenizer()
    pieces = Pieces(tokenizer)
    text = f"{LONG}<|im_end|>{LONG}<|im_start|> {LONG}"
    for _ in range(2):
        assert pieces.read(text, "salt") == _whole(tokenizer, text)


@pytest.mark.parametrize("strips", [{"lstrip": True}, {"rstrip": True}])
def test_special_tokens_that_take_spaces_along_are_no_cuts(strips: dict[str, bool]) -> None:
    """Some take the spaces beside them."""
    tokenizer = _bytes_tokenizer()
    tokenizer.add_special_tokens([AddedToken("<|tool|>", **strips)])
    pieces = Pieces(tokenizer)
    text = f"{LONG}  <|tool|>  {LONG}"
    for _ in range(2):
        assert pieces.read(text, "salt") == _whole(tokenizer, text)


def test_what_is_kept_is_bounded() -> None:
    """The pieces used longest ago are read anew first."""
    tokenizer = _Counting(BYTES)
    one, two = LONG + "1", LONG + "2"
    pieces = Pieces(tokenizer, len(_whole(BYTES, one)) + 300)
    for text in (one, one, two, two, one):
        pieces.read(text, "salt")
    assert len(pieces._kept) == 1
