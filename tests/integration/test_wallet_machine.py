"""Wallets under whatever happens to their money, on both kinds of database."""

from tests.fakes.database_machine import try_machine
from tests.fakes.wallet_machine import WalletMachine
from tests.integration.conftest import OpenDatabase


def test_wallets_under_whatever_happens(open_database: OpenDatabase) -> None:
    """A wallet is what its accounts say, is held once, and lacks only what there is a cause for."""
    try_machine(WalletMachine, open_database, examples=6, steps=20)
