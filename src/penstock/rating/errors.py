"""What can go wrong with prices."""

from functools import partial

from penstock.kit.errors import declare_refusal

_refusal = partial(declare_refusal, "prices")


PRICE_INVALID = _refusal(
    "invalid",
    400,
    "invalid_price",
    public="A price cannot be like this.",
    cause="A member has a value that it cannot have, e.g. a price below 0 or an unknown currency.",
    caller_action="Correct the member that the message names.",
)

BOOK_INVALID = _refusal(
    "book_invalid",
    400,
    "invalid_price_book",
    public="A price book cannot be like this.",
    cause="A member has a value that it cannot have, e.g. a contract without an organization.",
    caller_action="Correct the member that the message names.",
)

BOOK_EXISTS = _refusal(
    "book_exists",
    409,
    "price_book_exists",
    public="There is such a price book.",
    cause="The name is taken, or the organization has a contract in that currency.",
    caller_action="Choose another name, or set prices in the book that is there.",
)

PRICE_TOO_SOON = _refusal(
    "too_soon",
    400,
    "price_too_soon",
    public="A price cannot begin that soon.",
    cause=(
        "It would begin in the past, or it is higher than the one it replaces and begins before "
        "all that workers hold at the lower one is spent or given back."
    ),
    caller_action="Leave `valid_from` out for the earliest time, or choose a later one.",
)

PRICE_EXISTS = _refusal(
    "exists",
    409,
    "price_exists",
    public="There is a price that holds at the same time.",
    cause="A model has one price of a book and service tier at each moment. One that was set with "
    "an end holds until then.",
    caller_action="Choose another time, or delete the other one if it has not begun.",
)

PRICE_USED = _refusal(
    "used",
    409,
    "price_used",
    public="The price has begun, or will in a moment, so it stays.",
    cause="Usage is rated by it, and requests are let in by what they will cost.",
    caller_action="Set a new price, from now on.",
)

RUN_INVALID = _refusal(
    "run_invalid",
    400,
    "invalid_price_run",
    public="Usage cannot be rated like this.",
    cause="The time ends before it begins, or is longer than can be answered at once.",
    caller_action="Correct what the message names.",
)

RUN_WAITS = _refusal(
    "run_waits",
    503,
    "price_run_waits",
    public="Usage from before the run is still being stored.",
    cause="A transaction is open that began before the run: its usage would be left out.",
    caller_action="Continue the run in a second.",
)

CORRECTION_INVALID = _refusal(
    "correction_invalid",
    400,
    "invalid_usage_correction",
    public="Usage cannot be corrected like this.",
    cause="Nothing would be corrected, a meter would count less than nothing, or the event counts "
    "for nothing already.",
    caller_action="Correct what the message names.",
)

CORRECTION_EXISTS = _refusal(
    "correction_exists",
    409,
    "usage_correction_exists",
    public="Something else was corrected under this reference.",
    cause="A reference names one correction of an event for ever; that one said something else.",
    caller_action="Choose another reference for another correction.",
)
