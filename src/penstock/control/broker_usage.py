"""Usage that comes by way of a broker: stored first, then answered, then confirmed.

The broker only carries. A message that comes twice, or again after a crash between the commit and
its confirmation, changes nothing: events count once by their id, in the database.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

import msgspec

from penstock.contract.usage import UsageBatch, UsageReceipt, decode_batch
from penstock.contract.usage_messages import (
    REFUSED,
    STORED,
    AnswerMessage,
    BatchMessage,
    answer_mac,
    batch_mac,
    batch_name,
    is_same,
)
from penstock.control import log_events
from penstock.kit.errors import PenstockError
from penstock.storage.errors import DatabaseUnavailableError

RETRY_S = 1.0
"""How long a broker or a database that is away is left alone."""


class BrokerLostError(Exception):
    """The broker is away, or will not have us."""


class Parcel(Protocol):
    """A batch that a broker hands out, to one control plane at a time."""

    @property
    def message(self) -> BatchMessage:
        """The batch, which anybody may have written."""
        ...

    async def answer(self, answer: AnswerMessage) -> None:
        """Send an answer to where the batch says.

        Raises:
            BrokerLostError: It could not be sent.
        """
        ...

    async def confirm(self) -> None:
        """Have the batch given to nobody any more.

        Raises:
            BrokerLostError: The broker does not know, and may give it again.
        """
        ...

    async def put_back(self) -> None:
        """Have the batch given again, to anybody, after about `RETRY_S`.

        Raises:
            BrokerLostError: The broker does not know, and gives it again later.
        """
        ...


class Broker(Protocol):
    """What carries batches to control planes, and their answers back."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def parcels(self) -> AsyncGenerator[Parcel, None]:
        """Connect and yield what comes; closing it ends the connection.

        What is neither confirmed nor put back by then is given again.

        Raises:
            BrokerLostError: The broker is away, or will not have us.
        """
        ...


class BrokerUsage:
    """Takes batches from a broker until it is cancelled.

    Args:
        broker: Hands them out.
        node_token: What nodes prove themselves by.
        take: Stores a batch, and returns once that is committed.
    """

    def __init__(
        self,
        broker: Broker,
        node_token: bytes,
        take: Callable[[UsageBatch], Awaitable[UsageReceipt]],
    ) -> None:
        """See the class."""
        self._broker = broker
        self._token = node_token
        self._take = take
        self.forged = 0
        """Messages that no node wrote."""

    async def run(self) -> None:
        """Take what comes, for ever; what fails is tried again."""
        while True:
            try:
                async with aclosing(self._broker.parcels()) as parcels:
                    async for parcel in parcels:
                        await self._handle(parcel)
            except BrokerLostError as error:
                log_events.BROKER_AWAY.log(broker=self._broker.name, error=error)
            except Exception as error:  # noqa: BLE001
                # Whatever it is, an end here would be noticed by nobody but waiting nodes.
                log_events.BROKER_FAILED.log(broker=self._broker.name, bug=error)
            await asyncio.sleep(RETRY_S)

    async def _handle(self, parcel: Parcel) -> None:
        content, answer_to, mac = parcel.message
        if not is_same(mac, batch_mac(self._token, answer_to, content)):
            self.forged += 1
            log_events.BROKER_FORGED.log(broker=self._broker.name)
            await parcel.confirm()
            return
        try:
            answer = STORED + msgspec.json.encode(await self._take(decode_batch(content)))
        except DatabaseUnavailableError as error:
            log_events.BROKER_WAITS.log(broker=self._broker.name, error=error)
            await parcel.put_back()
            return
        except (PenstockError, ValueError) as error:
            answer = REFUSED + str(error).encode()
        name = batch_name(content)
        await parcel.answer(AnswerMessage(name, answer, answer_mac(self._token, name, answer)))
        # Last: what is confirmed is never given to anybody again.
        await parcel.confirm()
