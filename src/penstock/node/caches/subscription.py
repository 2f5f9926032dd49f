"""Listens to one publisher of an engine, over ZeroMQ, for as long as the engine is followed.

The line is made again by itself, after longer and longer pauses. What waits unread is bounded, and
so is what comes when missed batches are asked for again.

Source: wire forms of vLLM's and SGLang's `kv_events`.
"""

import asyncio
import contextlib
import errno
import time
from collections.abc import Callable
from typing import Any, Final

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from penstock.engines.kv_events import END, MAX_BATCH_BYTES, NUMBER_BYTES, read_number
from penstock.node import log_events
from penstock.node.backoff import doubling_s
from penstock.node.caches.follower import Follower, Heard
from penstock.node.caches.unfinished import Unfinished

UNREAD: Final = 8
"""Batches that wait to be read, 32 MiB at most; more wait at the engine, which drops what is too
much. With fewer, ZeroMQ's thread and ours would wait for each other."""
SOCKETS, FILES = 4, 6
"""A line's, at most: its own, two to watch it, and one while it asks again; each has a file, and
two have a connection."""
FIRST_PAUSE_MS, MOST_PAUSE_MS = 100, 10_000
"""Before a lost line is made again."""
_RETRIED_MS: Final = 1_000
"""How long after a line is lost it is said that it is made again."""
REPLAY_S: Final = 10.0
"""How long batches may come that were asked for again, and how long none may come."""
REPLAY_SILENCE_S: Final = 2.0
_PAUSE_S, _MOST_PAUSE_S = 5.0, 600.0
"""Before a line is made anew that could not be used: longer each time, until one lasts so long."""
_HEARTBEAT_MS: Final = 10_000
_AT_ONCE: Final = 16
"""Batches that are read before others of the process have their turn."""


class Subscription:
    """One line to one publisher.

    Args:
        context: Of all lines.
        host: The endpoint's.
        port: Where events are published.
        replay_port: Where they can be had again; None when they cannot.
        follower: Told of all of them.
        on_change: Called after each batch, or when the line is lost.
    """

    def __init__(
        self,
        context: zmq.asyncio.Context,
        host: str,
        port: int,
        replay_port: int | None,
        *,
        follower: Follower,
        on_change: Callable[[], None],
    ) -> None:
        """See the class."""
        self._context = context
        name = f"[{host}]" if ":" in host else host
        self._address = f"tcp://{name}:{port}"
        self._replay_address = None if replay_port is None else f"tcp://{name}:{replay_port}"
        self.follower = follower
        self._on_change = on_change
        self._port = port
        self._unfinished: Unfinished | None = None
        """Of what comes over the connection that there is."""
        self._is_waiting = False
        """All messages that came were read."""
        self._patience = asyncio.Timeout(None)
        self.is_connected = False
        self._is_given_up = False
        """The line is lost, and ZeroMQ did not say that it makes it again."""
        self.lag_s: float | None = None
        """How old the last batch was when it came."""

    @property
    def is_heard(self) -> bool:
        """Whether all is known of its caches that it tells, salts among it."""
        return self.is_connected and self.follower.is_whole and self.follower.tells_salts

    async def run(self) -> None:
        """Listen until cancelled: whatever comes, the line is made again."""
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            began_s = loop.time()
            try:
                with self._open(zmq.SUB) as socket:
                    async with asyncio.timeout(None) as self._patience:
                        await self._listen(socket)
            except (zmq.ZMQError, TimeoutError) as error:
                why = error if isinstance(error, zmq.ZMQError) else "a message does not end"
                log_events.KV_EVENTS_FAIL.log(address=self._address, why=why)
            except Exception as error:  # noqa: BLE001 - nobody else would notice that it ended
                log_events.KV_EVENTS_LINE_BROKE.log(bug=error, address=self._address)
            finally:
                self._lost()
            self.follower.counts["failures"] += 1
            failures = 1 if loop.time() - began_s > _MOST_PAUSE_S else failures + 1
            await asyncio.sleep(doubling_s(failures, first_s=_PAUSE_S, most_s=_MOST_PAUSE_S))

    def look(self) -> None:
        """Give the line up where a message does not end: to be called each second."""
        if self._unfinished is None:
            return
        if not self._is_waiting:
            self._unfinished.ended()
        elif self._unfinished.look():
            self._unfinished = None
            self._patience.reschedule(0.0)

    def _open(self, kind: int) -> zmq.asyncio.Socket:
        socket = self._context.socket(kind)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.IPV6, 1),
            (zmq.RCVHWM, UNREAD),
            (zmq.MAXMSGSIZE, MAX_BATCH_BYTES),
            (zmq.RECONNECT_IVL, FIRST_PAUSE_MS),
            (zmq.RECONNECT_IVL_MAX, MOST_PAUSE_MS),
            (zmq.HEARTBEAT_IVL, _HEARTBEAT_MS),
        ):
            socket.setsockopt(option, value)
        return socket

    async def _listen(self, socket: zmq.asyncio.Socket) -> None:
        self._is_given_up = False
        socket.subscribe(b"")
        changes = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        changes |= zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_CONNECTED
        monitor = socket.get_monitor_socket(changes)
        poller = zmq.asyncio.Poller()
        for each in (socket, monitor):
            poller.register(each, zmq.POLLIN)
        try:
            socket.connect(self._address)
            while True:
                self._is_waiting = True
                ready = dict(await poller.poll(_RETRIED_MS if self._is_given_up else None))
                self._is_waiting = False
                if not ready:
                    raise zmq.ZMQError(errno.EPROTO)
                if monitor in ready:
                    await self._heed(parse_monitor_message(await monitor.recv_multipart()))
                elif socket in ready:
                    if self._unfinished is not None:
                        self._unfinished.ended()
                    await self._read(socket)
                    await asyncio.sleep(0)
        finally:
            socket.disable_monitor()
            monitor.close(linger=0)

    async def _heed(self, change: Any) -> None:
        """Take note that the line is there, or is not."""
        # ZeroMQ never connects again to who broke its rules: by too large a message, for one.
        self._is_given_up = change["event"] == zmq.EVENT_DISCONNECTED
        if self._is_given_up:
            self._lost()
        elif change["event"] == zmq.EVENT_CONNECTED:
            self._unfinished = Unfinished(change["value"], self._port)
        if change["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return
        self.is_connected = True
        if self._replay_address is not None:
            await self._replay()
        self._on_change()

    def _lost(self) -> None:
        self.is_connected = self._is_waiting = False
        self._unfinished = None
        self.follower.lost()
        self._on_change()

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        """Read what waits, up to some batches."""
        waiting: zmq.SyncSocket = zmq.Socket.shadow(socket)
        for _ in range(_AT_ONCE):
            try:
                frames = _receive(waiting)
            except zmq.Again:
                break
            number = read_number(frames[1]) if len(frames) == _FRAMES else None
            if number is None:
                self.follower.counts["unknown"] += 1
            else:
                await self._hear(number, frames[-1])
        self._on_change()

    async def _hear(self, number: int, content: bytes) -> None:
        follower = self.follower
        heard = follower.hear(number, content)
        if heard is Heard.MISSING:
            if self._replay_address is not None:
                await self._replay()
            if follower.next_number < number:
                follower.give_up(number)
            follower.hear_again(number, content)
        elif heard is Heard.TAKEN and follower.told_at_s:
            self.lag_s = max(0.0, time.time() - follower.told_at_s)

    async def _replay(self) -> None:
        """Have batches again that were missed, as far as they can be had in time."""
        assert self._replay_address is not None  # noqa: S101 - it is who calls
        follower = self.follower
        with self._open(zmq.DEALER) as socket, contextlib.suppress(TimeoutError, zmq.ZMQError):
            socket.connect(self._replay_address)
            await socket.send_multipart([b"", follower.next_number.to_bytes(NUMBER_BYTES, "big")])
            async with asyncio.timeout(REPLAY_S):
                while await socket.poll(REPLAY_SILENCE_S * 1_000):
                    frames = _receive(zmq.Socket.shadow(socket))
                    if len(frames) < 2 or frames[-2] == END:  # noqa: PLR2004 - number and content
                        break
                    number = read_number(frames[-2])
                    if number is not None:
                        follower.hear_again(number, frames[-1])
                    await asyncio.sleep(0)
        follower.heard_again()


def _receive(socket: zmq.SyncSocket) -> list[bytes]:
    """Return the parts of the message that is there.

    Raises:
        zmq.Again: There is none.
        zmq.ZMQError: It has so many parts that the line has to be made anew.
    """
    frames = [socket.recv(zmq.NOBLOCK)]
    while socket.get(zmq.RCVMORE):
        if len(frames) == _MOST_FRAMES:
            raise zmq.ZMQError(errno.EMSGSIZE)
        frames.append(socket.recv(zmq.NOBLOCK))  # all of it is there when one part is
    return frames


_FRAMES: Final = 3
"""Topic, number, content."""
_MOST_FRAMES: Final = 8
"""Of a message of another shape: what has more is not passed over but refused."""
