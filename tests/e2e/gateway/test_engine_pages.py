"""The how-to pages of engines: their questions are answered, by each kind behind one worker."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from tests.fakes.worker_process import KEY, WorkerProcess, make_snapshot, running_worker

from penstock.contract.snapshot import (
    Alias,
    Choice,
    Deployment,
    Endpoint,
    Route,
    Snapshot,
    Upstream,
)
from penstock.emulator.kinds import Kind
from penstock.emulator.server import serve
from penstock.emulator.settings import EmulatorSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGES = Path(__file__).parents[3] / "docs" / "how-to"
KINDS: dict[str, Kind] = {
    "vllm": "vllm",
    "sglang": "sglang",
    "trtllm": "trtllm",
    "nim": "vllm",
    "llama_cpp": "openai_compatible",
    "llm_d": "vllm",
}
"""By provider, which kind the emulator plays for it."""
NAMES = {"trtllm": "tensorrt-llm", "llama_cpp": "llama-cpp", "llm_d": "llm-d"}
BLOCK = re.compile(r"^```sh\n(curl.*?)^```$", re.MULTILINE | re.DOTALL)


def _page(provider: str) -> str:
    return (PAGES / f"serve-{NAMES.get(provider, provider)}.md").read_text("utf-8")


def _option(page: str, command: str, option: str) -> str:
    """Return what a page's command says for an option, or what it creates when there is none."""
    found = re.search(rf"^penstock {command} create (\S+).*?{option} ?(\S*)", page, re.MULTILINE)
    assert found is not None, (command, option)
    return found[2] if option else found[1]


def _snapshot(ports: dict[str, int]) -> Snapshot:
    """Return what the commands of all pages would have made."""
    upstreams, deployments, routes, aliases = [], [], [], []
    for provider, port in ports.items():
        page = _page(provider)
        assert _option(page, "upstreams", "--provider") == provider
        takes_priority = "--takes-priority" in page
        endpoints = (Endpoint("http", "127.0.0.1", port),)
        upstreams.append(Upstream(provider, provider, endpoints, takes_priority=takes_priority))
        model = _option(page, "deployments", "--model")
        deployments.append(Deployment(provider, provider, model))
        routes.append(Route(provider, (Choice(provider),)))
        aliases.append(Alias(_option(page, "aliases", ""), provider))
    plain = make_snapshot([1])
    names = tuple(alias.name for alias in aliases)
    return Snapshot(
        version=1,
        created_at_ns=plain.created_at_ns,
        keys=(msgspec.structs.replace(plain.keys[0], aliases=names),),
        upstreams=tuple(upstreams),
        deployments=tuple(deployments),
        routes=tuple(routes),
        aliases=tuple(aliases),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WorkerProcess]:
    """Return a worker in front of an engine of each kind."""
    async with AsyncExitStack() as stack:
        ports = {}
        for provider, kind in KINDS.items():
            model = _option(_page(provider), "deployments", "--model")
            settings = EmulatorSettings(kind=kind, models=model, port=0)
            ports[provider] = (await stack.enter_async_context(await serve(settings))).port
        running = running_worker(
            tmp_path_factory.mktemp("worker"), [*ports.values()], snapshot=_snapshot(ports)
        )
        yield stack.enter_context(running)


@pytest.mark.parametrize("provider", KINDS)
async def test_the_questions_of_a_page_are_answered(worker: WorkerProcess, provider: str) -> None:
    """Each `curl` of a page brings a stream of the model to its end."""
    page = _page(provider).replace("ps_live_...", KEY).replace("http://127.0.0.1:8080", worker.url)
    (question,) = BLOCK.findall(page)
    curl = await asyncio.create_subprocess_exec(
        "sh", "-ec", question, stdout=asyncio.subprocess.PIPE
    )
    told, _ = await asyncio.wait_for(curl.communicate(), 60)
    assert curl.returncode == 0
    assert b'"content":"' in told
    assert told.endswith(b"data: [DONE]\n\n")
