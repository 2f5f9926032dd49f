"""What a node's processes tell one another in parts."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.links import make_link

from penstock.contract.caches import EngineFigures, Figures, Follow, FollowedEngine, FollowedModel
from penstock.contract.node import (
    ContextLengths,
    EngineLoads,
    LoadedAdapters,
    NotReady,
)
from penstock.contract.node_parts import MAX_PARTS, AnyListing, Parts, split

_TEXTS = st.text(max_size=30)
_NAMES = st.tuples(_TEXTS, _TEXTS)
_COUNTS = st.integers(0, 2**40)
_FIGURES = st.none() | st.floats(0, 1)


def _list(entries: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(entries, max_size=30).map(tuple)


_LISTINGS = (
    st.builds(NotReady, _list(_NAMES), st.floats(0, 9))
    | st.builds(
        EngineLoads,
        _list(st.tuples(_TEXTS, _TEXTS, _FIGURES, _FIGURES, _FIGURES)),
        st.floats(0, 9),
    )
    | st.builds(ContextLengths, _list(st.tuples(_TEXTS, _TEXTS, _COUNTS)))
    | st.builds(
        LoadedAdapters,
        _list(st.tuples(_TEXTS, _TEXTS, st.lists(_TEXTS, max_size=3).map(tuple))),
        _list(_NAMES),
    )
    | st.builds(
        Follow,
        _list(st.builds(FollowedEngine, _TEXTS, _TEXTS, _TEXTS, st.just((5557,)))),
        _list(st.builds(FollowedModel, _TEXTS, _TEXTS, _TEXTS)),
    )
    | st.builds(
        Figures, _list(st.builds(EngineFigures, _TEXTS, _TEXTS, st.booleans(), *[_COUNTS] * 6))
    )
)


@given(messages=st.lists(_LISTINGS, max_size=3), most_bytes=st.integers(1_000, 5_000))
def test_parts_are_what_was_said(messages: list[AnyListing], most_bytes: int) -> None:
    """Whatever is told, no part is longer than it may be, and the last one brings all of it."""
    parts = Parts()
    for message in messages:
        pieces = split(message, most_bytes)
        assert all(len(msgspec.msgpack.encode(piece)) <= most_bytes + 100 for piece in pieces)
        assert [parts.join(piece) for piece in pieces] == [None] * (len(pieces) - 1) + [message]


def test_a_link_takes_any_number_of_endpoints() -> None:
    """What is longer than a message may be arrives all the same, and the connection is whole."""
    endpoints = tuple(
        (f"upstream-{number % 90}", f"http://model-{number}.inference.svc.cluster.local:8000/v1",
         8.0, 0.5, 0.25)
        for number in range(90_000)
    )  # fmt: skip
    message = EngineLoads(endpoints, 30.0)
    writer, link = make_link(0, 1)
    link.send(message)
    link.send(EngineLoads((), 30.0))
    *pieces, short = writer.messages
    parts = Parts()
    joined = [parts.join(piece) for piece in pieces if isinstance(piece, EngineLoads)]
    assert len(joined) > 1
    assert joined[-1] == message
    assert short == EngineLoads((), 30.0)


def test_parts_have_a_bound() -> None:
    """More than anybody needs is left out, and refused where somebody sends it all the same."""
    message = NotReady(tuple(("upstream", f"http://{number:050}") for number in range(500)), 9.0)
    pieces = split(message, most_bytes=100)
    assert len(pieces) == MAX_PARTS
    assert [piece.is_last for piece in pieces] == [False] * (MAX_PARTS - 1) + [True]
    parts = Parts()
    for piece in pieces[:-1]:
        assert parts.join(piece) is None
    assert parts.join(msgspec.structs.replace(pieces[-1], is_last=False)) is None
    with pytest.raises(msgspec.ValidationError, match="more than 32 parts"):
        parts.join(pieces[0])
