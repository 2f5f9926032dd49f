"""The authority of a node that shares limits with others: their server, and its share without it.

While the server is there it decides. When it is away, or has lost what it counted, a node gives
from its share of each limit: an equal part, less what it has leased in the window from either. What
it gave by itself it tells the server before it asks there again. A server that is only slow may be
giving all of a limit to others: until it is known to be away (`circuit`) nobody can decide.

A server that has lost everything is told so by its epoch, which takings name: it is trusted about a
bucket when a window has passed since its new one began.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from penstock.contract.limits import Ask, Bucket, Lease, Shortage
from penstock.limits import log_events
from penstock.limits.authority import AuthorityUnavailableError, MemoryAuthority
from penstock.limits.circuit import Circuit, LiveNodes, share_of
from penstock.limits.debts import Debts
from penstock.limits.redis_authority import (
    PERMIT_S,
    AuthorityGoneError,
    AuthoritySlowError,
    ColdAuthorityError,
    RedisAuthority,
)

HEARTBEAT_S = 1.0
_AT_ONCE = 32


class SharedAuthority:
    """See the module, and `authority.Authority`.

    Args:
        own: Counts all that this node leases, so that it knows what is left of its share.
        server: Counts for all nodes.
        node: The node's id.
        nodes: How many nodes there are.
        clock_ms: The server's time, as far as it is known here.
        on_drift: Told by how many milliseconds the server's time is ahead of that.
    """

    def __init__(
        self,
        own: MemoryAuthority,
        server: RedisAuthority,
        *,
        node: str,
        nodes: LiveNodes,
        clock_ms: Callable[[], int],
        on_drift: Callable[[int], None],
    ) -> None:
        """See the class."""
        self.share_count = 0
        """Takings from the node's share."""
        self.error_count = 0
        """Times that the server did not answer."""
        self._own = own
        self._server = server
        self._node = node
        self._nodes = nodes
        self._clock_ms = clock_ms
        self._on_drift = on_drift
        self._circuit = Circuit()
        self._since_ms = 0
        self._renewed_ms = 0
        self._debts = Debts()
        self._telling: set[str] = set()
        """Buckets of which the server is just told what it is owed."""
        for holder in own.holders:
            for bucket_id, amount in own.permits_of(holder).items():
                server.note(bucket_id, amount, holder=self._name(holder))

    @property
    def is_up(self) -> bool:
        """Whether the server is asked."""
        return self._circuit.is_closed

    async def run(self) -> None:
        """Keep in touch with the server until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(HEARTBEAT_S)

    async def look(self) -> None:
        """See how the server is; if it is well, tell it what it does not know, and ask it again."""
        try:
            loop = asyncio.get_running_loop()
            asked_ms, asked_s = self._clock_ms(), loop.time()
            look = await self._server.look(self._node)
            is_prompt = loop.time() - asked_s <= self._server.timeout_s
            answered_ms = self._clock_ms()
            drift_ms = look.now_ms - (asked_ms + answered_ms) // 2
            # Of a slow answer nobody knows when it was given: less than that is no drift.
            if abs(drift_ms) >= (answered_ms - asked_ms) / 2:
                self._on_drift(drift_ms)
            self._nodes.see(look.nodes, look.now_ms)
            self._since_ms = look.since_ms
            await self._settle_up()
        except AuthorityUnavailableError as error:
            self._fail(error)
            return
        # Who would be too late for takings is not asked again for that; at first it may be a new
        # connection that takes its time.
        if (is_prompt or not self._circuit.is_open) and self._circuit.look_well():
            log_events.LIMITS_SHARED.log(nodes=self._nodes.count)

    async def take(
        self, asks: Sequence[Ask], *, take_id: str, holder: str
    ) -> tuple[Lease, ...] | Shortage:
        """See `Authority`.

        Raises:
            AuthorityUnavailableError: As there; or the server is not known to be away, or it is
                more than the share of a node.
        """
        if not (self._circuit.is_closed or self._circuit.is_open):
            message = "nobody knows yet whether the server is there"
            raise AuthorityUnavailableError(message)
        trusted = [index for index, ask in enumerate(asks) if self._trusts(ask.bucket)]
        shared = [asks[index] for index in trusted]
        given: tuple[Lease, ...] = ()
        if shared:
            try:
                answer = await self._server.take(
                    shared, take_id=f"{self._node}/{take_id}", holder=self._name(holder)
                )
            except AuthorityUnavailableError as error:
                self._fail(error)
                if not self._circuit.is_open:
                    raise
                trusted, shared = [], []
            else:
                self._circuit.succeed()
                if isinstance(answer, Shortage):
                    return replace(answer, index=trusted[answer.index])
                given = answer
                self._own.record(shared, given, holder=holder)
        rest = [index for index in range(len(asks)) if index not in trusted]
        if not rest:
            return given
        try:
            share = await self._take_share([asks[index] for index in rest], take_id, holder)
        except AuthorityUnavailableError:
            await self._give_all_back(shared, given, holder)
            raise
        if isinstance(share, Shortage):
            await self._give_all_back(shared, given, holder)
            return replace(share, index=rest[share.index])
        by_index = dict(zip(trusted, given, strict=True)) | dict(zip(rest, share, strict=True))
        return tuple(by_index[index] for index in range(len(asks)))

    async def give_back(self, bucket: Bucket, lease: Lease, amount: int, *, holder: str) -> None:
        """See `Authority`."""
        await self._own.give_back(bucket, lease, amount, holder=holder)
        if bucket.is_permits:
            if not self._circuit.is_closed:
                self._server.note(bucket.id, -amount, holder=self._name(holder))
                return
        else:
            amount = -self._debts.add(bucket, lease.sub_window, -amount)
            if not amount or not self._circuit.is_closed:
                # Not to be given back later: nobody would know whether it was already.
                return
        try:
            await self._server.give_back(bucket, lease, amount, holder=self._name(holder))
        except AuthorityUnavailableError as error:
            self._fail(error)

    async def forget(self, holder: str) -> None:
        """See `Authority`."""
        await self._own.forget(holder)
        await self._restate_shared(holder, {})

    async def restate(self, holder: str, permits: Mapping[Bucket, int]) -> None:
        """See `Authority`."""
        await self._own.restate(holder, permits)
        await self._restate_shared(holder, permits)

    async def _restate_shared(self, holder: str, permits: Mapping[Bucket, int]) -> None:
        try:
            await self._server.restate(self._name(holder), permits)
        except AuthorityUnavailableError as error:
            self._fail(error)  # it is renewed when the server is there again

    async def _take_share(
        self, asks: Sequence[Ask], take_id: str, holder: str
    ) -> tuple[Lease, ...] | Shortage:
        nodes = self._nodes.count
        if not nodes:
            message = "nobody knows how many nodes there are"
            raise AuthorityUnavailableError(message)
        shares = [
            replace(ask, bucket=replace(ask.bucket, limit=share_of(ask.bucket.limit, nodes)))
            for ask in asks
        ]
        answer = await self._own.take(shares, take_id=f"{take_id}/share", holder=holder)
        if isinstance(answer, Shortage):
            ask, share = asks[answer.index], shares[answer.index]
            if share.bucket.limit < ask.least <= ask.bucket.limit:
                message = "it is more than the share of a node"
                raise AuthorityUnavailableError(message)
            return answer
        self.share_count += 1
        for ask, lease in zip(asks, answer, strict=True):
            if ask.bucket.is_permits:
                self._server.note(ask.bucket.id, lease.amount, holder=self._name(holder))
            else:
                self._debts.add(ask.bucket, lease.sub_window, lease.amount)
        return answer

    async def _give_all_back(
        self, asks: Sequence[Ask], leases: Sequence[Lease], holder: str
    ) -> None:
        for ask, lease in zip(asks, leases, strict=True):
            await self.give_back(ask.bucket, lease, lease.amount, holder=holder)

    async def _settle_up(self) -> None:
        """Tell the server what was leased without it, and who has permits."""
        now_ms = self._clock_ms()
        while owed := self._debts.take(_AT_ONCE, now_ms):
            self._telling.update(bucket.id for bucket, _ in owed)
            done = await asyncio.gather(
                *(
                    self._server.charge(bucket, lease.sub_window, lease.amount)
                    for bucket, lease in owed
                ),
                return_exceptions=True,
            )
            for (bucket, lease), result in zip(owed, done, strict=True):
                if result is not None:  # it may be told twice; then too much counts, not too little
                    self._debts.add(bucket, lease.sub_window, lease.amount)
            self._telling.clear()
            failures = [result for result in done if result is not None]
            if failures:
                raise failures[0]
        if not self._circuit.is_closed or now_ms - self._renewed_ms > PERMIT_S * 1_000 / 3:
            for holder in self._server.holders:
                await self._server.renew(holder)
            self._renewed_ms = now_ms

    def _trusts(self, bucket: Bucket) -> bool:
        """Tell whether the server knows all that counts in a bucket."""
        is_owed = bucket.id in self._telling or self._debts.owes(bucket)
        if not self._circuit.is_closed or is_owed:
            return False
        window_ms = (
            PERMIT_S * 1_000 if bucket.is_permits else bucket.sub_window_ms * (bucket.count + 1)
        )
        return self._clock_ms() >= self._since_ms + window_ms

    def _fail(self, error: Exception) -> None:
        self.error_count += 1
        has_opened = False
        if isinstance(error, AuthorityGoneError | ColdAuthorityError):
            has_opened = self._circuit.open()
        elif isinstance(error, AuthoritySlowError):
            now_s = asyncio.get_running_loop().time()
            has_opened = self._circuit.fail(error.waited_s, now_s)
        if has_opened:
            log_events.LIMITS_NOT_SHARED.log(nodes=self._nodes.count, error=error)

    def _name(self, holder: str) -> str:
        return f"{self._node}/{holder}"
