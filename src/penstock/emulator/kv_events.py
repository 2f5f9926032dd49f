"""Events of the emulated cache over ZeroMQ, as vLLM and SGLang publish them.

A batch is three frames: topic, number, MessagePack. Whoever missed some asks for them by number.

Source: wire forms of vLLM's and SGLang's `kv_events`.
"""

import asyncio
import time
from collections import deque
from typing import Any, Final

import msgspec
import zmq
import zmq.asyncio

from penstock.emulator.kv_cache import Event, KvCache
from penstock.emulator.settings import EmulatorSettings

REPLAYED = 10_000
"""Batches that are kept for those who missed them."""
_UNSENT = 100_000
"""Batches that may wait for one subscriber; it misses what comes then."""
_TOPIC: Final = b"kv-events"
_END: Final = (-1).to_bytes(8, "big", signed=True)
_encode = msgspec.msgpack.Encoder().encode


class KvEvents:
    """Publishes what becomes of a cache.

    Args:
        cache: Whose events they are.
        settings: Where they are published and how they are written.

    Raises:
        OSError: A port is taken.
    """

    def __init__(self, cache: KvCache, settings: EmulatorSettings) -> None:
        """See the class."""
        self._cache = cache
        self._settings = settings
        self._count = 0
        self._batches: deque[tuple[bytes, bytes]] = deque(maxlen=REPLAYED)
        self._context = zmq.asyncio.Context()
        self._publisher = zmq.Socket(self._context, zmq.PUB)
        self._publisher.set_hwm(_UNSENT)
        self._replayer = self._context.socket(zmq.ROUTER)
        try:
            self.port = _bind(self._publisher, settings.host, settings.kv_events_port)
            self.replay_port = _bind(self._replayer, settings.host, settings.kv_replay_port)
        except zmq.ZMQError as error:
            self._end()
            raise OSError(str(error)) from None
        self._replaying = asyncio.get_running_loop().create_task(self._replay())

    def read(self, body: bytes) -> None:
        """Take in a request, and tell what became of the cache by it."""
        self._publish(self._cache.read(body))

    def clear(self) -> None:
        """Empty the cache, and tell it."""
        self._publish(self._cache.clear())

    async def close(self) -> None:
        """Publish no more."""
        self._replaying.cancel()
        await asyncio.wait([self._replaying])
        self._end()

    def _end(self) -> None:
        for each in (self._publisher, self._replayer):
            each.close(linger=0)
        self._context.term()

    def _publish(self, events: list[Event]) -> None:
        if not events:
            return
        number = self._count.to_bytes(8, "big")
        self._count += 1
        batch = _encode([time.time(), [self._written(event) for event in events], 0])
        self._batches.append((number, batch))
        self._publisher.send_multipart((_TOPIC, number, batch), zmq.NOBLOCK)

    def _written(self, event: Event) -> Any:
        if self._settings.kv_events_form == "map":
            return event
        return (type(event).__name__, *msgspec.structs.astuple(event))

    async def _replay(self) -> None:
        """Send what is asked for from a number on, and an end."""
        has_topic = self._settings.kind == "vllm"  # SGLang's has none here
        topic, no_topic = ((_TOPIC,), (b"",)) if has_topic else ((), ())
        send = self._replayer.send_multipart
        while True:
            who, *_, first = await self._replayer.recv_multipart()
            for number, batch in list(self._batches):
                if number >= first:
                    await send((who, b"", *topic, number, batch))
            await send((who, b"", *no_topic, _END, b""))


def _bind(socket: zmq.Socket[Any], host: str, port: int) -> int:
    """Listen, on a free port when it is 0; return which."""
    address = f"tcp://{host}"
    if not port:
        return socket.bind_to_random_port(address)
    socket.bind(f"{address}:{port}")
    return port
