"""Writing to connections that have ended."""

import asyncio
from pathlib import Path

from tests.fakes.both_loops import MakeLoop, on_both_loops, run_on

from penstock.kit.streams import write_if_open


@on_both_loops
def test_a_connection_that_has_ended_is_not_written_to(make_loop: MakeLoop, tmp_path: Path) -> None:
    """Written to at each turn of the loop, it tells that it has ended, and raises nothing."""

    async def work() -> None:
        server = await asyncio.start_unix_server(lambda _, peer: peer.close(), tmp_path / "s")
        _, writer = await asyncio.open_unix_connection(tmp_path / "s")
        is_open = True
        async with asyncio.timeout(10):
            while is_open:
                is_open = write_if_open(writer, b"x")
                await asyncio.sleep(0)
        for _ in range(100):
            assert not write_if_open(writer, b"x")
            await asyncio.sleep(0)
        server.close()

    run_on(make_loop, work())
