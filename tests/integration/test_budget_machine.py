"""Money of budgets under whatever workers and nodes do, on both kinds of database."""

from tests.fakes.budget_machine import BudgetMachine
from tests.fakes.database_machine import try_machine
from tests.integration.conftest import OpenDatabase


def test_budgets_under_whatever_happens(open_database: OpenDatabase) -> None:
    """Settled + held <= amount but for what comes late, each event settled once, books agree."""
    try_machine(BudgetMachine, open_database, examples=8, steps=25)
