"""Wallets under whatever happens to their money, on both kinds of database."""

import asyncio

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.fakes.budget_rig import make_price
from tests.fakes.organizations import ALL, NOW_US
from tests.fakes.wallet_machine import WalletMachine
from tests.integration.conftest import OpenDatabase

from penstock.rating import store
from penstock.storage.database import Database

SETTINGS = settings(
    max_examples=6,
    stateful_step_count=20,
    suppress_health_check=list(HealthCheck),
    # To shrink a case takes many times as long as to find it, on a real database.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


def test_wallets_under_whatever_happens(open_database: OpenDatabase) -> None:
    """A wallet is what its accounts say, is held once, and lacks only what there is a cause for."""
    with asyncio.Runner() as runner:
        context = open_database()
        WalletMachine.runner = runner
        WalletMachine.database = runner.run(context.__aenter__())
        try:
            runner.run(_add_price(WalletMachine.database))
            run_state_machine_as_test(WalletMachine, settings=SETTINGS)
        finally:
            runner.run(context.__aexit__(None, None, None))


async def _add_price(database: Database) -> None:
    async with database.write(ALL) as session:
        await store.make_default_book(session, ALL, "list", "EUR", NOW_US)
        await store.prices.insert(session, ALL, make_price("small"))
