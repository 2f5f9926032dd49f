"""What the control plane does by itself, from time to time."""

import asyncio
import logging

from penstock.access import idempotency
from penstock.audit import service as audit
from penstock.audit.model import Actor
from penstock.audit.signing import CheckpointSigner
from penstock.catalog.credentials import jobs
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.catalog.credentials.errors import KeysUnavailableError
from penstock.kit.clock import Clock
from penstock.kit.kek.model import KekVersion
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.scope import Scope

log = logging.getLogger(__name__)

TICK_S = 60.0
CHECKPOINT_S = 3_600.0
"""How often the ends of audit chains are signed: what was cut off behind the last is not seen."""


class Chores:
    """Signs audit chains, forgets idempotency keys that are over a day old, follows the KEK.

    Several control planes may do this at once: what one has done is nothing to do for the next.

    Args:
        database: Where everything is.
        signer: Signs checkpoints.
        data_keys: Wrapped anew when the KEK has a newer version.
        clock: Tells the time.
    """

    def __init__(
        self, database: Database, signer: CheckpointSigner, data_keys: DataKeys, clock: Clock
    ) -> None:
        """See the class."""
        self._database = database
        self._signer = signer
        self._data_keys = data_keys
        self._wrapped_under: KekVersion | None = None
        self._clock = clock
        self._signed_at_s: float | None = None

    async def run(self) -> None:
        """Work until cancelled; a database that is away is tried again at the next tick."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except DatabaseUnavailableError as error:
                log.warning("chores are late error=%s", error)

    async def tick(self) -> None:
        """Do what is due.

        Raises:
            DatabaseUnavailableError: It cannot be done now; nothing is half done.
        """
        now_us = self._clock.wall_ns() // 1_000
        now_s = self._clock.monotonic_s()
        async with self._database.write(Scope.all_organizations()) as session:
            await idempotency.forget_expired(session, now_us)
        await self._follow_kek(now_us)
        if self._signed_at_s is not None and now_s - self._signed_at_s < CHECKPOINT_S:
            return
        async with self._database.write(Scope.all_organizations()) as session:
            checkpoints = await audit.create_checkpoints(session, self._signer, now_us)
        self._signed_at_s = now_s
        log.info("audit chains signed count=%s", len(checkpoints))

    async def _follow_kek(self, now_us: int) -> None:
        """Wrap all data keys anew, once for each version of the KEK that this process sees."""
        try:
            current = await self._data_keys.current()
            if current == self._wrapped_under:
                return
            if await jobs.count_outdated(self._database, current):
                actor = Actor(kind="system", id="chores", at_us=now_us)
                report = await jobs.rewrap_data_keys(self._database, self._data_keys, actor)
                log.info(
                    "data keys wrapped anew renewed=%s outdated=%s", report.renewed, report.outdated
                )
            self._wrapped_under = current
        except KeysUnavailableError as error:
            log.warning("data keys cannot be wrapped anew error=%s", error)
