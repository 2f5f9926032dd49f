"""Usage from a node's batch to the ledger, in one transaction, on both kinds of database."""

import asyncio

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.fakes.budget_rig import make_price
from tests.fakes.ingest_machine import IngestMachine
from tests.fakes.organizations import ALL, NOW_US
from tests.integration.conftest import OpenDatabase

from penstock.rating import store
from penstock.storage.database import Database

SETTINGS = settings(
    max_examples=25,
    stateful_step_count=20,
    suppress_health_check=list(HealthCheck),
    # To shrink a case takes many times as long as to find it, on a real database.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


async def _add_price(database: Database) -> None:
    async with database.write(ALL) as session:
        await store.make_default_book(session, ALL, "list", "EUR", NOW_US)
        await store.prices.insert(session, ALL, make_price("small"))


def test_usage_counts_once_whatever_happens(open_database: OpenDatabase) -> None:
    """Repeated, reordered, late, at once, from a copied node and into crashes: all books agree."""
    with asyncio.Runner() as runner:
        context = open_database()
        IngestMachine.runner = runner
        IngestMachine.database = runner.run(context.__aenter__())
        try:
            runner.run(_add_price(IngestMachine.database))
            run_state_machine_as_test(IngestMachine, settings=SETTINGS)
        finally:
            runner.run(context.__aexit__(None, None, None))
