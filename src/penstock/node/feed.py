"""Follows the control plane's configuration feed, and serves on without it.

A change reaches the workers as fast as the control plane tells it; while that is away, or sends
what cannot be used, the node goes on with what it has.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import lmdb

from penstock.contract.feed import PATH, FeedPage, Position, read_page
from penstock.contract.snapshot import SnapshotFormatError
from penstock.kit.clock import Clock
from penstock.kit.tls import verify_for
from penstock.node import log_events
from penstock.node.answers import let_go
from penstock.node.publisher import Publisher

WAIT_S = 20.0
MIN_INTERVAL_S = 0.05
"""From one question to the next: what changes in a burst is told together, once for many."""
LOST_AFTER_S = 30.0
"""A feed that was not followed for so long is lost: when all is well it is, each `WAIT_S`."""
_TIMEOUT = httpx.Timeout(WAIT_S + 10.0, connect=3.0)
_NOTHING = 204
_FIRST_RETRY_S, _LAST_RETRY_S, _RETRY_GROWTH = 0.2, 5.0, 1.5


class FeedUnavailableError(Exception):
    """The control plane did not answer with a page."""


class Feed:
    """The node's side of the feed.

    Args:
        base_url: Of the control plane.
        token_path: File with the node's token; read each time, so it can be changed.
        publisher: Takes the records, and knows how far the feed was followed.
        clock: Tells for how long the feed is lost.
        on_change: Called when workers have something new to see.
        transport: Replaces the network in tests.
    """

    def __init__(
        self,
        base_url: str,
        token_path: Path,
        publisher: Publisher,
        clock: Clock,
        on_change: Callable[[], None],
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See the class."""
        self._url = base_url.rstrip("/") + PATH
        self._token_path = token_path
        self._publisher = publisher
        self._clock = clock
        self._on_change = on_change
        self._client = httpx.AsyncClient(
            timeout=_TIMEOUT,
            trust_env=False,
            transport=transport,
            verify=verify_for(base_url),
        )
        self._followed_at_s = clock.monotonic_s()
        self.failure_count = 0

    @property
    def age_s(self) -> float:
        """Seconds since it was followed to its end, or since the start when it never was."""
        return self._clock.monotonic_s() - self._followed_at_s

    @property
    def is_lost(self) -> bool:
        """Whether the node serves from what may no longer be true."""
        return self.age_s > LOST_AFTER_S

    async def run(self) -> None:
        """Follow until cancelled."""
        retry_s = _FIRST_RETRY_S
        try:
            while True:
                asked_at_s = self._clock.monotonic_s()
                try:
                    await self._follow()
                    self._followed_at_s = self._clock.monotonic_s()
                    retry_s = _FIRST_RETRY_S
                    await asyncio.sleep(asked_at_s + MIN_INTERVAL_S - self._followed_at_s)
                except (FeedUnavailableError, SnapshotFormatError, OSError, lmdb.Error) as error:
                    self.failure_count += 1
                    log_events.FEED_LOST.log(error=error, retry_s=round(retry_s, 1))
                    await asyncio.sleep(retry_s)
                    retry_s = min(retry_s * _RETRY_GROWTH, _LAST_RETRY_S)
        finally:
            await self._client.aclose()

    async def _follow(self) -> None:
        """Ask once, wait for the answer, publish it."""
        stamp, seq = self._publisher.cursor
        first = await self._ask(Position(seq, stamp), "", WAIT_S)
        if first is None:
            return
        pages = [first]
        while pages[-1].next_after:
            page = await self._ask(first.position, pages[-1].next_after, 0)
            if page is None or page.position != first.position:
                message = "the pages of an answer do not belong together"
                raise SnapshotFormatError(message)
            pages.append(page)
        if await asyncio.to_thread(self._publish, pages):
            self._on_change()
        log_events.FEED_FOLLOWED.log(seq=first.position.seq, full=first.is_full)

    def _publish(self, pages: list[FeedPage]) -> bool:
        first = pages[0]
        return self._publisher.publish_feed(
            first.position.stamp,
            first.position.seq,
            {name: value for page in pages for name, value in page.puts},
            {name for page in pages for name in page.deletes},
            is_full=first.is_full,
        )

    async def _ask(self, position: Position, after: str, wait_s: float) -> FeedPage | None:
        try:
            token = self._token_path.read_text(encoding="ascii").strip()
            answer = await self._client.get(
                self._url,
                params={
                    "seq": position.seq,
                    "stamp": position.stamp,
                    "after": after,
                    "wait_s": wait_s,
                },
                headers={"authorization": f"Bearer {token}"},
            )
        except (httpx.HTTPError, OSError, ValueError) as error:
            message = f"{type(error).__name__}: {error}"
            raise FeedUnavailableError(message) from None
        let_go(answer)
        if answer.status_code != _NOTHING and not answer.is_success:
            message = f"status {answer.status_code}"
            raise FeedUnavailableError(message)
        return None if answer.status_code == _NOTHING else read_page(answer.content)
