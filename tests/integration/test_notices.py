"""Notices: what budgets and the quarantine tell, and how the feed is read."""

from typing import Any

import pytest
from tests.fakes.budget_rig import BudgetRig
from tests.fakes.organizations import ALL, NOW_US, actor, create_place

from penstock.contract.money import NANO, PRICE_SCALE, HoldAsk
from penstock.contract.usage import UsageBatch
from penstock.kit.errors import PenstockError
from penstock.limits.budgets import update_budget
from penstock.metering import service as metering
from penstock.notices import service
from penstock.notices.model import Notice
from penstock.storage.database import Database
from penstock.storage.errors import PAGE_CURSOR_INVALID
from penstock.storage.scope import Scope

MONTH_US = 31 * 86_400_000_000
CENT_TOKENS = 10_000
"""They cost 0.01 EUR."""


@pytest.fixture
async def rig(database: Database) -> BudgetRig:
    """An organization whose alias `small` costs 1 EUR for a million input tokens."""
    rig = BudgetRig(database, *await create_place(database))
    await rig.add_price("small", input=PRICE_SCALE, output=0)
    return rig


async def _told(rig: BudgetRig, scope: Scope = ALL) -> list[tuple[str, Any]]:
    """Return topics and percentages of all notices, in the order of the feed."""
    async with rig.database.read(scope) as session:
        found, _ = await service.list_notices(session, None, limit=100)
    return [(one.topic, one.payload.get("percentage")) for one in found]


async def _spend(rig: BudgetRig, number: int, cents: int, now_us: int = NOW_US) -> None:
    event = rig.event(
        number,
        input_tokens=cents * CENT_TOKENS,
        output_tokens=0,
        cached_input_tokens=None,
        reasoning_output_tokens=None,
        started_at_ns=now_us * 1_000,
    )
    await rig.deliver(event, now_us=now_us)


async def test_each_percentage_is_told_once_for_a_window(rig: BudgetRig) -> None:
    """However often usage comes; several at once in their order; in the next window again."""
    await rig.add_budget(amount=NANO, is_hard=False, alert_percentages=[120, 50, 80])
    await _spend(rig, 1, 49)
    assert await _told(rig) == []
    for _ in range(2):
        await _spend(rig, 2, 1)
    assert await _told(rig) == [("budget.alert", 50)]
    for _ in range(2):
        await _spend(rig, 3, 71)
    spent = [("budget.alert", 50), ("budget.alert", 80), ("budget.alert", 120)]
    assert await _told(rig) == [*spent, ("budget.exhausted", None)]
    await _spend(rig, 4, 500)
    assert len(await _told(rig)) == 4
    await _spend(rig, 5, 60, now_us=NOW_US + MONTH_US)
    assert (await _told(rig))[4:] == [("budget.alert", 50)]


async def test_a_changed_amount_brings_nothing_back(rig: BudgetRig) -> None:
    """What was told of a window is not told again when it is reached anew; what is higher is."""
    budget = await rig.add_budget(amount=NANO, is_hard=False, alert_percentages=[50, 80])
    await _spend(rig, 1, 60)
    async with rig.database.write(ALL) as session:
        await update_budget(session, actor(), budget.id, {"amount": 2 * NANO})
    await _spend(rig, 2, 50)
    assert await _told(rig) == [("budget.alert", 50)]
    await _spend(rig, 3, 60)
    assert await _told(rig) == [("budget.alert", 50), ("budget.alert", 80)]


async def test_a_hard_budget_tells_once_that_it_refuses(rig: BudgetRig) -> None:
    """The first request that is refused for want of money is told, and holds nothing."""
    budget = await rig.add_budget(amount=NANO)
    await rig.hold(budget, 600_000_000)
    for _ in range(3):
        answer = await rig.take([HoldAsk(budget.id, "", 500_000_000, 500_000_000)])
        assert answer.holds is None
    assert await _told(rig) == [("budget.exhausted", None)]
    assert (await rig.window(budget)).held == 600_000_000
    await _spend(rig, 1, 100)
    assert await _told(rig) == [("budget.exhausted", None)]


async def test_what_is_rolled_back_is_not_told(rig: BudgetRig) -> None:
    """A notice is there when what it tells of is, and only then."""
    await rig.add_budget(amount=NANO, is_hard=False, alert_percentages=[50])
    event = rig.event(1, input_tokens=60 * CENT_TOKENS)
    delivery = metering.prepare_batch(UsageBatch("node-1/0", 1, (event,)), NOW_US)
    async with rig.database.write(ALL) as session:
        await metering.record_events(session, ALL, [delivery], rig.settlement)
        await session._connection.rollback()
    assert await _told(rig) == []
    await rig.deliver(event)
    assert await _told(rig) == [("budget.alert", 50)]


async def test_quarantine_is_told_once(rig: BudgetRig) -> None:
    """Each content of an id once, to the organization that it names, in however many batches."""
    await rig.deliver(*(rig.event(number) for number in range(3)))
    for _ in range(2):
        await rig.deliver(*(rig.event(number, status=500) for number in range(3)))
    assert await _told(rig) == [("usage.quarantined", None)]
    assert await _told(rig, Scope.of("somebody-else")) == []
    async with rig.database.read(Scope.of(rig.organization.id)) as session:
        (notice,), _ = await service.list_notices(session, None, limit=100)
    assert notice.payload == {
        "count": 3,
        "event_ids": [rig.event(number).event_id for number in range(3)],
    }


async def test_a_reader_that_crashed_gets_the_same_again(rig: BudgetRig) -> None:
    """Behind the last cursor that it kept, with the same ids: what it did by them is done once."""
    async with rig.database.write(ALL) as session:
        told = [Notice("budget.alert", "acme", str(number), {}) for number in range(10)]
        await service.record_notices(session, told, NOW_US)
    done: dict[str, str] = {}
    handled = 0
    kept: str | None = None
    for crash_after in (2, 0, 3, None, None, None, None):
        async with rig.database.read(ALL) as session:
            found, cursor = await service.list_notices(session, kept, limit=4)
        for notice in found[:crash_after]:
            handled += 1
            done[notice.id] = notice.key
        if crash_after is None:
            kept = cursor
    assert list(done.values()) == [str(number) for number in range(10)]
    assert handled > len(done)


async def test_old_notices_are_forgotten(rig: BudgetRig) -> None:
    """After 30 days, and not before; the cursor of one that is gone still leads on."""
    for age in (0, 1):
        async with rig.database.write(ALL) as session:
            told = [Notice("budget.alert", "acme", str(age), {})]
            await service.record_notices(session, told, NOW_US + age)
    async with rig.database.read(ALL) as session:
        _, cursor = await service.list_notices(session, None, limit=1)
    async with rig.database.write(ALL) as session:
        assert await service.forget_old_notices(session, NOW_US + 1 + service.KEEP_S * 10**6) == 1
    async with rig.database.read(ALL) as session:
        left, _ = await service.list_notices(session, cursor, limit=10)
    assert [one.key for one in left] == ["1"]


async def test_a_made_up_cursor_is_refused(rig: BudgetRig) -> None:
    """It is an error that says so, and never one of the database."""
    for text in ("", "1", "1.", "-1.1", "1.1.1", "9" * 19 + ".1", "\u0661.1"):
        async with rig.database.read(ALL) as session:
            with pytest.raises(PenstockError) as refused:
                await service.list_notices(session, text, limit=1)
        assert refused.value.error is PAGE_CURSOR_INVALID
