"""Hands batches of usage events to the usage store."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import httpx
import msgspec

from penstock.contract.usage import UsageBatch, UsageEvent, UsageReceipt, encode_batch
from penstock.node.log import line

log = logging.getLogger(__name__)

PATH = "/node/v1/usage"
MAX_EVENTS = 500
"""Events of one batch."""
_TIMEOUT = httpx.Timeout(30.0, connect=3.0)
_REFUSALS = frozenset({400, 413, 422})
"""Answers that say that this content will never be taken, whoever asks how often."""
_MAX_HOPELESS = 8
"""Events refused one by one, with none taken: then it is not the events that are wrong."""


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


class ControlPlane:
    """The usage store behind the control plane's HTTP interface.

    Args:
        base_url: Of the control plane.
        token_path: File with the node's token; read for every batch, so it can be changed.
    """

    def __init__(self, base_url: str, token_path: Path) -> None:
        """See the class."""
        self._url = base_url.rstrip("/") + PATH
        self._token_path = token_path
        # Nodes talk to their control plane directly; a proxy for the world outside is not for it.
        self._client = httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False)

    async def send(self, batch: UsageBatch) -> UsageReceipt:
        """See `Store`."""
        try:
            token = self._token_path.read_text(encoding="ascii").strip()
            answer = await self._client.post(
                self._url,
                content=encode_batch(batch),
                headers={
                    "authorization": f"Bearer {token}",
                    "content-type": "application/msgpack",
                },
            )
        except (httpx.HTTPError, OSError, ValueError) as error:
            message = f"{type(error).__name__}: {error}"
            raise NotDeliveredError(message) from None
        if answer.status_code in _REFUSALS:
            message = f"status {answer.status_code}"
            raise BatchRefusedError(message)
        if not answer.is_success:
            message = f"status {answer.status_code}"
            raise NotDeliveredError(message)
        return _decode_receipt(answer.content, len(batch.events))

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()


def _decode_receipt(content: bytes, count: int) -> UsageReceipt:
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
        log.warning(line("usage conflicts", events=receipt.conflicts))
    return receipt


async def deliver(
    store: Store, producer: str, epoch: int, events: Sequence[UsageEvent]
) -> list[UsageEvent]:
    """Deliver events in their order; where a batch is refused, find out which events are to blame.

    Args:
        store: Where to.
        producer: Whose events they are.
        epoch: Of that producer.
        events: 1..500 of them.

    Returns:
        The events that were refused one by one while others were taken.

    Raises:
        BatchRefusedError: Every event is refused, which is hardly the fault of each.
        NotDeliveredError: It is not known whether all events are stored. Either way all are to
            be delivered again; those that are stored already count once.
    """
    parts = [tuple(events)]
    refused: list[UsageEvent] = []
    has_stored = False
    while parts:
        part = parts.pop()
        try:
            await store.send(UsageBatch(producer, epoch, part))
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
            has_stored = True
    return refused
