"""Usage that comes by way of NATS JetStream: stored first, then answered, then acknowledged.

The broker only carries. A message that comes twice, or again after a crash between the commit and
its acknowledgement, changes nothing: events count once by their id, in the database.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.contract.usage import UsageBatch, UsageReceipt, decode_batch
from penstock.contract.usage_messages import (
    ANSWER_HEADER,
    MAC_HEADER,
    READER,
    REFUSED,
    STORED,
    STREAM,
    SUBJECT,
    answer_mac,
    batch_mac,
    batch_name,
    is_same,
)
from penstock.control.errors import NATS_SETTING
from penstock.control.settings import ControlSettings
from penstock.kit.errors import PenstockError
from penstock.kit.secrets import resolve_secret
from penstock.metering.intake import Take
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.scope import Scope

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.js.client import JetStreamContext

log = logging.getLogger(__name__)

MAX_BYTES = 1024**3
"""Of what the broker keeps; when that is full nodes keep theirs on their disks."""
MAX_AGE_S = 3_600.0
"""How long the broker keeps what nobody takes; nodes send it again."""
_AT_ONCE = 8
_FETCH_S = 5.0
_RETRY_S = 1.0
_ACK_WAIT_S = 30.0


class NatsUsage:
    """Takes batches from a NATS server until it is cancelled.

    Args:
        url: Of the server, or several with commas between them.
        password: The server's token, if it wants one.
        node_token: What nodes prove themselves by.
        take: Stores a batch, and returns once that is committed.
        ack_wait_s: After how long the broker gives a message to somebody else.
    """

    def __init__(
        self,
        url: str,
        password: str | None,
        node_token: bytes,
        take: Callable[[UsageBatch], Awaitable[UsageReceipt]],
        *,
        ack_wait_s: float = _ACK_WAIT_S,
    ) -> None:
        """See the class."""
        self._servers = url.split(",")
        self._password = password
        self._token = node_token
        self._take = take
        self._ack_wait_s = ack_wait_s
        self.forged = 0
        """Messages that no node wrote."""

    async def run(self) -> None:
        """Take what comes, for ever; what fails is tried again."""
        import nats.errors  # noqa: PLC0415 - of an optional extra

        while True:
            try:
                await self._run()
            except (nats.errors.Error, OSError, TimeoutError) as error:
                log.warning("no usage by way of NATS: %s: %s", type(error).__name__, error)
            await asyncio.sleep(_RETRY_S)

    async def _run(self) -> None:
        from nats.aio.client import Client  # noqa: PLC0415 - as above

        options: dict[str, Any] = {} if self._password is None else {"token": self._password}
        client = Client()
        try:
            await client.connect(
                self._servers,
                connect_timeout=3,
                allow_reconnect=False,
                error_cb=_pass_over,
                **options,
            )
            await self._consume(client)
        finally:
            await client.close()

    async def _consume(self, client: "Client") -> None:
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
        log.info("usage comes by way of NATS, too")
        while not client.is_closed:
            try:
                messages = await pulling.fetch(_AT_ONCE, timeout=_FETCH_S)
            except nats.errors.TimeoutError:
                continue
            for message in messages:
                await self._handle(client, message)

    async def _handle(self, client: "Client", message: "Msg") -> None:
        headers = message.headers or {}
        subject = headers.get(ANSWER_HEADER, "")
        expected = batch_mac(self._token, subject, message.data)
        if not is_same(headers.get(MAC_HEADER, ""), expected):
            self.forged += 1
            log.error("a message on NATS was not written by a node of ours")
            await message.term()
            return
        try:
            answer = STORED + msgspec.json.encode(await self._take(decode_batch(message.data)))
        except DatabaseUnavailableError as error:
            log.warning("usage by way of NATS waits: %s", error)
            await message.nak(_RETRY_S)
            return
        except (PenstockError, ValueError) as error:
            answer = REFUSED + str(error).encode()
        name = batch_name(message.data)
        mac = answer_mac(self._token, name, answer)
        await client.publish(subject, answer, headers={MAC_HEADER: mac})
        # Last: what is acknowledged is never given to anybody again.
        await message.ack()


def create_nats_usage(settings: ControlSettings, node_token: bytes, take: Take) -> NatsUsage | None:
    """Return what takes usage from a broker, or None when there is none.

    Args:
        settings: They name one, or not.
        node_token: What nodes prove themselves by.
        take: Stores a batch.

    Raises:
        PenstockError: `NATS_SETTING`: the extra is not installed, or a password is in the address.
        SecretUnavailableError: The server's token cannot be read.
    """
    url = settings.nats_url
    if url is None:
        return None
    if find_spec("nats") is None or "@" in url:
        raise PenstockError(NATS_SETTING)
    password = None if settings.nats_password is None else resolve_secret(settings.nats_password)
    everybody = Scope.all_organizations()
    return NatsUsage(url, password, node_token, lambda batch: take(batch, everybody))


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
        duplicate_window=120.0,
    )
    await stream.add_stream(config)


async def _pass_over(_: Exception) -> None:
    """Say nothing of what a failing call says anyway."""
