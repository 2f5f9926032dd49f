"""A shared server of limits in virtual time: it counts as it should, and is slow at will."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from penstock.contract.limits import Ask, Bucket, Lease, Shortage
from penstock.kit.running_time import running_timeout
from penstock.limits.authority import MemoryAuthority
from penstock.limits.redis_authority import (
    AuthorityGoneError,
    AuthoritySlowError,
    Look,
    RedisAuthority,
)

Result = TypeVar("Result")


class Way:
    """How the way to the server is, for all or one of the nodes."""

    def __init__(self) -> None:
        """Begin with a good one."""
        self.delay_s: Callable[[], float] = lambda: 0.0
        """How long a question is under way, and its answer."""
        self.is_refused = False

    async def go(self) -> None:
        """Be under way once."""
        if self.is_refused:
            raise AuthorityGoneError
        await asyncio.sleep(self.delay_s())


class ServerOverWay(RedisAuthority):
    """What a node sees of the server: like `RedisAuthority`, without Redis.

    Args:
        server: What counts.
        way: Leads there.
        clock_ms: The server's clock.
        nodes: How many share it.
    """

    def __init__(
        self,
        server: MemoryAuthority,
        way: Way,
        clock_ms: Callable[[], int],
        nodes: int,
    ) -> None:
        """See the class."""
        self.timeout_s = 0.25
        self._server = server
        self._way = way
        self._server_ms = clock_ms
        self._nodes = nodes

    async def take(
        self, asks: Sequence[Ask], *, take_id: str, holder: str
    ) -> tuple[Lease, ...] | Shortage:
        """See `Authority`."""
        return await self._do(
            lambda: self._server.take(asks, take_id=take_id, holder=holder), self.timeout_s
        )

    async def give_back(self, bucket: Bucket, lease: Lease, amount: int, *, holder: str) -> None:
        """See `Authority`."""
        await self._do(
            lambda: self._server.give_back(bucket, lease, amount, holder=holder), self.timeout_s
        )

    async def charge(self, bucket: Bucket, sub_window: int, amount: int) -> None:
        """See `RedisAuthority`."""
        lease = Lease(amount, sub_window, 0)
        await self._do(lambda: self._server.give_back(bucket, lease, -amount, holder=""), 1.0)

    async def look(self, node: str) -> Look:  # noqa: ARG002 - how many there are is given
        """See `RedisAuthority`."""

        async def see() -> Look:
            return Look(self._server_ms(), 0, self._nodes)

        return await self._do(see, 1.0)

    @property
    def holders(self) -> tuple[str, ...]:
        """See `RedisAuthority`: permits are not what these tests are about."""
        return ()

    def note(self, bucket_id: str, amount: int, *, holder: str) -> None:
        """See `RedisAuthority`."""

    async def restate(self, holder: str, permits: Mapping[Bucket, int]) -> None:
        """See `Authority`."""
        await self._do(lambda: self._server.restate(holder, permits), 1.0)

    async def _do(
        self, what: Callable[[], Coroutine[Any, Any, Result]], timeout_s: float
    ) -> Result:
        """Have the server do it, whether or not the answer is waited for."""

        async def be_under_way() -> Result:
            await self._way.go()
            result = await what()
            await self._way.go()
            return result

        task = asyncio.ensure_future(be_under_way())
        try:
            async with running_timeout(timeout_s):
                return await asyncio.shield(task)
        except TimeoutError:
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            message = "no answer"
            raise AuthoritySlowError(message, timeout_s) from None
