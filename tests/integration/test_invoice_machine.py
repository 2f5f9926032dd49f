"""Invoices under whatever happens, on both kinds of database, beside a model: I24 to I27."""

from tests.fakes.billing_machine import BillingMachine
from tests.fakes.database_machine import try_machine
from tests.integration.conftest import OpenDatabase


def test_invoices_under_whatever_happens(open_database: OpenDatabase) -> None:
    """Each charge is on one invoice, to the last bit; what was issued stays; no check finds."""
    try_machine(BillingMachine, open_database, examples=10, steps=15)
