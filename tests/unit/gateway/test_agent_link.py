"""A worker's connection to its agent, which ends at any moment."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.fakes.both_loops import MakeLoop, on_both_loops, run_on

from penstock.contract.node import (
    Applied,
    Apply,
    Hello,
    Returned,
    WorkerMessage,
    encode_message,
)
from penstock.gateway.agent_link import AgentLink, Orders
from penstock.gateway.limiter import Limiter


class Greeted:
    """A limiter that counts agents."""

    def __init__(self) -> None:
        """None so far."""
        self.agents = self.lost_agents = 0

    def connected(self) -> None:
        """One more."""
        self.agents += 1

    def lost(self) -> None:
        """One less."""
        self.lost_agents += 1

    def take(self, message: object) -> None:
        """Not said here."""


def make_link(socket: Path, limiter: Greeted) -> AgentLink:
    """Return a link that has much to report and an answer to `Apply`."""

    def report() -> Iterable[WorkerMessage]:
        return [Returned(())] * 50

    orders = cast("Orders", SimpleNamespace(apply=lambda: Applied(1)))
    return AgentLink(
        socket,
        orphan_grace_s=60.0,
        hello=lambda: Hello(0, 1, 1, 1, is_draining=False),
        report=report,
        orders=orders,
        limiter=cast("Limiter", limiter),
    )


@on_both_loops
def test_a_dead_agent_may_be_told_anything(make_loop: MakeLoop, tmp_path: Path) -> None:
    """Agents that end in the middle are lost one after the other; the worker goes on."""

    async def work() -> None:
        said = 0

        def accept(_: asyncio.StreamReader, peer: asyncio.StreamWriter) -> None:
            peer.write(encode_message(Apply(1)) * 20)
            asyncio.get_running_loop().call_later(0.01, cast("Any", peer.transport).abort)

        limiter = Greeted()
        link = make_link(tmp_path / "s", limiter)
        server = await asyncio.start_unix_server(accept, tmp_path / "s")
        running = asyncio.create_task(link.run())
        async with asyncio.timeout(20):
            while limiter.lost_agents < 3:
                said += link.send(Returned(()))
                assert not running.done(), running.result()
                await asyncio.sleep(0)
        assert said
        running.cancel()  # in the moment when an agent is lost: that must not be missed
        await asyncio.wait({running}, timeout=10)
        assert running.cancelled()
        server.close()

    run_on(make_loop, work())


async def test_a_worker_that_cannot_report_ends(tmp_path: Path) -> None:
    """What goes wrong in a report is raised at once, and not when the agent is lost some day."""

    def report() -> Iterable[WorkerMessage]:
        message = "a bug"
        raise RuntimeError(message)

    link = AgentLink(
        tmp_path / "s",
        orphan_grace_s=60.0,
        hello=lambda: Hello(0, 1, 1, 1, is_draining=False),
        report=report,
        orders=cast("Orders", SimpleNamespace()),
        limiter=cast("Limiter", Greeted()),
    )
    peers: list[asyncio.StreamWriter] = []  # the agent stays connected

    def accept(_: asyncio.StreamReader, peer: asyncio.StreamWriter) -> None:
        peers.append(peer)

    async with await asyncio.start_unix_server(accept, tmp_path / "s"):
        running = asyncio.create_task(link.run())
        await asyncio.wait({running}, timeout=20)
        assert running.done()
        with pytest.raises(RuntimeError, match="a bug"):
            running.result()
        for peer in peers:
            peer.close()
            await peer.wait_closed()
