"""What stays in the agent of calls that are over."""

import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest

from penstock.contract.snapshot import Endpoint
from penstock.node.calls import ControlCalls
from penstock.node.engine_clients import EngineClients

CALLS = 10
Call: TypeAlias = Callable[[httpx.AsyncBaseTransport, Path], Awaitable[None]]


async def _call_control(transport: httpx.AsyncBaseTransport, folder: Path) -> None:
    (folder / "token").write_text("the-token")
    calls = ControlCalls("http://control", folder / "token", timeout_s=1, transport=transport)
    for _ in range(CALLS):
        assert await calls.post("/path", b"sent") == b"received"
    await calls.close()


async def _call_engine(transport: httpx.AsyncBaseTransport, _folder: Path) -> None:
    clients = EngineClients(1.0, transport)
    for _ in range(CALLS):
        endpoint = Endpoint("http", "10.0.0.1", 8000)
        reply = await clients.ask("POST", endpoint, "/path", None, most_bytes=100, body=b"sent")
        assert reply == (200, b"received")
    await clients.close()


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("call", [_call_control, _call_engine])
async def test_nothing_stays_of_a_call_that_is_over(call: Call, tmp_path: Path) -> None:
    """What was sent and received is gone with the call, not when garbage is looked for."""
    seen: list[weakref.ref[httpx.Request]] = []

    def respond(request: httpx.Request) -> httpx.Response:
        seen.append(weakref.ref(request))
        return httpx.Response(200, content=b"received")

    await call(httpx.MockTransport(respond), tmp_path)
    assert [request() for request in seen] == [None] * CALLS
