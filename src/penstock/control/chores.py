"""What the control plane does by itself, from time to time."""

import asyncio
import logging

from penstock.access import idempotency
from penstock.audit import service as audit
from penstock.audit.signing import CheckpointSigner
from penstock.kit.clock import Clock
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.scope import Scope

log = logging.getLogger(__name__)

TICK_S = 60.0
CHECKPOINT_S = 3_600.0
"""How often the ends of audit chains are signed: what was cut off behind the last is not seen."""


class Chores:
    """Signs the audit log's chains and forgets idempotency keys that are over a day old.

    Several control planes may do this at once: what one has done is nothing to do for the next.

    Args:
        database: Where everything is.
        signer: Signs checkpoints.
        clock: Tells the time.
    """

    def __init__(self, database: Database, signer: CheckpointSigner, clock: Clock) -> None:
        """See the class."""
        self._database = database
        self._signer = signer
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
        if self._signed_at_s is not None and now_s - self._signed_at_s < CHECKPOINT_S:
            return
        async with self._database.write(Scope.all_organizations()) as session:
            checkpoints = await audit.create_checkpoints(session, self._signer, now_us)
        self._signed_at_s = now_s
        log.info("audit chains signed count=%s", len(checkpoints))
