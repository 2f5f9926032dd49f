"""Connections of workers, which end at any moment."""

import asyncio
from pathlib import Path

from tests.fakes.both_loops import MakeLoop, on_both_loops, run_on

from penstock.contract.node import (
    Applied,
    Apply,
    Hello,
    Inspected,
    RefusedRequests,
    Rehashed,
    Stats,
    encode_message,
)
from penstock.node.links import Link, Links, Wish


class Telling:
    """A listener that tells every worker something at each turn of the loop, as long as it is."""

    def __init__(self) -> None:
        """Nobody is there yet."""
        self.links: list[Link] = []
        self.greeted = asyncio.Event()
        self.ended = asyncio.Event()

    def on_hello(self, link: Link) -> None:
        """Begin to tell."""
        self.links.append(link)
        self.greeted.set()
        self.tell()

    def tell(self) -> None:
        """Tell, and do it again."""
        for link in self.links:
            link.send(Apply(1))
        if self.links:
            asyncio.get_running_loop().call_soon(self.tell)

    def on_closed(self, link: Link) -> None:
        """Tell no more: once more than one may."""
        link.send(Apply(1))
        self.links.remove(link)
        self.ended.set()

    def on_stats(self, link: Link, stats: Stats) -> None:
        """Not said here."""

    def on_applied(self, link: Link, applied: Applied) -> None:
        """Not said here."""

    def on_rehashed(self, link: Link, rehashed: Rehashed) -> None:
        """Not said here."""

    def on_refused(self, link: Link, refused: RefusedRequests) -> None:
        """Not said here."""

    def on_wish(self, link: Link, message: Wish) -> None:
        """Not said here."""

    def on_inspected(self, inspected: Inspected) -> None:
        """Not said here."""


@on_both_loops
def test_a_dead_worker_may_be_told_anything(make_loop: MakeLoop, tmp_path: Path) -> None:
    """What is said to a worker between its end and its being heard of is lost, and no more."""

    async def work() -> None:
        listener = Telling()
        links = Links(tmp_path / "s", listener)
        await links.open()
        _, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(encode_message(Hello(0, 1, 1, 1, is_draining=False)))
        await asyncio.wait_for(listener.greeted.wait(), 10)
        writer.transport.abort()
        await asyncio.wait_for(listener.ended.wait(), 10)
        await links.close()

    run_on(make_loop, work())
