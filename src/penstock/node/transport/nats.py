"""NATS JetStream as a node sees it."""

from typing import TYPE_CHECKING, Any

from penstock.contract.usage_messages import (
    ANSWER_HEADER,
    MAC_HEADER,
    SUBJECT,
    AnswerMessage,
    BatchMessage,
)
from penstock.node.delivery import BatchRefusedError, NotDeliveredError
from penstock.node.transport.broker import TakeAnswer

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

_PUBLISH_TIMEOUT_S = 5.0
_HEADER_BYTES = 1_024
"""Room for what stands beside a batch in its message."""


class NatsBroker:
    """A NATS server, or several of a cluster; see `Broker`.

    Args:
        url: Of the server, or several with commas between them.
        password: The server's token, if it wants one.
        node_id: The node's id.
    """

    def __init__(self, url: str, password: str | None, *, node_id: str) -> None:
        """See the class."""
        self._servers = url.split(",")
        self._password = password
        self._subject = f"{SUBJECT}.{node_id}"
        self._client: Client | None = None
        self._inbox = ""

    async def open(self, take: TakeAnswer) -> None:
        """See `Broker`."""
        import nats.errors  # noqa: PLC0415 - of an optional extra

        if self._client is not None:
            return

        async def hand_on(message: "Msg") -> None:
            name = message.subject.rpartition(".")[2]
            take(AnswerMessage(name, message.data, (message.headers or {}).get(MAC_HEADER, "")))

        options: dict[str, Any] = {} if self._password is None else {"token": self._password}
        try:
            client = await nats.connect(
                self._servers,
                connect_timeout=3,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.5,
                pending_size=0,  # what cannot be sent now waits in the journal
                error_cb=_pass_over,
                **options,
            )
            self._inbox = client.new_inbox()
            await client.subscribe(f"{self._inbox}.*", cb=hand_on)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise _not_delivered(error) from None
        self._client = client

    def answer_to(self, name: str) -> str:
        """See `Broker`."""
        return f"{self._inbox}.{name}"

    async def publish(self, message: BatchMessage) -> None:
        """See `Broker`."""
        import nats.errors  # noqa: PLC0415 - as above

        client = self._client
        assert client is not None, "open comes first"  # noqa: S101
        if len(message.content) > client.max_payload - _HEADER_BYTES:
            reason = "it is larger than the broker takes"
            raise BatchRefusedError(reason)
        headers = {ANSWER_HEADER: message.answer_to, MAC_HEADER: message.mac}
        try:
            stream = client.jetstream(timeout=_PUBLISH_TIMEOUT_S)
            await stream.publish(self._subject, message.content, headers=headers)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise _not_delivered(error) from None

    async def close(self) -> None:
        """See `Broker`."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _not_delivered(error: Exception) -> NotDeliveredError:
    return NotDeliveredError(f"{type(error).__name__}: {error}")


async def _pass_over(_: Exception) -> None:
    """Say nothing of what a delivery that fails says anyway."""
