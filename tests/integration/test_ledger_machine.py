"""The books under whatever happens, on both kinds of database, beside a model in fractions."""

import asyncio

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.fakes.ledger_machine import LedgerMachine
from tests.integration.conftest import OpenDatabase

SETTINGS = settings(
    max_examples=8,
    stateful_step_count=20,
    suppress_health_check=list(HealthCheck),
    # To shrink a case takes many times as long as to find it, on a real database.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


def test_books_under_whatever_happens(open_database: OpenDatabase) -> None:
    """Balances at any moment, grants and breakage are the model's, and no check finds anything."""
    with asyncio.Runner() as runner:
        context = open_database()
        LedgerMachine.runner = runner
        LedgerMachine.database = runner.run(context.__aenter__())
        try:
            run_state_machine_as_test(LedgerMachine, settings=SETTINGS)
        finally:
            runner.run(context.__aexit__(None, None, None))
