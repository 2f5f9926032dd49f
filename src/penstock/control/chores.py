"""What the control plane does by itself, from time to time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from penstock.access import due, idempotency
from penstock.audit import service as audit
from penstock.audit.model import Actor
from penstock.audit.signing import CheckpointSigner
from penstock.catalog.credentials import jobs
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.catalog.credentials.errors import KeysUnavailableError
from penstock.catalog.operations.service import forget_old_operations
from penstock.catalog.registrations.service import forget_old_registrations
from penstock.control import log_events
from penstock.control.budget_books import BudgetBooks
from penstock.control.key_uses import KeyUses
from penstock.control.ledger_books import LedgerBooks
from penstock.control.quarantine import Quarantine
from penstock.control.registrations import Leases
from penstock.kit.clock import Clock
from penstock.kit.kek.model import KekVersion
from penstock.kit.logs.setup import tell_repeats
from penstock.limits.rule_use import forget_old_uses
from penstock.metering.bucket_rules import DAY_US
from penstock.notices.service import forget_old_notices
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.scope import Scope
from penstock.storage.sessions import WriteSession

TICK_S = 2.0
"""How often it is looked for what is due, and how far the last uses of admin keys are behind."""
WATCH_S = 60.0
"""How often secrets that are due are looked for."""
CHECKPOINT_S = 3_600.0
"""How often the ends of audit chains are signed: what was cut off behind the last is not seen."""

QUARANTINE_S = 10.0
"""How often it is looked for usage in quarantine, of whichever control plane put it there."""

RECONCILE_S = 3_600.0
"""How often budgets are compared with what was charged to them, and the ledger is verified."""

_Chore: TypeAlias = tuple[float, Callable[[], Awaitable[None]]]
"""How often something is done, and what."""


class Chores:
    """Does what the clock asks for.

    It signs the audit log's chains, forgets idempotency keys that are over a day old, uses of
    limits and notices that say nothing any more, writes when keys were used, ends secrets whose
    rotation is overdue, reports those that are still used late, follows the KEK, keeps the books of
    budgets and the ledger, makes room for the usage of the days to come, and ends leases of engines
    that were not renewed.
    Several control planes may do this at once: what one has done is nothing to do for the next.

    Args:
        database: Where everything is.
        signer: Signs checkpoints.
        data_keys: Wrapped anew when the KEK has a newer version.
        clock: Tells the time.
        key_uses: What is to be written about keys.
        books: Those of budgets.
        quarantine: Counted now and then.
        ledger: The ledger's.
    """

    def __init__(
        self,
        database: Database,
        signer: CheckpointSigner,
        data_keys: DataKeys,
        clock: Clock,
        *,
        key_uses: KeyUses,
        books: BudgetBooks,
        quarantine: Quarantine,
        ledger: LedgerBooks,
    ) -> None:
        """See the class."""
        self._database = database
        self.books = books
        self.ledger = ledger
        self._signer = signer
        self._data_keys = data_keys
        self._wrapped_under: KekVersion | None = None
        self._clock = clock
        self._chores: list[_Chore] = [
            (TICK_S, key_uses.flush),
            (WATCH_S, self._forget),
            (WATCH_S, self._watch_secrets),
            (WATCH_S, self._follow_kek),
            (CHECKPOINT_S, self._sign_chains),
            (WATCH_S, books.expire_holds),
            (RECONCILE_S, books.forget_holds),
            (RECONCILE_S, books.reconcile),
            (CHECKPOINT_S, self._create_parts),
            (QUARANTINE_S, quarantine.count),
            (WATCH_S, ledger.expire_grants),
        ]
        # Alone, so that it sees when the database is away: that time does not count for leases.
        self._lease_chores: list[_Chore] = [(TICK_S, Leases(database, clock).end)]
        # They read whole tables: the others do not wait for them.
        self._long_chores: list[_Chore] = [
            (RECONCILE_S, ledger.open_wallets),
            (RECONCILE_S, ledger.make_snapshots),
            (RECONCILE_S, ledger.verify),
        ]
        self._done_at_s: dict[_Chore, float] = {}
        self.failing: set[str] = set()
        """Chores that could not be done when they were last tried."""

    async def run(self) -> None:
        """Work until cancelled, whatever fails."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._lease_chores), name="lease chores")
            group.create_task(self._repeat(self._chores), name="chores")
            group.create_task(self._repeat(self._long_chores), name="long chores")

    async def tick(self) -> None:
        """Do what is due; of what fails nothing is half done, and it is tried again."""
        await self._do(self._lease_chores)
        await self._do(self._chores)
        await self._do(self._long_chores)

    async def _repeat(self, chores: list[_Chore]) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            tell_repeats()
            await self._do(chores)

    async def _do(self, chores: list[_Chore]) -> None:
        now_s = self._clock.monotonic_s()
        for chore in chores:
            period_s, work = chore
            if now_s - self._done_at_s.get(chore, float("-inf")) < period_s:
                continue
            name = work.__qualname__
            # One that fails must not keep the others from it.
            try:
                await work()
            except DatabaseUnavailableError as error:
                self.failing.add(name)
                log_events.CHORES_LATE.log(chore=name, error=error)
                # Each would wait as long for a database that is away. The next round begins behind
                # this one, which may be alone in being too much.
                chores.remove(chore)
                chores.append(chore)
                return
            except Exception as error:  # noqa: BLE001
                # Whatever it is, an end here would be noticed by nobody until holds never expire.
                self.failing.add(name)
                log_events.CHORE_FAILED.log(chore=name, bug=error)
            else:
                self.failing.discard(name)
            self._done_at_s[chore] = now_s

    @property
    def _now_us(self) -> int:
        return self._clock.wall_ns() // 1_000

    @property
    def _actor(self) -> Actor:
        return Actor(kind="system", id="chores", at_us=self._now_us)

    async def _forget(self) -> None:
        async with self._database.write(Scope.all_organizations()) as session:
            await idempotency.forget_expired(session, self._now_us)
            await forget_old_uses(session, self._now_us)
            await forget_old_notices(session, self._now_us)
            await forget_old_operations(session, self._now_us)
            await forget_old_registrations(session, self._now_us)

    async def _watch_secrets(self) -> None:
        ended = await self._do_all(due.end_overdue)
        noted = await self._do_all(due.note_late_uses)
        if ended or noted:
            log_events.SECRETS_DUE.log(rotation=ended, late_use=noted)

    async def _do_all(self, work: Callable[[WriteSession, Actor], Awaitable[int]]) -> int:
        # Each transaction does a part, so that no other writer waits for long.
        total = 0
        while True:
            async with self._database.write(Scope.all_organizations()) as session:
                count = await work(session, self._actor)
            total += count
            if count < due.MAX_CHANGES:
                return total

    async def _sign_chains(self) -> None:
        async with self._database.write(Scope.all_organizations()) as session:
            checkpoints = await audit.create_checkpoints(session, self._signer, self._now_us)
        log_events.CHAINS_SIGNED.log(count=len(checkpoints))

    async def _create_parts(self) -> None:
        created = await self._database.create_parts(self._now_us // DAY_US)
        if created:
            log_events.PARTS_CREATED.log(names=created)

    async def _follow_kek(self) -> None:
        """Wrap all data keys anew, once for each version of the KEK that this process sees."""
        try:
            current = await self._data_keys.current()
            if current == self._wrapped_under:
                return
            if await jobs.count_outdated(self._database, current):
                report = await jobs.rewrap_data_keys(self._database, self._data_keys, self._actor)
                log_events.DATA_KEYS_REWRAPPED.log(renewed=report.renewed, outdated=report.outdated)
            self._wrapped_under = current
        except KeysUnavailableError as error:
            log_events.DATA_KEYS_NOT_REWRAPPED.log(error=error)
