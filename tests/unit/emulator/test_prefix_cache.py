"""What the emulator says of its cache of prompts in its answers."""

import time

from tests.unit.emulator.peer import (
    Peer,
    chat_body,
    connect,
    on_uvloop,
    request_bytes,
    start,
)

from penstock.emulator.settings import EmulatorSettings

BLOCK = "a" * 64
"""16 tokens of four characters."""
TOLD_MS = 400.0


async def _cached(peer: Peer, text: str, **headers: str) -> int | None:
    """Return how many tokens an answer says that it had."""
    body = chat_body(messages=[{"role": "user", "content": text}])
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    peer.send(request_bytes(body, headers=named))
    details = (await peer.read_answer()).json()["usage"].get("prompt_tokens_details")
    return None if details is None else int(details["cached_tokens"])


@on_uvloop
async def test_cached_tokens_are_those_it_had() -> None:
    """Of a prompt it had nothing, then all full blocks; a header says otherwise; it forgets."""
    settings = EmulatorSettings(prefix_cache=True)
    async with await start(settings) as server, connect(server.port) as peer:
        assert [await _cached(peer, text) for text in (BLOCK * 4, BLOCK * 4)] == [0, 64]
        assert await _cached(peer, BLOCK * 2 + "b" * 256) == 32
        assert await _cached(peer, BLOCK * 4, x_emulator_cached_tokens="7") == 7
        peer.send(request_bytes(b"", "/emulator/reset"))
        await peer.read_answer()
        assert await _cached(peer, BLOCK * 4) == 0
    async with await start(EmulatorSettings()) as server, connect(server.port) as peer:
        assert await _cached(peer, BLOCK * 4) is None


@on_uvloop
async def test_the_first_token_waits_for_what_is_new() -> None:
    """A prompt that it had is answered sooner than one that it has to compute."""
    settings = EmulatorSettings(prefix_cache=True, prefill_ms_per_1k_tokens=TOLD_MS)
    async with await start(settings) as server, connect(server.port) as peer:
        times = []
        for _ in range(4):  # a busy machine may be late now and then
            began = time.monotonic()
            await _cached(peer, BLOCK * 63)  # 1,008 tokens
            times.append(time.monotonic() - began)
    assert times[0] >= TOLD_MS / 1000
    assert min(times[1:]) < TOLD_MS / 1000
