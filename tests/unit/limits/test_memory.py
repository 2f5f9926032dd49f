"""What an authority over very many rules costs."""

from tests.fakes.limits_memory import weigh_rules


def test_many_live_rules_fit_in_memory() -> None:
    """With something used in their window each takes no more than 2 kB, as `make bench` tells."""
    assert 2_000_000 < weigh_rules(20_000) <= 40_000_000
