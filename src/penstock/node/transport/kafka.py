"""Kafka as a node sees it."""

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from penstock.contract.usage_messages import (
    ANSWER_HEADER,
    ANSWERS,
    MAC_HEADER,
    STREAM,
    AnswerMessage,
    BatchMessage,
)
from penstock.node.delivery import BatchRefusedError, NotDeliveredError
from penstock.node.transport.broker import TakeAnswer

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

_TIMEOUT_S = 5.0
_MAX_BYTES = 16 * 1024 * 1024
"""Far more than a batch has; how much a server takes, only the server can say."""


class KafkaBroker:
    """A Kafka cluster; see `Broker`.

    All answers are in one topic. A node reads one partition of it, and names it with each batch.

    Args:
        options: How the cluster is reached (`contract.kafka.client_options`).
        node_id: The node's id.
        timeout_s: How long the cluster may take for what it is asked.
    """

    def __init__(
        self, options: dict[str, Any], *, node_id: str, timeout_s: float = _TIMEOUT_S
    ) -> None:
        """See the class."""
        self._options = options | {"request_timeout_ms": int(timeout_s * 1000)}
        self._node_id = node_id
        self._producer: AIOKafkaProducer | None = None
        self._reader: AIOKafkaConsumer | None = None
        self._reading: asyncio.Task[None] | None = None
        self._partition = 0

    async def open(self, take: TakeAnswer) -> None:
        """See `Broker`."""
        if self._reading is not None and not self._reading.done():
            return
        await self.close()
        try:
            with _undelivered():
                await self._start()
        except BaseException:
            await self.close()
            raise
        self._reading = asyncio.create_task(self._read(take), name="kafka answers")

    def answer_to(self, _name: str) -> str:
        """See `Broker`."""
        return str(self._partition)

    async def publish(self, message: BatchMessage) -> None:
        """See `Broker`."""
        from aiokafka.errors import MessageSizeTooLargeError  # noqa: PLC0415 - of an optional extra

        assert self._producer is not None, "open comes first"  # noqa: S101
        headers = [
            (ANSWER_HEADER, message.answer_to.encode()),
            (MAC_HEADER, message.mac.encode()),
        ]
        try:
            with _undelivered():
                await self._producer.send_and_wait(STREAM, message.content, headers=headers)
        except MessageSizeTooLargeError:
            reason = "it is larger than the broker takes"
            raise BatchRefusedError(reason) from None

    async def close(self) -> None:
        """See `Broker`."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.stop()
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _start(self) -> None:
        from aiokafka import (  # noqa: PLC0415 - as above
            AIOKafkaConsumer,
            AIOKafkaProducer,
            TopicPartition,
        )

        self._producer = AIOKafkaProducer(**self._options, acks="all", max_request_size=_MAX_BYTES)
        await self._producer.start()
        partitions = sorted(await self._producer.partitions_for(ANSWERS))
        self._partition = partitions[zlib.crc32(self._node_id.encode()) % len(partitions)]
        self._reader = AIOKafkaConsumer(**self._options, enable_auto_commit=False)
        await self._reader.start()
        place = TopicPartition(ANSWERS, self._partition)
        self._reader.assign([place])
        # Where it ends now, before anything is asked: "the end" may be found after an answer came.
        self._reader.seek(place, (await self._reader.end_offsets([place]))[place])

    async def _read(self, take: TakeAnswer) -> None:
        assert self._reader is not None  # noqa: S101 - it was just started
        async for record in self._reader:
            mac = dict(record.headers).get(MAC_HEADER) or b""
            name = record.key or b""
            take(AnswerMessage(name.decode("latin-1"), record.value or b"", mac.decode("latin-1")))


@contextmanager
def _undelivered() -> Iterator[None]:
    """Say in our words that the cluster is away; that a batch is too large is left as it is."""
    from aiokafka.errors import KafkaError, MessageSizeTooLargeError  # noqa: PLC0415 - as above

    try:
        yield
    except MessageSizeTooLargeError:
        raise
    except (KafkaError, OSError, TimeoutError) as error:
        message = f"{type(error).__name__}: {error}"
        raise NotDeliveredError(message) from None
