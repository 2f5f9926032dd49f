"""How many usage events are in quarantine, for the alarm that it is."""

from penstock.metering.service import count_conflicts
from penstock.storage.database import Database
from penstock.storage.scope import Scope


class Quarantine:
    """Usage events whose id was stored with another content.

    Args:
        database: Where they are, whichever control plane put them there.
    """

    def __init__(self, database: Database) -> None:
        """See the class."""
        self._database = database
        self.size = 0
        """How many there were when they were last counted."""

    async def count(self) -> None:
        """Count them.

        Raises:
            DatabaseUnavailableError: It cannot be done now.
        """
        everybody = Scope.all_organizations()
        async with self._database.read(everybody) as session:
            self.size = await count_conflicts(session, everybody)
