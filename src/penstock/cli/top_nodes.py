"""Asks agents for what they count, and knows those that do not answer."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from penstock.cli.top_rules import WANTED, Labels, Values, add_up, difference
from penstock.kit.tls import verify_for

_TIMEOUT_S: Final = 5.0
_PAGE_BYTES: Final = 32 * 1024 * 1024
_REASON_CHARS: Final = 80


class ScrapeError(Exception):
    """An agent has no answer that can be read."""


class Node:
    """One agent.

    Args:
        url: Of its listener, with `/metrics` or without.
        client: Asks it.
        now_s: Returns seconds of a monotonic clock.
    """

    def __init__(self, url: str, client: httpx.Client, now_s: Callable[[], float]) -> None:
        """See the class."""
        self.url = url.removesuffix("/").removesuffix("/metrics") + "/metrics"
        self._client = client
        self._now_s = now_s
        self._before: tuple[float, Values] | None = None
        self._answered_s: float | None = None
        self.fault: str | None = None
        """Why it did not answer the last time."""

    def look(self) -> Values | None:
        """Return the rates since it was asked before; None without two answers in a row."""
        try:
            values = self._scrape()
        except (httpx.HTTPError, ScrapeError) as error:
            self.fault = (str(error) or type(error).__name__)[:_REASON_CHARS]
            # What it counted before says nothing about the time until it is back.
            self._before = None
            return None
        before, now_s = self._before, self._now_s()
        self.fault, self._answered_s, self._before = None, now_s, (now_s, values)
        if before is None or now_s <= before[0]:
            return None
        return difference(before[1], values, now_s - before[0])

    @property
    def silent_s(self) -> float | None:
        """Seconds since it answered; None if it never did."""
        return None if self._answered_s is None else self._now_s() - self._answered_s

    def _scrape(self) -> Values:
        with self._client.stream("GET", self.url) as answer:
            if not answer.is_success:
                message = f"status {answer.status_code}"
                raise ScrapeError(message)
            page = bytearray()
            for piece in answer.iter_bytes():
                page += piece
                if len(page) > _PAGE_BYTES:
                    message = "more than 32 MiB"
                    raise ScrapeError(message)
        return read_page(page.decode(errors="replace"))


class Nodes:
    """All agents that are looked at together; a context manager is their client's.

    Args:
        urls: Where they are.
        client: Asks them.
        now_s: Returns seconds of a monotonic clock.
    """

    def __init__(
        self, urls: Sequence[str], client: httpx.Client, now_s: Callable[[], float]
    ) -> None:
        """See the class."""
        self.nodes = [Node(url, client, now_s) for url in urls]
        self._pool = ThreadPoolExecutor(max_workers=min(len(urls), 16))

    def look(self) -> Values | None:
        """Return what all that answer come to; None while none did twice in a row."""
        # At the same time: one that hangs must not make the others late.
        parts = [part for part in self._pool.map(Node.look, self.nodes) if part is not None]
        return add_up(parts) if parts else None

    def close(self) -> None:
        """Ask no more."""
        self._pool.shutdown()


def make_client(urls: Sequence[str], transport: httpx.BaseTransport | None = None) -> httpx.Client:
    """Return a client for agents.

    Args:
        urls: Where they are.
        transport: Replaces the network in tests.
    """
    verify = next((verify_for(url) for url in urls if url.startswith("https:")), False)
    return httpx.Client(timeout=_TIMEOUT_S, trust_env=False, transport=transport, verify=verify)


def read_page(page: str) -> Values:
    """Return the samples of a page that are looked at.

    Raises:
        ScrapeError: It is no exposition.
    """
    values: dict[str, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name in WANTED:
                    labels = tuple(sorted(sample.labels.items()))
                    values.setdefault(sample.name, {})[labels] = float(sample.value)
    except (ValueError, KeyError, IndexError) as error:
        message = f"this is no page of metrics: {error}"
        raise ScrapeError(message) from None
    return values
