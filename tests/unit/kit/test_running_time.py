"""A time-out that does not hold a stall of this process against others."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

import pytest
from tests.fakes.both_loops import MakeLoop, on_both_loops
from tests.fakes.virtual_loop import run_virtual

from penstock.kit.running_time import call_when_read, running_timeout, when_read


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


@pytest.mark.parametrize(("bound_s", "stall_s"), [(1.0, 1.1), (0.25, 1.5)])
@on_both_loops
def test_a_stall_is_nobody_elses_fault(make_loop: MakeLoop, bound_s: float, stall_s: float) -> None:
    """An answer that came while this process stood still is read, however long that was."""

    async def run() -> bytes:
        ours, theirs = socket.socketpair()

        def stand_still() -> None:
            theirs.send(b"here\n")
            time.sleep(stall_s)

        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            asyncio.get_running_loop().call_later(0.005, stand_still)
            async with running_timeout(bound_s):
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


def _call_when_read() -> Awaitable[None]:
    loop = asyncio.get_running_loop()
    called = loop.create_future()
    call_when_read(loop, lambda: called.set_result(None))
    return called


@pytest.mark.parametrize("wait", [_call_when_read, when_read])
@on_both_loops
def test_who_judges_others_has_heard_them(
    make_loop: MakeLoop, wait: Callable[[], Awaitable[None]]
) -> None:
    """What lay unread is known to the task that waits for it before anybody is called."""
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader) -> None:
        heard.append(await reader.readline())

    async def run() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            reader, writer = await asyncio.open_connection(sock=ours)
            listening = asyncio.ensure_future(listen(reader))
            await asyncio.sleep(0.05)
            theirs.send(b"here\n")
            await wait()
            assert heard == [b"here\n"]
            await listening
            writer.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(run())
