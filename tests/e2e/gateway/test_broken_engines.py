"""Engines that answer, but only that they are broken: they are passed over as if they did not."""

from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
import pytest_asyncio
from tests.fakes.scripted_engine import (
    DONE,
    LAST_CHUNK,
    ROLE,
    STREAM_HEAD,
    STREAM_HEAD_TO_END,
    ScriptedEngine,
    Talk,
    answer,
    chat,
    chunk,
    counts,
    running_scripted_engine,
    token,
)
from tests.fakes.stream_caller import ask, chat_body
from tests.fakes.worker_process import WorkerProcess, make_snapshot, running_worker

from penstock.contract.snapshot import Alias, Choice, Deployment, Endpoint, Route, Upstream
from penstock.gateway.limits import EJECT_AFTER

pytestmark = pytest.mark.asyncio(loop_scope="module")

ERROR = {"error": {"message": "The engine is dead.", "code": 500}}
EVENT = b'data: {"error":{"message":"The engine is dead.","code":500}}\n\n'
ANSWERS = {
    "status-500": answer(ERROR, 500),
    "status-502": answer(ERROR, 502),
    "error-under-200": answer(ERROR),
    "page-under-200": answer(b"<html>", kind="text/html"),
    "event-at-once": STREAM_HEAD + chunk(EVENT) + LAST_CHUNK,
    "event-later": STREAM_HEAD + chunk(ROLE + token("a")) + chunk(EVENT) + LAST_CHUNK,
    "event-and-silence": STREAM_HEAD + chunk(EVENT),
    "status-500-and-gone": b"HTTP/1.1 500 Status\r\n\r\nInternal Server Error",
    "event-stream-half-and-gone": STREAM_HEAD_TO_END + ROLE + token("a"),
    "event-stream-and-gone": STREAM_HEAD_TO_END + ROLE + DONE,
    "callers-mistake": answer(ERROR, 400),
    "no-room": answer(ERROR, 429),
}
NO_FAULT = ("callers-mistake", "no-room", "event-stream-and-gone")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engines() -> AsyncIterator[tuple[ScriptedEngine, ScriptedEngine]]:
    """Return an engine that is broken, and one that is well."""

    async def well(talk: Talk) -> None:
        await talk.send(chat(counts(1, 2)))

    async with running_scripted_engine() as broken, running_scripted_engine() as other:
        other.script = well
        yield broken, other


@pytest.fixture(scope="module")
def worker(
    engines: tuple[ScriptedEngine, ScriptedEngine], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Return a worker to which they are an upstream of two endpoints, for each answer another."""
    endpoints = tuple(Endpoint("http", "127.0.0.1", engine.port) for engine in engines)
    plain = make_snapshot([1])
    snapshot = msgspec.structs.replace(
        plain,
        keys=(msgspec.structs.replace(plain.keys[0], aliases=None),),
        upstreams=tuple(Upstream(name, "emulator", endpoints) for name in ANSWERS),
        deployments=tuple(Deployment(name, name, "m") for name in ANSWERS),
        routes=tuple(Route(name, (Choice(name),)) for name in ANSWERS),
        aliases=tuple(Alias(name, name) for name in ANSWERS),
    )
    with running_worker(tmp_path_factory.mktemp("worker"), [], snapshot=snapshot) as running:
        yield running


@pytest.mark.parametrize("name", ANSWERS)
async def test_who_only_says_that_it_is_broken_is_passed_over(
    engines: tuple[ScriptedEngine, ScriptedEngine], worker: WorkerProcess, name: str
) -> None:
    """After some such answers in a row others are asked; a caller's mistake is no such answer."""
    broken, other = engines

    async def script(talk: Talk) -> None:
        await talk.send(ANSWERS[name])
        if name.endswith("-and-gone"):
            talk.close()

    broken.script = script
    body = chat_body(model=name, stream=name.startswith("event"))
    before = len(broken.requests), len(other.requests)
    for _ in range(EJECT_AFTER + 3):
        await ask(worker.port, "", body)
    asked = len(broken.requests) - before[0], len(other.requests) - before[1]
    if name in NO_FAULT:
        assert asked[0] == EJECT_AFTER + 3
    else:
        answered = EJECT_AFTER if name == "status-502" else 0
        assert asked == (EJECT_AFTER, 3 + answered)
