"""What can go wrong with the books, as far as callers are to blame."""

from functools import partial

from penstock.kit.errors import declare_refusal

_refusal = partial(declare_refusal, "ledger")


LEDGER_INVALID = _refusal(
    "invalid",
    400,
    "invalid_ledger_request",
    public="Terms, credit or a period cannot be like this.",
    cause=(
        "A member has a value that it cannot have, e.g. an amount of 0, an unknown currency, or a "
        "grant that expires in the past; or it is not said whose books are meant."
    ),
    caller_action="Correct the member that the message names.",
)

REFERENCE_USED = _refusal(
    "reference_used",
    409,
    "reference_used",
    public="Something else was booked under this reference.",
    cause="A reference names one payment of an organization for ever; that had another amount.",
    caller_action="Choose another reference for another payment.",
)
