"""Usage is booked: who pays for it, once, and back again."""

import asyncio
from fractions import Fraction

import pytest
from tests.fakes.ledger_rig import add_grant, post, posting, read_amounts, run_sql, set_mode
from tests.fakes.organizations import ALL, NOW_US

from penstock.ledger.service import find_currencies, post_usage
from penstock.storage.database import Database
from penstock.storage.scope import Scope


async def remaining(database: Database) -> list[Fraction]:
    """Return what grants have left, in order of their ids."""
    rows = await run_sql(
        database, "SELECT remaining, remaining_rest FROM credit_grants ORDER BY id"
    )
    return [Fraction(int(nano), 10**9) + Fraction(int(rest), 10**18) for nano, rest in rows]


async def test_usage_is_billed_later_without_terms(database: Database) -> None:
    """Without terms usage accrues, and revenue and cost are booked with it, to the last decimal."""
    amount = "0.000000000000000001"
    booked = await post(database, posting("1.5", cost=amount), posting(2, organization="other"))
    assert set(booked) == {
        ("acme", "EUR", "charge"),
        ("acme", "EUR", "cost"),
        ("other", "EUR", "charge"),
    }
    assert await read_amounts(database) == {
        "accrued_usage": Fraction(3, 2),
        "revenue": Fraction(-3, 2),
        "provider_cogs": Fraction(amount),
        "provider_payable": -Fraction(amount),
    }


async def test_a_prepaid_wallet_pays_and_may_go_below_zero(database: Database) -> None:
    """Usage that is more than the wallet has is booked, and the wallet shows it."""
    await set_mode(database, "prepaid")
    await post(database, posting("1.5"))
    amounts = await read_amounts(database)
    assert amounts == {"wallet_prepaid": Fraction(3, 2), "revenue": Fraction(-3, 2)}


async def test_grants_pay_first(database: Database) -> None:
    """Grants pay in their order, of their currency and organization; the wallet pays the rest."""
    await set_mode(database, "prepaid")
    await add_grant(database, "crd_1", 2, priority=2)
    await add_grant(database, "crd_2", 3, priority=1, kind="paid")
    await add_grant(database, "crd_3", 9, currency="USD")
    await add_grant(database, "crd_4", 9, organization="other")
    await add_grant(database, "crd_5", 9, expires_at_us=NOW_US, created_at_us=NOW_US - 1)
    await post(database, posting(4), key="one")
    assert await remaining(database) == [1, 0, 9, 9, 9]
    await post(database, posting(4), key="two")
    assert await remaining(database) == [0, 0, 9, 9, 9]
    amounts = await read_amounts(database)
    assert amounts["wallet_prepaid"] == -3 + 3 + 3
    assert amounts["revenue"] == -8


async def test_what_is_taken_back_goes_where_it_came_from(database: Database) -> None:
    """A negative charge is given back to what paid last, and to grants as far as they paid."""
    await add_grant(database, "crd_1", 2)
    await post(database, posting(3), key="one", recorded_at_us=NOW_US)
    await add_grant(database, "crd_2", 2)
    await post(database, posting(1), key="two", recorded_at_us=NOW_US + 1)
    await post(database, posting("-1.5"), key="three", recorded_at_us=NOW_US + 2)
    assert await remaining(database) == [0, 2]
    assert (await read_amounts(database))["accrued_usage"] == Fraction(1, 2)
    await post(database, posting("-2.5"), key="four", recorded_at_us=NOW_US + 3)
    assert await remaining(database) == [2, 2]
    amounts = await read_amounts(database)
    assert amounts["accrued_usage"] == amounts["revenue"] == 0
    await post(database, posting(-1), key="five", recorded_at_us=NOW_US + 4)
    assert await remaining(database) == [2, 2]
    assert (await read_amounts(database))["accrued_usage"] == -1


async def test_a_correction_takes_back_a_transfer(database: Database) -> None:
    """A posting that names a transfer gives back what that one took, and no other."""
    await add_grant(database, "crd_1", 2)
    booked = await post(database, posting(2), key="one", recorded_at_us=NOW_US)
    await post(database, posting(5), key="two", recorded_at_us=NOW_US + 1)
    reverses = booked["acme", "EUR", "charge"]
    await post(database, posting(-1, reverses=reverses), key="three", recorded_at_us=NOW_US + 2)
    assert await remaining(database) == [1]
    assert (await read_amounts(database))["accrued_usage"] == 5
    await post(database, posting(-3, reverses=reverses), key="four", recorded_at_us=NOW_US + 3)
    assert await remaining(database) == [2]
    assert (await read_amounts(database))["accrued_usage"] == 3
    rows = await run_sql(database, "SELECT reverses_id FROM transfers ORDER BY recorded_at")
    assert [row[0] for row in rows] == [None, None, None, reverses, reverses]


async def test_a_batch_is_booked_once(database: Database) -> None:
    """The same key books nothing more, and answers with the same transfers."""
    batch = (posting(1, cost=2), posting(3, organization="other"))
    booked = await post(database, *batch)
    assert await post(database, *batch) == booked
    assert (await read_amounts(database))["revenue"] == -1
    assert await post(database, *batch, key="another") != booked
    assert (await read_amounts(database))["revenue"] == -2


async def test_a_batch_that_is_rolled_back_is_booked_again(database: Database) -> None:
    """What a crash undoes leaves no trace, and nothing in the way of the next try."""
    await add_grant(database, "crd_1", 2)

    async def fail() -> None:
        async with database.write(ALL) as session:
            await post_usage(session, [posting(1)], key="k", recorded_at_us=NOW_US)
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await remaining(database) == [2]
    await post(database, posting(1))
    assert await remaining(database) == [1]


async def test_batches_at_the_same_time_share_a_grant(database: Database) -> None:
    """However many batches come at once, a grant pays what it has and no more."""
    await add_grant(database, "crd_1", 5)
    batches = [
        (posting(1), posting(1, organization="other"), posting(1, organization=f"o{number}"))
        for number in range(8)
    ]
    await asyncio.gather(
        *(post(database, *batch, key=f"k{number}") for number, batch in enumerate(batches))
    )
    assert await remaining(database) == [0]
    amounts = await read_amounts(database)
    assert amounts == {"wallet_promo": 0, "writeoff": 5, "accrued_usage": 3, "revenue": -8}


async def test_nothing_is_booked_of_nothing(database: Database) -> None:
    """Free usage has no transfer, and neither has an empty batch."""
    assert await post(database, posting(0)) == {}
    assert await post(database) == {}


async def test_an_organization_books_nothing_for_another(database: Database) -> None:
    """A session of one organization takes no posting of another, whatever calls it."""
    with pytest.raises(PermissionError):
        async with database.write(Scope.of("other")) as session:
            await post_usage(session, [posting(1)], key="k", recorded_at_us=NOW_US)


async def test_terms_say_in_which_currency_is_charged(database: Database) -> None:
    """An organization without terms is charged in the default currency."""
    await set_mode(database, "postpaid", currency="USD")
    async with database.read(ALL) as session:
        found = await find_currencies(session, ["acme", "other"], "EUR")
    assert found == {"acme": "USD", "other": "EUR"}
    async with database.read(Scope.of("other")) as session:
        assert await find_currencies(session, ["acme"], "EUR") == {"acme": "EUR"}
