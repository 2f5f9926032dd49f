"""Wallets of prepaid organizations: nothing is held of them that is not there."""

import asyncio
from collections.abc import Mapping

import pytest
from tests.fakes.ledger_rig import atto, run_sql, set_mode
from tests.fakes.organizations import ALL, NOW_US, SECOND_US, actor
from tests.fakes.wallet_rig import WalletRig, open_rig

from penstock.contract.money import NANO, HoldAsk
from penstock.control.ledger_books import LedgerBooks
from penstock.kit.clock import ManualClock
from penstock.kit.errors import PenstockError
from penstock.ledger.balances import list_balances, list_statements
from penstock.ledger.credits import EXPIRY_GRACE_US
from penstock.ledger.prepaying import LAPSE_US
from penstock.limits import budgets
from penstock.limits.budget_model import MAX_AMOUNT, Life
from penstock.limits.budget_rules import EXPIRY_S, HOLD_S
from penstock.limits.errors import BUDGET_IS_WALLET
from penstock.limits.prices import join_large
from penstock.limits.wallet_model import Cause
from penstock.metering.bucket_rules import DAY_US
from penstock.notices.service import list_notices
from penstock.storage.database import Database

HOUR_US = 3_600 * SECOND_US
TOKENS = 1_000_000
"""Of `small`, for a little more than a euro."""
COST = atto("1.000000000003")


@pytest.fixture
async def rig(database: Database) -> WalletRig:
    """A prepaid organization with nothing in its wallet."""
    rig = await open_rig(database)
    await rig.add_price("small")
    await rig.set_terms("prepaid")
    return rig


async def _free(rig: WalletRig, now_us: int = NOW_US) -> int:
    """Return how much could be held of the wallet, in nano-units."""
    answer = await rig.ask(await rig.wallet(), 10**9 * NANO, now_us=now_us)
    assert answer.shortage is not None
    return answer.shortage.remaining


async def _balance_atto(rig: WalletRig) -> int:
    return (await rig.window(await rig.wallet())).balance_atto


async def _causes(rig: WalletRig) -> Mapping[Cause, int]:
    async with rig.database.read(ALL) as session:
        period = NOW_US, NOW_US + 9 * DAY_US
        found = await list_balances(session, rig.organization.id, period[1])
        statements = await list_statements(session, rig.organization.id, *period)
    assert [one.overdrafts for one in statements] == [one.overdrafts for one in found]
    return found[0].overdrafts


async def _told(rig: WalletRig) -> list[str]:
    async with rig.database.read(ALL) as session:
        found, _ = await list_notices(session, None, limit=100)
    return [one.topic for one in found]


async def test_what_is_paid_is_held_and_used_and_nothing_else(rig: WalletRig) -> None:
    """An empty wallet gives nothing; a full one what is in it; what was used is there no more."""
    assert await _free(rig) == 0
    await rig.top_up("2.5")
    hold = await rig.hold(await rig.wallet(), 2 * NANO)
    assert await _free(rig) == NANO // 2
    event = rig.usage(1, TOKENS, hold=(hold.id, 2 * NANO))
    for _ in range(2):
        await rig.deliver(event)
    assert await _balance_atto(rig) == atto("2.5") - COST
    # A nano-unit that is not whole is nobody's.
    assert await _free(rig) == 3 * NANO // 2 - 1
    assert await _causes(rig) == {}
    assert await rig.differences() == []
    assert await rig.violations() == set()


async def test_each_emptying_of_a_wallet_is_told_once(rig: WalletRig) -> None:
    """When all is used, or too little is left for a request; once more after a top-up."""
    await rig.top_up(2)
    await rig.deliver(rig.usage(1, TOKENS))
    assert await _told(rig) == []
    for number in (2, 3):
        await rig.deliver(rig.usage(number, TOKENS))
    assert await _told(rig) == ["wallet.depleted"]
    await rig.top_up(2)
    for _ in range(2):
        assert (await rig.ask(await rig.wallet(), NANO)).holds is None
    assert await _told(rig) == ["wallet.depleted"] * 2


async def test_nobody_changes_a_wallet_by_hand(rig: WalletRig) -> None:
    """It is neither changed nor deleted, and leaves room for a budget of the same kind."""
    wallet = await rig.wallet()
    async with rig.database.write(ALL) as session:
        with pytest.raises(PenstockError) as refused:
            await budgets.update_budget(session, actor(), wallet.id, {"amount": 5})
        assert refused.value.error is BUDGET_IS_WALLET
        with pytest.raises(PenstockError) as refused:
            await budgets.delete_budget(session, actor(), wallet.id)
        assert refused.value.error is BUDGET_IS_WALLET
    made = await rig.add_budget(period="once")
    assert not made.is_wallet


async def test_credit_is_not_held_when_it_ends(rig: WalletRig) -> None:
    """Shortly before its end a grant is held no more, and what is held is used until then only."""
    ends_us = NOW_US + HOUR_US
    await rig.grant(3, expires_at_us=ends_us)
    await rig.grant(1, expires_at_us=ends_us + HOUR_US)
    await rig.top_up(2)
    wallet = await rig.wallet()
    early = await rig.hold(wallet, NANO)
    assert early.use_ms == HOLD_S * 1_000
    last_us = ends_us - LAPSE_US - SECOND_US
    late = await rig.hold(wallet, NANO, now_us=last_us)
    assert late.use_ms == (ends_us - last_us) // 1_000
    assert await _free(rig, last_us) == 4 * NANO
    assert await _free(rig, ends_us - LAPSE_US) == NANO
    # Until it is booked as ended, usage of before may come that it pays for.
    assert await _free(rig, ends_us + 1) == NANO
    booked_us = ends_us + EXPIRY_GRACE_US
    await rig.expire_grants(booked_us)
    assert await _free(rig, booked_us) == NANO
    assert await rig.violations() == set()


async def test_a_taking_that_is_repeated_ends_when_it_would_have(rig: WalletRig) -> None:
    """Who asks again for what was given gets it for the time that credit lasts, not for longer."""
    ends_us = NOW_US + 60 * SECOND_US
    await rig.grant(3, expires_at_us=ends_us)
    asks = [HoldAsk((await rig.wallet()).id, "", NANO, NANO)]
    first = await rig.take(asks, take_id="again")
    assert first.holds is not None
    assert first.holds[0].use_ms == 60_000
    assert await rig.take(asks, take_id="again", now_us=ends_us - SECOND_US) == first


async def test_each_overdraft_has_its_cause(rig: WalletRig) -> None:
    """What is taken beyond what is free is recorded with why, and by what it was."""
    await rig.top_up(3)
    wallet = await rig.wallet()
    hold = await rig.hold(wallet, 3 * NANO)
    await rig.deliver(rig.usage(1, 4 * TOKENS, hold=(hold.id, 3 * NANO)))
    overrun = 4 * COST - atto(3)
    assert await _causes(rig) == {"overrun": overrun}
    await rig.deliver(rig.usage(2, TOKENS))
    assert await _causes(rig) == {"overrun": overrun, "unheld": COST}
    await rig.top_up(10)
    inside = atto(13) - 5 * COST
    event = rig.usage(3, TOKENS)
    await rig.deliver(event)
    # All of it is held, and then something else takes it.
    rest = (inside - COST) // 10**9
    held = await rig.hold(wallet, rest)
    await rig.correct(event.event_id, TOKENS, NOW_US)
    causes = await _causes(rig)
    free = (inside - COST) % 10**9
    assert causes == {"overrun": overrun, "unheld": COST, "correction": COST - free}
    assert await _balance_atto(rig) > 0
    silent_us = NOW_US + (EXPIRY_S + 1) * SECOND_US
    await rig.expire(silent_us)
    await rig.deliver(rig.usage(4, 20 * TOKENS, hold=(held.id, 7)), now_us=silent_us)
    causes = await _causes(rig)
    assert causes["hold_expired"] == 20 * COST - (inside - 2 * COST)
    assert await _balance_atto(rig) < 0
    assert await rig.violations() == set()


async def test_no_organization_is_too_large(rig: WalletRig) -> None:
    """More than a column holds, 9.2 thousand million units, is taken in and added up exactly."""
    used, price = 9_000_000_000, 1_000
    rates = {"input": {"scheme": "graduated", "tiers": [{"price": str(price)}]}}
    await rig.add_price("large", rates=rates)
    budget = await rig.add_budget(is_hard=False, amount=MAX_AMOUNT, alert_percentages=[115, 121])
    events = [
        rig.event(number, model="large", input_tokens=used, output_tokens=0)
        for number in range(1_200)
    ]
    for begin in range(0, len(events), 400):
        await rig.deliver(*events[begin : begin + 400])
    spent = atto(price * used // TOKENS * len(events))
    assert await _balance_atto(rig) == -spent
    assert await _causes(rig) == {"unheld": spent}
    assert await rig.violations() == set()
    assert await rig.differences() == []
    assert (await rig.window(budget)).settled_atto == spent
    assert [topic for topic in await _told(rig) if topic == "budget.alert"] == ["budget.alert"]
    fold = "SUM(amount_high), SUM(amount), SUM(amount_rest)"
    for table in ("charge_days", "charge_quarters", "charge_model_eighths", "rated_meters"):
        (sums,) = await run_sql(rig.database, f"SELECT {fold} FROM {table}")  # noqa: S608 - ours
        assert join_large(*map(int, sums)) == spent
    async with rig.database.read(ALL) as session:
        (billed,) = await list_statements(
            session, rig.organization.id, NOW_US // DAY_US * DAY_US, NOW_US + DAY_US
        )
    assert billed.charges_atto == spent


async def test_no_wallet_is_too_large(rig: WalletRig) -> None:
    """Whatever is in it counts and is spent; of all that no more is held at once than fits."""
    paid, most = 12_000_000_000, MAX_AMOUNT // NANO
    event = rig.usage(1, 2 * TOKENS)
    await rig.deliver(event)
    for _ in range(paid // 10**9):
        await rig.top_up(10**9)
    await rig.correct(event.event_id, -TOKENS, NOW_US)
    assert await _balance_atto(rig) == atto(paid) - COST
    await rig.set_terms("postpaid")
    await rig.set_terms("prepaid")
    wallet = await rig.wallet()
    assert await _balance_atto(rig) == atto(paid) - COST
    await rig.hold(wallet, (most - 1) * NANO)
    answer = await rig.ask(wallet, 2 * NANO)
    assert answer.shortage is not None
    assert answer.shortage.remaining == NANO
    await rig.free(is_over=True)
    await rig.grant(10**9, expires_at_us=NOW_US + LAPSE_US // 2)
    other = Life("node-2/0", 1)
    await rig.hold(wallet, most * NANO, life=other)
    assert (await rig.window(wallet)).held == MAX_AMOUNT
    assert await rig.violations() == set()
    assert await rig.differences() == []


async def test_a_grant_that_ends_while_it_is_held_is_a_cause(rig: WalletRig) -> None:
    """Usage of before its end that arrives too late is paid by the wallet, which says why."""
    ends_us = NOW_US + HOUR_US
    await rig.grant(2, expires_at_us=ends_us)
    hold = await rig.hold(await rig.wallet(), 2 * NANO)
    late_us = ends_us + EXPIRY_GRACE_US
    await rig.expire_grants(late_us)
    event = rig.usage(1, TOKENS, hold=(hold.id, 2 * NANO), at_us=ends_us - 1)
    await rig.deliver(event, now_us=late_us)
    assert await _balance_atto(rig) == -COST
    assert await _causes(rig) == {"grant_expired": atto(2)}
    assert await rig.violations() == set()


async def test_terms_decide_whether_a_wallet_counts(rig: WalletRig) -> None:
    """Postpaid organizations have none; prepaid ones one in their currency, with all that is in."""
    await rig.top_up(2)
    await rig.set_terms("postpaid")
    assert await rig.find_wallet() is None
    await rig.set_terms("prepaid", "USD")
    assert (await rig.wallet()).currency == "USD"
    assert await _balance_atto(rig) == 0
    await rig.set_terms("prepaid")
    assert await _balance_atto(rig) == atto(2)
    await rig.deliver(rig.usage(1, 3 * TOKENS))
    await rig.set_terms("postpaid")
    await rig.set_terms("prepaid")
    causes = await _causes(rig)
    assert causes == {"unheld": 3 * COST - atto(2), "terms": 3 * COST - atto(2)}
    assert await rig.violations() == set()


async def test_terms_of_before_are_followed(database: Database) -> None:
    """Who was prepaid before wallets counted has one soon, with all in it, and nodes know."""
    rig = await open_rig(database)
    await set_mode(database, "prepaid", organization=rig.organization.id)
    await rig.top_up(4)
    assert await rig.violations() == {"wallet_terms"}
    books = LedgerBooks(database, ManualClock(NOW_US * 1_000))
    for _ in range(2):
        await books.open_wallets()
    assert await _balance_atto(rig) == atto(4)
    assert await rig.violations() == set()
    ((count,),) = await run_sql(
        database, "SELECT count(*) FROM snapshot_changes WHERE kind = 'budget'"
    )
    assert count == 1


async def test_terms_change_while_usage_comes(rig: WalletRig) -> None:
    """Whatever is booked when terms change, the wallet has it once."""
    await rig.top_up(1)

    async def use(worker: int) -> None:
        for number in range(8):
            event = rig.usage(worker * 100 + number, TOKENS)
            await rig.deliver(event, life=Life(f"node-{worker}/0", 1))
            await rig.grant("0.5")

    async def change() -> None:
        for mode in ("postpaid", "prepaid") * 4:
            await rig.set_terms(mode)

    await asyncio.gather(use(1), use(2), change())
    assert await rig.violations() == set()
    assert await rig.differences() == []


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        ("UPDATE budget_windows SET balance = balance + 1", "wallet_balance"),
        ("UPDATE budget_windows SET balance_high = 1", "wallet_balance"),
        ("UPDATE budget_windows SET balance_high = -1", "wallet_causes"),
        ("UPDATE budget_windows SET balance = -1, balance_rest = 5", "wallet_causes"),
        ("UPDATE billing_terms SET mode = 'postpaid'", "wallet_terms"),
    ],
)
async def test_damage_is_found(rig: WalletRig, damage: str, check: str) -> None:
    """A balance that is not what was booked, or has no cause, or should not be there is told."""
    await rig.top_up(3)
    assert await rig.violations() == set()
    await run_sql(rig.database, damage)
    assert check in await rig.violations()
