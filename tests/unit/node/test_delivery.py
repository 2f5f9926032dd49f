"""Handing events to the store."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
from msgspec.msgpack import encode
from msgspec.structs import replace
from tests.fakes.fake_worker import make_event, make_open

from penstock.contract.usage import (
    PLACES_PATH,
    PlacesAnswer,
    PlacesQuestion,
    StoredPlace,
    UsageBatch,
    UsageEvent,
    UsageReceipt,
    WorkerLife,
)
from penstock.node.delivery import (
    BatchRefusedError,
    ControlPlane,
    Delivered,
    NotDeliveredError,
    decode_receipt,
    deliver,
)
from penstock.node.progress import Position

EVENTS = tuple(make_event(make_open(str(number))) for number in range(50))
BATCH = UsageBatch("node/0", 1, EVENTS, segment=3, offset=900, from_segment=2, from_offset=100)


@asynccontextmanager
async def answering(folder: Path, status: int, content: bytes) -> AsyncIterator[ControlPlane]:
    """Yield the store behind a control plane that always answers this."""
    (folder / "token").write_text("secret-token")

    def answer(request: httpx.Request) -> httpx.Response:
        question = msgspec.msgpack.decode(request.content, type=PlacesQuestion)
        assert (request.url.path, len(question.lives)) == (PLACES_PATH, 2)
        return httpx.Response(status, content=content)

    store = ControlPlane(
        "http://127.0.0.1:1", folder / "token", transport=httpx.MockTransport(answer)
    )
    yield store
    await store.close()


class PickyStore:
    """A store that refuses batches with certain events."""

    def __init__(self, is_bad: Callable[[UsageEvent], bool]) -> None:
        """See the class."""
        self.stored: list[str] = []
        self.places_told: list[tuple[int, int]] = []
        self.sent = 0
        self._is_bad = is_bad

    async def send(self, batch: UsageBatch) -> UsageReceipt:
        """Store a batch, or refuse it whole."""
        self.sent += 1
        if any(map(self._is_bad, batch.events)):
            raise BatchRefusedError
        self.stored += [event.event_id for event in batch.events]
        self.places_told.append((batch.segment, batch.offset))
        assert (batch.from_segment, batch.from_offset) == (2, 100)
        return UsageReceipt(len(batch.events), 0, segment=2, offset=100)

    async def end(self, producer: str, epoch: int) -> None:
        """Never called."""
        raise AssertionError((producer, epoch))

    async def places(self, lives: Sequence[WorkerLife]) -> Sequence[StoredPlace]:
        """Never called."""
        raise AssertionError(lives)


async def test_a_batch_goes_out_whole() -> None:
    """What the store takes is sent once."""
    store = PickyStore(lambda _: False)
    assert await deliver(store, BATCH) == Delivered([], is_told=True, place=Position(2, 100))
    assert store.sent == 1
    assert store.stored == [event.event_id for event in EVENTS]


async def test_bad_events_do_not_hold_up_the_others() -> None:
    """Events that the store refuses are found, and all others are stored in their order."""
    store = PickyStore(lambda event: event.event_id in {"7", "31"})
    refused, is_told, _ = await deliver(store, BATCH)
    assert is_told
    assert [event.event_id for event in refused] == ["7", "31"]
    assert store.stored == [e.event_id for e in EVENTS if e.event_id not in {"7", "31"}]


async def test_only_the_last_part_says_how_far_a_batch_reaches() -> None:
    """While parts of it are under way, nothing is said to be stored behind them."""
    store = PickyStore(lambda event: event.event_id == "7")
    assert (await deliver(store, BATCH)).is_told
    assert store.places_told[-1] == (3, 900)
    assert set(store.places_told[:-1]) == {(0, 0)}
    store = PickyStore(lambda event: event.event_id == "49")
    assert not (await deliver(store, BATCH)).is_told
    assert set(store.places_told) == {(0, 0)}


@pytest.mark.parametrize(
    ("status", "content", "expected"),
    [
        (404, b"", None),
        (200, encode(PlacesAnswer((StoredPlace(2, 5), StoredPlace()))), (2, 0)),
    ],
)
async def test_a_control_plane_may_not_know_places(
    tmp_path: Path, status: int, content: bytes, expected: tuple[int, int] | None
) -> None:
    """One that never heard of the question says nothing; others have a place for each life."""
    async with answering(tmp_path, status, content) as store:
        places = await store.places([WorkerLife("node/0", 1), WorkerLife("node/1", 2)])
    assert (None if places is None else tuple(place.segment for place in places)) == expected


@pytest.mark.parametrize(
    ("status", "content"),
    [(503, b""), (200, b"<html>"), (200, encode(PlacesAnswer((StoredPlace(2, 5),))))],
)
async def test_half_an_answer_about_places_is_none(
    tmp_path: Path, status: int, content: bytes
) -> None:
    """What does not say a place for each life is no answer."""
    async with answering(tmp_path, status, content) as store:
        with pytest.raises(NotDeliveredError):
            await store.places([WorkerLife("node/0", 1), WorkerLife("node/1", 2)])


async def test_nothing_is_set_aside_when_everything_is_refused() -> None:
    """A store that refuses everything is itself at fault, and is soon left in peace."""
    store = PickyStore(lambda _: True)
    with pytest.raises(BatchRefusedError, match="everything is refused"):
        await deliver(store, BATCH)
    assert store.sent < 30
    with pytest.raises(BatchRefusedError):
        await deliver(store, replace(BATCH, events=EVENTS[:1]))


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", b"{}", b'{"stored": 1, "duplicates": 0}', b'{"stored": "3"}']
)
def test_only_a_full_receipt_counts(answer: bytes) -> None:
    """An answer that does not account for every event is no acknowledgement."""
    with pytest.raises(NotDeliveredError):
        decode_receipt(answer, 3)
    assert decode_receipt(b'{"stored":1,"duplicates":1,"conflicts":1}', 3).stored == 1


async def test_an_absent_control_plane_is_a_failed_delivery(tmp_path: Path) -> None:
    """Neither a refused connection nor a missing token is anything else."""
    store = ControlPlane("http://127.0.0.1:1", tmp_path / "token")
    batch = UsageBatch("node/0", 1, EVENTS)
    with pytest.raises(NotDeliveredError, match="FileNotFoundError"):
        await store.send(batch)
    (tmp_path / "token").write_text("secret-token")
    with pytest.raises(NotDeliveredError, match="ConnectError") as caught:
        await store.send(batch)
    assert "secret-token" not in str(caught.value)
    await store.close()
