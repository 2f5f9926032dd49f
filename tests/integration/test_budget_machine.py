"""Money of budgets under whatever workers and nodes do, on both kinds of database."""

import asyncio

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.fakes.budget_machine import BudgetMachine
from tests.fakes.budget_rig import make_price
from tests.fakes.organizations import ALL, NOW_US
from tests.integration.conftest import OpenDatabase

from penstock.rating import store
from penstock.storage.database import Database

SETTINGS = settings(
    max_examples=8,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
    # To shrink a case takes many times as long as to find it, on a real database.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


def test_budgets_under_whatever_happens(open_database: OpenDatabase) -> None:
    """Settled + held <= amount but for what comes late, each event settled once, books agree."""
    with asyncio.Runner() as runner:
        context = open_database()
        BudgetMachine.runner = runner
        BudgetMachine.database = runner.run(context.__aenter__())
        try:
            runner.run(_add_price(BudgetMachine.database))
            run_state_machine_as_test(BudgetMachine, settings=SETTINGS)
        finally:
            runner.run(context.__aexit__(None, None, None))


async def _add_price(database: Database) -> None:
    async with database.write(ALL) as session:
        await store.make_default_book(session, ALL, "list", "EUR", NOW_US)
        await store.prices.insert(session, ALL, make_price("small"))
