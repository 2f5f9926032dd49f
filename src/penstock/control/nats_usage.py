"""NATS JetStream as a control plane sees it."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from penstock.contract.usage_messages import (
    ANSWER_HEADER,
    MAC_HEADER,
    READER,
    STREAM,
    SUBJECT,
    AnswerMessage,
    BatchMessage,
)
from penstock.control import log_events
from penstock.control.broker_usage import RETRY_S, BrokerLostError, Parcel

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext


MAX_BYTES = 1024**3
"""Of what the broker keeps; when that is full nodes keep theirs on their disks."""
MAX_AGE_S = 3_600.0
"""How long the broker keeps what nobody takes; nodes send it again."""
_AT_ONCE = 8
_FETCH_S = 5.0
_ACK_WAIT_S = 30.0


class NatsBroker:
    """A NATS server, or several of a cluster; see `Broker`.

    Args:
        url: Of the server, or several with commas between them.
        password: The server's token, if it wants one.
        ack_wait_s: After how long the server gives a message to somebody else.
    """

    name = "NATS"

    def __init__(self, url: str, password: str | None, *, ack_wait_s: float = _ACK_WAIT_S) -> None:
        """See the class."""
        self._servers = url.split(",")
        self._password = password
        self._ack_wait_s = ack_wait_s

    async def parcels(self) -> AsyncGenerator[Parcel, None]:
        """See `Broker`."""
        from nats.aio.client import Client  # noqa: PLC0415 - of an optional extra

        options: dict[str, Any] = {} if self._password is None else {"token": self._password}
        client = Client()
        try:
            with _losing():
                await client.connect(
                    self._servers,
                    connect_timeout=3,
                    allow_reconnect=False,
                    error_cb=_pass_over,
                    **options,
                )
                async for message in self._messages(client):
                    yield _NatsParcel(client, message)
        finally:
            await client.close()

    async def _messages(self, client: "Client") -> AsyncIterator["Msg"]:
        import nats.errors  # noqa: PLC0415 - as above
        from nats.js.api import ConsumerConfig  # noqa: PLC0415 - as above

        stream = client.jetstream()
        await _make_stream(stream)
        pulling = await stream.pull_subscribe(
            f"{SUBJECT}.*",
            durable=READER,
            stream=STREAM,
            config=ConsumerConfig(ack_wait=self._ack_wait_s, max_deliver=-1),
        )
        log_events.BROKER_READ.log(broker="NATS")
        while not client.is_closed:
            try:
                messages = await pulling.fetch(_AT_ONCE, timeout=_FETCH_S)
            except nats.errors.TimeoutError:
                continue
            for message in messages:
                yield message


class _NatsParcel:
    def __init__(self, client: "Client", sent: "Msg") -> None:
        headers = sent.headers or {}
        self.message = BatchMessage(
            sent.data, headers.get(ANSWER_HEADER, ""), headers.get(MAC_HEADER, "")
        )
        self._client = client
        self._sent = sent

    async def answer(self, answer: AnswerMessage) -> None:
        with _losing():
            await self._client.publish(
                self.message.answer_to, answer.content, headers={MAC_HEADER: answer.mac}
            )

    async def confirm(self) -> None:
        with _losing():
            await self._sent.ack()

    async def put_back(self) -> None:
        with _losing():
            await self._sent.nak(RETRY_S)


@contextmanager
def _losing() -> Iterator[None]:
    """Say in our words that the server is lost."""
    import nats.errors  # noqa: PLC0415 - as above

    try:
        yield
    except (nats.errors.Error, OSError, TimeoutError) as error:
        message = f"{type(error).__name__}: {error}"
        raise BrokerLostError(message) from None


async def _make_stream(stream: "JetStreamContext") -> None:
    """Make the stream unless there is one: an operator may have made it as a cluster needs it."""
    from nats.js.errors import NotFoundError  # noqa: PLC0415 - as above

    try:
        await stream.stream_info(STREAM)
    except NotFoundError:
        await _add_stream(stream)


async def _add_stream(stream: "JetStreamContext") -> None:
    from nats.js.api import (  # noqa: PLC0415 - as above
        DiscardPolicy,
        RetentionPolicy,
        StorageType,
        StreamConfig,
    )

    config = StreamConfig(
        name=STREAM,
        subjects=[f"{SUBJECT}.*"],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_bytes=MAX_BYTES,
        max_age=MAX_AGE_S,
    )
    await stream.add_stream(config)


async def _pass_over(_: Exception) -> None:
    """Say nothing of what a failing call says anyway."""
