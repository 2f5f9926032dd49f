"""The books of budgets, looked after: holds of silent workers end, and all is added up anew."""

from penstock.control import log_events
from penstock.kit.clock import Clock
from penstock.limits.budget_holds import expire, forget_holds
from penstock.limits.budget_model import WindowKey
from penstock.limits.budget_reconciling import reconcile
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.scope import Scope

_SHOWN = 5
"""Most windows that the log names."""


class BudgetBooks:
    """Keeps the books of budgets, and says what it found.

    Args:
        database: Where they are.
        clock: Tells the time.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        """See the class."""
        self._database = database
        self._clock = clock
        self.expired = 0
        """Holds that ended because their worker was silent, since the start."""
        self.differences = 0
        """Windows that did not say what charges and holds say, when they were last compared."""

    async def expire_holds(self) -> None:
        """End holds of workers that gave no sign of life; each in a transaction of its own."""
        while True:
            async with self._database.write(Scope.all_organizations()) as session:
                count = await expire(session, self._clock.wall_ns() // 1_000)
            if count is None:
                return
            self.expired += count

    async def forget_holds(self) -> None:
        """Remove holds that ended long ago."""
        async with self._database.write(Scope.all_organizations()) as session:
            await forget_holds(session, self._clock.wall_ns() // 1_000)

    async def reconcile(self) -> None:
        """Compare every window with its charges and open holds, in pages.

        It may be more than a database adds up in time: then it says so, and is tried again.
        """
        found: list[WindowKey] = []
        after: WindowKey | None = None
        try:
            while True:
                async with self._database.read(Scope.all_organizations()) as session:
                    page, after = await reconcile(session, after)
                found += page.differences
                if after is None:
                    break
        except DatabaseUnavailableError as error:
            log_events.BUDGETS_NOT_COMPARED.log(error=error)
            return
        self.differences = len(found)
        if found:
            log_events.BUDGETS_DIFFER.log(count=len(found), shown=[*map(str, found[:_SHOWN])])
