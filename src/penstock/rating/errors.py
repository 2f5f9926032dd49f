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
