"""Balances, statements, expiry and snapshots: sums of entries, the same however they are made."""

from typing import Any

from tests.fakes.ledger_rig import (
    add_grant,
    atto,
    balance_of,
    find_violations,
    post,
    post_rated,
    posting,
    run_sql,
    set_mode,
)
from tests.fakes.organizations import ALL, NOW_US, SECOND_US

from penstock.ledger.balances import list_balances, list_statements, make_snapshots
from penstock.ledger.credits import EXPIRY_GRACE_US, expire_grants
from penstock.ledger.model import Balance, Statement
from penstock.ledger.months import find_month, month_of
from penstock.metering.bucket_rules import DAY_US
from penstock.metering.zone_rules import EIGHTH_US
from penstock.rating.tables import ChargeDays
from penstock.storage.database import Database
from penstock.storage.scope import Scope

DAY_1 = NOW_US - NOW_US % DAY_US
EMPTY = Balance("EUR", 0, 0, 0, 0)


async def _expire(database: Database, now_us: int) -> int:
    async with database.write(ALL) as session:
        return await expire_grants(session, now_us)


async def test_a_balance_is_what_was_booked_before_a_moment(database: Database) -> None:
    """A balance as of a moment has nothing that is booked at it or later, whoever tells it when."""
    await set_mode(database, "prepaid")
    await add_grant(database, "crd_1", 5, created_at_us=DAY_1)
    await post(database, posting(7, at_us=DAY_1 + 10), key="one", recorded_at_us=DAY_1 + 99)
    assert await balance_of(database, DAY_1) == EMPTY
    assert await balance_of(database, DAY_1 + 10) == Balance("EUR", 0, atto(5), 0, 0)
    assert await balance_of(database, DAY_1 + 11) == Balance("EUR", atto(-2), 0, 0, 0)
    await post(database, posting(1, at_us=DAY_1 + 20), key="two", recorded_at_us=DAY_1 + 99)
    assert await balance_of(database, DAY_1 + 20) == Balance("EUR", atto(-2), 0, 0, 0)
    # What comes late counts when it was used: from then on.
    await post(database, posting(1, at_us=DAY_1 + 15), key="late", recorded_at_us=DAY_1 + 999)
    assert await balance_of(database, DAY_1 + 15) == Balance("EUR", atto(-2), 0, 0, 0)
    assert await balance_of(database, DAY_1 + 20) == Balance("EUR", atto(-3), 0, 0, 0)


async def test_nobody_sees_the_balance_of_another(database: Database) -> None:
    """In the session of another organization there is nothing to add up."""
    await post(database, posting(7))
    async with database.read(Scope.of("other")) as session:
        assert await list_balances(session, "acme", NOW_US + 1) == []
        assert await list_statements(session, "acme", 0, NOW_US + 1) == []


async def test_snapshots_change_no_answer(database: Database) -> None:
    """With snapshots, without some, after late usage: every balance is the same."""
    await set_mode(database, "prepaid")
    moments = [DAY_1 + day * DAY_US + 1 for day in range(4)]
    for place, at_us in enumerate(moments):
        await post_rated(
            database, posting(f"{place}.1", cost=1, at_us=at_us), key=f"{place}",
            recorded_at_us=at_us,
        )  # fmt: skip

    async def balances() -> list[Balance | None]:
        return [await balance_of(database, DAY_1 + n * DAY_US // 2) for n in range(10)]

    before = await balances()
    for day in (3, 4):
        assert await make_snapshots(database, DAY_1 + day * DAY_US, least=1) == 4
    assert await make_snapshots(database, DAY_1 + 4 * DAY_US, least=1) == 0
    kept = await run_sql(database, "SELECT count(*) FROM balance_snapshots")
    assert kept[0][0] == 8
    assert await balances() == before
    assert await find_violations(database) == set()
    await run_sql(
        database,
        "DELETE FROM balance_snapshots WHERE at = (SELECT min(at) FROM balance_snapshots)",
    )
    assert await balances() == before
    # What is booked before a snapshot makes it go.
    await post_rated(database, posting(5, at_us=DAY_1), key="late", recorded_at_us=moments[-1])
    after = await balances()
    assert [one and one.prepaid_atto for one in after[1:]] == [
        (one.prepaid_atto if one else 0) - atto(5) for one in before[1:]
    ]
    assert await find_violations(database) == set()


async def test_what_nobody_used_of_a_grant_is_breakage(database: Database) -> None:
    """At its expiry what is left of a grant goes to breakage, once, and pays for nothing more."""
    end_us = DAY_1 + DAY_US
    await add_grant(database, "crd_1", 5, created_at_us=DAY_1, expires_at_us=end_us)
    await add_grant(database, "crd_2", 5, created_at_us=DAY_1)
    await post(database, posting(2, at_us=DAY_1 + 1), key="one")
    assert await _expire(database, end_us + EXPIRY_GRACE_US - 1) == 0
    # Usage from before that comes in the meantime is still paid.
    await post(database, posting(1, at_us=end_us - 1), key="two")
    await post(database, posting(1, at_us=end_us), key="three")
    assert await _expire(database, end_us + EXPIRY_GRACE_US) == 1
    assert await _expire(database, end_us + EXPIRY_GRACE_US) == 0
    left = await run_sql(database, "SELECT remaining FROM credit_grants ORDER BY id")
    assert [row[0] for row in left] == [0, 4 * 10**9]
    rows = await run_sql(
        database,
        "SELECT e.amount FROM entries e JOIN ledger_accounts a ON a.id = e.account_id "
        "WHERE a.kind = 'breakage'",
    )
    assert [row[0] for row in rows] == [-2 * 10**9]
    assert await balance_of(database, end_us) == Balance("EUR", 0, atto(7), 0, 0)
    assert await balance_of(database, end_us + 1) == Balance("EUR", 0, atto(4), 0, 0)


async def test_what_is_given_back_to_a_grant_that_ended_ends_too(database: Database) -> None:
    """A correction restores the lot that paid, and the next look at expiries ends it again."""
    end_us = DAY_1 + DAY_US
    await add_grant(database, "crd_1", 5, created_at_us=DAY_1, expires_at_us=end_us)
    await post(database, posting(2, at_us=DAY_1 + 1), key="one", recorded_at_us=DAY_1 + 2)
    now_us = end_us + EXPIRY_GRACE_US
    assert await _expire(database, now_us) == 1
    await post(database, posting(-2, at_us=now_us), key="two", recorded_at_us=now_us)
    assert await balance_of(database, now_us + 1) == Balance("EUR", 0, atto(2), 0, 0)
    assert await _expire(database, now_us + SECOND_US) == 1
    assert await balance_of(database, now_us + 1) == EMPTY


async def test_a_statement_adds_up(database: Database) -> None:
    """Opening, what happened, and closing of a month add up to the last decimal."""
    month = month_of(NOW_US)
    since_us, before_us = find_month(month) or (0, 0)
    await post(database, posting("0.7", at_us=since_us - 1), key="0", recorded_at_us=0)
    await add_grant(database, "crd_1", 5, created_at_us=since_us, expires_at_us=since_us + DAY_US)
    amount = "1.000000000000000001"
    await post(database, posting(amount, at_us=since_us), key="one", recorded_at_us=NOW_US)
    await post(database, posting("-0.5", at_us=since_us + 9), key="2", recorded_at_us=NOW_US + 1)
    await _expire(database, NOW_US)
    await post(database, posting(3, at_us=before_us - 1), key="three", recorded_at_us=NOW_US + 2)
    await post(database, posting(9, at_us=before_us), key="after", recorded_at_us=NOW_US + 3)
    day: dict[str, Any] = dict.fromkeys(("project", "key_id", "data_class"), "")
    day |= {"organization": "acme", "currency": "EUR", "kind": "charge", "amount_rest": 0}
    async with database.write(ALL) as session:
        await session.insert(
            ChargeDays,
            day | {"model": "a", "amount": 1_500_000_000, "at": since_us},
            day | {"model": "b", "amount": 2_000_000_000, "at": before_us - DAY_US},
            day | {"model": "b", "amount": 7_000_000_000, "at": before_us},
        )
    async with database.read(Scope.of("acme")) as session:
        (found,) = await list_statements(session, "acme", since_us, before_us)
    assert found.opening == Balance("EUR", 0, 0, atto("0.7"), 0)
    assert found.charges_atto == atto("4.000000000000000001")
    assert found.corrections_atto == atto("0.5")
    assert found.grants_atto == atto(5)
    assert found.expiries_atto == atto(5) - atto(amount) + atto("0.5")
    assert (found.topups_atto, found.others_atto) == (0, 0)
    assert _sum(found) == found.closing.total_atto
    assert [(one.model, one.amount_atto) for one in found.models] == [
        ("a", atto("1.5")),
        ("b", atto(2)),
    ]
    assert found.elsewhere_atto == atto(amount) - atto(1)


def _sum(one: Statement) -> int:
    return (
        one.opening.total_atto
        + one.topups_atto
        + one.grants_atto
        - one.expiries_atto
        - one.charges_atto
        + one.corrections_atto
        + one.others_atto
    )


async def test_right_books_have_no_violations(database: Database) -> None:
    """No check finds anything in books with everything in them."""
    await set_mode(database, "prepaid")
    await add_grant(database, "crd_1", 5, created_at_us=DAY_1, expires_at_us=DAY_1 + DAY_US)
    large = 9 * 10**9
    for place in range(3):
        await post_rated(
            database,
            posting(large, cost="0.3", at_us=DAY_1 + place * EIGHTH_US),
            posting(2, cost="-0.000000000000000001", organization="other", currency="USD"),
            key=f"{place}",
            recorded_at_us=DAY_1 + place,
        )
    await post_rated(database, posting(-3, at_us=DAY_1 + 9), key="back", recorded_at_us=NOW_US)
    await _expire(database, DAY_1 + 2 * DAY_US)
    await make_snapshots(database, DAY_1 + 3 * DAY_US, least=1)
    assert await find_violations(database) == set()
