"""A caller's connection without a network and without time: both are moved by hand."""

import asyncio
import random
from collections.abc import Iterator
from typing import cast

from tests.fakes.worker_process import PEPPER, build_runtime, make_snapshot

from penstock.gateway.errors import DRAINING
from penstock.gateway.offer import Contexts
from penstock.gateway.refusals import Refusals
from penstock.gateway.request import Request
from penstock.gateway.runtime import Runtime
from penstock.gateway.server import Downstream
from penstock.gateway.stats import Stats
from penstock.gateway.trace import Tracer
from penstock.gateway.worker import Worker
from penstock.kit.errors import Refusal

START_S = 1_000.0


class CountedIds:
    """Mints `id-1`, `id-2`, ..."""

    def __init__(self) -> None:
        """Start at one."""
        self._count = 0

    def next(self) -> str:
        """Return the next id."""
        self._count += 1
        return f"id-{self._count}"


class StillWorker:
    """As much of a worker as a connection needs that reaches no engine."""

    def __init__(self) -> None:
        """Start at `START_S` with nothing connected."""
        self.time_s = START_S
        self.event_ids = CountedIds()
        self.stats = Stats()
        self.refusals = Refusals(
            is_wanted=False,
            slot=0,
            wall_ns=self.wall_ns,
            tracer=Tracer(None, random.Random(1).getrandbits),
        )
        self.runtime: Runtime = build_runtime(make_snapshot([1]), PEPPER)
        self.contexts: Contexts = {}
        self.forwards_headers = False
        self.is_draining = False
        self.has_room = True
        self.trouble: Refusal | None = None
        self.connections: set[Downstream] = set()

    def now_s(self) -> float:
        """Return the time."""
        return self.time_s

    def wall_ns(self) -> int:
        """Return the time of day."""
        return int(self.time_s * 1e9)

    def join(self, downstream: Downstream) -> bool:
        """Count a connection in, when there is room."""
        if self.has_room:
            self.connections.add(downstream)
        return self.has_room

    def leave(self, downstream: Downstream) -> None:
        """Count a connection out."""
        self.connections.discard(downstream)

    def note_refusal(self, request: Request, refusal: Refusal) -> None:
        """Count a request that was not admitted."""
        self.stats.refused(refusal.error)
        self.refusals.note(request, refusal)

    def refusal(self) -> Refusal | None:
        """Return why nothing is admitted."""
        return self.trouble

    def unreadiness(self) -> Refusal | None:
        """Return why callers had better go elsewhere."""
        return Refusal(DRAINING) if self.is_draining else self.trouble

    def keep_forwarded(self, request: Request, name: bytes, value: bytes) -> None:
        """Keep nothing."""


class StillTransport(asyncio.Transport):
    """Keeps what is written; every end is noted once, as a socket would."""

    def __init__(self) -> None:
        """Start open."""
        super().__init__()
        self.written = b""
        self.unsent_bytes = 0
        self.is_reading_paused = False
        self.ends: list[str] = []

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Take note of nothing."""

    def get_write_buffer_size(self) -> int:
        """Return what the peer did not take yet."""
        return self.unsent_bytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep the data; as uvloop, refuse it behind the end."""
        if self.ends:
            message = f"written after {self.ends}"
            raise RuntimeError(message)
        self.written += data

    def can_write_eof(self) -> bool:
        """Say yes: it is no TLS."""
        return True

    def write_eof(self) -> None:
        """Note the end of writing."""
        self.ends.append("eof")

    def close(self) -> None:
        """Note the close."""
        self.ends.append("close")

    def abort(self) -> None:
        """Note the abort."""
        self.ends.append("abort")

    def is_closing(self) -> bool:
        """Return whether it was closed."""
        return "close" in self.ends or "abort" in self.ends

    def pause_reading(self) -> None:
        """Note the pause."""
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        """Note its end."""
        self.is_reading_paused = False


class StillConnection:
    """One connection of a caller to a `StillWorker`."""

    def __init__(self, worker: StillWorker | None = None) -> None:
        """Connect."""
        self.worker = worker or StillWorker()
        self.transport = StillTransport()
        self.downstream = Downstream(cast("Worker", self.worker))
        self.downstream.connection_made(self.transport)

    def send(self, content: bytes) -> None:
        """Have the worker read the content at once."""
        self.downstream.data_received(content)

    def wait(self, seconds: float, *, step_s: float = 0.25) -> None:
        """Let time pass, with the worker's sweeps in it."""
        end_s = self.worker.time_s + seconds
        while self.worker.time_s < end_s:
            self.worker.time_s = min(end_s, self.worker.time_s + step_s)
            if self.downstream in self.worker.connections:
                self.downstream.sweep(self.worker.time_s)
            if self.transport.is_closing():
                self.downstream.connection_lost(None)

    def take_answers(self) -> list[int]:
        """Return the statuses of what was answered since the last call."""
        written, self.transport.written = self.transport.written, b""
        return list(_statuses(written))


def _statuses(written: bytes) -> Iterator[int]:
    while written:
        head, _, rest = written.partition(b"\r\n\r\n")
        yield int(head.split(b" ", 2)[1])
        _, is_there, after = head.partition(b"content-length: ")
        written = rest[int(after.split(b"\r\n")[0]) :] if is_there else rest
