"""The authority of several nodes: Redis or Valkey, one script a taking, so atomic over all buckets.

Whoever shares one gives the same limits together. Time is the server's. Nothing waits longer than
`timeout_s`: then nobody knows what was deducted, and a retry with the same name deducts no more.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from penstock.contract.limits import Ask, Bucket, Lease, Shortage
from penstock.limits.authority import AuthorityUnavailableError
from penstock.limits.scripts import FORGET, GIVE_BACK, RENEW, TAKE

PERMIT_S: Final = 30.0
"""How long permits outlive a holder that is not renewed."""
_REPEAT_MS: Final = 60_000


class RedisAuthority:
    """See `authority.Authority`.

    Args:
        client: Connected to the server; its own timeouts should be no shorter than ours.
        timeout_s: The longest that anything takes.
        prefix: Begins all keys.
        clock_ms: Milliseconds since the Unix epoch; the server's own clock when None.
    """

    def __init__(
        self,
        client: "Redis",
        *,
        timeout_s: float = 0.05,
        prefix: str = "ps",
        clock_ms: Callable[[], int] | None = None,
    ) -> None:
        """See the class."""
        self._clock_ms = clock_ms
        self._timeout_s = timeout_s
        self._prefix = prefix
        self._take = client.register_script(TAKE)
        self._give_back = client.register_script(GIVE_BACK)
        self._renew = client.register_script(RENEW)
        self._forget = client.register_script(FORGET)
        self._permits: dict[str, set[str]] = {}
        """Keys of the buckets in which a holder may have permits."""

    async def take(
        self, asks: Sequence[Ask], *, take_id: str, holder: str
    ) -> tuple[Lease, ...] | Shortage:
        """See `Authority`."""
        keys = [self._key(ask.bucket) for ask in asks]
        permits = [key for key, ask in zip(keys, asks, strict=True) if ask.bucket.is_permits]
        if permits:
            self._permits.setdefault(holder, set()).update(permits)
        arguments: list[Any] = [_REPEAT_MS, holder, int(PERMIT_S * 1_000)]
        for ask in asks:
            bucket = ask.bucket
            arguments += (bucket.limit, bucket.sub_window_ms, bucket.count)
            arguments += (ask.least, ask.want, int(ask.is_ahead))
        name = f"{self._prefix}:t:{{{_owner(asks[0].bucket)}}}:{take_id}"
        kind, _, *answer = await self._run(self._take, [name, *keys], arguments)
        if not kind:
            index, remaining, retry_at_ms = answer
            return Shortage(index, remaining, None if retry_at_ms < 0 else retry_at_ms)
        return tuple(Lease(*answer[first : first + 3]) for first in range(0, len(answer), 3))

    async def give_back(self, bucket: Bucket, lease: Lease, amount: int, *, holder: str) -> None:
        """See `Authority`."""
        arguments = [holder, bucket.sub_window_ms, bucket.count, lease.sub_window, amount]
        await self._run(self._give_back, [self._key(bucket)], arguments)

    async def renew(self, holder: str) -> None:
        """Keep the permits of a holder for another `PERMIT_S`; to be called each third of that.

        Raises:
            AuthorityUnavailableError: They may end.
        """
        for key in self._permits.get(holder, ()):
            await self._run(self._renew, [key], [holder, int(PERMIT_S * 1_000)])

    async def forget(self, holder: str) -> None:
        """See `Authority`."""
        for key in self._permits.pop(holder, ()):
            await self._run(self._forget, [key], [holder])

    def _key(self, bucket: Bucket) -> str:
        return f"{self._prefix}:b:{{{_owner(bucket)}}}:{bucket.id}"

    async def _run(self, script: Any, keys: list[str], arguments: list[Any]) -> Any:
        now_ms = -1 if self._clock_ms is None else self._clock_ms()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await script(keys=keys, args=[*arguments, now_ms])
        except (TimeoutError, RedisError, OSError) as error:
            raise AuthorityUnavailableError(str(error) or type(error).__name__) from None


def _owner(bucket: Bucket) -> str:
    return bucket.id.partition("/")[0]
