"""Hands batches of usage events to the usage store."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import httpx
import msgspec
from msgspec.structs import replace

from penstock.contract.money import FreeRequest
from penstock.contract.usage import (
    PLACES_PATH,
    PlacesAnswer,
    PlacesQuestion,
    StoredPlace,
    UsageBatch,
    UsageEvent,
    UsageReceipt,
    WorkerLife,
    encode_batch,
)
from penstock.node import log_events
from penstock.node.calls import (
    CallRefusedError,
    ControlCalls,
    NotAnsweredError,
    PathUnknownError,
)
from penstock.node.progress import Position

PATH = "/node/v1/usage"
FREE_PATH = "/internal/v1/holds/free"
MAX_EVENTS = 500
"""Events of one batch."""
_TIMEOUT_S = 30.0
_MAX_HOPELESS = 8
"""Events refused one by one, with none taken: then it is not the events that are wrong."""

_encode = msgspec.msgpack.Encoder().encode


class NotDeliveredError(Exception):
    """The store did not say that it has the batch; it may have it all the same."""


class BatchRefusedError(NotDeliveredError):
    """The store will not take this batch; other batches may be fine."""


class Store(Protocol):
    """Where usage events go."""

    async def send(self, batch: UsageBatch) -> UsageReceipt:
        """Return once all events of the batch are stored.

        Raises:
            NotDeliveredError: See there, and `BatchRefusedError`.
        """
        ...

    async def end(self, producer: str, epoch: int) -> None:
        """Return once it is known that all events of a dead worker are stored.

        Nothing is held of any budget for it from then on.

        Raises:
            BatchRefusedError: Nobody knows it; others may be fine.
        """
        ...

    async def places(self, lives: Sequence[WorkerLife]) -> Sequence[StoredPlace] | None:
        """Return how far the journal of each life is stored, in their order.

        Args:
            lives: 1..500 of them.

        Returns:
            None from a store that does not say.

        Raises:
            NotDeliveredError: It did not answer.
        """
        ...


class Connection(Store, Protocol):
    """A store that is far away."""

    async def close(self) -> None:
        """Let go of the connections."""
        ...


class ControlPlane:
    """The usage store behind the control plane's HTTP interface.

    Args:
        base_url: Of the control plane.
        token_path: File with the node's token; read for every batch, so it can be changed.
        transport: Replaces the network in tests.
    """

    def __init__(
        self,
        base_url: str,
        token_path: Path,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See the class."""
        self._calls = ControlCalls(base_url, token_path, timeout_s=_TIMEOUT_S, transport=transport)

    async def send(self, batch: UsageBatch) -> UsageReceipt:
        """See `Store`."""
        content = await self._post(PATH, encode_batch(batch))
        return decode_receipt(content, len(batch.events))

    async def end(self, producer: str, epoch: int) -> None:
        """See `Store`."""
        try:
            await self._post(FREE_PATH, _encode(FreeRequest(producer, epoch, (), is_over=True)))
        except NotDeliveredError as error:
            raise BatchRefusedError(str(error)) from None

    async def places(self, lives: Sequence[WorkerLife]) -> Sequence[StoredPlace] | None:
        """See `Store`."""
        try:
            content = await self._calls.post(PLACES_PATH, _encode(PlacesQuestion(tuple(lives))))
        except PathUnknownError:
            return None
        except NotAnsweredError as error:
            raise NotDeliveredError(str(error)) from None
        try:
            answer = msgspec.msgpack.decode(content, type=PlacesAnswer)
        except msgspec.DecodeError:
            message = "the answer says no places"
            raise NotDeliveredError(message) from None
        if len(answer.places) != len(lives):
            message = f"the answer says {len(answer.places)} of {len(lives)} places"
            raise NotDeliveredError(message)
        return answer.places

    async def close(self) -> None:
        """Let go of the connections."""
        await self._calls.close()

    async def _post(self, path: str, content: bytes) -> bytes:
        try:
            return await self._calls.post(path, content)
        except CallRefusedError as error:
            raise BatchRefusedError(str(error)) from None
        except NotAnsweredError as error:
            raise NotDeliveredError(str(error)) from None


def decode_receipt(content: bytes, count: int) -> UsageReceipt:
    """Return the receipt of a batch; without one, nothing says that the batch is stored."""
    try:
        receipt = msgspec.json.decode(content, type=UsageReceipt)
    except msgspec.DecodeError:
        message = "the answer is no receipt"
        raise NotDeliveredError(message) from None
    accounted = receipt.stored + receipt.duplicates + receipt.conflicts
    if accounted != count:
        message = f"the receipt accounts for {accounted} of {count} events"
        raise NotDeliveredError(message)
    if receipt.conflicts:
        log_events.USAGE_CONFLICTS.log(events=receipt.conflicts)
    return receipt


class Delivered(NamedTuple):
    """What became of a batch."""

    refused: list[UsageEvent]
    """Events that were refused one by one while others were taken."""
    is_told: bool
    """Whether the store knows that it has everything before the place that the batch names."""
    place: Position | None
    """What the store had of the journal before; None when it does not say."""


async def deliver(store: Store, batch: UsageBatch) -> Delivered:
    """Deliver events in their order; where a batch is refused, find out which events are to blame.

    Args:
        store: Where to.
        batch: 1..500 events, in parts when it is refused: the last one says how far they reach.

    Raises:
        BatchRefusedError: Every event is refused, which is hardly the fault of each.
        NotDeliveredError: It is not known whether all events are stored. Either way all are to
            be delivered again; those that are stored already count once.
    """
    parts = [batch.events]
    refused: list[UsageEvent] = []
    is_told = False
    place: Position | None = None
    has_stored = False
    while parts:
        part = parts.pop()
        sent = replace(batch, events=part)
        if parts:
            sent = replace(sent, segment=0, offset=0)
        try:
            receipt = await store.send(sent)
        except BatchRefusedError as error:
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
                continue
            refused += part
            if not has_stored and (len(refused) >= _MAX_HOPELESS or not parts):
                message = f"everything is refused: {error}"
                raise BatchRefusedError(message) from None
        else:
            is_told = not parts
            if not has_stored and receipt.segment >= 0:
                place = Position(receipt.segment, receipt.offset)
            has_stored = True
    return Delivered(refused, is_told, place)
