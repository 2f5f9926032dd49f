"""Kafka as a control plane sees it."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from penstock.contract.usage_messages import (
    ANSWER_HEADER,
    ANSWERS,
    MAC_HEADER,
    READER,
    STREAM,
    AnswerMessage,
    BatchMessage,
)
from penstock.control import log_events
from penstock.control.broker_usage import RETRY_S, BrokerLostError, Parcel

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord


_TIMEOUT_MS = 5_000
_SESSION_TIMEOUT_S = 10.0


class KafkaBroker:
    """A Kafka cluster; see `Broker`.

    Args:
        options: How the cluster is reached (`contract.kafka.client_options`).
        session_timeout_s: After how long without a sign of life others get a control plane's share.
    """

    name = "Kafka"

    def __init__(
        self, options: dict[str, Any], *, session_timeout_s: float = _SESSION_TIMEOUT_S
    ) -> None:
        """See the class."""
        self._options = options
        self._session_timeout_ms = int(session_timeout_s * 1000)

    async def parcels(self) -> AsyncGenerator[Parcel, None]:
        """See `Broker`."""
        from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # noqa: PLC0415 - optional extra

        producer = AIOKafkaProducer(**self._options, acks="all", request_timeout_ms=_TIMEOUT_MS)
        reader = AIOKafkaConsumer(
            STREAM,
            **self._options,
            group_id=READER,
            # Joining a group takes as long as its other members may be silent.
            request_timeout_ms=self._session_timeout_ms + _TIMEOUT_MS,
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_interval_ms=self._session_timeout_ms // 3,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            with _losing():
                await producer.start()
                await reader.start()
                log_events.BROKER_READ.log(broker="Kafka")
                async for record in reader:
                    yield _KafkaParcel(reader, producer, record)
        finally:
            await reader.stop()
            await producer.stop()


class _KafkaParcel:
    def __init__(
        self,
        reader: "AIOKafkaConsumer",
        producer: "AIOKafkaProducer",
        record: "ConsumerRecord[bytes, bytes]",
    ) -> None:
        from aiokafka import TopicPartition  # noqa: PLC0415 - as above

        # Anybody may have written it: what should be text may be no text, or nothing at all.
        headers = {name: (value or b"").decode("latin-1") for name, value in record.headers}
        self.message = BatchMessage(
            record.value or b"", headers.get(ANSWER_HEADER, ""), headers.get(MAC_HEADER, "")
        )
        self._reader = reader
        self._producer = producer
        self._offset = record.offset
        self._place = TopicPartition(record.topic, record.partition)

    async def answer(self, answer: AnswerMessage) -> None:
        with _losing():
            places = {str(place): place for place in await self._producer.partitions_for(ANSWERS)}
            if self.message.answer_to not in places:
                log_events.BROKER_NOWHERE.log(broker="Kafka")
                return
            await self._producer.send_and_wait(
                ANSWERS,
                answer.content,
                key=answer.name.encode(),
                partition=places[self.message.answer_to],
                headers=[(MAC_HEADER, answer.mac.encode())],
            )

    async def confirm(self) -> None:
        from aiokafka.errors import CommitFailedError, IllegalStateError  # noqa: PLC0415 - as above

        # Its partition may be another control plane's by now, which takes the batch once more.
        with _losing(), suppress(CommitFailedError, IllegalStateError):
            await self._reader.commit({self._place: self._offset + 1})

    async def put_back(self) -> None:
        from aiokafka.errors import IllegalStateError  # noqa: PLC0415 - as above

        with suppress(IllegalStateError):  # as above
            self._reader.seek(self._place, self._offset)
        await asyncio.sleep(RETRY_S)


@contextmanager
def _losing() -> Iterator[None]:
    """Say in our words that the cluster is lost."""
    from aiokafka.errors import KafkaError  # noqa: PLC0415 - as above

    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        message = f"{type(error).__name__}: {error}"
        raise BrokerLostError(message) from None
