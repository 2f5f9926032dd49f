"""Budgets for keys with a label: what counts for them, whose they are, and that books agree."""

import random
from fractions import Fraction

import pytest
from sqlalchemy import update
from tests.fakes.budget_rig import BudgetRig
from tests.fakes.organizations import ALL, OPERATOR, actor, create_key, create_place

from penstock.access import service as access
from penstock.access.model import ApiKey, NewKey
from penstock.access.tables import ApiKeys
from penstock.contract.money import NANO, HoldUse
from penstock.limits.budget_model import Budget
from penstock.limits.prices import ATTO
from penstock.storage.database import Database

COST = Fraction(12 * 1_000_000_000_003 + 7 * 2_500_000_000_000, 10**18)
"""Of 12 input and 7 output tokens."""
LABELS: tuple[dict[str, str], ...] = (
    {},
    {"team": "search"},
    {"team": "ads"},
    {"team": "search", "grade": "1"},
)


@pytest.fixture
async def rig(database: Database) -> BudgetRig:
    """An organization whose alias `small` has a price."""
    rig = BudgetRig(database, *await create_place(database))
    await rig.add_price("small")
    return rig


async def _key(rig: BudgetRig, name: str, labels: dict[str, str]) -> ApiKey:
    new = NewKey(name=name, labels=labels)
    return (await create_key(rig.database, rig.project, new)).key


async def _label(rig: BudgetRig, key: ApiKey, labels: dict[str, str]) -> None:
    async with rig.database.write(ALL) as session:
        await access.update_key(session, actor(), OPERATOR, key.id, {"labels": labels})


async def _spent(rig: BudgetRig, budget: Budget) -> Fraction:
    return sum((Fraction(one.settled_atto, ATTO) for one in await rig.windows(budget)), Fraction())


async def test_each_event_counts_for_the_labels_of_its_key(rig: BudgetRig) -> None:
    """Once and in its own organization: the same label of another one is another budget."""
    other = BudgetRig(rig.database, *await create_place(rig.database, "other"))
    chance = random.Random(4)
    rigs = (rig, other)
    keys = {
        id(each): [await _key(each, f"key-{n}", labels) for n, labels in enumerate(LABELS)]
        for each in rigs
    }
    budgets = {
        id(each): {
            "all": await each.add_budget(),
            "team=search": await each.add_budget(label="team=search"),
            "team=ads": await each.add_budget(label="team=ads", is_hard=False),
            "grade=1": await each.add_budget(label="grade=1", per="key"),
            "of a day": await each.add_budget(label="grade=1", period="day"),
        }
        for each in rigs
    }
    counts = {id(each): [0] * len(LABELS) for each in rigs}
    for number in range(40):
        each = chance.choice(rigs)
        place = chance.randrange(len(LABELS))
        counts[id(each)][place] += 1
        event = each.event(number, key_id=keys[id(each)][place].id)
        for _ in range(chance.choice((1, 2))):
            await each.deliver(event)
    for each in rigs:
        none, search, ads, both = counts[id(each)]
        own = budgets[id(each)]
        assert await _spent(each, own["all"]) == (none + search + ads + both) * COST
        assert await _spent(each, own["team=search"]) == (search + both) * COST
        assert await _spent(each, own["team=ads"]) == ads * COST
        assert await _spent(each, own["grade=1"]) == both * COST
        assert await _spent(each, own["of a day"]) == both * COST
        assert {one.key.subject for one in await each.windows(own["grade=1"])} == {
            f"k.{keys[id(each)][3].id}"
        }
        assert await each.differences() == []


async def test_what_is_held_for_a_label_is_settled_there(rig: BudgetRig) -> None:
    """Also when the key has lost the label meanwhile; what is not held counts for it no more."""
    key = await _key(rig, "key", {"team": "search"})
    budget = await rig.add_budget(label="team=search", amount=NANO)
    hold = await rig.hold(budget, 1_000, 300_000)
    await _label(rig, key, {})
    await rig.deliver(
        rig.event(1, HoldUse(hold.id, 40_000), key_id=key.id), rig.event(2, key_id=key.id)
    )
    window = await rig.window(budget)
    assert (Fraction(window.settled_atto, ATTO), window.held) == (COST, hold.amount - 40_000)
    await _label(rig, key, {"team": "search"})
    await rig.deliver(rig.event(3, key_id=key.id))
    await rig.free(is_over=True)
    window = await rig.window(budget)
    assert (Fraction(window.settled_atto, ATTO), window.held) == (2 * COST, 0)
    assert await rig.differences() == []


async def test_a_damaged_row_carries_nothing(rig: BudgetRig) -> None:
    """Labels that nobody could have set hinder neither the event nor other budgets."""
    key = await _key(rig, "key", {"team": "search"})
    labelled, everything = await rig.add_budget(label="team=search"), await rig.add_budget()
    for number, damage in enumerate((["team=search"], "team=search", {"team": 7}, 0)):
        async with rig.database.write(ALL) as session:
            await session.change(update(ApiKeys).where(ApiKeys.id == key.id).values(labels=damage))
        await rig.deliver(rig.event(number, key_id=key.id))
    assert await rig.windows(labelled) == []
    assert await _spent(rig, everything) == 4 * COST
