"""LoRA adapters from the catalog to two engines: listed, routed, loaded, and kept apart."""

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from tests.fakes.control_api import run
from tests.fakes.control_server import ControlServer
from tests.fakes.emulator_process import running_emulator
from tests.fakes.plain_http import NO_TLS
from tests.fakes.plane import Plane, running_plane

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "serve-lora-adapters.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KEY = re.compile(r"ps_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}")
BASE = "llama-70b"
ADAPTERS = ("house", "legal", "billing")
BILLING = """\
penstock deployments create billing --upstream gpu-pool --model billing --adapter-of llama-70b --adapter-path /b
penstock routes create billing --choice billing
penstock aliases create our-billing --route billing
penstock grants create --alias our-billing --org acme --project chat
penstock orgs create other
penstock projects create chat --org other
penstock keys create --project chat --org other --name first
"""  # noqa: E501 - commands, a line each
OPTIONS = ("--kind", "vllm", "--record", "--adapter-limit", "1", "--adapter-load-ms", "100")
CALLERS = 20
PATIENCE_S = 60.0


class Site:
    """A node with the page's models on two engines, one adapter more, and a stranger."""

    def __init__(self, plane: Plane, client: httpx.AsyncClient, engines: tuple[str, str]) -> None:
        """See the class."""
        self._plane = plane
        self._client = client
        self.engines = engines
        self.keys: dict[str, str] = {}

    def make_models(self) -> None:
        """Type the commands of the page, and then ours."""
        token = (self._plane.data / "secrets" / "admin_token").read_text()
        control = ControlServer(self._plane.control_url, token)
        text = PAGE.read_text("utf-8")
        for port, engine in zip(("8000", "8001"), self.engines, strict=True):
            text = text.replace(f"http://127.0.0.1:{port}", engine)
        for line in "".join([*BLOCK.findall(text), BILLING]).splitlines():
            program, *words = shlex.split(line)
            if program != "penstock":
                continue
            result = run(control, *words)
            assert result.exit_code == 0, (words, result.output)
            if words[:2] == ["keys", "create"]:
                (secret,) = KEY.findall(result.output)
                self.keys[words[words.index("--org") + 1]] = secret

    async def ask(self, owner: str, model: str, **members: Any) -> httpx.Response:
        """Send a request of an organization."""
        body = {"model": f"our-{model}", "messages": [{"role": "user", "content": "Hi"}], **members}
        headers = {"authorization": f"Bearer {self.keys[owner]}"}
        url = f"http://127.0.0.1:{self._plane.port}/v1/chat/completions"
        return await self._client.post(url, json=body, headers=headers)

    async def list_parents(self, owner: str) -> dict[str, str | None]:
        """Return the models that an organization is shown, each with its parent."""
        headers = {"authorization": f"Bearer {self.keys[owner]}"}
        url = f"http://127.0.0.1:{self._plane.port}/v1/models"
        answer = await self._client.get(url, headers=headers)
        return {each["id"]: each.get("parent") for each in answer.json().get("data", ())}

    async def until_listed(self, owner: str, expected: dict[str, str | None]) -> None:
        """Look until an organization is shown these models and no others."""
        async with asyncio.timeout(PATIENCE_S):
            while await self.list_parents(owner) != expected:  # noqa: ASYNC110 - nobody would tell
                await asyncio.sleep(0.05)

    async def until_answered(self, model: str, status: int = 200) -> None:
        """Ask for acme until the answer has this status."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.ask("acme", model)).status_code != status:  # noqa: ASYNC110 - nor here
                await asyncio.sleep(0.05)

    async def list_posts(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Return what the engines were sent since the last time: engine, path, body."""
        posts = []
        for engine in self.engines:
            report = (await self._client.get(f"{engine}/emulator/stats")).json()
            await self._client.post(f"{engine}/emulator/reset")
            posts += [
                (engine, each["target"], json.loads(each["body"]))
                for each in report["recorded"]
                if each["method"] == "POST" and each["target"] != "/emulator/reset"
            ]
        return posts

    async def operate(self, engine: str, verb: str, **members: str) -> None:
        """Load or unload an adapter behind the node's back."""
        await self._client.post(f"{engine}/v1/{verb}_lora_adapter", json=members)


@asynccontextmanager
async def _running_site(data: Path) -> AsyncIterator[Site]:
    with (
        running_emulator(BASE, options=(*OPTIONS, "--adapters", "house")) as one,
        running_emulator(BASE, options=OPTIONS) as two,
    ):
        async with (
            running_plane(data) as plane,
            httpx.AsyncClient(verify=NO_TLS, timeout=PATIENCE_S) as client,
        ):
            site = Site(plane, client, (one, two))
            await asyncio.to_thread(site.make_models)
            yield site


def _loads(posts: list[tuple[str, str, dict[str, Any]]], verb: str = "load") -> list[Any]:
    return [(at, body) for at, path, body in posts if path == f"/v1/{verb}_lora_adapter"]


async def test_adapters_are_where_they_are_needed(tmp_path: Path) -> None:
    """Adapters are listed, asked where they are, loaded once for all, and never for strangers."""
    async with _running_site(tmp_path) as site:
        one, two = site.engines
        parents = dict.fromkeys((f"our-{name}" for name in ADAPTERS), f"our-{BASE}")
        await site.until_listed("acme", {f"our-{BASE}": None, **parents})
        await site.until_listed("other", {f"our-{BASE}": None, "our-house": f"our-{BASE}"})
        await site.until_answered("house")
        await _strangers_load_nothing(site)
        for _ in range(4):
            assert (await site.ask("acme", "house")).status_code == 200
        assert {at for at, _, _ in await site.list_posts()} == {one}

        answers = await asyncio.gather(*(site.ask("acme", "legal") for _ in range(CALLERS)))
        assert [each.status_code for each in answers] == [200] * CALLERS
        posts = await site.list_posts()
        legal = {"lora_name": "legal", "lora_path": "/adapters/legal"}
        # The first engine may have been tried: it has no room, and nothing that may go.
        assert [body for at, body in _loads(posts) if at == two] == [legal]
        chats = [at for at, path, body in posts if body.get("model") == "legal" and "chat" in path]
        assert chats == [two] * CALLERS

        assert (await site.ask("acme", "billing")).status_code == 200
        posts = await site.list_posts()
        assert _loads(posts, "unload") == [(two, {"lora_name": "legal"})]
        assert (await site.ask("acme", "house")).status_code == 200

        await site.operate(two, "unload", lora_name="billing")
        answer = await site.ask("acme", "billing")
        if answer.status_code != 200:  # the node had not looked yet
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "adapter_unavailable" in answer.text
        await site.until_answered("billing")

        await site.operate(one, "unload", lora_name="house")
        await site.until_answered("house", 404)


async def _strangers_load_nothing(site: Site) -> None:
    """Another organization gets what it gets for a model that is not there; nobody names a path."""
    await site.list_posts()
    for name in ("legal", "billing", "none"):
        answer = await site.ask("other", name)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert await site.list_posts() == []
    answer = await site.ask("other", BASE, lora_path="/etc", lora_name="legal", lora_request={})
    assert answer.status_code == 200
    ((_, _, body),) = await site.list_posts()
    assert (body["model"], "lora_path" in body) == (BASE, False)
