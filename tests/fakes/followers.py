"""Nodes that follow the configuration feed when they are told to."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI
from tests.fakes.organizations import ALL

from penstock.contract.feed import FeedPage, Position, read_page
from penstock.contract.snapshot_store import FEED_LETTERS
from penstock.control.feed import create_feed_router
from penstock.kit.clock import ManualClock
from penstock.node.publisher import Publisher
from penstock.storage.database import Database

Ask = Callable[..., Awaitable[FeedPage | None]]


@asynccontextmanager
async def asking(database: Database) -> AsyncIterator[Ask]:
    """Hand out what asks the feed of a database."""
    app = FastAPI()
    app.state.is_stopping = lambda: False
    app.include_router(create_feed_router(database, lambda: ALL))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:

        async def ask(position: Position, after: str = "", wait_s: float = 0) -> FeedPage | None:
            answer = await client.get(
                "/node/v1/snapshot",
                params={
                    "seq": position.seq,
                    "stamp": position.stamp,
                    "after": after,
                    "wait_s": wait_s,
                },
            )
            assert answer.status_code in {200, 204}, answer.text
            return None if answer.status_code == 204 else read_page(answer.content)

        yield ask


class Follower:
    """A node that follows the feed when it is told to."""

    def __init__(self, folder: Path, ask: Ask) -> None:
        """Start with nothing."""
        self.publisher = Publisher(folder, ManualClock())
        self.fulls = 0
        self._ask = ask

    async def follow(self) -> None:
        """Ask until there is nothing more."""
        while True:
            stamp, seq = self.publisher.cursor
            page = await self._ask(Position(seq, stamp))
            if page is None:
                return
            self.fulls += page.is_full
            puts, after = dict(page.puts), page.next_after
            while after:
                more = await self._ask(page.position, after)
                assert more is not None
                puts |= dict(more.puts)
                after = more.next_after
            self.publisher.publish_feed(
                page.position.stamp, page.position.seq, puts, page.deletes, is_full=page.is_full
            )

    def records(self) -> dict[bytes, bytes | None]:
        """Return what was fed."""
        store = self.publisher._store
        return {name: store.find(name) for name in store.names(*FEED_LETTERS)}
