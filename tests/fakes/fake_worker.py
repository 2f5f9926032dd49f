"""A stand-in for the gateway's worker: journal and socket like the real one, and no traffic.

usage: python tests/fakes/fake_worker.py [options] '<WorkerSettings as JSON>'

At its start it writes `--closed` whole requests and `--open` begun ones to its journal. Then it
serves its agent until it is drained, or orphaned, or killed.
"""

import argparse
import asyncio
import fcntl
import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import msgspec

from penstock.contract import metrics
from penstock.contract.journal import LOCK_FILE, Begin, Close, Open, Record, encode_record
from penstock.contract.node import (
    Applied,
    Apply,
    Credentials,
    Drain,
    Frames,
    Hello,
    HistogramSample,
    Rehashed,
    Sample,
    Stats,
    WorkerSettings,
    decode_agent_message,
    encode_message,
)
from penstock.contract.snapshot_store import SnapshotReader
from penstock.contract.usage import UsageEvent
from penstock.kit.ids import EventIds

RECONNECT_S = 0.1
STATS_S = 0.1


def make_open(event_id: str, started_at_ns: int = 1_750_000_000_000_000_000) -> Open:
    """Return the OPEN record of an ordinary request."""
    return Open(
        event_id=event_id,
        request_id=f"request-{event_id}",
        organization="dev",
        project="playground",
        key_id="dev-key",
        model="emulated-70b",
        served_model="emulated-70b",
        upstream="emulator",
        operation="chat",
        is_stream=True,
        started_at_ns=started_at_ns,
        estimated_input_tokens=7,
    )


def make_event(opened: Open, output_tokens: int = 11) -> UsageEvent:
    """Return the usage event of that request when it ended well."""
    return UsageEvent(
        event_id=opened.event_id,
        request_id=opened.request_id,
        organization=opened.organization,
        project=opened.project,
        key_id=opened.key_id,
        model=opened.model,
        served_model=opened.served_model,
        upstream=opened.upstream,
        operation=opened.operation,
        is_stream=opened.is_stream,
        outcome="ok",
        status=200,
        error_code=None,
        usage_source="engine",
        input_tokens=7,
        output_tokens=output_tokens,
        cached_input_tokens=None,
        reasoning_output_tokens=None,
        attempt_count=1,
        started_at_ns=opened.started_at_ns,
        first_byte_at_ns=opened.started_at_ns + 1_000_000,
        finished_at_ns=opened.started_at_ns + 2_000_000,
    )


class FakeJournal:
    """Writes a journal the way a worker does: allocated ahead, lock held until `die`.

    Args:
        folder: Folder of all journals.
        slot: The worker's slot.
        epoch: The worker's start number.
        segment_bytes: Size of a segment.
    """

    def __init__(
        self, folder: Path, slot: int = 0, epoch: int = 1, segment_bytes: int = 65_536
    ) -> None:
        """See the class."""
        self.path = folder / f"{slot}-{epoch:08d}"
        self.path.mkdir(parents=True)
        self._lock = os.open(self.path / LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._slot, self._epoch, self._size = slot, epoch, segment_bytes
        self.number = 0
        self.offset = 0
        self.rotate()

    @property
    def segment(self) -> Path:
        """The file that is written to."""
        return self.segment_path(self.number)

    def segment_path(self, number: int) -> Path:
        """Return the file of a segment."""
        return self.path / f"{number:08d}.journal"

    def allocate(self, number: int) -> None:
        """Make a segment, all zeros, when it is not there."""
        if not self.segment_path(number).exists():
            self.segment_path(number).write_bytes(bytes(self._size))

    def rotate(self) -> None:
        """Go on in a new segment."""
        self.number += 1
        self.offset = 0
        self.allocate(self.number)
        self.write(Begin(f"node-test/{self._slot}", self._epoch, self.number, time.time_ns()))

    def write(self, *records: Record) -> None:
        """Append records, in a new segment when they do not fit."""
        frames = b"".join(map(encode_record, records))
        if self.offset + len(frames) > self._size:
            self.rotate()
        self.write_raw(frames)

    def write_raw(self, content: bytes) -> None:
        """Append bytes as they are."""
        descriptor = os.open(self.segment, os.O_WRONLY)
        try:
            self.offset += os.pwrite(descriptor, content, self.offset)
        finally:
            os.close(descriptor)

    def die(self) -> None:
        """Let go of the lock, as the kernel does when a process ends."""
        os.close(self._lock)


class FakeWorker:
    """A worker's behaviour.

    Args:
        settings: As the agent gave them.
        options: What was asked for on the command line.
    """

    def __init__(self, settings: WorkerSettings, options: argparse.Namespace) -> None:
        """See the class."""
        self._settings = settings
        self._options = options
        self._records = SnapshotReader(Path(settings.snapshot_path))
        self._version = self._read_version()
        self._journal = FakeJournal(Path(settings.journal_path), settings.slot, settings.epoch)
        self._open: list[Open] = []
        self._end = asyncio.Event()
        self._is_draining = False

    async def run(self) -> None:
        """Live until drained, orphaned or old enough."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain)
        self._write_requests()
        if self._options.die_after_s is not None:
            loop.call_later(self._options.die_after_s, os._exit, 3)
        talking = asyncio.create_task(self._talk())
        await self._end.wait()
        talking.cancel()
        self._journal.die()

    def _read_version(self) -> int:
        return self._records.refresh().version

    def _write_requests(self) -> None:
        ids = EventIds(time.time_ns, random.getrandbits)
        for _ in range(self._options.closed):
            opened = make_open(ids.next(), time.time_ns())
            self._journal.write(opened, Close(make_event(opened)))
        self._open = [make_open(ids.next(), time.time_ns()) for _ in range(self._options.open)]
        for opened in self._open:
            self._journal.write(opened)

    async def _talk(self) -> None:
        lonely_s = time.monotonic()
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self._settings.agent_socket)
            except OSError:
                if time.monotonic() - lonely_s > self._settings.orphan_grace_s:
                    self._drain()
                await asyncio.sleep(RECONNECT_S)
                continue
            reporting = asyncio.create_task(self._report(writer))
            try:
                await self._listen(reader, writer)
            except OSError:
                pass
            finally:
                reporting.cancel()
                writer.close()
                lonely_s = time.monotonic()
            await asyncio.sleep(RECONNECT_S)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = Frames()
        while content := await reader.read(65_536):
            for payload in frames.feed(content):
                match decode_agent_message(payload):
                    case Credentials(tokens, is_last):
                        digests = {name: _digest(token) for name, token in tokens.items()}
                        sys.stderr.write(f"credentials {digests} last={is_last}\n")
                    case Apply(version):
                        sys.stderr.write(f"apply {version}\n")
                        self._version = self._read_version()
                        writer.write(encode_message(Applied(self._version)))
                    case Drain():
                        self._drain()

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        settings = self._settings
        hello = Hello(settings.slot, settings.epoch, os.getpid(), self._version, self._is_draining)
        writer.write(encode_message(hello))
        pairs = tuple((bytes([n]) * 32, bytes([n + 1]) * 32) for n in range(self._options.rehashed))
        if pairs:
            writer.write(encode_message(Rehashed(pairs)))
        while True:
            labels = ("dev", "emulated-70b", "chat", "ok")
            samples = (
                Sample(metrics.REQUESTS.name, labels, self._options.closed),
                Sample(metrics.IN_FLIGHT.name, (), len(self._open)),
            )
            counts = (self._options.closed, *[0] * len(metrics.OVERHEAD.buckets))
            histogram = HistogramSample(metrics.OVERHEAD.name, (), counts, 0.5)
            writer.write(encode_message(Stats(samples, (histogram,), not self._is_draining)))
            await asyncio.sleep(STATS_S)

    def _drain(self) -> None:
        self._is_draining = True
        if self._options.drain == "ignore":
            return
        if self._options.drain == "finish":
            self._journal.write(*(Close(make_event(opened)) for opened in self._open))
        self._end.set()


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:8]


def main() -> int:
    """Run a fake worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--closed", type=int, default=0)
    parser.add_argument("--open", type=int, default=0)
    parser.add_argument("--rehashed", type=int, default=0)
    parser.add_argument("--die-after-s", type=float)
    parser.add_argument("--drain", choices=("finish", "abandon", "ignore"), default="finish")
    parser.add_argument("settings")
    options = parser.parse_args()
    settings = msgspec.json.decode(options.settings, type=WorkerSettings)
    sys.stderr.write(f"fake worker slot={settings.slot} epoch={settings.epoch}\n")

    async def live() -> None:
        await FakeWorker(settings, options).run()

    asyncio.run(live())
    return 0


if __name__ == "__main__":
    sys.exit(main())
