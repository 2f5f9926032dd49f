"""How prompts begin: which of them are found to begin alike."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.gateway.limits import PREFIX_LEAST_BYTES, PREFIX_MESSAGES, PREFIX_MOST_BYTES
from penstock.gateway.prefix import Prefix, read_prefix

KEY = b"k" * 32
Messages = list[dict[str, object]]
_texts = st.text(max_size=1_500) | st.sampled_from(['{"role"', "}", "}, {", 'a"}],' * 300])
_messages = st.lists(
    st.builds(
        lambda role, text, is_list: {
            "role": role,
            "content": [{"type": "text", "text": text}] if is_list else text,
        },
        st.sampled_from(("system", "user", "assistant", "tool")),
        _texts,
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)
_separators = st.sampled_from(((",", ":"), (", ", ": ")))


def _read(
    question: object,
    *,
    tools: object = None,
    organization: bytes = b"org-a",
    key: bytes = KEY,
    separators: tuple[str, str] = (",", ":"),
) -> Prefix | None:
    raw = [
        msgspec.Raw(json.dumps(each, separators=separators).encode()) if each else b""
        for each in (question, tools)
    ]
    assert isinstance(raw[0], msgspec.Raw)
    return read_prefix(raw[0], raw[1], organization, key)


def _sure(prefix: Prefix | None) -> Prefix:
    assert prefix is not None
    return prefix


def _shared(one: Prefix, other: Prefix) -> int:
    """Return how many beginnings of one find the other."""
    return len(set(other.longest_first) & set(one.kept))


def _user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


@given(_messages, _messages, _separators)
def test_the_next_turn_finds_the_whole_of_the_one_before(
    before: Messages, new: Messages, separators: tuple[str, str]
) -> None:
    """Whatever is in it, as long as the caller goes on as it began and with few messages."""
    first = _read(before, separators=separators)
    after = _read(before + new[:PREFIX_MESSAGES], separators=separators)
    if first is not None:
        assert first.kept[-1] in _sure(after).longest_first
        assert set(first.kept) <= set(_sure(after).longest_first)


@pytest.mark.parametrize("size", [1_024, 2_048, 4_096])
@pytest.mark.parametrize("off", [-1, 0, 1, 2])
def test_a_prompt_as_long_as_a_length_is_found(size: int, off: int) -> None:
    """What closes it is no part of any beginning: another byte follows in the next turn."""
    around = len(json.dumps(_user(""), separators=(",", ":")))
    messages = _user("s" * (size + off - around))
    first = _read(messages, separators=(",", ":"))
    after = _read(messages + _user("more"), separators=(",", ":"))
    if first is None:
        assert size + off <= 1_024
    else:
        assert set(first.kept) <= set(_sure(after).longest_first)


def test_lengths_find_what_has_only_a_beginning_in_common() -> None:
    """Of 5,000 equal bytes 1, 2 and 4 KiB are found, and nothing that is longer."""
    one, other = (_sure(_read(_user("s" * 5_000 + text * 9_000))) for text in "ab")
    assert _shared(one, other) == 3
    assert one.home == other.home
    assert one.longest_first[-3:] == other.longest_first[-3:]
    texts = [_sure(_read("s" * 2_500 + text * 99)) for text in "ab"]
    assert _shared(*texts) == 2, "text as well"


def test_tools_come_first() -> None:
    """Templates put them before the messages: the same messages behind others begin otherwise."""
    tools = [{"type": "function", "function": {"name": "f" * 2_000}}]
    plain, one, other = (
        _sure(_read(_user("s" * 3_000 + text), tools=each))
        for text, each in (("a", None), ("b", tools), ("c", tools))
    )
    assert _shared(plain, one) == 0
    assert _shared(one, other) == 3


def test_organizations_have_nothing_in_common() -> None:
    """The same bytes of another organization, or under another key, are other beginnings."""
    question = _user("s" * 9_000)
    own = _sure(_read(question))
    assert _read(question) == own
    for other in (_read(question, organization=b"org-b"), _read(question, key=b"o" * 32)):
        assert not set(own.longest_first) & set(_sure(other).longest_first)


def test_short_prompts_have_none() -> None:
    """Up to 1 KiB, of tools and messages together, nothing is looked at."""
    least = PREFIX_LEAST_BYTES + 1 - len(json.dumps(_user(""), separators=(",", ":")))
    assert _read(_user("s" * (least - 1))) is None
    assert len(_sure(_read(_user("s" * least))).longest_first) == 1


def test_the_work_is_bounded() -> None:
    """However long a prompt is, and whatever is in it, few beginnings are made of it."""
    most = 10 + PREFIX_MESSAGES
    for text in ("s", '{"role"', "}", '"}'):
        for count in (20_000, PREFIX_MOST_BYTES * 2):
            prefix = _sure(_read(_user(text * count)))
            assert len(prefix.longest_first) <= most
    many = _user("s" * 900) * 100
    assert len(_sure(_read(many)).longest_first) <= most
    same = [_sure(_read(_user("s" * PREFIX_MOST_BYTES + text))) for text in "ab"]
    assert same[0] == same[1], "what is behind is not looked at"
