"""Use cases of the ledger that other rooms call. None commits."""

from penstock.ledger.bills import post_bill, post_credit_note, post_payment
from penstock.ledger.posting import find_currencies, post_usage

__all__ = ["find_currencies", "post_bill", "post_credit_note", "post_payment", "post_usage"]
