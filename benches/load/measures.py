"""The measures: each takes one running gateway and records its figures of one round."""

import time
from dataclasses import dataclass

from benches.load import figures
from benches.load.figures import Samples, Values
from benches.load.payloads import chat, streamed_chat
from benches.load.processes import Running
from benches.load.servers import Bench
from benches.load.streams import StreamPlan, StreamsSeen, run_streams
from benches.load.wrk import Load, run_wrk

BUSY_CONNECTIONS = 64
SMALL_BYTES = 200
LARGE_BYTES = 64 * 1024
HUGE_BYTES = 400 * 1024
STREAMS = 200
GAP_MS = 10
"""200 streams with a chunk each 10 ms: 20,000 chunks/s, which no gateway here is busy with."""
SETTLE_S = 1.0
MANY_GAP_MS = 500
MANY_CHUNKS = 14
MANY_OPENS_PER_S = 1000.0


@dataclass(frozen=True, slots=True)
class Measures:
    """The measures of one run: each returns its figures, and records what failed.

    Args:
        bench: The run.
        samples: Takes the failures; has the rounds so far.
        seconds: How long each measure lasts.
    """

    bench: Bench
    samples: Samples
    seconds: float

    def chat(self, target: Running) -> Values:
        """Small plain requests on 64 connections: rate, tail and CPU a request."""
        before_ns = target.cpu_ns()
        load = self._wrk(target, SMALL_BYTES, BUSY_CONNECTIONS)
        cpu_ns = target.cpu_ns() - before_ns
        values = {
            figures.CHAT_RATE: load.per_second,
            figures.CHAT_P99: load.p99_us / 1e3,
            figures.CHAT_CPU: cpu_ns / 1e3 / max(1, load.requests),
        }
        if target.name != figures.DIRECT:
            values[figures.CORE_OWN] = cpu_ns / 10 / load.micros
        return values

    def single(self, target: Running) -> Values:
        """Small plain requests on one connection: the median, and what the gateway adds."""
        load = self._wrk(target, SMALL_BYTES, 1)
        values: Values = {figures.SINGLE_P50: load.p50_us}
        if target.name != figures.DIRECT:
            direct = self.samples.rounds(figures.DIRECT, figures.SINGLE_P50)[-1]
            values[figures.ADDED_P50] = load.p50_us - direct
        return values

    def large(self, target: Running) -> Values:
        """Requests of 64 KB on 64 connections."""
        rate, cpu_us = self._busy(target, LARGE_BYTES)
        return {figures.LARGE_RATE: rate, figures.LARGE_CPU: cpu_us}

    def huge(self, target: Running) -> Values:
        """Requests of 400 KB on 64 connections."""
        rate, cpu_us = self._busy(target, HUGE_BYTES)
        return {figures.HUGE_RATE: rate, figures.HUGE_CPU: cpu_us}

    def streaming(self, target: Running) -> Values:
        """Streams with chunks that come one by one: CPU a chunk."""
        chunks = max(20, int(self.seconds * 1000 / GAP_MS))
        request = streamed_chat(self.bench.key, chunks=chunks, gap_ms=GAP_MS)
        plan = StreamPlan(
            port=target.port,
            request=request.to_bytes(),
            count=STREAMS,
            opens_per_s=MANY_OPENS_PER_S,
            limit_s=self.seconds * 2 + 5,
        )
        before_ns = target.cpu_ns()
        seen = run_streams(plan)
        cpu_ns = target.cpu_ns() - before_ns
        self.samples.record(target.name, figures.FAILED, _count_failed(seen, STREAMS, chunks))
        return {
            figures.CHUNK_CPU: cpu_ns / 1e3 / max(1, seen.chunks),
            figures.CHUNKS_A_READ: seen.chunks / max(1, seen.reads),
        }

    def memory(self, target: Running, streams: int) -> Values:
        """Idle memory of a program that has served nothing, then memory a stream at `streams`."""
        time.sleep(SETTLE_S)
        idle_bytes = target.rss_bytes()
        peak_bytes = 0

        def watch(open_streams: int) -> None:
            nonlocal peak_bytes
            if open_streams == streams:
                peak_bytes = max(peak_bytes, target.rss_bytes())

        request = streamed_chat(self.bench.key, chunks=MANY_CHUNKS, gap_ms=MANY_GAP_MS)
        plan = StreamPlan(
            port=target.port,
            request=request.to_bytes(),
            count=streams,
            opens_per_s=MANY_OPENS_PER_S,
            limit_s=streams / MANY_OPENS_PER_S + MANY_CHUNKS * MANY_GAP_MS / 1e3 + 15,
            watch=watch,
        )
        seen = run_streams(plan)
        failed = _count_failed(seen, streams, MANY_CHUNKS)
        self.samples.record(target.name, figures.FAILED, failed)
        values = {
            figures.FIRST_P50: seen.first_chunk_percentile_ms(50),
            figures.FIRST_P99: seen.first_chunk_percentile_ms(99),
        }
        if target.name != figures.DIRECT:
            values[figures.IDLE_RSS] = idle_bytes / 1e6
            if peak_bytes:
                values[figures.STREAM_RSS] = (peak_bytes - idle_bytes) / streams / 1e3
        return values

    def warm_up(self, target: Running) -> None:
        """Send a second of requests; raises `StartError` when none is answered well."""
        load = self._run_wrk(target, SMALL_BYTES, BUSY_CONNECTIONS, 1)
        if load.requests - load.bad_status <= 0:
            target.fail("answered no request with 2xx")

    def _busy(self, target: Running, body_bytes: int) -> tuple[float, float]:
        """Return requests a second on 64 connections, and microseconds of CPU for each."""
        before_ns = target.cpu_ns()
        load = self._wrk(target, body_bytes, BUSY_CONNECTIONS)
        return load.per_second, (target.cpu_ns() - before_ns) / 1e3 / max(1, load.requests)

    def _wrk(self, target: Running, body_bytes: int, connections: int) -> Load:
        load = self._run_wrk(target, body_bytes, connections, self.seconds)
        self.samples.record(target.name, figures.FAILED, load.bad_status + load.broken)
        return load

    def _run_wrk(self, target: Running, body_bytes: int, connections: int, seconds: float) -> Load:
        return run_wrk(
            target.port,
            chat(self.bench.key, body_bytes),
            connections=connections,
            seconds=seconds,
            folder=self.bench.folder,
        )


def _count_failed(seen: StreamsSeen, streams: int, chunks: int) -> int:
    """Return the streams that failed, or all but one per missing chunk when chunks are missing.

    A stream holds a chunk per token, and a few besides (usage, end); fewer were lost on the way.
    """
    return max(seen.failed, min(streams, max(0, streams * chunks - seen.chunks)))
