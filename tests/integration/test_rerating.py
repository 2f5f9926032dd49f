"""Corrections, runs and simulations: facts beside what was rated, and the totals of an oracle."""

import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.fakes.organizations import ALL, NOW_US, actor
from tests.fakes.rate_forms import DAY_NS, START_NS
from tests.fakes.rating_oracle import total_of
from tests.fakes.rating_rig import RatingRig
from tests.unit.metering.usage_events import make_event

from penstock.contract.usage import UsageBatch, UsageEvent, quantities
from penstock.control.ratings import post_differences
from penstock.kit.errors import PenstockError
from penstock.ledger.tables import Entries
from penstock.limits.prices import ATTO, ATTO_IN_NANO
from penstock.metering import service as metering
from penstock.metering.tables import UsageDays
from penstock.rating.corrections import correct_usage
from penstock.rating.model import NewCorrection, PriceBook, Rated, Run
from penstock.rating.runs import begin_run, continue_run
from penstock.rating.simulation import simulate
from penstock.rating.tables import ChargeDays, ChargeLabelDays, RatedMeters, RatedUsage
from penstock.storage.database import Database
from penstock.storage.sessions import WriteSession

LIST: dict[str, Any] = {
    "input": {"scheme": "volume", "tiers": [{"price": "2", "up_to": 90_000}, {"price": "1"}]},
    "output": {"price": "3.000000000001"},
}
DRAFT: dict[str, Any] = {
    "input": {"scheme": "graduated", "tiers": [{"price": "1", "up_to": 50_000}, {"price": "5"}]},
    "output": {"scheme": "package", "price": "0.001", "per": 700},
}
SINCE_US = START_NS // 1_000
UNTIL_US = SINCE_US + 50 * 86_400 * 10**6


class Ledger:
    """Stands where differences are booked, and remembers them."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.total_atto = 0

    async def __call__(
        self,
        session: WriteSession,
        rated: Sequence[Rated],
        *,
        key: str,
        recorded_at_us: int,
        run_id: str,
        reverses: str | None = None,
    ) -> None:
        """Book them for real, too."""
        self.total_atto += sum(one.amount_atto for one in rated if one.kind == "charge")
        await post_differences(
            session,
            rated,
            key=key,
            recorded_at_us=recorded_at_us,
            run_id=run_id,
            reverses=reverses,
        )


@pytest.fixture
async def rig(database: Database) -> RatingRig:
    """A list and costs, over a database of each kind."""
    rig = RatingRig(database)
    await rig.add_price(await rig.add_book("list"), "prc_list", "fast", rates=LIST)
    costs = await rig.add_book("cost")
    await rig.add_price(
        costs,
        "prc_cost",
        "served-fast",
        rates={"input": {"price": "0.1"}, "output": {"price": "0"}},
    )
    return rig


@pytest.fixture
async def draft(rig: RatingRig) -> PriceBook:
    """A book that rates nothing by itself."""
    book = await rig.add_book("list", id="pbk_draft", name="draft")
    await rig.add_price(book, "prc_draft", "fast", rates=DRAFT)
    return book


async def _use(rig: RatingRig, count: int) -> list[UsageEvent]:
    pick = random.Random(5)
    events = [
        make_event(
            number,
            organization=pick.choice(["acme", "other"]),
            input_tokens=pick.randrange(9_000),
            output_tokens=pick.randrange(2_000),
            reasoning_output_tokens=None,
            started_at_ns=START_NS + pick.randrange(40) * DAY_NS,
            labels=(("team", "a"),),
        )
        for number in range(count)
    ]
    delivery = metering.prepare_batch(UsageBatch("node-1/0", 1, tuple(events)), NOW_US)
    async with rig.database.write(ALL) as session:
        await metering.record_events(session, ALL, [delivery])
    await rig.deliver(events)
    return events


async def _run(rig: RatingRig, post: Ledger, book: PriceBook | None) -> Run:
    async with rig.database.write(ALL) as session:
        run = await begin_run(
            session,
            actor(),
            since_us=SINCE_US,
            until_us=UNTIL_US,
            book_id=None if book is None else book.id,
            organization=None,
            reason="",
        )
    while run.finished_at_us is None:
        async with rig.database.write(ALL) as session:
            run = await continue_run(session, actor(), run.id, post)
    return run


async def _expect(rig: RatingRig, events: list[UsageEvent], rates: dict[str, Any]) -> None:
    """Rows, days, labels and months say what the oracle says."""
    expected = total_of((event, rates, "one") for event in events)
    by = ("kind",)
    rated = await rig.sums(RatedUsage, *by)
    assert Fraction(rated["charge",], ATTO) == expected
    assert await rig.sums(ChargeDays, *by) == rated
    assert await rig.sums(ChargeLabelDays, *by) == rated
    months = await rig.sums(RatedMeters, "price_id")
    stepped = {name: form for name, form in rates.items() if form.get("scheme", "flat") != "flat"}
    flat = {name: {**form, "price": "0"} for name, form in rates.items() if name not in stepped}
    assert Fraction(sum(months.values()), ATTO) == total_of(
        (event, {**stepped, **flat}, "one") for event in events
    )


async def test_a_run_to_another_book_and_back_changes_nothing(
    rig: RatingRig, draft: PriceBook
) -> None:
    """Each time all of it costs what the book says; what is booked is the difference (I19)."""
    events = await _use(rig, 60)
    await _expect(rig, events, LIST)
    before = await rig.total()
    post = Ledger()
    async with rig.database.read(ALL) as session:
        sums = await simulate(
            session, book_id=draft.id, since_us=SINCE_US, until_us=UNTIL_US, organization=None
        )
    assert sum(one.charged_atto for one in sums) == before
    run = await _run(rig, post, draft)
    assert (run.event_count, run.changed_count) == (60, 60)
    await _expect(rig, events, DRAFT)
    simulated = sum(one.simulated_atto for one in sums)
    assert await rig.total() == simulated == before + post.total_atto
    again = await _run(rig, post, draft)
    assert (again.event_count, again.changed_count) == (60, 0)
    await _run(rig, post, None)
    await _expect(rig, events, LIST)
    assert (await rig.total(), post.total_atto) == (before, 0)
    async with rig.database.read(ALL) as session:
        columns = (func.sum(Entries.amount), func.sum(Entries.amount_rest))
        ((whole, rest),) = await session.rows(select(*columns))
    assert int(whole) * ATTO_IN_NANO + int(rest) == 0


async def test_a_voided_event_never_was(rig: RatingRig, draft: PriceBook) -> None:
    """In rows, months, days and figures, whatever its price was meanwhile; and only once (I20)."""
    events = await _use(rig, 30)
    post = Ledger()
    await _run(rig, post, draft)
    before = await rig.total()
    void, wrong, *others = events
    async with rig.database.write(ALL) as session:
        await correct_usage(session, actor(), NewCorrection(void.event_id, None, "t-1", ""), post)
        after = {"input": quantities(wrong)["input"] + 41_000, "output": 0}
        await correct_usage(session, actor(), NewCorrection(wrong.event_id, after, "t-1", ""), post)
    right = make_event(
        1,
        organization=wrong.organization,
        input_tokens=wrong.input_tokens + 41_000,
        output_tokens=0,
        reasoning_output_tokens=None,
        started_at_ns=wrong.started_at_ns,
    )
    await _expect(rig, [right, *others], DRAFT)
    assert await rig.total() != before
    async with rig.database.read(ALL) as session:
        ((used, requests),) = await session.rows(
            select(func.sum(UsageDays.input), func.sum(UsageDays.requests))
        )
    assert (used, requests) == (
        right.input_tokens + sum(event.input_tokens for event in others),
        29,
    )
    await _run(rig, post, None)
    await _expect(rig, [right, *others], LIST)


@pytest.mark.parametrize(
    ("used", "names"),
    [
        ({}, "quantities"),
        ({"requests": 1}, "just that already"),
        ({"tokens": 1}, "quantities"),
        ({"output": -1}, "quantities.output"),
        ({"output": 10**12 + 1}, "quantities.output"),
    ],
)
async def test_bad_corrections_change_nothing(
    rig: RatingRig, used: dict[str, int], names: str
) -> None:
    """With the member that is wrong; what is void cannot be corrected again."""
    (event,) = await _use(rig, 1)
    before = await rig.total()
    bad = NewCorrection(event.event_id, used, "t-1", "")
    with pytest.raises(PenstockError, match=names):
        async with rig.database.write(ALL) as session:
            await correct_usage(session, actor(), bad, Ledger())
    assert await rig.total() == before
    for reference in ("t-1", "t-2"):
        try:
            async with rig.database.write(ALL) as session:
                void = NewCorrection(event.event_id, None, reference, "")
                await correct_usage(session, actor(), void, Ledger())
        except PenstockError:
            assert reference == "t-2"
    assert await rig.total() == 0
