"""What nodes are told of prices that end, or that have no worst case."""

from tests.fakes.budget_rig import make_price

from penstock.rating.rules import read_price
from penstock.rating.telling import tell

SECOND_US = 1_000_000
IMAGES = {
    "input": {"price": "1"},
    "output": {"price": "2"},
    "images": {"price": "0.01", "per": 1},
}


def test_no_price_is_told_from_one_without_a_worst_case() -> None:
    """The first is refused to who pays for all; the second only by hard budgets."""
    unbounded = make_price("a", rates=IMAGES, valid_to_us=10 * SECOND_US)
    tier = make_price("a", service_tier="flex", valid_from_us=20 * SECOND_US)
    flat = make_price("a", valid_from_us=30 * SECOND_US)
    told = tell(map(read_price, (unbounded, tier, flat)))
    assert [(one.valid_from_s, one.is_none, one.is_unpriced) for one in told] == [
        (0, True, False),
        (10, True, True),
        (30, False, False),
    ]
