"""Brings one message to a collector, by HTTP or by gRPC, and says what came of it.

Messages are bytes here: what is in them is for those who make them.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import httpx

from penstock.kit.tls import verify_for
from penstock.node.answers import let_go
from penstock.node.telemetry.messages import read_rejected

_RETRIED: Final = frozenset({429, 502, 503, 504})
_RETRIED_GRPC: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
_MOST_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Signal:
    """A kind of telemetry."""

    name: str
    path: str
    """Behind the endpoint, by HTTP."""
    method: str
    """By gRPC."""


_SERVICES: Final = "/opentelemetry.proto.collector"
TRACES: Final = Signal("traces", "/v1/traces", f"{_SERVICES}.trace.v1.TraceService/Export")
METRICS: Final = Signal("metrics", "/v1/metrics", f"{_SERVICES}.metrics.v1.MetricsService/Export")


class NotTakenError(Exception):
    """The collector did not take a message.

    Args:
        why: What is known of it.
        may_retry: Whether the same message may be taken later.
        wait_s: When, if the collector said so.
    """

    def __init__(self, why: str, *, may_retry: bool, wait_s: float | None = None) -> None:
        """See the class."""
        super().__init__(why)
        self.may_retry = may_retry
        self.wait_s = wait_s


class Door(Protocol):
    """A way to a collector."""

    async def post(self, signal: Signal, content: bytes) -> int:
        """Deliver a message once; return how many parts of it were refused.

        Raises:
            NotTakenError: See there.
        """
        ...

    async def close(self) -> None:
        """Let go of the connections."""
        ...


class HttpDoor:
    """A collector by HTTP.

    Args:
        endpoint: Its base URL.
        headers: What it is shown.
        ca: PEM file with who may sign its certificate; None for whom the machine trusts.
        timeout_s: How long one delivery may take.
    """

    def __init__(
        self, endpoint: str, headers: Mapping[str, str], *, ca: str | None, timeout_s: float
    ) -> None:
        """See the class."""
        self._endpoint = endpoint.rstrip("/")
        self._client = httpx.AsyncClient(
            timeout=timeout_s,
            headers={**headers, "content-type": "application/x-protobuf"},
            limits=httpx.Limits(max_connections=4),
            trust_env=False,
            verify=verify_for(endpoint) if ca is None else ssl.create_default_context(cafile=ca),
        )

    async def post(self, signal: Signal, content: bytes) -> int:
        """See `Door`."""
        try:
            answer = await self._client.post(self._endpoint + signal.path, content=content)
        except (httpx.HTTPError, OSError) as error:
            raise NotTakenError(type(error).__name__, may_retry=True) from None
        let_go(answer)
        if not answer.is_success:
            status = answer.status_code
            wait_s = _seconds(answer.headers.get("retry-after", ""))
            why = f"status {status}"
            raise NotTakenError(why, may_retry=status in _RETRIED, wait_s=wait_s)
        return read_rejected(answer.content)

    async def close(self) -> None:
        """See `Door`."""
        await self._client.aclose()


class GrpcDoor:
    """A collector by gRPC; see `HttpDoor` for the arguments."""

    def __init__(
        self, endpoint: str, headers: Mapping[str, str], *, ca: bytes | None, timeout_s: float
    ) -> None:
        """See the class."""
        import grpc.aio  # noqa: PLC0415 - loaded by whom uses it

        self._errors = grpc.aio.AioRpcError
        self._headers = tuple((name.lower(), value) for name, value in headers.items())
        self._timeout_s = timeout_s
        scheme, _, place = endpoint.rstrip("/").partition("://")
        if scheme == "https":
            credentials = grpc.ssl_channel_credentials(root_certificates=ca)
            self._channel = grpc.aio.secure_channel(place, credentials, _CHANNEL)
        else:
            self._channel = grpc.aio.insecure_channel(place, _CHANNEL)

    async def post(self, signal: Signal, content: bytes) -> int:
        """See `Door`."""
        call = self._channel.unary_unary(signal.method)
        try:
            answer = await call(content, timeout=self._timeout_s, metadata=self._headers)
        except self._errors as error:
            name = error.code().name
            raise NotTakenError(name, may_retry=name in _RETRIED_GRPC) from None
        return read_rejected(answer)

    async def close(self) -> None:
        """See `Door`."""
        await self._channel.close()


_CHANNEL: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
)


def _seconds(text: str) -> float | None:
    return min(float(text), _MOST_WAIT_S) if text.isascii() and text.isdigit() else None
