"""Endpoints that a file lists, or that register themselves, come and go while callers ask."""

import asyncio
import contextlib
import json
import random
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import httpx
from tests.fakes.http_rig import CHAT
from tests.fakes.plain_http import NO_TLS
from tests.fakes.plane import Plane, running_plane
from tests.fakes.recording_engine import RecordingEngine, running_engine

from penstock.control.registrations import ENGINES_PATH

CALLERS = 4
CHANGES = 4
PATIENCE_S = 60.0


class Site:
    """A node with one model, whose endpoints a file lists, and callers of it."""

    def __init__(self, plane: Plane, client: httpx.AsyncClient, path: Path) -> None:
        """See the class."""
        self.plane = plane
        self.path = path
        self.source = f"file://{path}"
        self.statuses: list[int] = []
        self.upstream_id = ""
        self._client = client
        self._key = ""

    async def make_model(self) -> None:
        """Make the model, and a key for it."""
        create = self.plane.create
        upstream = await create("/upstreams", name="gpu", discover=self.source)
        self.upstream_id = upstream["id"]
        assert (upstream["discover"], upstream["endpoints"]) == (self.source, [])
        deployment = await create(
            "/deployments", name="main", upstream_id=upstream["id"], model="served-model"
        )
        route = await create("/routes", name="main", choices=[{"deployment_id": deployment["id"]}])
        await create("/aliases", name="model-a", route_id=route["id"], is_open=True)
        organization = await create("/organizations", name="acme")
        project = await create("/projects", organization_id=organization["id"], name="chat")
        self._key = (await create("/keys", project_id=project["id"], name="caller"))["secret"]

    def list(self, engines: list[RecordingEngine]) -> None:
        """List these engines in the file."""
        beside = self.path.with_suffix(".new")
        targets = [f"127.0.0.1:{engine.port}" for engine in engines]
        beside.write_text(json.dumps([{"targets": targets}]))
        beside.rename(self.path)

    async def ask(self) -> int:
        """Send a request and return the status of its answer."""
        headers = {"authorization": f"Bearer {self._key}"}
        url = "/v1/chat/completions"
        answer = await self._client.post(url, content=CHAT, headers=headers, timeout=30)
        return answer.status_code

    async def until_answered(self, status: int) -> None:
        """Ask until the answer has this status."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.ask() != status:  # noqa: ASYNC110  # nobody would tell
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Have callers ask meanwhile; every request is answered before it ends."""
        goes_on = True

        async def ask_on() -> None:
            while goes_on:
                self.statuses.append(await self.ask())

        callers = [asyncio.create_task(ask_on()) for _ in range(CALLERS)]
        try:
            yield
        finally:
            goes_on = False
            await asyncio.gather(*callers)

    async def answers(self) -> None:
        """Wait until so many were answered that those on their way before are among them."""
        enough = len(self.statuses) + 8 * CALLERS
        while len(self.statuses) < enough:  # noqa: ASYNC110  # nobody would tell
            await asyncio.sleep(0.01)

    async def until_failing(self) -> None:
        """Wait until the agent says that the source does."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                ready = (await self.look("/health/ready")).json()
                if ready["discovery"] == {"failing": [self.source]}:
                    return
                await asyncio.sleep(0.05)

    async def until_found(self, count: int) -> None:
        """Wait until the agent says that the source has so many endpoints."""
        line = f'penstock_discovery_endpoints{{source="{self.source}"}} {count}.0\n'
        async with asyncio.timeout(PATIENCE_S):
            while line not in (await self.look("/metrics")).text:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.05)

    async def look(self, path: str) -> httpx.Response:
        """Ask the agent."""
        return await self._client.get(f"http://127.0.0.1:{self.plane.metrics_port}{path}")


@asynccontextmanager
async def running_site(folder: Path, source: str | None = None) -> AsyncIterator[Site]:
    """Run one, with a file that is not there yet, or another source."""
    async with (
        running_plane(folder) as plane,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{plane.port}", verify=NO_TLS) as client,
    ):
        site = Site(plane, client, folder / "gpu.json")
        site.source = source or site.source
        await site.make_model()
        yield site


async def _until_asked(
    site: Site, engines: list[RecordingEngine], chosen: list[RecordingEngine]
) -> None:
    """Wait until these are asked, and no others."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            seen = [len(engine.seen) for engine in engines]
            await site.answers()
            pairs = zip(engines, seen, strict=True)
            if [engine for engine, before in pairs if len(engine.seen) > before] == chosen:
                return


async def test_no_request_is_lost_while_endpoints_come_and_go(tmp_path: Path) -> None:
    """Every request is answered; who is not listed any more is not asked; the metrics say so."""
    choose = random.Random(7)
    with ExitStack() as stack:
        engines = [stack.enter_context(running_engine()) for _ in range(3)]
        async with running_site(tmp_path) as site:
            await site.until_answered(503)  # there is such a model, and nobody who serves it
            chosen = engines[:1]
            site.list(chosen)
            await site.until_answered(200)
            async with site.asking():
                for _ in range(CHANGES):
                    count = choose.randint(1, 3)
                    chosen = [engines[index] for index in sorted(choose.sample(range(3), count))]
                    site.list(chosen)
                    await _until_asked(site, engines, chosen)
                site.path.write_text("[{")  # torn: what was known stays
                await _until_asked(site, engines, chosen)
            assert set(site.statuses) == {200}
            page = (await site.look("/metrics")).text
            assert f'penstock_discovery_endpoints{{source="{site.source}"}} {len(chosen)}.0' in page
            await site.until_failing()


class Engines:
    """Engines of a site that register themselves."""

    def __init__(self, site: Site, token: str) -> None:
        """See the class."""
        self._url = f"{site.plane.control_url}{ENGINES_PATH}"
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {token}"}, timeout=30, verify=NO_TLS
        )

    async def register(self, engine: RecordingEngine, ttl_s: int = 300) -> None:
        """Register one."""
        body = {"url": f"http://127.0.0.1:{engine.port}", "ttl_s": ttl_s}
        answer = await self._client.put(self._url, json=body)
        assert answer.status_code == 200, answer.text

    async def withdraw(self, engine: RecordingEngine) -> None:
        """Withdraw one."""
        params = {"url": f"http://127.0.0.1:{engine.port}"}
        assert (await self._client.delete(self._url, params=params)).status_code == 204

    @asynccontextmanager
    async def renewed(self, engine: RecordingEngine, ttl_s: int = 60) -> AsyncIterator[None]:
        """Have one register again and again, as far as somebody answers."""

        async def renew() -> None:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    await self.register(engine, ttl_s)
                await asyncio.sleep(1)

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()


async def test_no_request_is_lost_while_engines_register(tmp_path: Path) -> None:
    """Who withdraws or falls silent is asked no more, who renews is, whoever is killed."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(running_engine()) for _ in range(2))
        both = [first, second]
        source = "registered://gpu?networks=127.0.0.0/8"
        async with running_site(tmp_path, source) as site:
            token = await site.plane.create("/registration_tokens", upstream_id=site.upstream_id)
            engines = Engines(site, token["secret"])
            await site.until_answered(503)
            async with contextlib.aclosing(engines), engines.renewed(first):
                await site.until_answered(200)
                async with site.asking():
                    await engines.register(second)
                    await _until_asked(site, both, both)
                    await engines.withdraw(second)
                    await site.until_found(1)  # requests that all go to one may be chance
                    await _until_asked(site, both, [first])
                    async with engines.renewed(second, 10):
                        await site.until_found(2)
                        await _until_asked(site, both, both)
                    await site.until_found(1)  # once it is silent
                    await _until_asked(site, both, [first])
                    await site.plane.end("control", signal.SIGKILL)
                    await _until_asked(site, both, [first])
                    await site.plane.end("node", signal.SIGKILL)
                    await site.plane.start_control()
                    await site.plane.start_node()
                    await engines.register(second)
                    await _until_asked(site, both, both)
            assert set(site.statuses) == {200}
            page = (await site.look("/metrics")).text
            assert f'penstock_discovery_endpoints{{source="{source}"}} 2.0' in page
