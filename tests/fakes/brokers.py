"""Brokers that carry usage, each with what tests do to it behind its users' backs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import nats
from confluent_kafka import Consumer, Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from tests.fakes.kafka_cluster import KafkaCluster
from tests.fakes.nats_server import NatsServer

from penstock.contract.kafka import KafkaSettings, client_options
from penstock.contract.usage_messages import (
    ANSWER_HEADER,
    ANSWERS,
    MAC_HEADER,
    READER,
    STORED,
    STREAM,
    SUBJECT,
    BatchMessage,
    batch_name,
)
from penstock.control import kafka_usage, nats_usage
from penstock.control.broker_usage import Broker as ControlBroker
from penstock.node.transport.broker import Broker as NodeBroker
from penstock.node.transport.kafka import KafkaBroker
from penstock.node.transport.nats import NatsBroker

LIE = STORED + b'{"stored":1,"duplicates":0,"conflicts":0}'
NO_PROOF = "0" * 64


class Carrier(Protocol):
    """A broker and what tests need of it."""

    answer_to: str
    """Somewhere that answers can go to."""

    def for_node(self) -> NodeBroker:
        """Return what a node has of it."""
        ...

    def for_control(self) -> ControlBroker:
        """Return what a control plane has of it."""
        ...

    def kill(self) -> None:
        """Let it be away."""
        ...

    def start(self) -> None:
        """Let it be there again."""
        ...

    async def forget(self) -> None:
        """Let nothing be left of other tests."""
        ...

    async def left(self) -> int:
        """Return how many batches are not confirmed."""
        ...

    async def forge(self, message: BatchMessage) -> None:
        """Put a batch there as somebody does who may."""
        ...

    def lying(self) -> AbstractAsyncContextManager[None]:
        """Answer each batch, as somebody does who may, that it is stored; without proof."""
        ...


class NatsCarrier:
    """A NATS server."""

    answer_to = "_INBOX.forger"

    def __init__(self, server: NatsServer) -> None:
        """Make it of a server that runs."""
        self.server = server
        self.kill = server.kill
        self.start = server.start

    def for_node(self) -> NodeBroker:
        """See `Carrier`."""
        return NatsBroker(self.server.url, self.server.password, node_id="node-test")

    def for_control(self) -> ControlBroker:
        """See `Carrier`."""
        return nats_usage.NatsBroker(self.server.url, self.server.password, ack_wait_s=1.0)

    async def forget(self) -> None:
        """See `Carrier`."""
        async with self.client() as client:
            stream = client.jetstream()
            if STREAM in {found.config.name for found in await stream.streams_info()}:
                await stream.delete_stream(STREAM)

    async def left(self) -> int:
        """See `Carrier`."""
        async with self.client() as client:
            return (await client.jetstream().stream_info(STREAM)).state.messages

    async def forge(self, message: BatchMessage) -> None:
        """See `Carrier`."""
        headers = {ANSWER_HEADER: message.answer_to, MAC_HEADER: message.mac}
        async with self.client() as client:
            stream = client.jetstream()
            await stream.publish(f"{SUBJECT}.forger", message.content, headers=headers)

    @asynccontextmanager
    async def lying(self) -> AsyncIterator[None]:
        """See `Carrier`."""
        async with self.client() as client:

            async def answer(message: Msg) -> None:
                to = (message.headers or {})[ANSWER_HEADER]
                await client.publish(to, LIE, headers={MAC_HEADER: NO_PROOF})

            await client.subscribe(f"{SUBJECT}.*", cb=answer)
            await client.flush()  # it listens now
            yield

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """Return a connection of somebody."""
        client = await nats.connect(self.server.url, token=self.server.password)
        try:
            yield client
        finally:
            await client.close()


class KafkaCarrier:
    """A Kafka cluster."""

    answer_to = "0"

    def __init__(self, cluster: KafkaCluster) -> None:
        """Make it of a cluster that runs."""
        self.cluster = cluster
        self.kill = cluster.kill
        self.start = cluster.start
        self._options = client_options(KafkaSettings(servers=cluster.servers))

    def for_node(self) -> NodeBroker:
        """See `Carrier`."""
        return KafkaBroker(self._options, node_id="node-test", timeout_s=1.0)

    def for_control(self) -> ControlBroker:
        """See `Carrier`."""
        return kafka_usage.KafkaBroker(self._options, session_timeout_s=1.5)

    async def forget(self) -> None:
        """See `Carrier`: it is made for each test."""

    async def left(self) -> int:
        """See `Carrier`."""
        return await asyncio.to_thread(self.cluster.unread, READER, STREAM)

    async def forge(self, message: BatchMessage) -> None:
        """See `Carrier`."""
        headers = {ANSWER_HEADER: message.answer_to, MAC_HEADER: message.mac or None}
        await asyncio.to_thread(self.cluster.write, STREAM, message.content, headers=headers)

    @asynccontextmanager
    async def lying(self) -> AsyncIterator[None]:
        """See `Carrier`."""
        lying = asyncio.create_task(self._lie())
        try:
            yield
        finally:
            lying.cancel()
            await asyncio.wait([lying])

    async def _lie(self) -> None:
        reader = Consumer(
            {
                "bootstrap.servers": self.cluster.servers,
                "group.id": "forger",
                "auto.offset.reset": "earliest",
            }
        )
        reader.subscribe([STREAM])
        try:
            while True:
                found = await asyncio.to_thread(reader.poll, 0.1)
                if found is not None and found.error() is None:
                    await self._answer(found)
        finally:
            reader.close()

    async def _answer(self, message: Message) -> None:
        answer_to = dict(message.headers() or ())[ANSWER_HEADER]
        await asyncio.to_thread(
            self.cluster.write,
            ANSWERS,
            LIE,
            partition=int(answer_to or 0),
            key=batch_name(message.value() or b"").encode(),
            headers={MAC_HEADER: NO_PROOF},
        )
