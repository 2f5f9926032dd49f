"""Conversations go where their beginnings are, over a real worker and emulated engines."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fakes.emulator_process import running_emulator
from tests.fakes.ports import free_port
from tests.fakes.worker_process import KEY, WorkerProcess, running_worker

ENGINES, CONVERSATIONS, TURNS = 3, 6, 4
TEXT = "What was said is long enough for an engine to keep it. " * 30


@contextmanager
def _running(count: int, *options: str) -> Iterator[list[str]]:
    """Run engines that keep prompts; return their URLs."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                running_emulator("served-model", options=("--prefix-cache", *options))
            )
            for _ in range(count)
        ]


def _ports(urls: list[str]) -> list[int]:
    return [int(url.rpartition(":")[2]) for url in urls]


async def _ask(
    client: httpx.AsyncClient, worker: WorkerProcess, messages: list[dict[str, str]]
) -> dict[str, int]:
    """Return the usage of a chat."""
    found = await client.post(
        f"http://127.0.0.1:{worker.port}/v1/chat/completions",
        json={"model": "model-a", "messages": messages, "max_tokens": 4},
        headers={"authorization": f"Bearer {KEY}"},
    )
    assert found.status_code == 200, found.text
    usage: dict[str, Any] = found.json()["usage"]
    return {
        "input": usage["prompt_tokens"],
        "cached": usage["prompt_tokens_details"]["cached_tokens"],
    }


async def _converse(worker: WorkerProcess) -> Counter[str]:
    """Have conversations, turn by turn; return what all of them used but for their first turns."""
    total = Counter[str]()
    async with httpx.AsyncClient(timeout=60.0) as client:

        async def turn(number: int, turn: int) -> None:
            messages = [
                {"role": role, "content": f"{number}.{at}.{role}: {TEXT}"}
                for at in range(turn + 1)
                for role in ("user", "assistant")
            ][:-1]
            usage = await _ask(client, worker, messages)
            if turn:
                total.update(usage)

        for at in range(TURNS):
            order = [(number + at) % CONVERSATIONS for number in range(CONVERSATIONS)]
            await asyncio.gather(*(turn(number, at) for number in order))
    return total


async def _counts(urls: list[str]) -> list[int]:
    async with httpx.AsyncClient() as client:
        return [(await client.get(url + "/emulator/stats")).json()["request_count"] for url in urls]


async def test_next_turns_go_where_the_last_one_went(tmp_path: Path) -> None:
    """Nearly all of it is in that engine's cache, and engines share the work as without it."""
    with _running(ENGINES, "--ttft-ms", "500") as urls:
        with running_worker(tmp_path, _ports(urls)) as worker:
            used = await _converse(worker)
        counts = await _counts(urls)
        assert sum(counts) == CONVERSATIONS * TURNS
        assert max(counts) <= 3 * TURNS + 4, "no engine has more than half"
        async with httpx.AsyncClient() as client:
            for url in urls:
                await client.post(url + "/emulator/reset")
        with running_worker(tmp_path / "2", _ports(urls), prefix_index_bytes=0) as worker:
            unused = await _converse(worker)
    assert used["input"] == unused["input"]
    # All but the newest two messages are there: 1/3, 3/5 and 5/7 of the turns behind the first.
    assert used["cached"] > 0.55 * used["input"]
    assert unused["cached"] < 0.8 * used["cached"]


async def test_other_protocols_are_found_by_their_beginnings(tmp_path: Path) -> None:
    """Each turn of a message's or response's conversation finds the one before, and no other's."""
    count = 0
    with _running(ENGINES) as urls, running_worker(tmp_path, _ports(urls)) as worker:
        async with httpx.AsyncClient(timeout=60.0) as client:
            for path, member in (("messages", "messages"), ("responses", "input")):
                for turn in range(TURNS):
                    turns = [
                        {"role": role, "content": f"{path}.{at}.{role}: {TEXT}"}
                        for at in range(turn + 1)
                        for role in ("user", "assistant")
                    ][:-1]
                    body: dict[str, Any] = {"model": "model-a", member: turns}
                    body |= {"max_tokens": 4} if path == "messages" else {}
                    found = await client.post(
                        f"{worker.url}/v1/{path}", json=body, headers={"x-api-key": KEY}
                    )
                    assert found.status_code == 200, found.text
                    count += 1
                    event = worker.wait_events(count)[-1]
                    assert (event.cached_input_tokens or 0) > 0 or turn == 0
                    assert event.cached_input_tokens == 0 or turn > 0


async def test_whoever_had_it_is_no_single_point(tmp_path: Path) -> None:
    """When the engine that had a conversation is away, it goes on at another, and stays there."""
    messages = [{"role": "user", "content": TEXT}]
    with _running(1) as urls:
        away = free_port()
        async with httpx.AsyncClient(timeout=60.0) as client:
            with running_worker(tmp_path, [away, *_ports(urls)]) as worker:
                for number in range(4):
                    usage = await _ask(client, worker, messages)
                    assert (usage["cached"] > 0) is (number > 0)


@pytest.mark.parametrize("text", ["short", TEXT])
async def test_one_endpoint_is_no_choice(tmp_path: Path, text: str) -> None:
    """An upstream with one endpoint is asked as ever."""
    with _running(1) as urls, running_worker(tmp_path, _ports(urls)) as worker:
        async with httpx.AsyncClient(timeout=60.0) as client:
            for _ in range(2):
                await _ask(client, worker, [{"role": "user", "content": text}])
        assert await _counts(urls) == [2]
