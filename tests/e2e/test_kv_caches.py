"""What engines tell of their KV caches decides where prompts go, on a node with real processes."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
from tests.fakes.plain_http import NO_TLS
from tests.fakes.plane import Plane, running_plane
from tests.fakes.small_tokenizer import write_tokenizer
from tests.fakes.telling_engine import TellingEngine, telling_engine

from penstock.gateway.offer import _cache_salt

TEXT = "What was said is long enough for an engine to keep it. " * 30
PATIENCE_S = 60.0


@dataclass
class Site:
    """A node with a model on two engines that tell of their caches."""

    plane: Plane
    client: httpx.AsyncClient
    engines: tuple[TellingEngine, TellingEngine]
    key: str = ""
    organization_id: str = ""

    async def make_model(self, **deployment: Any) -> None:
        """Put the model into the catalog, and wait until it is served."""
        create = self.plane.create
        ordered = sorted(self.engines, key=lambda engine: engine.port)
        ports = [
            sorted(getattr(each, name) for each in ordered)
            for name in ("events_port", "replay_port")
        ]
        upstream = await create(
            "/upstreams",
            name="gpu",
            provider="vllm",
            endpoints=[engine.url for engine in ordered],
            kv_events="/".join(",".join(map(str, each)) for each in ports),
        )
        made = await create(
            "/deployments",
            name="llama",
            upstream_id=upstream["id"],
            model="served-model",
            **deployment,
        )
        route = await create("/routes", name="llama", choices=[{"deployment_id": made["id"]}])
        await create("/aliases", name="llama", route_id=route["id"], is_open=True)
        self.key = await self.make_key("acme")

    async def make_key(self, organization: str) -> str:
        """Return a key of a new organization."""
        create = self.plane.create
        owner = await create("/organizations", name=organization)
        self.organization_id = owner["id"]
        project = await create("/projects", organization_id=owner["id"], name="chat")
        made = await create("/keys", project_id=project["id"], name="first")
        secret: str = made["secret"]
        async with asyncio.timeout(PATIENCE_S):
            while (await self._post(secret, "Hi")).status_code != 200:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        return secret

    async def ask(self, text: str, key: str = "") -> int:
        """Send a prompt; return which engine answered."""
        before = await self._counts()
        answer = await self._post(key or self.key, text)
        assert answer.status_code == 200, answer.text
        (at,) = [
            at
            for at, (old, new) in enumerate(zip(before, await self._counts(), strict=True))
            if new > old
        ]
        return at

    async def post(self, text: str) -> None:
        """Send a prompt, which is answered."""
        answer = await self._post(self.key, text)
        assert answer.status_code == 200, answer.text

    async def _post(self, key: str, text: str) -> httpx.Response:
        body = {"model": "llama", "messages": [{"role": "user", "content": text}], "max_tokens": 1}
        url = f"http://127.0.0.1:{self.plane.port}/v1/chat/completions"
        return await self.client.post(url, json=body, headers={"authorization": f"Bearer {key}"})

    async def _counts(self) -> list[int]:
        found = [await self.client.get(engine.url + "/emulator/stats") for engine in self.engines]
        return [each.json()["request_count"] for each in found]

    def find_process(self) -> int:
        """Return the id of the process that follows engines; 0 when there is none."""
        for each in psutil.Process(self.plane.process_id("node")).children():
            with contextlib.suppress(psutil.Error):  # one that was killed and is not buried yet
                if "penstock.node.caches" in each.cmdline():
                    return each.pid
        return 0

    async def metrics(self) -> dict[str, float]:
        """Return what the node's metrics say."""
        text = (await self.client.get(f"http://127.0.0.1:{self.plane.metrics_port}/metrics")).text
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    async def sum_of(self, name: str, part: str = "") -> float:
        """Return the sum of a metric over its labels, of those that have this part."""
        metrics = await self.metrics()
        return sum(
            value for key, value in metrics.items() if key.split("{")[0] == name and part in key
        )

    async def until_sum(self, name: str, wanted: float, part: str = "") -> None:
        """Look until a metric adds up to this."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.sum_of(name, part) != wanted:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)

    async def until_any(self, name: str) -> float:
        """Look until a metric adds up to something; return to what."""
        async with asyncio.timeout(PATIENCE_S):
            while not (found := await self.sum_of(name)):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        return found


@asynccontextmanager
async def _running_site(
    data: Path, *, kv_answer_ms: float = 10_000, **deployment: Any
) -> AsyncIterator[Site]:
    with telling_engine() as one, telling_engine() as two:
        async with (
            running_plane(data, kv_answer_ms=kv_answer_ms) as plane,
            httpx.AsyncClient(verify=NO_TLS, timeout=PATIENCE_S) as client,
        ):
            site = Site(plane, client, (one, two))
            await site.make_model(**deployment)
            yield site


async def test_who_emptied_its_cache_is_asked_as_anybody(tmp_path: Path) -> None:
    """What an engine had counts until it says that it is gone, or starts anew."""
    async with _running_site(tmp_path) as site:
        await site.until_sum("penstock_kv_connected", 2)
        choices = "penstock_prefix_choices_total"
        first = await site.ask(TEXT)
        assert await site.ask(TEXT) == first
        await site.until_sum(choices, 1, 'choice="known"')
        assert await site.until_any("penstock_kv_blocks") > 0

        await site.engines[first].clear()
        await site.until_sum("penstock_kv_blocks", 0)
        asked = 2
        while await site.sum_of(choices, 'choice="new"') == 1:  # the worker hears it a bit later
            await site.ask(TEXT)
            asked += 1
            await site.until_sum(choices, asked)

        second = await site.ask(TEXT)
        site.engines[second].kill()
        await site.until_sum("penstock_kv_connected", 1)
        site.engines[second].start()
        await site.until_sum("penstock_kv_connected", 2)
        await site.engines[second].read("something else that is long enough for a block" * 2)
        await site.until_sum("penstock_kv_resets_total", 1)


async def test_the_process_that_follows_engines_is_started_again(tmp_path: Path) -> None:
    """It is killed, and knows all again; callers notice nothing of it."""
    async with _running_site(tmp_path) as site:
        await site.ask(TEXT)
        blocks = await site.until_any("penstock_kv_blocks")
        pid = site.find_process()
        os.kill(pid, signal.SIGKILL)
        await site.ask(TEXT)
        async with asyncio.timeout(PATIENCE_S):
            while site.find_process() in {pid, 0}:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        await site.until_sum("penstock_kv_blocks", blocks)


ANSWERS = "penstock_cache_answers_total"


async def test_prompts_go_to_whoever_has_them(tmp_path: Path) -> None:
    """Though this node never sent them there; their organization's alone, and while they are."""
    first, *texts = [f"{number:04}{TEXT}" for number in range(7)]
    folder = write_tokenizer(tmp_path / "model", first, *texts)
    async with _running_site(tmp_path, tokenizer=str(folder)) as site:
        await site.until_sum("penstock_kv_connected", 2)
        salt = msgspec.json.decode(_cache_salt(site.organization_id))
        for number, text in enumerate([*texts, first]):
            await site.engines[number % 2].read(text, salt)
        blocks = sum(len(text) // (4 * 16) for text in [*texts, first])
        await site.until_sum("penstock_kv_blocks", blocks)
        asked = 0
        while not await site.sum_of(ANSWERS, 'answer="told"'):  # the process may still read files
            await site.ask(first)
            asked += 1
            await site.until_sum(ANSWERS, asked)
        before = await site.sum_of(ANSWERS, 'answer="told"')
        assert [await site.ask(text) for text in texts] == [0, 1] * 3
        await site.until_sum(ANSWERS, before + len(texts), 'answer="told"')

        acme, other = site.key, await site.make_key("other")
        before = await site.sum_of(ANSWERS, 'answer="none"')
        await site.ask(texts[0], other)
        await site.until_sum(ANSWERS, before + 1, 'answer="none"')

        for engine in site.engines:
            await engine.clear()
        await site.until_sum("penstock_kv_blocks", 0)
        await site.ask(texts[1], acme)
        await site.until_sum(ANSWERS, before + 2, 'answer="none"')
        assert await site.sum_of(ANSWERS, 'answer="late"') == 0


async def test_a_stopped_process_makes_nobody_wait(tmp_path: Path) -> None:
    """Requests go on after their milliseconds, and soon without them."""
    folder = write_tokenizer(tmp_path / "model", TEXT)
    async with _running_site(tmp_path, kv_answer_ms=5, tokenizer=str(folder)) as site:
        await site.until_sum("penstock_kv_connected", 2)
        os.kill(site.find_process(), signal.SIGSTOP)
        try:
            for _ in range(2):
                await asyncio.gather(*(site.post(TEXT) for _ in range(20)))
            assert await site.until_any(ANSWERS) > 0
        finally:
            os.kill(site.find_process(), signal.SIGCONT)
