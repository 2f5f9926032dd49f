"""kill -9 of a worker at any moment: the journal knows all that happened."""

import asyncio
import contextlib
import random
from pathlib import Path

import pytest
from tests.fakes.scripted_engine import (
    DONE,
    ROLE,
    STREAM_HEAD,
    Talk,
    chat,
    chunk,
    counts,
    running_scripted_engine,
    token,
    usage_frame,
)
from tests.fakes.stream_caller import AbnormalEndError, calling, chat_body
from tests.fakes.worker_process import WorkerProcess, eventually, running_worker

ROUNDS = 10
CALLERS = 16


async def _answer(talk: Talk) -> None:
    if not talk.request.members.get("stream"):
        await talk.send(chat(counts(1, 2)))
        return
    await talk.send(STREAM_HEAD, chunk(ROLE))
    for number in range(5):
        await asyncio.sleep(0.002)
        await talk.send(chunk(token(str(number))))
    await talk.send(chunk(usage_frame(counts(1, 5)) + DONE), b"0\r\n\r\n")


async def _call_on(worker: WorkerProcess, number: int, complete: list[str]) -> None:
    """Ask until the worker is gone; note each answer that came whole."""
    with contextlib.suppress(AbnormalEndError, ConnectionError):
        async with calling(worker.port) as caller:
            for turn in range(100_000):
                name = f"{number}-{turn}"
                await caller.ask("", chat_body(stream=turn % 2 == 0), x_request_id=name)
                found = await caller.read_answer()
                if not found.is_complete:
                    return
                if found.status == 503:  # small segments fill faster than the next one is made
                    assert found.code == "capacity:journal_full"
                    continue
                assert found.status == 200
                complete.append(name)


@pytest.mark.parametrize("is_strict", [False, True])
async def test_kill_nine_loses_nothing(tmp_path: Path, *, is_strict: bool) -> None:
    """Every request that the engine saw has an OPEN, every answer that came whole has a CLOSE."""
    chance = random.Random(f"kill {is_strict}")
    seen_in_all = 0
    async with running_scripted_engine(_answer) as engine:
        for number in range(1, ROUNDS // 2 + 1):
            engine.talks.clear()
            complete: list[str] = []
            folder = tmp_path / str(number)
            with running_worker(
                folder, [engine.port], epoch=number, journal_strict=is_strict,
                journal_segment_bytes=65_536,
            ) as worker:  # fmt: skip
                calls = [asyncio.create_task(_call_on(worker, n, complete)) for n in range(CALLERS)]
                await eventually(lambda: len(engine.requests) > 2)
                await asyncio.sleep(chance.uniform(0.0, 0.25))
                worker.stop(9)
                await asyncio.gather(*calls)
            await asyncio.sleep(0.02)
            seen = [request.header["x-request-id"] for request in engine.requests]
            seen_in_all += len(seen)
            opened = [record.request_id for record in worker.opens()]
            closed = [event.request_id for event in worker.events()]
            assert len(seen) == len(set(seen))
            assert set(seen) <= set(opened)
            assert set(complete) <= set(closed) <= set(opened)
            assert len(opened) == len(set(opened))
            assert len(closed) == len(set(closed))
    assert seen_in_all > ROUNDS
