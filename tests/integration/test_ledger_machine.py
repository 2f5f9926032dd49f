"""The books under whatever happens, on both kinds of database, beside a model in fractions."""

from tests.fakes.database_machine import try_machine
from tests.fakes.ledger_machine import LedgerMachine
from tests.integration.conftest import OpenDatabase


def test_books_under_whatever_happens(open_database: OpenDatabase) -> None:
    """Balances at any moment, grants and breakage are the model's, and no check finds anything."""
    try_machine(LedgerMachine, open_database, examples=8, steps=20)
