"""Events of KV caches, as servers write them and as nobody should."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.fakes.effort import tries

from penstock.emulator.kv_cache import AllBlocksCleared, BlockRemoved, BlockStored
from penstock.engines.kv_events import (
    END,
    MAX_BATCH_BYTES,
    MAX_EVENTS,
    Batch,
    Cleared,
    Removed,
    Stored,
    read_batch,
    read_number,
)

encode = msgspec.msgpack.encode
STORED = BlockStored([7, 8], 6, list(range(4)), 2, None, "GPU", None, [("salt",), None])


def _array(event: Any, *more: object) -> list[Any]:
    return [type(event).__name__, *msgspec.structs.astuple(event), *more]


def _batch(*events: object, rank: object = 3) -> bytes:
    return encode([12.5, events, rank])


def _only(content: bytes) -> Any:
    batch = read_batch(content)
    assert batch is not None
    (event,) = batch.events
    return event


@pytest.mark.parametrize("write", [lambda event: event, _array])
def test_both_forms_of_events_say_the_same(write: Any) -> None:
    """Maps are read as arrays are."""
    events: list[Any] = [STORED, BlockRemoved([7], None), AllBlocksCleared()]
    batch = read_batch(_batch(*(write(event) for event in events)))
    stored = Stored([7, 8], 6, [0, 1, 2, 3], 2, "", [encode(["salt"]), b""], None)
    assert batch == Batch(12.5, [stored, Removed([7], None), Cleared()], 3, 0)


def test_batches_are_arrays_or_maps() -> None:
    """The rank may lack: it is the first one's then."""
    bare = {"ts": 1.0, "events": [AllBlocksCleared()], "new": {}}
    assert read_batch(encode(bare)) == Batch(1.0, [Cleared()], 0, 0)
    assert read_batch(encode(bare | {"data_parallel_rank": 2})) == Batch(1.0, [Cleared()], 2, 0)
    assert read_batch(encode([1, [AllBlocksCleared()]])) == Batch(1.0, [Cleared()], 0, 0)
    assert read_batch(encode([1, [], None, "more"])) == Batch(1.0, [], 0, 0)


def test_what_is_not_known_is_passed_over() -> None:
    """Other events, members and elements take nothing from those that are known."""
    more = msgspec.to_builtins(STORED) | {"session_id": "s", "kv_cache_spec_kind": "full"}
    events: tuple[Any, ...] = (
        {"type": "Later"},
        ["Later", 1],
        more,
        _array(STORED, 0, "kind", 9),
        5,
        None,
        [],
    )
    batch = read_batch(_batch(*events))
    assert batch is not None
    assert batch.passed_count == 5
    first, second = batch.events
    assert first == second


def test_older_forms_are_read() -> None:
    """Hashes may be bytes; what later versions say besides may lack."""
    event = _only(_batch(["BlockStored", [b"h" * 32], None, [1, 2], 2, None]))
    assert event == Stored([b"h" * 32], None, [1, 2], 2, "", None, None)
    assert _only(_batch(["BlockRemoved", [-1]])) == Removed([-1], None)


def test_adapters_keep_blocks_apart() -> None:
    """By name; where only a number is said, as something that nobody asks for."""
    named = ["BlockStored", [1], None, [1], 1, 4, "GPU", "sql"]
    assert _only(_batch(named)).adapter == "sql"
    numbered = _only(_batch(named[:6])).adapter
    assert numbered
    assert numbered != "4"


def test_other_places_are_told_apart() -> None:
    """Blocks of host memory, or of another group of layers, are not those of the GPU."""
    assert _only(_batch(["BlockRemoved", [1], "CPU"])).place == ("CPU", 0)
    assert _only(_batch(["BlockRemoved", [1], "GPU", 2])).place == ("GPU", 2)
    assert _only(_batch(["BlockRemoved", [1], "GPU", 0])).place is None


@pytest.mark.parametrize(
    "changed",
    [
        {"token_ids": [1, 2, 3]},
        {"token_ids": [1, 2, 3, -4]},
        {"token_ids": [1, 2, 3, 2**32]},
        {"block_size": 0},
        {"block_hashes": [b"h" * 65, 8]},
        {"block_hashes": ["7", 8]},
        {"extra_keys": [None]},
        {"medium": "m" * 2000},
    ],
)
def test_events_that_make_no_sense_are_none(changed: dict[str, object]) -> None:
    """Others of their batch count nevertheless."""
    event = msgspec.to_builtins(STORED) | changed
    batch = read_batch(_batch(event, AllBlocksCleared()))
    assert batch == Batch(12.5, [Cleared()], 3, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        b"\x93",
        encode(None),
        encode([1, 2, 3]),
        encode(["now", []]),
        encode([float("nan"), []]),
        encode([float("-inf"), []]),
        _batch(rank=-1),
        _batch(rank=5000),
        encode([1, [None] * (MAX_EVENTS + 1)]),
        b"\x91" * 100_000,
        encode([1, [b"x" * MAX_BATCH_BYTES]]),
    ],
)
def test_batches_that_make_no_sense_are_none(content: bytes) -> None:
    """Whatever is sent, nothing is raised."""
    assert read_batch(content) is None


_values = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=80) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)
_names = st.sampled_from([*(field for field in BlockStored.__struct_fields__), "type", "x"])
_kinds = st.sampled_from(["BlockStored", "BlockRemoved", "AllBlocksCleared", "Else"])
_events = (
    st.tuples(_kinds, st.lists(_values, max_size=10)).map(lambda told: [told[0], *told[1]])
    | st.tuples(_kinds, st.dictionaries(_names, _values)).map(
        lambda told: told[1] | {"type": told[0]}
    )
    | _values
)


@settings(max_examples=tries(400))
@given(st.lists(_events, max_size=5), st.data())
def test_nothing_that_is_sent_raises(events: list[Any], data: st.DataObject) -> None:
    """Neither values of wrong types nor broken bytes; what is read fits together."""
    content = bytearray(_batch(*events, rank=data.draw(st.none() | st.integers(-1, 2000))))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    batch = read_batch(bytes(content[: data.draw(st.integers(0, len(content)))]))
    for event in batch.events if batch is not None else ():
        if isinstance(event, Stored):
            assert len(event.tokens) == len(event.hashes) * event.block_size
            assert event.extras is None or len(event.extras) == len(event.hashes)


@given(st.binary(max_size=10) | st.binary(min_size=8, max_size=8))
@example(END)
@example(b"\x7f" + b"\xff" * 7)
def test_the_number_behind_a_number_can_be_asked_for(written: bytes) -> None:
    """Whatever is sent as a number; what ends an answer is none."""
    number = read_number(written)
    if number is None:
        assert len(written) != 8 or written[0] >= 0x80
    else:
        assert number.to_bytes(8, "big") == written
        assert (number + 1).to_bytes(8, "big")
