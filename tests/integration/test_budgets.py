"""Holds, settlement and their books, on both kinds of database."""

import asyncio
import random
from collections.abc import Coroutine
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import update
from tests.fakes.budget_rig import BudgetRig
from tests.fakes.databases import forget_usage
from tests.fakes.organizations import ALL, NOW_US, SECOND_US, actor, create_key, create_place

from penstock.access.model import NewKey
from penstock.contract.money import NANO, HoldAsk, HoldShortage, HoldUse
from penstock.contract.usage import UsageReceipt
from penstock.limits import budgets
from penstock.limits.budget_holds import KEEP_HOLDS_S, forget_holds
from penstock.limits.budget_model import Life
from penstock.limits.budget_rules import EXPIRY_S, HOLD_S
from penstock.limits.budget_tables import BudgetHolds, BudgetWindows
from penstock.limits.prices import ATTO, ATTO_IN_NANO
from penstock.storage.database import Database
from penstock.storage.paging import PageRequest

OTHER_WORKER = Life("node-2/1", 7)
DAY_US = 86_400 * SECOND_US


@pytest.fixture
async def rig(database: Database) -> BudgetRig:
    """An organization whose alias `small` has a price."""
    rig = BudgetRig(database, *await create_place(database))
    await rig.add_price("small")
    return rig


def _cost(tokens_in: int, tokens_out: int, cached: int = 0) -> Fraction:
    price_in = Fraction(1_000_000_000_003, 10**12)
    return (
        (tokens_in - cached) * price_in + cached * Fraction(1, 10) + tokens_out * Fraction(5, 2)
    ) / 1_000_000


async def test_usage_is_settled_to_the_last_decimal(rig: BudgetRig) -> None:
    """What usage cost is counted exactly, and what was held for it is free again."""
    budget = await rig.add_budget()
    hold = await rig.hold(budget, 100, 1_000_000)
    assert (hold.amount, hold.use_ms) == (1_000_000, HOLD_S * 1_000)
    members = {"input_tokens": 12, "output_tokens": 7, "cached_input_tokens": 5}
    events = [rig.event(n, HoldUse(hold.id, 30_000), **members) for n in range(3)]
    assert await rig.deliver(*events) == UsageReceipt(stored=3, duplicates=0, segment=0)
    window = await rig.window(budget)
    assert Fraction(window.settled_atto, ATTO) == 3 * _cost(12, 7, 5)
    assert window.settled_atto % ATTO_IN_NANO > 0
    assert window.held == 1_000_000 - 3 * 30_000
    assert await rig.differences() == []


async def test_delivered_twice_usage_counts_once(rig: BudgetRig) -> None:
    """However often an event comes, its cost and its hold count once."""
    budget = await rig.add_budget()
    hold = await rig.hold(budget, 100)
    event = rig.event(1, HoldUse(hold.id, 60))
    for _ in range(2):
        await rig.deliver(event, event)
    window = await rig.window(budget)
    assert Fraction(window.settled_atto, ATTO) == _cost(12, 7)
    assert window.held == 40


async def test_nothing_is_held_beyond_the_amount(rig: BudgetRig) -> None:
    """Of many workers that ask at once, exactly as many get a hold as the budget is worth."""
    budget = await rig.add_budget(amount=10_000)
    asks = [HoldAsk(budget.id, "", 1_000, 1_000)]
    answers = await asyncio.gather(
        *(rig.take(asks, Life(f"node-{number}/0", 1)) for number in range(25))
    )
    assert sum(answer.holds is not None for answer in answers) == 10
    assert (await rig.window(budget)).held == 10_000
    assert await rig.differences() == []


async def test_a_repeated_taking_holds_once(rig: BudgetRig) -> None:
    """Under its name a taking gives the same hold again, also when both come at the same time."""
    budget = await rig.add_budget()
    asks = [HoldAsk(budget.id, "", 10, 500)]
    answers = await asyncio.gather(*(rig.take(asks, take_id="again") for _ in range(3)))
    assert {answer.holds[0].id for answer in answers if answer.holds} != set()
    assert len({answer.holds for answer in answers}) == 1
    assert (await rig.window(budget)).held == 500
    assert (await rig.take(asks, OTHER_WORKER, take_id="again")).holds is None
    await rig.free(is_over=True)
    assert (await rig.take(asks, take_id="again")).holds is None
    assert (await rig.window(budget)).held == 0


async def test_all_budgets_of_a_request_or_none(rig: BudgetRig) -> None:
    """When one budget has too little, nothing is held of the others, and it is named."""
    large = await rig.add_budget()
    small = await rig.add_budget(
        rig.owner(owner_kind="project", project_id=rig.project.id), amount=50, period="day"
    )
    answer = await rig.take([HoldAsk(large.id, "", 60, 90), HoldAsk(small.id, "", 60, 90)])
    assert answer.holds is None
    assert isinstance(answer.shortage, HoldShortage)
    assert (answer.shortage.index, answer.shortage.remaining) == (1, 50)
    assert answer.shortage.reset_s == (DAY_US - NOW_US % DAY_US) // SECOND_US
    assert (await rig.window(large)).held == 0
    assert (await rig.take([HoldAsk(large.id, "", 6, 9), HoldAsk(small.id, "", 6, 9)])).holds


async def test_holds_are_large_far_from_the_limit_and_small_near_it(rig: BudgetRig) -> None:
    """What is wanted is held while much is free; near the limit no more than is needed."""
    budget = await rig.add_budget(amount=16_000)
    assert (await rig.hold(budget, 10, 900)).amount == 900
    assert (await rig.hold(budget, 10, 5_000)).amount == 15_100 // 16
    await rig.hold(budget, 14_000)
    near = await rig.hold(budget, 10, 5_000)
    assert (near.amount, near.remaining) == (10, 16_000 - 900 - 943 - 14_000 - 10)


async def test_what_is_freed_can_be_held_by_others(rig: BudgetRig) -> None:
    """A part that is given back is free, once, and never more than was left."""
    budget = await rig.add_budget(amount=1_000)
    hold = await rig.hold(budget, 1_000)
    for _ in range(2):
        await rig.free((hold.id, 400))
    assert (await rig.hold(budget, 400, life=OTHER_WORKER)).amount == 400
    await rig.free((hold.id, 5_000), ("hld_of_nobody", 5))
    assert (await rig.window(budget)).held == 400
    await rig.free((hold.id, 1_000), life=OTHER_WORKER)
    assert (await rig.window(budget)).held == 400
    assert await rig.differences() == []


async def test_a_life_that_is_over_holds_nothing(rig: BudgetRig) -> None:
    """With its end all that a worker held is free, and it gets nothing more."""
    budget = await rig.add_budget()
    hold = await rig.hold(budget, 70)
    kept = await rig.hold(budget, 30, life=OTHER_WORKER)
    await rig.deliver(rig.event(1, HoldUse(hold.id, 20)))
    await rig.free(is_over=True)
    assert (await rig.window(budget)).held == kept.amount
    assert (await rig.take([HoldAsk(budget.id, "", 1, 1)])).holds is None
    assert await rig.differences() == []


async def test_silent_workers_lose_what_they_hold(rig: BudgetRig) -> None:
    """A day after the last sign of life; what they spent and say later counts all the same."""
    budget = await rig.add_budget()
    hold = await rig.hold(budget, 70)
    end_us = NOW_US + EXPIRY_S * SECOND_US
    assert await rig.expire(end_us) == 0
    assert await rig.expire(end_us + 1) == 1
    assert (await rig.window(budget)).held == 0
    await rig.deliver(rig.event(1, HoldUse(hold.id, 20)), now_us=end_us + 2)
    window = await rig.window(budget)
    assert (Fraction(window.settled_atto, ATTO), window.held) == (_cost(12, 7), 0)
    assert rig.settlement.faults == {"hold_expired": 1}
    assert await rig.differences() == []


async def test_usage_is_a_sign_of_life(rig: BudgetRig) -> None:
    """A worker whose usage still comes keeps what it holds."""
    budget = await rig.add_budget()
    await rig.hold(budget, 70)
    later_us = NOW_US + EXPIRY_S * SECOND_US // 2
    await rig.deliver(rig.event(1), now_us=later_us)
    assert await rig.expire(later_us + EXPIRY_S * SECOND_US) == 0


@pytest.mark.parametrize(
    ("uses", "fault"),
    [
        ((HoldUse("hld_none", 5),), "hold_unknown"),
        ((HoldUse("with\0nul", 5),), "hold_unknown"),
        ((HoldUse("x" * 100_000, 5),), "hold_unknown"),
        (("other's", 5), "hold_unknown"),
        (("own", 2**64 - 1), "hold_exceeded"),
        (("own", -5), "hold_exceeded"),
    ],
)
async def test_no_reference_to_a_hold_keeps_usage_from_being_stored(
    rig: BudgetRig, uses: Any, fault: str
) -> None:
    """Whatever an event says of holds, it is stored, its cost counts, and no other's hold moves."""
    budget = await rig.add_budget()
    own = await rig.hold(budget, 100)
    others = await rig.hold(budget, 50, life=OTHER_WORKER)
    ids = {"own": own.id, "other's": others.id}
    if uses[0] in ids:
        uses = (HoldUse(ids[uses[0]], uses[1]),)
    receipt = await rig.deliver(rig.event(1, *uses))
    assert receipt.stored == 1
    assert rig.settlement.faults == {fault: 1}
    window = await rig.window(budget)
    assert Fraction(window.settled_atto, ATTO) == _cost(12, 7)
    assert window.held == (50 if uses[0].amount > 5 else 150)
    assert await rig.differences() == []


async def test_usage_without_a_price_is_stored(rig: BudgetRig) -> None:
    """It frees its hold and costs nothing, and is counted as a fault."""
    budget = await rig.add_budget()
    hold = await rig.hold(budget, 100)
    event = rig.event(1, HoldUse(hold.id, 100), model="unpriced")
    assert (await rig.deliver(event)).stored == 1
    window = await rig.window(budget)
    assert (window.settled_atto, window.held) == (0, 0)
    assert rig.settlement.faults == {"price_unknown": 1}


@pytest.mark.parametrize("tokens", [20_000_000, 2**63 - 1])
async def test_absurd_usage_costs_budgets_what_it_is_charged(rig: BudgetRig, tokens: int) -> None:
    """An event for more than ten million units is stored, frees its hold and costs nothing."""
    budget = await rig.add_budget()
    await rig.add_price("dear", input=10**18, output=10**18)
    hold = await rig.hold(budget, 100)
    event = rig.event(1, HoldUse(hold.id, 100), model="dear", input_tokens=tokens, output_tokens=0)
    assert (await rig.deliver(event, rig.event(2))).stored == 2
    assert rig.settlement.unrated["absurd"] == 1
    window = await rig.window(budget)
    assert (Fraction(window.settled_atto, ATTO), window.held) == (_cost(12, 7), 0)


async def test_usage_counts_for_everybody_whose_it_is(rig: BudgetRig) -> None:
    """Organization, project, key and member; those of others, of other aliases and keys do not."""
    key = (await create_key(rig.database, rig.project)).key
    owners = {
        "organization": rig.owner(),
        "project": rig.owner(owner_kind="project", project_id=rig.project.id),
        "key": rig.owner(owner_kind="key", project_id=rig.project.id, key_id=key.id),
    }
    hit = [await rig.add_budget(owner, is_hard=False) for owner in owners.values()]
    hit.append(await rig.add_budget(is_hard=False, per="key"))
    other = (await create_key(rig.database, rig.project, NewKey(name="other"))).key
    missed = await rig.add_budget(
        rig.owner(owner_kind="key", project_id=rig.project.id, key_id=other.id)
    )
    await rig.deliver(rig.event(1, key_id=key.id))
    for budget in hit:
        window = await rig.window(budget)
        assert Fraction(window.settled_atto, ATTO) == _cost(12, 7)
        assert window.key.subject == (f"k.{key.id}" if budget.per else "")
    assert await rig.windows(missed) == []


async def test_usage_counts_in_the_window_it_was_held_of(rig: BudgetRig) -> None:
    """Whatever the node's clock says; without a hold the time of admission decides."""
    budget = await rig.add_budget(period="day", time_zone="Europe/Berlin")
    hold = await rig.hold(budget, 50)
    yesterday = {"started_at_ns": (NOW_US - DAY_US) * 1_000}
    await rig.deliver(rig.event(1, HoldUse(hold.id, 50), **yesterday))
    assert len(await rig.windows(budget)) == 1
    await rig.deliver(rig.event(2, **yesterday))
    newer, older = await rig.windows(budget)
    assert newer.key.starts_at_us == older.ends_at_us
    assert newer.settled_atto == older.settled_atto > 0


async def test_a_deleted_budget_binds_nobody(rig: BudgetRig) -> None:
    """What a worker wants of it is given and held nowhere; usage that names its holds is stored."""
    budget = await rig.add_budget()
    hold = await rig.hold(budget, 50)
    async with rig.database.write(ALL) as session:
        await budgets.delete_budget(session, actor(), budget.id)
    answer = await rig.take([HoldAsk(budget.id, "", 5, 9)])
    assert answer.holds is not None
    assert (answer.holds[0].id, answer.holds[0].amount) == ("", 9)
    await rig.deliver(rig.event(1, HoldUse(hold.id, 5), HoldUse("", 9)))
    await rig.free((hold.id, 5), ("", 9), is_over=True)
    assert rig.settlement.faults == {"hold_unknown": 1}
    assert await rig.differences() == []


async def test_holds_of_another_organization_are_not_touched(rig: BudgetRig) -> None:
    """A taking reaches budgets of its own organization only, and usage its own holds."""
    other = BudgetRig(rig.database, *await create_place(rig.database, "other"))
    budget = await rig.add_budget()
    hold = await rig.hold(budget, 50)
    answer = await other.take([HoldAsk(budget.id, "", 5, 9)])
    assert answer.holds is not None
    assert answer.holds[0].id == ""
    await other.deliver(other.event(1, HoldUse(hold.id, 50)))
    assert (await rig.window(budget)).held == 50
    assert other.settlement.faults == {"hold_unknown": 1}


async def test_a_lower_amount_takes_nothing_back(rig: BudgetRig) -> None:
    """What is held can be spent; nothing more is held until there is room."""
    budget = await rig.add_budget()
    hold = await rig.hold(budget, 2 * NANO)
    async with rig.database.write(ALL) as session:
        await budgets.update_budget(session, actor(), budget.id, {"amount": NANO})
    answer = await rig.take([HoldAsk(budget.id, "", 1, 1)])
    assert answer.shortage is not None
    assert answer.shortage.remaining == 0
    await rig.free((hold.id, 2 * NANO))
    assert (await rig.hold(budget, NANO)).amount == NANO


async def test_a_damaged_window_keeps_no_usage_from_being_stored(rig: BudgetRig) -> None:
    """Though it holds less than its holds have left, nothing falls below 0, and it is found."""
    budget = await rig.add_budget()
    hold = await rig.hold(budget, 50)
    async with rig.database.write(ALL) as session:
        await session.change(update(BudgetWindows).values(held=5))
    assert (await rig.deliver(rig.event(1, HoldUse(hold.id, 20)))).stored == 1
    window = await rig.window(budget)
    assert window.held == 0
    assert await rig.differences() == [window.key]
    await rig.free(is_over=True)
    assert await rig.differences() == []


async def test_usage_that_was_forgotten_and_comes_again_is_stored(rig: BudgetRig) -> None:
    """It counts where usage is added up, and costs nothing a second time."""
    budget = await rig.add_budget()
    await rig.deliver(rig.event(1))
    await forget_usage(rig.database)
    before = await rig.window(budget)
    assert (await rig.deliver(rig.event(1))).stored == 1
    assert await rig.window(budget) == before
    assert await rig.differences() == []


async def test_old_holds_are_forgotten(rig: BudgetRig) -> None:
    """A week after they were made, unless they are open; usage that names one is stored."""
    budget = await rig.add_budget()
    spent, kept = [await rig.hold(budget, 50) for _ in range(2)]
    await rig.free((spent.id, 50))
    week_us = KEEP_HOLDS_S * SECOND_US
    for now_us, count in ((NOW_US + week_us, 0), (NOW_US + week_us + 1, 1)):
        async with rig.database.write(ALL) as session:
            assert await forget_holds(session, now_us) == count
    await rig.deliver(rig.event(1, HoldUse(spent.id, 5), HoldUse(kept.id, 5)))
    assert rig.settlement.faults == {"hold_unknown": 1}
    assert (await rig.window(budget)).held == 45


async def test_reconciling_finds_what_was_changed_by_hand(rig: BudgetRig) -> None:
    """A window that does not say what charges and holds say is named."""
    budget = await rig.add_budget()
    await rig.hold(budget, 50)
    async with rig.database.write(ALL) as session:
        await session.change(update(BudgetHolds).values(freed=1))
    window = await rig.window(budget)
    assert await rig.differences() == [window.key]


async def test_nothing_is_held_when_nothing_is_needed(rig: BudgetRig) -> None:
    """Of a budget that is spent, requests that cost nothing hold 0, and no hold stays open."""
    budget = await rig.add_budget(amount=10)
    await rig.hold(budget, 10)
    asks = [HoldAsk(budget.id, "", 0, 5)]
    answers = [await rig.take(asks, take_id="zero") for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0].holds is not None
    assert answers[0].holds[0].amount == 0
    async with rig.database.read(ALL) as session:
        page = await budgets.list_holds(session, PageRequest())
    assert [hold.amount for hold in page.items] == [10]


async def _cancel_after(work: Coroutine[Any, Any, object], delay_s: float) -> None:
    task = asyncio.ensure_future(work)
    await asyncio.sleep(delay_s)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_cancelled_anywhere_and_repeated_all_happens_once(rig: BudgetRig) -> None:
    """However far a taking, a delivery or a giving back came, its repetition completes it."""
    budget = await rig.add_budget()
    asks = [HoldAsk(budget.id, "", 100, 100)]
    rounds = 25
    for number in range(rounds):
        take_id = f"cancelled-{number}"
        await _cancel_after(rig.take(asks, take_id=take_id), number * 0.001)
        answer = await rig.take(asks, take_id=take_id)
        assert answer.holds is not None
        event = rig.event(number, HoldUse(answer.holds[0].id, 40))
        await _cancel_after(rig.deliver(event), number * 0.001)
        await rig.deliver(event)
        await _cancel_after(rig.free((answer.holds[0].id, 60)), number * 0.001)
        await rig.free((answer.holds[0].id, 60))
    window = await rig.window(budget)
    assert Fraction(window.settled_atto, ATTO) == rounds * _cost(12, 7)
    assert window.held == 0
    assert await rig.differences() == []
    async with rig.database.read(ALL) as session:
        assert (await budgets.list_holds(session, PageRequest())).items == []


async def test_many_workers_at_once_keep_the_books(rig: BudgetRig) -> None:
    """Takings, deliveries and freeings of many workers wait for one another, never in a circle."""
    members: dict[str, Any] = {"amount": 60_000, "period": "once"}
    project = rig.owner(owner_kind="project", project_id=rig.project.id)
    found = [
        await rig.add_budget(**members),
        await rig.add_budget(project, **members),
        await rig.add_budget(project, **members, per="key"),
        await rig.add_budget(project, currency="EUR", amount=NANO, period="day"),
    ]

    async def work(slot: int) -> None:
        life = Life(f"node-{slot}/0", 1)
        key = f"key-{slot % 3}"
        asks = [HoldAsk(one.id, f"k.{key}" if one.per else "", 3_000, 3_000) for one in found]
        random.Random(slot).shuffle(asks)
        for number in range(6):
            answer = await rig.take(asks, life)
            uses = [HoldUse(hold.id, 2_950) for hold in answer.holds or ()]
            members = {"key_id": key, "input_tokens": 1, "output_tokens": 0}
            event = rig.event(slot * 100 + number, *uses, **members)
            if uses:
                await rig.deliver(event, life=life)
                await rig.free(*((use.hold, 50) for use in uses), life=life)
        await rig.free(life=life, is_over=True)

    await asyncio.gather(*(work(slot) for slot in range(12)))
    for budget in found:
        windows = await rig.windows(budget)
        assert {window.held for window in windows} == {0}
        assert all(window.free_of(budget.amount) >= 0 for window in windows)
    assert await rig.differences() == []
    assert rig.settlement.faults == {}
