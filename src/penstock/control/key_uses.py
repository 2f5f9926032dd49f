"""What is known of keys because they were shown to the admin API, written together later."""

from penstock.access.model import VerifiedKey
from penstock.access.peppers import Peppers
from penstock.access.rehash import record_macs
from penstock.access.verification import KeyUse, record_uses
from penstock.kit.clock import Clock
from penstock.storage.database import Database
from penstock.storage.scope import Scope

MAX_SECRETS = 10_000
"""Secrets whose use is remembered until it is written; of those beyond, nothing is."""


class KeyUses:
    """Remembers which keys were used, so that no request of the admin API writes for it.

    Args:
        database: Where keys are.
        peppers: What keys are hashed under: those that were shown move to the active one.
        clock: Says when they moved.
    """

    def __init__(self, database: Database, peppers: Peppers, clock: Clock) -> None:
        """See the class."""
        self._database = database
        self._peppers = peppers
        self._clock = clock
        self._uses: dict[str, KeyUse] = {}
        self._old: dict[str, VerifiedKey] = {}

    def note(self, verified: VerifiedKey, at_us: int) -> None:
        """Remember that a key was shown."""
        secret_id = verified.secret.id
        if secret_id in self._uses or len(self._uses) < MAX_SECRETS:
            self._uses[secret_id] = KeyUse(verified.record.key.id, at_us, secret_id)
            if verified.has_old_pepper:
                self._old[secret_id] = verified

    async def flush(self) -> None:
        """Write what is remembered.

        Raises:
            DatabaseUnavailableError: It is not written, and forgotten: the next use is as good.
        """
        uses, self._uses = self._uses, {}
        old, self._old = self._old, {}
        if not uses:
            return
        now_us = self._clock.wall_ns() // 1_000
        async with self._database.write(Scope.all_organizations()) as session:
            # First what queues with other writers: none of them waits for rows of ours meanwhile.
            await record_macs(session, self._peppers, list(old.values()), now_us)
            await record_uses(session, uses.values())
