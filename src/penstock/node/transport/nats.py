"""Batches by way of NATS JetStream: the broker keeps them while the control plane is busy."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.contract.usage import (
    StoredPlace,
    UsageBatch,
    UsageReceipt,
    WorkerLife,
    encode_batch,
)
from penstock.contract.usage_messages import (
    ANSWER_HEADER,
    MAC_HEADER,
    STORED,
    SUBJECT,
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

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

_PUBLISH_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 15.0
_COPY_EVERY_S = 60
"""The broker drops what is sent again sooner; an answer that is lost costs no more."""
_HEADER_BYTES = 1_024
"""Room for what stands beside a batch in its message."""


class NatsStore:
    """A usage store behind a NATS server.

    Only batches go that way: what else is asked of a store, the control plane is asked itself.

    Args:
        url: Of the server, or several with commas between them.
        password: The server's token, if it wants one.
        node_id: The node's id.
        token_path: File with the node's token; read for every batch, so it can be changed.
        direct: The same store by HTTP.
        clock: Tells when a copy may be sent again.
        answer_timeout_s: How long the control plane may take to store a batch.
    """

    def __init__(
        self,
        url: str,
        password: str | None,
        *,
        node_id: str,
        token_path: Path,
        direct: Connection,
        clock: Clock,
        answer_timeout_s: float = _ANSWER_TIMEOUT_S,
    ) -> None:
        """See the class."""
        self._servers = url.split(",")
        self._password = password
        self._subject = f"{SUBJECT}.{node_id}"
        self._token_path = token_path
        self._direct = direct
        self._clock = clock
        self._answer_timeout_s = answer_timeout_s
        self._client: Client | None = None
        self._inbox = ""
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self.dropped = 0
        """Answers that nobody waited for, or that prove nothing."""

    async def send(self, batch: UsageBatch) -> UsageReceipt:
        """See `Store`."""
        import nats.errors  # noqa: PLC0415 - of an optional extra

        content = encode_batch(batch)
        try:
            answer = await self._ask(content)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            message = f"{type(error).__name__}: {error}"
            raise NotDeliveredError(message) from None
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
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        await self._direct.close()

    async def _ask(self, content: bytes) -> bytes:
        client = await self._connected()
        if len(content) > client.max_payload - _HEADER_BYTES:
            message = "it is larger than the broker takes"
            raise BatchRefusedError(message)  # and is sent in parts
        name = batch_name(content)
        subject = f"{self._inbox}.{name}"
        token = self._token()
        future = self._waiting[name] = asyncio.get_running_loop().create_future()
        try:
            await client.jetstream(timeout=_PUBLISH_TIMEOUT_S).publish(
                self._subject,
                content,
                headers={
                    "Nats-Msg-Id": f"{name}-{int(self._clock.monotonic_s()) // _COPY_EVERY_S}",
                    ANSWER_HEADER: subject,
                    MAC_HEADER: batch_mac(token, subject, content),
                },
            )
            return await asyncio.wait_for(future, self._answer_timeout_s)
        finally:
            del self._waiting[name]

    async def _connected(self) -> "Client":
        import nats  # noqa: PLC0415 - of an optional extra

        if self._client is None:
            options: dict[str, Any] = {} if self._password is None else {"token": self._password}
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
            await client.subscribe(f"{self._inbox}.*", cb=self._take)
            self._client = client
        return self._client

    async def _take(self, message: "Msg") -> None:
        name = message.subject.rpartition(".")[2]
        given = (message.headers or {}).get(MAC_HEADER, "")
        future = self._waiting.get(name)
        is_proved = is_same(given, answer_mac(self._token(), name, message.data))
        if future is None or future.done() or not is_proved:
            self.dropped += 1
            return
        future.set_result(message.data)

    def _token(self) -> bytes:
        return self._token_path.read_text(encoding="ascii").strip().encode()


async def _pass_over(_: Exception) -> None:
    """Say nothing of what a delivery that fails says anyway."""
