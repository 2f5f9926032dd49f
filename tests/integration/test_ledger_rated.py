"""Usage, what it was rated at, and what is booked: one amount, to the last decimal."""

from fractions import Fraction

from tests.fakes.budget_machine import PRICE_IN, PRICE_OUT
from tests.fakes.ledger_rig import add_grant, find_violations, read_amounts, run_sql
from tests.fakes.organizations import NOW_US
from tests.fakes.wallet_rig import open_rig

from penstock.contract.usage import UsageEvent
from penstock.storage.database import Database


def _cost(events: list[UsageEvent]) -> Fraction:
    return sum(
        (one.input_tokens * PRICE_IN + one.output_tokens * PRICE_OUT for one in events),
        Fraction(0),
    )


async def test_what_was_used_is_rated_and_booked(database: Database) -> None:
    """Revenue is what was rated, and that is quantity times price; each batch counts once."""
    rigs = [await open_rig(database, name) for name in ("acme", "other")]
    await rigs[0].add_price("small")
    payer = rigs[0].organization.id
    await rigs[0].set_terms("prepaid")
    await add_grant(database, "crd_1", "0.01", organization=payer, created_at_us=NOW_US - 1)
    events = {
        rig.organization.id: [
            rig.event(
                number,
                input_tokens=101 * number,
                output_tokens=7 * number,
                cached_input_tokens=0,
                reasoning_output_tokens=0,
            )
            for number in range(1, 30)
        ]
        for rig in rigs
    }
    both = [event for pair in zip(*events.values(), strict=True) for event in pair]
    for start in range(0, len(both), 7):
        for _ in range(2):
            await rigs[0].deliver(*both[start : start + 7], now_us=NOW_US + start)
    for name, own in events.items():
        amounts = await read_amounts(database, name)
        assert -amounts["revenue"] == _cost(own)
        ((nano, rest),) = await run_sql(
            database,
            "SELECT sum(amount), sum(amount_rest) FROM rated_usage "  # noqa: S608 - a test's own
            f"WHERE kind = 'charge' AND organization = '{name}'",
        )
        assert Fraction(int(nano) * 10**9 + int(rest), 10**18) == _cost(own)
    amounts = await read_amounts(database, payer)
    assert amounts["wallet_promo"] == 0
    assert amounts["wallet_prepaid"] == _cost(events[payer]) - Fraction(1, 100)
    assert await find_violations(database) == set()
