"""What requests ask for, in the eyes of limits and budgets."""

import json
from typing import Any

import msgspec
import pytest

from penstock.gateway.demand import Demand, cap_tail, read_demand, write_cap
from penstock.gateway.dialects.members import Members
from penstock.gateway.dialects.openai import (
    CAP_MEMBERS,
    CHAT,
    CLASSIFY,
    COMPLETIONS,
    EMBEDDINGS,
    RERANK,
    SCORE,
    UNKNOWN_CAPS,
    Operation,
)
from penstock.gateway.dialects.parts import TEXT_TYPES
from penstock.gateway.limits import INPUT_OVERHEAD_TOKENS, MEDIA_TOKENS, QUESTION_PIECES

_HELLO = [{"role": "user", "content": "hello"}]


def _demand(operation: Operation, **members: Any) -> Demand:
    body = msgspec.json.encode(members)
    raw = msgspec.json.decode(body, type=Members)
    return read_demand(raw, operation, len(body), is_for_money=True)


@pytest.mark.parametrize(
    ("members", "cap"),
    [
        ({}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 7),
        ({"max_tokens": 9, "max_completion_tokens": None}, 9),
    ],
)
def test_the_smallest_cap_that_is_named_counts(members: dict[str, Any], cap: int | None) -> None:
    """Engines differ in which member they obey."""
    assert _demand(CHAT, messages=_HELLO, **members).cap == cap


@pytest.mark.parametrize(
    ("operation", "members", "answers"),
    [
        (CHAT, {"messages": _HELLO}, 1),
        (CHAT, {"messages": _HELLO, "n": 3}, 3),
        (COMPLETIONS, {"prompt": "a", "n": 2, "best_of": 5}, 5),
        (COMPLETIONS, {"prompt": ["a", "b"], "n": 2}, 4),
        (COMPLETIONS, {"prompt": [1, 2, 3]}, 1),
        (COMPLETIONS, {"prompt": [[1, 2], [3]]}, 2),
        (EMBEDDINGS, {"input": ["a", "b"], "n": 3}, 0),
    ],
)
def test_every_answer_counts(operation: Operation, members: dict[str, Any], answers: int) -> None:
    """`n` for each prompt; embeddings have no output."""
    assert _demand(operation, **members).answers == answers


def test_media_are_held_to_be_large() -> None:
    """Whatever is not text may be more tokens than it has bytes, also when it is written oddly."""
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    parts = [{"type": "text", "text": "what is it?"}, image, image]
    body = json.dumps({"messages": [{"role": "user", "content": parts}]})
    odd = body.replace("image_url", "\\u0069mage_url")
    for written in (body, odd):
        raw = msgspec.json.decode(written.encode(), type=Members)
        demand = read_demand(raw, CHAT, len(written), is_for_money=True)
        assert demand.most_input_tokens == len(written) + INPUT_OVERHEAD_TOKENS + 2 * MEDIA_TOKENS


def test_what_has_too_many_pieces_is_not_taken_apart() -> None:
    """A body that is nothing but pieces counts as many, without a look at each."""
    many = QUESTION_PIECES + 1
    messages = b"[" + b"{}," * many + b'{"content":[]}]'
    demand = read_demand(
        {"messages": msgspec.Raw(messages)}, CHAT, len(messages), is_for_money=True
    )
    assert demand.most_input_tokens > many * MEDIA_TOKENS
    for piece, answers in ((b'"a"', many + 1), (b"1", 1)):
        prompts = {"prompt": msgspec.Raw(b"[" + (piece + b",") * many + piece + b"]")}
        assert read_demand(prompts, COMPLETIONS, 0, is_for_money=False).answers == answers


def test_messages_of_an_unknown_form_are_held_to_be_media() -> None:
    """Rather too much than too little, however much white space there is."""
    messages = [{"role": "user", "content": {"type": "text"}}]
    assert _demand(CHAT, messages=messages).most_input_tokens > 2 * MEDIA_TOKENS
    for indent in (None, 1):
        spaced = json.dumps(messages, indent=indent).encode()
        demand = read_demand(
            {"messages": msgspec.Raw(spaced)}, CHAT, len(spaced), is_for_money=True
        )
        assert demand.most_input_tokens > 2 * MEDIA_TOKENS


def test_media_in_parts_of_a_chats_parts_are_held() -> None:
    """What has parts of its own is held to be as many media as it has objects at least."""
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    result = {"type": "tool_result", "content": [image, image, image]}
    demand = _demand(CHAT, messages=[{"role": "user", "content": [result]}])
    assert demand.most_input_tokens > 3 * MEDIA_TOKENS


def test_parts_that_are_only_text_are_held_by_their_size() -> None:
    """Also where a chat has them in the words of other protocols."""
    parts = [{"type": name, "text": "x"} for name in sorted(TEXT_TYPES)]
    demand = _demand(CHAT, messages=[{"role": "user", "content": parts}])
    assert demand.most_input_tokens == demand.body_bytes + INPUT_OVERHEAD_TOKENS


@pytest.mark.parametrize(
    ("operation", "members", "pairs"),
    [
        (RERANK, {"query": "q" * 500, "documents": ["a"] * 100}, 100),
        (RERANK, {"query": "q" * 500, "documents": {"content": [{"type": "text"}] * 9}}, 9),
        (RERANK, {"query": "q" * 500, "documents": ["a"]}, 1),
        (SCORE, {"text_1": "q" * 500, "text_2": ["a", "b", "c"]}, 3),
        (SCORE, {"documents": ["a", "b"], "queries": ["q" * 500]}, 2),
        (SCORE, {"items": [], "query": "q" * 500}, 1),
    ],
)
def test_a_text_counts_in_each_of_its_pairs(
    operation: Operation, members: dict[str, Any], pairs: int
) -> None:
    """Engines read a query anew for each document, with the words around it."""
    demand = _demand(operation, **members)
    more = demand.most_input_tokens - demand.body_bytes - INPUT_OVERHEAD_TOKENS
    least = (pairs - 1) * (500 + INPUT_OVERHEAD_TOKENS)
    assert least <= more <= least + 4 * pairs


def test_texts_that_are_paired_one_by_one_count_once() -> None:
    """Then each is in one pair; only what stands around a pair is there for each."""
    demand = _demand(SCORE, text_1=["q" * 500] * 3, text_2=["a", "b", "c"])
    assert demand.most_input_tokens == demand.body_bytes + 3 * INPUT_OVERHEAD_TOKENS


_IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
_SEEN = {"content": [{"type": "text", "text": "a {"}, _IMAGE]}


@pytest.mark.parametrize(
    ("operation", "members", "media"),
    [
        (EMBEDDINGS, {"input": "a", "messages": [{"role": "user"} | _SEEN]}, 1),
        (EMBEDDINGS, {"input": ["{", {"image": "https://example.org/a.png"}, {"text": "{"}]}, 1),
        (EMBEDDINGS, {"input": [[1, 2], [3]], "inputs": [_SEEN, {"content": "{"}]}, 1),
        (EMBEDDINGS, {"input": ['{"image": "x"}', "{}"] * 9}, 0),
        (CLASSIFY, {"input": [_IMAGE, {"type": "text", "text": "a"}]}, 1),
        (CLASSIFY, {"input": [{"type": "new", "content": [_IMAGE, _IMAGE]}]}, 5),
        (COMPLETIONS, {"prompt": {"prompt_string": "a", "multimodal_data": ["b", "c"]}}, 3),
        (COMPLETIONS, {"prompt": [[{"image": "x"}]]}, 4),
        (RERANK, {"query": "a", "documents": [_SEEN, "b {", {"text": "c"}, _SEEN]}, 2),
        (RERANK, {"query": "a", "documents": {"content": [_IMAGE, _IMAGE]}}, 2),
        (RERANK, {"query": _SEEN, "documents": ["a", "b", "c"]}, 3),
        (RERANK, {"query": _SEEN, "documents": [_SEEN] * 10}, 20),
        (SCORE, {"data_1": [_SEEN], "data_2": ["a", "b"]}, 2),
        (SCORE, {"data_1": [_SEEN, _SEEN], "data_2": ["a", "b"]}, 2),
        (SCORE, {"queries": {"image": "x"}, "items": {"content": [{"type": "text"}] * 2}}, 2),
    ],
)
def test_media_are_held_to_be_large_whatever_is_asked_for(
    operation: Operation, members: dict[str, Any], media: int
) -> None:
    """By the rule for chats, and once for each pair that one is in."""
    demand = _demand(operation, **members)
    assert demand.most_input_tokens // MEDIA_TOKENS == media


def test_what_has_too_many_objects_is_not_looked_at() -> None:
    """Nor what is none of the forms that are known; rather too much is held than too little."""
    many = QUESTION_PIECES + 1
    documents = b"[" + b'{"a":"b"},' * many + b'{"content":[1]}]'
    raw = {"query": msgspec.Raw(b'"a"'), "documents": msgspec.Raw(documents)}
    demand = read_demand(raw, RERANK, len(documents), is_for_money=True)
    assert demand.most_input_tokens > many * MEDIA_TOKENS
    odd = _demand(RERANK, query="a", documents=[{"content": {"image": "x"}}])
    assert odd.most_input_tokens > MEDIA_TOKENS


def test_tools_count_twice() -> None:
    """Templates write them in a longer form."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    plain, equipped = _demand(CHAT, messages=_HELLO), _demand(CHAT, messages=_HELLO, tools=tools)
    assert (
        equipped.most_input_tokens - equipped.body_bytes
        == plain.most_input_tokens - plain.body_bytes + len(msgspec.json.encode(tools))
    )


@pytest.mark.parametrize(
    ("members", "written"),
    [
        ({}, {"max_tokens": 5}),
        ({"max_tokens": None}, {"max_tokens": 5}),
        ({"max_tokens": 100}, {"max_tokens": 5}),
        ({"max_completion_tokens": 100}, {"max_completion_tokens": 5}),
        (
            {"max_tokens": 90, "max_completion_tokens": 100},
            {"max_tokens": 5, "max_completion_tokens": 5},
        ),
        ({"n_predict": 100, "num_predict": 100, "max_new_tokens": 9}, {"max_tokens": 5}),
        ({"temperature": 0.5, "n_cmpl": 9}, {"temperature": 0.5, "max_tokens": 5}),
    ],
)
def test_a_cap_is_written_where_it_is_obeyed(
    members: dict[str, Any], written: dict[str, Any]
) -> None:
    """Into the members that were used; other ways to ask for more are gone, the rest stays."""
    body = msgspec.json.encode({"messages": _HELLO} | members)
    assert msgspec.json.decode(write_cap(body, 5)) == {"messages": _HELLO} | written


def test_a_cap_is_appended_where_none_is_named() -> None:
    """The quick way writes the same as the thorough one."""
    body = msgspec.json.encode({"model": "m", "messages": _HELLO})
    assert body[:-1] + cap_tail(7) == write_cap(body, 7)


@pytest.mark.parametrize("name", [*CAP_MEMBERS, *sorted(UNKNOWN_CAPS)])
@pytest.mark.parametrize("value", ["5", "null"])
def test_a_member_that_names_the_most_is_noticed(name: str, value: str) -> None:
    """Also one that says nothing: a second one must not stand beside it."""
    members: Members = {
        "messages": msgspec.Raw(msgspec.json.encode(_HELLO)),
        name: msgspec.Raw(value.encode()),
    }
    assert not read_demand(members, CHAT, 100, is_for_money=True).names_nothing
