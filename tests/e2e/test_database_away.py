"""Control plane and database end while traffic flows, and no caller notices."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Self

import httpx
import pytest
from tests.fakes.plain_http import NO_TLS
from tests.fakes.postgresql_server import Cluster, run_cluster
from tests.fakes.production import (
    MODEL,
    Production,
    administer,
    create,
    running_production,
)

CALLERS = 8
PAUSE_S = 0.02
"""Between two requests of a caller: the processes that start meanwhile want a core, too."""
AWAY_S = 1.5
BACK_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server that can be ended."""
    with run_cluster(is_durable=True) as cluster:
        asyncio.run(cluster.server.prepare())
        yield cluster


@pytest.fixture(scope="module")
def production(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """Everything, on a database of its own."""
    dsn = cluster.server.role_dsn(asyncio.run(cluster.server.create()))
    with running_production(tmp_path_factory.mktemp("production") / "data", dsn) as production:
        yield production


@pytest.fixture
def project(production: Production, request: pytest.FixtureRequest) -> str:
    """The id of a project of the test's own, that keys can be put into."""
    with administer(production) as admin:
        organization = create(admin, "/organizations", name=request.node.name)
        found = create(admin, "/projects", name="web", organization_id=organization["id"])
        return str(found["id"])


def _create_key(production: Production, project: str, name: str) -> str:
    with administer(production) as admin:
        return str(create(admin, "/keys", name=name, project_id=project)["secret"])


async def _chat(client: httpx.AsyncClient, secret: str) -> int:
    answer = await client.post(
        "/v1/chat/completions",
        headers={"authorization": f"Bearer {secret}"},
        json={"model": MODEL, "messages": [{"role": "user", "content": "hi"}]},
    )
    return answer.status_code


async def _until_good(production: Production, secret: str) -> None:
    """Wait until a new key works, on connections that are new each time."""
    deadline = time.monotonic() + BACK_WITHIN_S
    in_a_row = 0
    while in_a_row < 10:
        async with httpx.AsyncClient(
            base_url=production.url("api"), timeout=BACK_WITHIN_S, verify=NO_TLS
        ) as client:
            in_a_row = in_a_row + 1 if await _chat(client, secret) == 200 else 0
        assert time.monotonic() < deadline, production.log("agent")[-3000:]


class Traffic:
    """Callers of a good key, and a clerk of the admin API; both go on whatever they are told."""

    def __init__(self, production: Production, secret: str) -> None:
        """See the class."""
        self._production = production
        self._secret = secret
        self._stop = asyncio.Event()
        self.callers: Counter[int] = Counter()
        self.clerk: Counter[tuple[int, bool]] = Counter()
        """By status, and whether `Retry-After` is there."""

    async def __aenter__(self) -> Self:
        """Begin."""
        self._tasks = [asyncio.create_task(self._call()) for _ in range(CALLERS)]
        self._tasks.append(asyncio.create_task(self._administer()))
        return self

    async def __aexit__(self, *_: object) -> None:
        """End, and raise what went wrong."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def until_called(self) -> None:
        """Wait until each caller was answered once more on average."""
        seen = self.callers.total()
        deadline = time.monotonic() + BACK_WITHIN_S
        while self.callers.total() < seen + CALLERS:
            assert time.monotonic() < deadline, "traffic stands still"
            await asyncio.sleep(0.02)

    async def until_told(self, status: int, *, to_come_again: bool) -> None:
        """Wait until the clerk has got such an answer."""
        deadline = time.monotonic() + BACK_WITHIN_S
        while not self.clerk[status, to_come_again]:
            assert time.monotonic() < deadline, self.clerk
            await asyncio.sleep(0.02)

    async def _call(self) -> None:
        async with httpx.AsyncClient(
            base_url=self._production.url("api"), timeout=20, verify=NO_TLS
        ) as client:
            while not self._stop.is_set():
                self.callers[await _chat(client, self._secret)] += 1
                await asyncio.sleep(PAUSE_S)

    async def _administer(self) -> None:
        url = f"{self._production.url('control')}/api/v1/keys"
        headers = self._production.admin_headers
        async with httpx.AsyncClient(headers=headers, timeout=30, verify=NO_TLS) as client:
            while not self._stop.is_set():
                try:
                    answer = await client.get(url)
                except httpx.TransportError:
                    pass  # the process itself is away
                else:
                    self.clerk[answer.status_code, "retry-after" in answer.headers] += 1
                await asyncio.sleep(0.02)


@pytest.fixture
async def traffic(production: Production, project: str) -> AsyncIterator[Traffic]:
    """Traffic of a key that works."""
    secret = _create_key(production, project, "steady")
    await _until_good(production, secret)
    async with Traffic(production, secret) as traffic:
        yield traffic


async def test_the_database_ends_while_traffic_flows(
    cluster: Cluster, production: Production, project: str, traffic: Traffic
) -> None:
    """Callers are served, administrators told to come again, and afterwards changes act."""
    await traffic.until_called()
    await traffic.until_told(200, to_come_again=False)
    await asyncio.to_thread(cluster.stop, signal.SIGQUIT)
    await asyncio.sleep(AWAY_S)
    await traffic.until_called()
    await traffic.until_told(503, to_come_again=True)
    await asyncio.to_thread(cluster.start)
    secret = await asyncio.to_thread(_create_key, production, project, "after")
    await _until_good(production, secret)
    assert set(traffic.callers) == {200}
    assert set(traffic.clerk) == {(200, False), (503, True)}


async def test_control_plane_and_database_end_while_traffic_flows(
    cluster: Cluster, production: Production, project: str, traffic: Traffic
) -> None:
    """With both away the node serves on, also from a new agent, and both are followed again."""
    await traffic.until_called()
    await asyncio.to_thread(cluster.stop, signal.SIGQUIT)
    production.end("control", is_hard=True)
    production.end("agent", is_hard=True)
    await traffic.until_called()
    await asyncio.to_thread(production.start_agent)
    await traffic.until_called()
    await asyncio.to_thread(cluster.start)
    await asyncio.to_thread(production.start_control)
    secret = await asyncio.to_thread(_create_key, production, project, "after")
    await _until_good(production, secret)
    assert set(traffic.callers) == {200}
