"""What is known of keys because they were shown to the admin API, written together later."""

from penstock.access.model import VerifiedKey
from penstock.access.verification import KeyUse, record_uses
from penstock.storage.database import Database
from penstock.storage.scope import Scope

MAX_SECRETS = 10_000
"""Secrets whose use is remembered until it is written; of those beyond, nothing is."""


class KeyUses:
    """Remembers which keys were used, so that no request of the admin API writes for it.

    Args:
        database: Where keys are.
    """

    def __init__(self, database: Database) -> None:
        """See the class."""
        self._database = database
        self._uses: dict[str, KeyUse] = {}

    def note(self, verified: VerifiedKey, at_us: int) -> None:
        """Remember that a key was shown."""
        secret_id = verified.secret.id
        if secret_id in self._uses or len(self._uses) < MAX_SECRETS:
            self._uses[secret_id] = KeyUse(verified.record.key.id, at_us, secret_id)

    async def flush(self) -> None:
        """Write what is remembered.

        Raises:
            DatabaseUnavailableError: It is not written, and forgotten: the next use is as good.
        """
        uses, self._uses = self._uses, {}
        if not uses:
            return
        async with self._database.write(Scope.all_organizations()) as session:
            await record_uses(session, uses.values())
