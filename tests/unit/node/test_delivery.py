"""Handing events to the store."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fakes.fake_worker import make_event, make_open

from penstock.contract.usage import UsageBatch, UsageEvent, UsageReceipt
from penstock.node.delivery import (
    BatchRefusedError,
    ControlPlane,
    NotDeliveredError,
    _decode_receipt,
    deliver,
)

EVENTS = tuple(make_event(make_open(str(number))) for number in range(50))


class PickyStore:
    """A store that refuses batches with certain events."""

    def __init__(self, is_bad: Callable[[UsageEvent], bool]) -> None:
        """See the class."""
        self.stored: list[str] = []
        self.sent = 0
        self._is_bad = is_bad

    async def send(self, batch: UsageBatch) -> UsageReceipt:
        """Store a batch, or refuse it whole."""
        self.sent += 1
        if any(map(self._is_bad, batch.events)):
            raise BatchRefusedError
        self.stored += [event.event_id for event in batch.events]
        return UsageReceipt(len(batch.events), 0)

    async def end(self, producer: str, epoch: int) -> None:
        """Never called."""
        raise AssertionError((producer, epoch))


async def test_a_batch_goes_out_whole() -> None:
    """What the store takes is sent once."""
    store = PickyStore(lambda _: False)
    assert await deliver(store, "node/0", 1, EVENTS) == []
    assert store.sent == 1
    assert store.stored == [event.event_id for event in EVENTS]


async def test_bad_events_do_not_hold_up_the_others() -> None:
    """Events that the store refuses are found, and all others are stored in their order."""
    store = PickyStore(lambda event: event.event_id in {"7", "31"})
    refused = await deliver(store, "node/0", 1, EVENTS)
    assert [event.event_id for event in refused] == ["7", "31"]
    assert store.stored == [e.event_id for e in EVENTS if e.event_id not in {"7", "31"}]


async def test_nothing_is_set_aside_when_everything_is_refused() -> None:
    """A store that refuses everything is itself at fault, and is soon left in peace."""
    store = PickyStore(lambda _: True)
    with pytest.raises(BatchRefusedError, match="everything is refused"):
        await deliver(store, "node/0", 1, EVENTS)
    assert store.sent < 30
    with pytest.raises(BatchRefusedError):
        await deliver(store, "node/0", 1, EVENTS[:1])


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", b"{}", b'{"stored": 1, "duplicates": 0}', b'{"stored": "3"}']
)
def test_only_a_full_receipt_counts(answer: bytes) -> None:
    """An answer that does not account for every event is no acknowledgement."""
    with pytest.raises(NotDeliveredError):
        _decode_receipt(answer, 3)
    assert _decode_receipt(b'{"stored":1,"duplicates":1,"conflicts":1}', 3).stored == 1


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
