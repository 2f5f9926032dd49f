"""The authority of several nodes: Redis or Valkey, one script a taking, so atomic over all buckets.

Whoever shares one gives the same limits together. Time is the server's. Nothing waits longer than
`timeout_s`: then nobody knows what was deducted, and a retry with the same name deducts no more.
Errors say whether the server is away or slow: one who does not answer yet may be giving to others.
"""

import asyncio
import secrets
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as LinkError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as LinkTimeoutError

from penstock.contract.limits import Ask, Bucket, Lease, Shortage
from penstock.kit.running_time import running_timeout
from penstock.limits.authority import AuthorityUnavailableError
from penstock.limits.scripts import GIVE_BACK, LOOK, RENEW, TAKE

PERMIT_S: Final = 30.0
"""How long permits outlive a holder that is not renewed."""
NODE_S: Final = 30.0
"""How long a node that is silent counts as one that shares the limits."""
_REPEAT_MS: Final = 60_000
_REPEATS: Final = 20_000
_TRIES: Final = 3
"""A connection that is reset says little: the next one is refused when nobody is there."""


_OTHER_EPOCH: Final = 2


class AuthorityGoneError(AuthorityUnavailableError):
    """It is not there: whatever was asked of it, connections to it were refused or reset."""


class AuthoritySlowError(AuthorityUnavailableError):
    """It has not answered yet. It may be there, and be giving to others.

    Args:
        message: What was waited for.
        waited_s: How long, without time in which this process stood still.
    """

    def __init__(self, message: str, waited_s: float) -> None:
        """See the class."""
        super().__init__(message)
        self.waited_s = waited_s


class ColdAuthorityError(AuthorityUnavailableError):
    """It has lost what it counted, since it was last looked at."""


class Look(NamedTuple):
    """What a server says of itself."""

    now_ms: int
    since_ms: int
    """When it began to count: of what was taken before, it knows nothing."""
    nodes: int
    """How many nodes share it, >= 1."""


class RedisAuthority:
    """See `authority.Authority`.

    Args:
        client: Connected to the server; its own timeouts should be no shorter than ours.
        timeout_s: The longest that anything takes for which somebody waits, of the time in which
            this process runs.
        patience_s: The longest that anything else takes, no less than that.
        prefix: Begins all keys.
        clock_ms: Milliseconds since the Unix epoch; the server's own clock when None.
    """

    def __init__(
        self,
        client: "Redis",
        *,
        timeout_s: float = 0.05,
        patience_s: float = 1.0,
        prefix: str = "ps",
        clock_ms: Callable[[], int] | None = None,
    ) -> None:
        """See the class."""
        self._clock_ms = clock_ms
        self.timeout_s = timeout_s
        self._patience_s = max(patience_s, timeout_s)
        self._prefix = prefix
        self._take = client.register_script(TAKE)
        self._give_back = client.register_script(GIVE_BACK)
        self._renew = client.register_script(RENEW)
        self._look = client.register_script(LOOK)
        self._epoch = ""
        """Takings of another one are refused; of any, before the first look."""
        self._permits: dict[str, dict[str, int]] = {}
        """What each holder has, by key of the bucket: it has no other way to get any than us."""
        self._busy: Counter[str] = Counter()
        """Keys of permits that are being taken or given back."""
        self._renewing: dict[str, asyncio.Event] = {}
        self._noted: OrderedDict[str, None] = OrderedDict()
        """Takings of permits that are counted in `_permits`."""

    async def take(
        self, asks: Sequence[Ask], *, take_id: str, holder: str
    ) -> tuple[Lease, ...] | Shortage:
        """See `Authority`.

        Raises:
            AuthorityGoneError: It is not there.
            AuthoritySlowError: It does not answer in time.
            ColdAuthorityError: It has lost what it counted.
            AuthorityUnavailableError: It refuses to decide about one of these buckets.
        """
        keys = [self._key(ask.bucket.id) for ask in asks]
        permits = [key for key, ask in zip(keys, asks, strict=True) if ask.bucket.is_permits]
        arguments: list[Any] = [_REPEAT_MS, holder, int(PERMIT_S * 1_000)]
        for ask in asks:
            bucket = ask.bucket
            arguments += (bucket.limit, bucket.sub_window_ms, bucket.count)
            arguments += (ask.least, ask.want, int(ask.is_ahead))
        arguments.append(self._epoch)
        name = f"{self._prefix}:t:{{{_owner(asks[0].bucket.id)}}}:{take_id}"
        async with self._in_time(self.timeout_s), self._busy_with(permits):
            keys_of_all = [name, *keys, f"{self._prefix}:epoch"]
            kind, _, *answer = await self._run_surely(self._take, keys_of_all, arguments)
            if kind == _OTHER_EPOCH:
                message = "what it counted is lost"
                raise ColdAuthorityError(message)
            if not kind:
                index, remaining, retry_at_ms = answer
                return Shortage(index, remaining, None if retry_at_ms < 0 else retry_at_ms)
            leases = tuple(Lease(*answer[first : first + 3]) for first in range(0, len(answer), 3))
            if permits:
                taken = zip(keys, asks, leases, strict=True)
                self._note(
                    take_id,
                    holder,
                    ((key, lease.amount) for key, ask, lease in taken if ask.bucket.is_permits),
                )
        return leases

    async def give_back(self, bucket: Bucket, lease: Lease, amount: int, *, holder: str) -> None:
        """See `Authority`."""
        key = self._key(bucket.id)
        arguments = [holder, bucket.sub_window_ms, bucket.count, lease.sub_window, amount]
        if not bucket.is_permits:
            async with self._in_time(self.timeout_s):
                await self._run(self._give_back, [key], arguments)
            return
        held = self._permits.setdefault(holder, {})
        held[key] = max(0, held.get(key, 0) - amount)
        async with self._in_time(self.timeout_s), self._busy_with([key]):
            await self._run(self._give_back, [key], arguments)

    @property
    def holders(self) -> tuple[str, ...]:
        """Those that may have permits."""
        return tuple(self._permits)

    async def charge(self, bucket: Bucket, sub_window: int, amount: int) -> None:
        """Count what was given without the server, whatever the limit.

        Raises:
            AuthorityUnavailableError: It may have been counted.
        """
        arguments = ["", bucket.sub_window_ms, bucket.count, sub_window, -amount]
        async with self._in_time(self._patience_s):
            await self._run(self._give_back, [self._key(bucket.id)], arguments)

    async def look(self, node: str) -> Look:
        """Say that a node is there, and learn what the server's state is.

        Raises:
            AuthorityGoneError: It is not there, or says that it can count nothing.
            AuthoritySlowError: It does not answer in time.
        """
        keys = [f"{self._prefix}:epoch", f"{self._prefix}:nodes"]
        arguments = [node, int(NODE_S * 1_000), secrets.token_hex(8)]
        async with self._in_time(self._patience_s):
            try:
                now_ms, epoch, nodes = await self._run_surely(self._look, keys, arguments)
            except ResponseError as error:
                raise AuthorityGoneError(str(error)) from None
        self._epoch = epoch.decode()
        return Look(now_ms, int(self._epoch.rpartition(":")[2]), nodes)

    def note(self, bucket_id: str, amount: int, *, holder: str) -> None:
        """Take note of permits that a holder has got otherwise, or has no more.

        The server learns of it when they are renewed.
        """
        held = self._permits.setdefault(holder, {})
        key = self._key(bucket_id)
        held[key] = max(0, held.get(key, 0) + amount)

    async def renew(self, holder: str) -> None:
        """Say which permits a holder has, which keeps them for another `PERMIT_S`.

        To be called each third of that. It also mends what a taking that nobody saw the answer of,
        an outage or a lost database has left wrong.

        Raises:
            AuthorityUnavailableError: They may end.
        """
        for key in list(self._permits.get(holder, ())):
            await self._renew_one(holder, key)

    async def forget(self, holder: str) -> None:
        """See `Authority`."""
        await self.restate(holder, {})

    async def restate(self, holder: str, permits: Mapping[Bucket, int]) -> None:
        """See `Authority`."""
        known = self._permits.get(holder, {})
        now = {self._key(bucket.id): amount for bucket, amount in permits.items()}
        self._permits[holder] = dict.fromkeys(known, 0) | now
        await self.renew(holder)

    async def _renew_one(self, holder: str, key: str) -> None:
        held = self._permits.get(holder, {})
        if key not in held or self._busy[key] or key in self._renewing:
            return  # what is under way says it itself, or would be undone
        done = self._renewing[key] = asyncio.Event()
        try:
            async with self._in_time(self._patience_s):
                await self._run(self._renew, [key], [holder, int(PERMIT_S * 1_000), held[key]])
            if not held[key]:
                del held[key]
            if not self._permits.get(holder, held):
                self._permits.pop(holder, None)
        finally:
            del self._renewing[key]
            done.set()

    @asynccontextmanager
    async def _busy_with(self, keys: Sequence[str]) -> AsyncIterator[None]:
        """Change permits while nobody says how many there are."""
        for key in keys:
            while key in self._renewing:
                await self._renewing[key].wait()
        self._busy.update(keys)
        try:
            yield
        finally:
            self._busy.subtract(keys)
            for key in keys:
                if not self._busy[key]:
                    del self._busy[key]

    @asynccontextmanager
    async def _in_time(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with running_timeout(timeout_s):
                yield
        except (RedisError, OSError) as error:
            message = str(error) or type(error).__name__
            if _is_slow(error):
                raise AuthoritySlowError(message, timeout_s) from None
            raise AuthorityUnavailableError(message) from None

    def _note(self, take_id: str, holder: str, taken: Iterable[tuple[str, int]]) -> None:
        """Count permits that were taken, once however often it is repeated."""
        if take_id in self._noted:
            return
        self._noted[take_id] = None
        if len(self._noted) > _REPEATS:
            self._noted.popitem(last=False)
        held = self._permits.setdefault(holder, {})
        for key, amount in taken:
            held[key] = held.get(key, 0) + amount

    def _key(self, bucket_id: str) -> str:
        return f"{self._prefix}:b:{{{_owner(bucket_id)}}}:{bucket_id}"

    async def _run_surely(self, script: Any, keys: list[str], arguments: list[Any]) -> Any:
        """Ask what can be asked twice, until it is certain whether anybody is there."""
        for _ in range(_TRIES):
            try:
                return await self._run(script, keys, arguments)
            except (LinkError, OSError) as error:
                if _is_slow(error):
                    raise
                message = str(error) or type(error).__name__
        raise AuthorityGoneError(message)

    async def _run(self, script: Any, keys: list[str], arguments: list[Any]) -> Any:
        now_ms = -1 if self._clock_ms is None else self._clock_ms()
        return await script(keys=keys, args=[*arguments, now_ms])


def _is_slow(error: Exception) -> bool:
    """Tell whether an error is about time, maybe for a connection that others have."""
    return isinstance(error, TimeoutError | LinkTimeoutError) or isinstance(
        error.__cause__, TimeoutError
    )


def _owner(bucket_id: str) -> str:
    return bucket_id.partition("/")[0]
