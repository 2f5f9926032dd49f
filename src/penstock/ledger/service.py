"""Use cases of the ledger that other rooms call. None commits."""

from penstock.ledger.posting import find_currencies, post_usage

__all__ = ["find_currencies", "post_usage"]
