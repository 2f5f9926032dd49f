"""kill -9 at any moment, under load: every request that an engine saw is metered exactly once."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from tests.fakes.bugs import expect_no_bugs
from tests.fakes.dev_instance import DevInstance, running_dev
from tests.fakes.plain_http import NO_TLS
from tests.fakes.ports import free_port

ROUNDS = 20
CALLERS = 12


@contextmanager
def _running_emulator(log: Path) -> Iterator[str]:
    """Start an emulator that writes down each request before it answers; yield its URL."""
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "penstock.emulator", "--port", str(port)),
            *("--models", "emulated-70b", "--log", str(log)),
            *("--ttft-ms", "5", "--itl-ms", "5", "--output-tokens", "20"),
        ]
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


async def _call(client: httpx.AsyncClient, *, is_stream: bool) -> None:
    """Send one chat and read all of it; whatever goes wrong is part of the test."""
    body = {
        "model": "emulated-70b",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": is_stream,
    }
    with contextlib.suppress(httpx.HTTPError):
        async with client.stream("POST", "/chat/completions", json=body) as response:
            async for _ in response.aiter_raw():
                pass


async def _load(instance: DevInstance, stop: asyncio.Event) -> None:
    """Keep a few callers busy until told to stop."""
    headers = {"authorization": f"Bearer {instance.facts['api_key']}"}

    async def caller(number: int) -> None:
        async with httpx.AsyncClient(
            base_url=instance.api_url, headers=headers, timeout=20, verify=NO_TLS
        ) as client:
            while not stop.is_set():
                await _call(client, is_stream=number % 3 != 0)
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(caller(number))


async def _running(instance: DevInstance, module: str) -> list[psutil.Process]:
    """Return the running processes of a module, waiting until one is started again."""
    for _ in range(200):
        if found := instance.children(module):
            return found
        await asyncio.sleep(0.1)
    message = f"nobody starts {module} again"
    raise TimeoutError(message)


async def _kill_rounds(instance: DevInstance) -> Counter[str]:
    """Kill a worker or the agent, twenty times; return how often each."""
    chance = random.Random(20261123)
    killed: Counter[str] = Counter()
    for number in range(ROUNDS):
        module = "penstock.node" if number % 4 == 3 else "penstock.gateway"
        await asyncio.sleep(0.4 + chance.random() * 0.6)
        os.kill(chance.choice(await _running(instance, module)).pid, signal.SIGKILL)
        killed[module] += 1
    return killed


@pytest.mark.slow
async def test_kill_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """After 20 kills of workers and agent, the engine's log and the usage store agree."""
    seen_log = tmp_path / "seen.log"
    with (
        _running_emulator(seen_log) as engine,
        running_dev(
            *(tmp_path / "data", "--workers", "2", "--engine", engine, "--model", "emulated-70b")
        ) as instance,
    ):
        stop = asyncio.Event()
        load = asyncio.create_task(_load(instance, stop))
        killed = await _kill_rounds(instance)
        stop.set()
        await load
        assert sum(killed.values()) == ROUNDS
        assert killed["penstock.node"] >= ROUNDS // 5
        seen = Counter(line.split()[0] for line in seen_log.read_text().splitlines())
        assert len(seen) > 200
        assert max(seen.values()) == 1, "a request was sent to an engine twice"
        rows = await asyncio.to_thread(instance.wait_usage, set(seen), 40.0)
        assert instance.stop() == 0
        expect_no_bugs(instance.data)
    metered = Counter(row["request_id"] for row in rows)
    assert max(metered.values()) == 1, "a request was metered twice"
    assert not set(seen) - set(metered)
    outcomes = Counter(row["outcome"] for row in rows)
    assert outcomes["ok"] > 0
    assert outcomes["interrupted"] > 0, f"kills hit nothing: {outcomes}"
