"""Batches by way of a broker: it keeps them while control planes are busy, and carries answers."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from penstock.contract.usage import (
    StoredPlace,
    UsageBatch,
    UsageReceipt,
    WorkerLife,
    encode_batch,
)
from penstock.contract.usage_messages import (
    STORED,
    AnswerMessage,
    BatchMessage,
    answer_mac,
    batch_mac,
    batch_name,
    is_same,
)
from penstock.kit.clock import Clock
from penstock.node.delivery import (
    BatchRefusedError,
    Connection,
    NotDeliveredError,
    decode_receipt,
)

_ANSWER_TIMEOUT_S = 15.0
_COPY_EVERY_S = 60.0
"""A batch that was put on the broker is put there again after that: something was lost."""

TakeAnswer = Callable[[AnswerMessage], None]


class Broker(Protocol):
    """What carries batches to control planes, and their answers back."""

    async def open(self, take: TakeAnswer) -> None:
        """Connect, unless that was done.

        Args:
            take: Called with each answer from then on, also with those for others.

        Raises:
            NotDeliveredError: The broker is away, or will not have us.
        """
        ...

    def answer_to(self, name: str) -> str:
        """Return where the answer to a batch is to go, once it is open."""
        ...

    async def publish(self, message: BatchMessage) -> None:
        """Return once the broker has a batch.

        Raises:
            BatchRefusedError: It is larger than the broker takes, and may go in parts.
            NotDeliveredError: The broker is away, or full.
        """
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...


class _Asked(NamedTuple):
    answer: asyncio.Future[bytes]
    at_s: float


class BrokerStore:
    """A usage store behind a broker.

    Only batches go that way: what else is asked of a store, the control plane is asked itself.

    Args:
        broker: Carries batches and answers.
        token_path: File with the node's token; read for every batch, so it can be changed.
        direct: The same store by HTTP.
        clock: Tells when a batch may be put on the broker again.
        answer_timeout_s: How long the control plane may take to store a batch.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        token_path: Path,
        direct: Connection,
        clock: Clock,
        answer_timeout_s: float = _ANSWER_TIMEOUT_S,
    ) -> None:
        """See the class."""
        self._broker = broker
        self._token_path = token_path
        self._direct = direct
        self._clock = clock
        self._answer_timeout_s = answer_timeout_s
        self._asked: dict[str, _Asked] = {}
        """Batches on the broker, by name; an answer that comes late waits for the next try."""
        self.dropped = 0
        """Answers that nobody waited for, or that prove nothing."""

    async def send(self, batch: UsageBatch) -> UsageReceipt:
        """See `Store`."""
        content = encode_batch(batch)
        name = batch_name(content)
        await self._broker.open(self._take)
        asked = await self._ask(name, content)
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                answer = await asyncio.shield(asked.answer)
        except TimeoutError:
            message = "no answer came by way of the broker"
            raise NotDeliveredError(message) from None
        self._asked.pop(name, None)
        if not answer.startswith(STORED):
            raise BatchRefusedError(answer[1:].decode(errors="replace"))
        return decode_receipt(answer[1:], len(batch.events))

    async def end(self, producer: str, epoch: int) -> None:
        """See `Store`."""
        await self._direct.end(producer, epoch)

    async def places(self, lives: Sequence[WorkerLife]) -> Sequence[StoredPlace] | None:
        """See `Store`."""
        return await self._direct.places(lives)

    async def close(self) -> None:
        """Let go of the connections."""
        await self._broker.close()
        await self._direct.close()

    async def _ask(self, name: str, content: bytes) -> _Asked:
        """Put a batch on the broker, unless it was put there lately."""
        now_s = self._clock.monotonic_s()
        for old in [at for at, one in self._asked.items() if one.at_s <= now_s - _COPY_EVERY_S]:
            del self._asked[old]
        if name in self._asked:
            return self._asked[name]
        answer_to = self._broker.answer_to(name)
        mac = batch_mac(self._token(), answer_to, content)
        # Before it is sent: the answer may be faster than the broker's receipt.
        asked = self._asked[name] = _Asked(asyncio.get_running_loop().create_future(), now_s)
        try:
            await self._broker.publish(BatchMessage(content, answer_to, mac))
        except BaseException:
            self._asked.pop(name, None)
            raise
        return asked

    def _take(self, message: AnswerMessage) -> None:
        asked = self._asked.get(message.name)
        if (
            asked is None
            or asked.answer.done()
            or not is_same(message.mac, answer_mac(self._token(), message.name, message.content))
        ):
            self.dropped += 1
            return
        asked.answer.set_result(message.content)

    def _token(self) -> bytes:
        return self._token_path.read_text(encoding="ascii").strip().encode()
