"""Limits by an agent as a real process, whose workers are played here."""

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.agent_process import CONFIG, Caller, Node, Sink, kept_node, running_sink, until
from tests.fakes.fake_worker import FakeJournal
from tests.fakes.redis_server import run_redis

from penstock.contract.limits import Bucket
from penstock.contract.node import (
    LimitsClock,
    PermitsHeld,
)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """Return a usage store that answers."""
    async with running_sink() as sink:
        yield sink


@pytest.fixture
async def node(tmp_path: Path, sink: Sink) -> AsyncIterator[Node]:
    """Return a node that is not started."""
    async with kept_node(tmp_path, sink) as node:
        yield node


async def test_workers_lease_limits(node: Node, sink: Sink) -> None:
    """Workers share a limit; what a worker has in flight is free when it is dead; use is told."""
    await node.start()
    await node.until_metric("penstock_workers", 1)
    permits, requests = Bucket("org/c:o", 3, 0, 1), Bucket("org/r:o", 10, 500, 121)
    one, two = Caller(node), Caller(node)
    try:
        await one.connect(901)
        now_ms = (await one.hear(LimitsClock)).base_ms + time.monotonic() * 1_000
        assert abs(now_ms - time.time() * 1_000) < 5_000
        await two.connect(902)
        leases = (await one.ask(requests, 6, "1")).leases
        assert leases is not None
        assert leases[0].remaining == 4
        assert (await two.ask(requests, 6, "2")).shortage is not None
        assert (await one.ask(permits, 3, "3")).leases is not None
        assert (await two.ask(permits, 1, "4")).shortage is not None
        await one.end()
        await until(lambda: f"pid={one.process.pid} how" in node.log(), "the worker is buried")
        assert (await two.ask(permits, 3, "5")).leases is not None
        assert (await two.ask(requests, 6, "6")).shortage is not None
        uses = {("org/c:o", 3), ("org/r:o", 6)}
        await until(lambda: uses <= {(use.bucket, use.used) for use in sink.uses}, "use is told")
    finally:
        await one.end()
        await two.end()
    assert await node.stop() == 0, node.log()


async def test_nodes_share_limits(node: Node, sink: Sink, tmp_path: Path) -> None:
    """Two nodes share a limit by Redis; when that is killed, each gives the rest of its share."""
    other = Node(tmp_path / "other", sink.url)
    other.data.mkdir()
    other.config.write_text(CONFIG)
    permits = Bucket("org/c:o", 10, 0, 1)
    callers = []
    try:
        with run_redis() as path:
            for each in (node, other):
                await each.start(limits_url=f"unix://{path}")
                callers.append(Caller(each))
                await callers[-1].connect(900 + len(callers))
                await callers[-1].hear(LimitsClock)
            one, two = callers
            await node.until_metric("penstock_limits_nodes", 2)
            assert (await one.ask(permits, 1, "1")).leases is not None
        await node.until_metric("penstock_limits_authority_up", 0)
        await other.until_metric("penstock_limits_authority_up", 0)
        assert (await one.ask(permits, 5, "2")).shortage is not None
        assert (await one.ask(permits, 4, "3")).leases is not None
        assert (await two.ask(permits, 6, "4")).shortage is None
        assert (await two.ask(permits, 5, "5")).leases is not None
        assert await other.metric("penstock_limits_share_leases_total") == 1
        assert await other.metric("penstock_limits_unanswered_total") == 1
    finally:
        for caller in callers:
            await caller.end()
        await other.clean_up()


@pytest.mark.parametrize("is_damaged", [False, True])
async def test_a_killed_agent_forgets_nothing_of_limits(node: Node, *, is_damaged: bool) -> None:
    """The next agent counts on from what was leased; if that is damaged, as if all had been."""
    await node.start()
    await node.until_metric("penstock_workers", 1)
    [worker] = node.worker_pids()
    permits, requests = Bucket("org/c:o", 3, 0, 1), Bucket("org/r:o", 10, 500, 121)
    one = Caller(node)
    try:
        await one.connect(901)
        base_ms = (await one.hear(LimitsClock)).base_ms
        await one.ask(requests, 6, "1")
        await one.ask(permits, 2, "2")
        journal = FakeJournal(node.data / "journal", 0, 901)
        node.signal(signal.SIGKILL)
        await node.wait()
        await one.disconnect()
        if is_damaged:
            (node.data / "node" / "limits").write_bytes(b"nonsense" * 100)
        await node.spawn()
        await one.connect(901)
        assert is_damaged or (await one.hear(LimitsClock)).base_ms == base_ms
        shortage = (await one.ask(requests, 5, "3")).shortage
        assert shortage is not None
        assert shortage.remaining == (0 if is_damaged else 4)
        assert (await one.ask(permits, 2, "4")).shortage is not None
        one.tell(PermitsHeld(((permits, 1),)))
        # Other workers are in doubt still when the counts were lost.
        await until(lambda: "worker adopted" in node.log(), "the other is there")
        os.kill(worker, signal.SIGKILL)
        await until(lambda: "worker died" in node.log(), "the other is buried")
        assert (await one.ask(permits, 2, "5")).leases is not None
        journal.die()
    finally:
        await one.end()
