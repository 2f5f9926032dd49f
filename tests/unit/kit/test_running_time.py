"""A time-out that does not hold a stall of this process against others."""

import asyncio
import time
from collections.abc import Callable

import pytest
import uvloop
from tests.fakes.virtual_loop import run_virtual

from penstock.kit.running_time import running_timeout


@pytest.mark.parametrize(("takes_s", "is_late"), [(0.9, False), (1.1, True)])
def test_it_is_a_time_out(takes_s: float, *, is_late: bool) -> None:
    """What takes longer is ended, what does not is not, and it is known which."""

    async def run() -> str:
        try:
            async with running_timeout(1.0):
                await asyncio.sleep(takes_s)
        except TimeoutError:
            return "late"
        return "in time"

    assert run_virtual(run()) == ("late" if is_late else "in time")


def test_it_leaves_other_errors_and_cancellation_alone() -> None:
    """An error within comes out as it is; whoever is cancelled within was not too late."""

    async def run() -> None:
        with pytest.raises(ZeroDivisionError):
            async with running_timeout(1.0):
                raise ZeroDivisionError

        async def wait() -> None:
            async with running_timeout(1.0):
                await asyncio.Event().wait()

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(run())


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_stall_is_nobody_elses_fault(
    make_loop: "Callable[[], asyncio.AbstractEventLoop]",
) -> None:
    """An answer that came while this process stood still is read, though all time is over."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"here\n")
        await writer.drain()
        writer.close()

    async def run() -> bytes:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"are you there?\n")
            loop = asyncio.get_running_loop()
            loop.call_later(0.005, time.sleep, 1.1)
            async with running_timeout(1.0):
                await asyncio.sleep(0.006)
                line = await reader.readline()
            writer.close()
            return line

    with asyncio.Runner(loop_factory=make_loop) as runner:
        assert runner.run(run()) == b"here\n"


def test_a_loop_that_is_always_late_does_not_wait_for_ever() -> None:
    """When every slice is late, four times the time is the end."""

    async def run() -> float:
        loop = asyncio.get_running_loop()

        async def be_busy() -> None:
            while True:
                time.sleep(0.02)  # noqa: ASYNC251 - it is to stall the loop
                await asyncio.sleep(0)

        busy = asyncio.ensure_future(be_busy())
        began_s = loop.time()
        with pytest.raises(TimeoutError):
            async with running_timeout(0.1):
                await asyncio.Event().wait()
        busy.cancel()
        return loop.time() - began_s

    assert 0.1 < asyncio.run(run()) < 5.0
