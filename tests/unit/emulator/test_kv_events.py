"""Events of the emulated cache, read as a router's index would read them."""

from typing import Any, Literal

import msgspec
import pytest
import zmq
import zmq.asyncio
from tests.unit.emulator.peer import MODEL, Peer, connect, on_uvloop, request_bytes, start

from penstock.emulator.kinds import Kind
from penstock.emulator.kv_cache import (
    BLOCK_TOKENS,
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    Event,
    KvCache,
)
from penstock.emulator.settings import EmulatorSettings

BLOCK = 4 * BLOCK_TOKENS
"""Characters of a block."""
END = b"\xff" * 8
SOON_MS = 20_000


def _body(prompt: str, **members: object) -> bytes:
    return msgspec.json.encode({"model": MODEL, "prompt": prompt, "max_tokens": 1, **members})


def _stored(events: list[Event]) -> BlockStored:
    (event,) = events
    assert isinstance(event, BlockStored)
    return event


def test_a_prompts_full_blocks_are_stored_once() -> None:
    """What a longer prompt begins with is there already: only the rest is told, behind it."""
    cache = KvCache(100, tells_salts=True)
    first = _stored(cache.read(_body("a" * (2 * BLOCK + 5))))
    assert (len(first.block_hashes), first.parent_block_hash) == (2, None)
    assert (len(first.token_ids), first.block_size) == (2 * BLOCK_TOKENS, BLOCK_TOKENS)
    assert first.extra_keys is None
    assert cache.read(_body("a" * 2 * BLOCK)) == []
    longer = _stored(cache.read(_body("a" * 2 * BLOCK + "b" * BLOCK)))
    assert longer.parent_block_hash == first.block_hashes[-1]
    assert (len(longer.block_hashes), len(longer.token_ids)) == (1, BLOCK_TOKENS)
    chat = {"messages": [{"role": "user", "content": "a" * BLOCK}]}
    assert cache.read(msgspec.json.encode(chat)) == []
    assert cache.read(b"no JSON") == cache.read(_body("short")) == []


def test_salts_keep_prompts_apart() -> None:
    """The same prompt with another salt has other blocks; vLLM says by which, in the first one."""
    cache = KvCache(100, tells_salts=True)
    plain, salted = (
        _stored(cache.read(_body("a" * 2 * BLOCK, **salt))) for salt in ({}, {"cache_salt": "s"})
    )
    assert set(plain.block_hashes).isdisjoint(salted.block_hashes)
    assert plain.token_ids == salted.token_ids
    assert salted.extra_keys == [("s",), None]
    silent = KvCache(100, tells_salts=False)
    assert _stored(silent.read(_body("a" * BLOCK, cache_salt="s"))).extra_keys is None


def test_the_longest_unused_blocks_go_first() -> None:
    """A full cache lets go of what was asked for longest ago."""
    cache = KvCache(2, tells_salts=True)
    a, b = (_stored(cache.read(_body(letter * BLOCK))).block_hashes for letter in "ab")
    assert cache.read(_body("a" * BLOCK)) == []
    removed, stored = cache.read(_body("c" * BLOCK))
    assert removed == BlockRemoved(b, "GPU")
    assert isinstance(stored, BlockStored)
    assert cache.clear() == [AllBlocksCleared()]
    assert _stored(cache.read(_body("a" * BLOCK))).block_hashes == a


async def _post(peer: Peer, path: str, body: bytes = b"") -> None:
    peer.send(request_bytes(body, path))
    assert (await peer.read_answer()).status == 200


def _read(batch: bytes) -> Any:
    _, (event,), rank = msgspec.msgpack.decode(batch)
    assert rank == 0
    return event


@pytest.mark.parametrize("form", ["map", "array"])
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
@on_uvloop
async def test_events_are_published_and_replayed(kind: Kind, form: Literal["map", "array"]) -> None:
    """A subscriber sees each batch under its number, and gets those that it missed."""
    settings = EmulatorSettings(kind=kind, kv_events_port=0, kv_events_form=form)
    with zmq.asyncio.Context() as context:
        async with await start(settings) as server, connect(server.port) as peer:
            events = server.kv_events
            assert events is not None
            subscriber, dealer = context.socket(zmq.SUB), context.socket(zmq.DEALER)
            with subscriber, dealer:
                subscriber.connect(f"tcp://127.0.0.1:{events.port}")
                subscriber.subscribe(b"")
                await _post(peer, "/emulator/reset")
                while not await subscriber.poll(20):  # it is not connected yet
                    await _post(peer, "/emulator/reset")
                await _post(peer, "/v1/completions", _body("a" * BLOCK, cache_salt="s"))
                while True:
                    assert await subscriber.poll(SOON_MS)
                    _, number, batch = await subscriber.recv_multipart()
                    event = _read(batch)
                    if event not in (["AllBlocksCleared"], {"type": "AllBlocksCleared"}):
                        break
                dealer.connect(f"tcp://127.0.0.1:{events.replay_port}")
                first = (int.from_bytes(number, "big") - 1).to_bytes(8, "big")
                await dealer.send_multipart([b"", first])
                replayed: list[list[bytes]] = []
                while not replayed or replayed[-1][-2] != END:
                    assert await dealer.poll(SOON_MS)
                    replayed.append(await dealer.recv_multipart())
    salts = [["s"]] if kind == "vllm" else None
    if form == "map":
        assert event["type"] == "BlockStored"
        assert (event["block_size"], event.get("extra_keys")) == (BLOCK_TOKENS, salts)
    else:
        name, hashes, parent, tokens, size, *_, extra = event
        assert (name, parent, size, extra) == ("BlockStored", None, BLOCK_TOKENS, salts)
        assert (len(hashes), len(tokens)) == (1, BLOCK_TOKENS)
    assert [frames[-2] for frames in replayed] == [first, number, END]
    assert replayed[1][-1] == batch
    assert {len(frames) for frames in replayed} == {4 if kind == "vllm" else 3}
