"""Engines whose machine is gone without a word: the kernel is told to notice it."""

import asyncio
import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.fakes.http2_ends import Recorder

from penstock.contract.snapshot import Endpoint
from penstock.engines.registry import engine_of
from penstock.gateway.endpoint import AnyEndpoint
from penstock.gateway.forward import Pool, UpstreamConnection
from penstock.gateway.http2.client import Http2Pool
from penstock.gateway.http2.stream import Stream
from penstock.gateway.offer import ServedUpstream
from penstock.gateway.retries import RetryBudget

NOTICED_S = 30
PATIENCE_S = 30.0


class Sender:
    """Who wants a connection."""

    def __init__(self) -> None:
        """Wait for one."""
        self.found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def connected(self, found: UpstreamConnection | Stream) -> None:
        """Take it."""
        if isinstance(found, Stream):
            Recorder(found)
        self.found.set_result(found)

    def connect_failed(self, pool: AnyEndpoint, refusal: object) -> None:
        """Fail the test."""
        raise AssertionError(pool, refusal)


async def _connect(kind: type[Pool | Http2Pool]) -> dict[str, int]:
    """Return what the kernel is told of a connection of this kind of pool, to a real socket."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    upstream = SimpleNamespace(
        max_connections=1,
        tls=None,
        engine=engine_of("triton"),
        timeouts=SimpleNamespace(connect_ms=PATIENCE_S * 1000),
    )
    endpoint, retries = Endpoint("http", "127.0.0.1", port), RetryBudget(loop.time)
    pool: AnyEndpoint = kind(endpoint, cast("ServedUpstream", upstream), loop, retries)
    sender = Sender()
    async with server:
        pool.acquire(sender)
        found = await asyncio.wait_for(sender.found, PATIENCE_S)
        transport: Any = found.peer if isinstance(found, Stream) else found.transport
        options = transport.get_extra_info("socket")
        said = {
            name: options.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"))
            for name in ("KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")
        }
        said["KEEPALIVE"] = options.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        transport.abort()
        async with asyncio.timeout(PATIENCE_S):
            while pool.connection_count:  # noqa: ASYNC110 - nobody would tell
                await asyncio.sleep(0.005)
    return said


@pytest.mark.parametrize("kind", [Pool, Http2Pool])
async def test_a_silent_connection_is_probed(kind: type[Pool | Http2Pool]) -> None:
    """Whoever waits for an answer hears within 30 s that nobody is there any more."""
    said = await _connect(kind)
    assert said["KEEPALIVE"] == 1
    assert 0 < said["KEEPIDLE"] + said["KEEPINTVL"] * said["KEEPCNT"] <= NOTICED_S


async def test_a_shared_connection_ends_when_nothing_arrives() -> None:
    """Probes wait while requests are sent, so that is bounded; a request alone may be read late."""
    assert (await _connect(Http2Pool))["USER_TIMEOUT"] == NOTICED_S * 1000
    assert (await _connect(Pool))["USER_TIMEOUT"] == 0
