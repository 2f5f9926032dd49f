"""The form of API keys: what is one, and what a slip of the finger makes of it."""

import random

from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.access.rules import create_key, find_key_id, format_key, replace_secret
from penstock.kit.base62 import ALPHABET

IDS = st.text(ALPHABET, min_size=12, max_size=12)
SECRETS = st.text(ALPHABET, min_size=32, max_size=32)
ANYTHING = st.characters(codec="utf-8")


@given(key_id=IDS, secret=SECRETS, is_live=st.booleans())
def test_what_was_formatted_is_found(key_id: str, secret: str, *, is_live: bool) -> None:
    """The id comes out of a key as it went in."""
    key = format_key(key_id, secret, is_live=is_live)
    assert find_key_id(key) == key_id
    assert key.startswith("ps_live_" if is_live else "ps_test_")
    assert len(key) == 59


@given(key_id=IDS, secret=SECRETS, place=st.integers(0, 58), char=ANYTHING)
def test_one_other_character_makes_it_no_key(
    key_id: str, secret: str, place: int, char: str
) -> None:
    """A key with any one character replaced fails its form or its checksum."""
    key = format_key(key_id, secret)
    assume(key[place] != char)
    assert find_key_id(key[:place] + char + key[place + 1 :]) is None


@given(key_id=IDS, secret=SECRETS, place=st.integers(0, 59), char=ANYTHING)
def test_one_character_more_or_less_makes_it_no_key(
    key_id: str, secret: str, place: int, char: str
) -> None:
    """A key with a character put in, or left out, is none."""
    key = format_key(key_id, secret)
    assert find_key_id(key[:place] + char + key[place:]) is None
    if place < len(key):
        assert find_key_id(key[:place] + key[place + 1 :]) is None


@given(key_id=IDS, secret=SECRETS, place=st.integers(8, 57))
def test_two_characters_swapped_make_it_no_key(key_id: str, secret: str, place: int) -> None:
    """A key with two neighbours swapped is none."""
    key = format_key(key_id, secret)
    assume(key[place] != key[place + 1])
    swapped = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    assert find_key_id(swapped) is None


@given(text=st.text(max_size=80))
def test_any_text_is_no_key(text: str) -> None:
    """Text that we did not format is no key, and breaks nothing."""
    assert find_key_id(text) is None


@given(seed=st.integers(), is_live=st.booleans())
def test_a_new_secret_keeps_the_id(seed: int, *, is_live: bool) -> None:
    """A rotated key has the same id, another text and the same kind."""
    choose = random.Random(seed).choice
    old = create_key(is_live=is_live, choose=choose)
    key_id = find_key_id(old)
    assert key_id is not None
    new = replace_secret(key_id, is_live=is_live, choose=choose)
    assert find_key_id(new) == key_id
    assert new != old
    assert new[:21] == old[:21]
