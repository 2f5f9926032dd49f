"""Tests that run on asyncio's own loop and on the one that Penstock uses."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

MakeLoop = Callable[[], asyncio.AbstractEventLoop]
on_both_loops = pytest.mark.parametrize(
    "make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)


def run_on(make_loop: MakeLoop, work: Coroutine[Any, Any, None]) -> None:
    """Run on a loop; what goes wrong in a callback fails the test, too."""
    problems: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: problems.append(what))
        await work

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(run())
    assert not problems
