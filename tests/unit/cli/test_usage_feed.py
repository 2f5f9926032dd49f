"""New rows are found once each, whatever order they come in."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from penstock.cli.control_client import ControlClient
from penstock.cli.instance import ControlPlane
from penstock.cli.times import format_time
from penstock.cli.usage_feed import LONG_EVERY, UsageFeed

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Store:
    """Rows as control keeps them: in order of their start."""

    def __init__(self) -> None:
        """Start empty, at noon."""
        self.rows: list[dict[str, Any]] = []
        self.now = NOW
        self.asked: list[str | None] = []

    def add(self, name: str, age: timedelta) -> None:
        """Add a row that started so long ago."""
        self.rows.append({"event_id": name, "started_at": format_time(self.now - age)})
        self.rows.sort(key=lambda row: str(row["started_at"]))

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer as control does, in one page."""
        since = request.url.params.get("since")
        self.asked.append(since)
        rows = [row for row in self.rows if row["started_at"] >= (since or "")]
        return httpx.Response(200, json={"data": rows, "next_cursor": None})


@pytest.fixture
def store() -> Store:
    """An empty store."""
    return Store()


@pytest.fixture
def make_feed(store: Store) -> Iterator[Callable[[dict[str, str]], UsageFeed]]:
    """Make feeds over the store."""
    transport = httpx.MockTransport(store.answer)
    with ControlClient(ControlPlane("http://control", "token"), transport) as client:
        yield lambda wanted: UsageFeed(client, wanted, lambda: store.now)


def names(rows: list[dict[str, Any]]) -> list[str]:
    """Return the event ids."""
    return [row["event_id"] for row in rows]


def test_fresh_rows_come_once_each(
    store: Store, make_feed: Callable[[dict[str, str]], UsageFeed]
) -> None:
    """A row that was listed before, or was fresh before, is not fresh again."""
    store.add("old", timedelta(seconds=30))
    feed = make_feed({})
    assert names(list(feed.all())) == ["old"]

    store.add("new", timedelta(seconds=1))
    assert names(feed.fresh()) == ["new"]
    assert names(feed.fresh()) == []


def test_a_long_request_is_seen_when_it_ends(
    store: Store, make_feed: Callable[[dict[str, str]], UsageFeed]
) -> None:
    """A row that comes behind younger ones, because its request took an hour, is found as well."""
    store.add("short", timedelta(seconds=5))
    feed = make_feed({})
    feed.latest(10)
    feed.fresh()

    store.add("long", timedelta(minutes=60))
    seen = [name for _ in range(LONG_EVERY) for name in names(feed.fresh())]
    assert seen == ["long"]


def test_fresh_rows_respect_since(
    store: Store, make_feed: Callable[[dict[str, str]], UsageFeed]
) -> None:
    """A look for new rows never goes back further than the time that was asked for."""
    since = format_time(store.now - timedelta(seconds=10))
    feed = make_feed({"since": since})
    feed.fresh()
    assert store.asked == [since]


def test_the_latest_are_found_in_a_short_time_first(
    store: Store, make_feed: Callable[[dict[str, str]], UsageFeed]
) -> None:
    """When the last hours hold enough rows, older ones are not read; else they are."""
    store.add("ancient", timedelta(days=400))
    for number in range(3):
        store.add(f"new-{number}", timedelta(minutes=number))
    feed = make_feed({})

    assert names(feed.latest(2)) == ["new-1", "new-0"]
    assert len(store.asked) == 1
    assert names(feed.latest(10)) == ["ancient", "new-2", "new-1", "new-0"]
    assert store.asked[-1] is None
