"""What an authority over very many rules costs."""

from tests.fakes.limits_memory import weigh_rules


def test_a_hundred_thousand_live_rules_fit_in_memory() -> None:
    """All of them with something used in their window take no more than 200 MB."""
    assert 10_000_000 < weigh_rules(100_000) <= 200_000_000
