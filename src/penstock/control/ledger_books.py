"""The ledger, looked after: grants end in time, sums are kept, and all is verified."""

from collections.abc import Mapping

from penstock.audit.model import Actor
from penstock.control import log_events
from penstock.kit.clock import Clock
from penstock.ledger.balances import make_snapshots
from penstock.ledger.credits import MAX_EXPIRIES, expire_grants
from penstock.ledger.prepaying import MAX_OPENINGS, open_missing
from penstock.ledger.verifying import NO_CHECKS, Check, verify
from penstock.storage.database import Database
from penstock.storage.errors import DatabaseUnavailableError
from penstock.storage.scope import Scope

_SHOWN = 5
"""Most violations that the log names."""


class LedgerBooks:
    """Keeps the ledger, and says what it found.

    Args:
        database: Where it is.
        clock: Tells the time.
        more_checks: What else is verified.
    """

    def __init__(
        self, database: Database, clock: Clock, more_checks: Mapping[str, Check] = NO_CHECKS
    ) -> None:
        """See the class."""
        self._more_checks = more_checks
        self._database = database
        self._clock = clock
        self.violations = 0
        """Rows that the books should not have, when they were last verified."""

    @property
    def _now_us(self) -> int:
        return self._clock.wall_ns() // 1_000

    async def expire_grants(self) -> None:
        """End grants whose time is over; some in each transaction."""
        while True:
            async with self._database.write(Scope.all_organizations()) as session:
                count = await expire_grants(session, self._now_us)
            if count:
                log_events.GRANTS_EXPIRED.log(count=count)
            if count < MAX_EXPIRIES:
                return

    async def open_wallets(self) -> None:
        """Have wallets count of organizations that were prepaid before wallets did."""
        while True:
            async with self._database.write(Scope.all_organizations()) as session:
                actor = Actor(kind="system", id="chores", at_us=self._now_us)
                count = await open_missing(session, actor)
            if count:
                log_events.WALLETS_OPENED.log(count=count)
            if count < MAX_OPENINGS:
                return

    async def make_snapshots(self) -> None:
        """Keep sums of accounts that have many entries."""
        await make_snapshots(self._database, self._now_us)

    async def verify(self) -> None:
        """Look for anything that the books should not have.

        It may be more than a database reads in time: then it says so, and is tried again.
        """
        try:
            found = await verify(
                lambda: self._database.read(Scope.all_organizations(), is_long=True),
                self._more_checks,
            )
        except DatabaseUnavailableError as error:
            log_events.LEDGER_NOT_VERIFIED.log(error=error)
            return
        self.violations = len(found)
        if found:
            log_events.LEDGER_WRONG.log(violations=len(found), shown=[*map(str, found[:_SHOWN])])
