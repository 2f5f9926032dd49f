"""Budgets, prices and usage to test with: made, held, spent and settled."""

from collections.abc import Sequence
from typing import Any

from tests.fakes.organizations import ALL, NOW_US, actor
from tests.unit.metering.usage_events import make_event

from penstock.contract.money import (
    NANO,
    PRICE_SCALE,
    FreeRequest,
    Hold,
    HoldAnswer,
    HoldAsk,
    HoldRequest,
    HoldUse,
)
from penstock.contract.usage import UsageBatch, UsageEvent, UsageReceipt
from penstock.control.books import UsageBooks
from penstock.ledger.prepaying import find_lapses
from penstock.limits import budget_holds, budgets
from penstock.limits.budget_model import Budget, BudgetWindow, Life, NewBudget, WindowKey
from penstock.limits.budget_reconciling import reconcile
from penstock.limits.model import Owner
from penstock.metering import service as metering
from penstock.rating import store as rating_store
from penstock.rating.model import Price, default_book_id
from penstock.storage.database import Database
from penstock.storage.scope import Scope
from penstock.tenancy.model import Organization, Project

WORKER = Life("node-1/0", 1)


def make_price(alias: str, currency: str = "EUR", **members: Any) -> Price:
    """Return a price: 1.000000000003 for a million input tokens, a tenth cached, 2.5 for output."""
    values = {
        "book_id": default_book_id("list", currency),
        "organization_id": None,
        "upstream": "",
        "service_tier": "",
        "valid_from_us": 0,
        "valid_to_us": None,
        "input": PRICE_SCALE + 3,
        "cached_input": PRICE_SCALE // 10,
        "output": 5 * PRICE_SCALE // 2,
        "rates": None,
        **members,
    }
    values.setdefault("id", f"prc_{alias}_{currency}_{values['valid_from_us']}")
    return Price(
        alias=alias,
        currency=currency,
        version=1,
        created_at_us=NOW_US,
        updated_at_us=NOW_US,
        **values,
    )


class BudgetRig:
    """One organization's money.

    Args:
        database: Where everything is.
        organization: Whose it is.
        project: Where its keys are.
    """

    def __init__(self, database: Database, organization: Organization, project: Project) -> None:
        """See the class."""
        self.database = database
        self.organization = organization
        self.project = project
        self.settlement = UsageBooks("EUR")
        self._takings = 0

    async def add_price(self, alias: str, currency: str = "EUR", **members: Any) -> None:
        """Have an alias cost something, whether it is there or not."""
        async with self.database.write(ALL) as session:
            price = make_price(alias, currency, **members)
            await rating_store.make_default_book(session, ALL, "list", currency, NOW_US)
            await rating_store.prices.insert(session, ALL, price)

    def owner(self, **members: Any) -> Owner:
        """Return who a budget is for: the organization, or what is named."""
        return Owner(
            organization_id=self.organization.id, **{"owner_kind": "organization", **members}
        )

    async def add_budget(self, owner: Owner | None = None, **members: Any) -> Budget:
        """Return a new hard budget of 10 EUR a month."""
        values = {"currency": "EUR", "amount": 10 * NANO, "is_hard": True, **members}
        new = NewBudget(owner=owner or self.owner(), **values)
        async with self.database.write(ALL) as session:
            return await budgets.create_budget(session, actor(), new)

    async def take(
        self,
        asks: Sequence[HoldAsk],
        life: Life = WORKER,
        *,
        now_us: int = NOW_US,
        take_id: str | None = None,
    ) -> HoldAnswer:
        """Ask for holds, under a new name unless one is given."""
        self._takings += 1
        request = HoldRequest(
            producer=life.producer,
            epoch=life.epoch,
            take_id=take_id or f"{self.organization.id}-{self._takings}",
            organization=self.organization.id,
            asks=tuple(asks),
        )
        async with self.database.write(ALL) as session:
            return await budget_holds.hold(session, request, now_us, find_lapses)

    async def hold(
        self, budget: Budget, least: int, want: int | None = None, **options: Any
    ) -> Hold:
        """Return a hold that there is enough for."""
        ask = HoldAsk(budget.id, options.pop("subject", ""), least, want or least)
        answer = await self.take([ask], **options)
        assert answer.holds is not None, answer
        (hold,) = answer.holds
        return hold

    async def free(
        self,
        *freed: tuple[str, int],
        life: Life = WORKER,
        is_over: bool = False,
        now_us: int = NOW_US,
    ) -> None:
        """Give back parts of holds, or all of a life."""
        request = FreeRequest(life.producer, life.epoch, freed, is_over=is_over)
        async with self.database.write(ALL) as session:
            await budget_holds.free(session, request, now_us)

    def event(self, number: int, *uses: HoldUse, **members: Any) -> UsageEvent:
        """Return usage of this organization's, admitted now."""
        values = {
            "event_id": f"{self.organization.id[4:]}-{number}",
            "organization": self.organization.id,
            "project": self.project.id,
            "key_id": "key-1",
            "model": "small",
            "started_at_ns": NOW_US * 1_000,
            "holds": uses,
            **members,
        }
        return make_event(number, **values)

    async def deliver(
        self, *events: UsageEvent, life: Life = WORKER, now_us: int = NOW_US
    ) -> UsageReceipt:
        """Store usage and settle it."""
        batch = UsageBatch(life.producer, life.epoch, events)
        delivery = metering.prepare_batch(batch, now_us)
        async with self.database.write(ALL) as session:
            (receipt,) = await metering.record_events(session, ALL, [delivery], self.settlement)
        self.settlement.committed()
        return receipt

    async def windows(self, budget: Budget) -> list[BudgetWindow]:
        """Return what is spent and held of a budget, newest window first."""
        async with self.database.read(ALL) as session:
            found = await budgets.get_budget(session, budget.id)
            return [use.window for use in await budgets.list_uses(session, found)]

    async def window(self, budget: Budget) -> BudgetWindow:
        """Return the only window of a budget."""
        (window,) = await self.windows(budget)
        return window

    async def expire(self, now_us: int) -> int:
        """Let holds of silent workers expire, and count them."""
        total = 0
        while True:
            async with self.database.write(ALL) as session:
                count = await budget_holds.expire(session, now_us)
            if count is None:
                return total
            total += count

    async def differences(self) -> list[WindowKey]:
        """Return the windows that do not say what charges and holds say."""
        found: list[WindowKey] = []
        after = None
        async with self.database.read(Scope.of(self.organization.id)) as session:
            while True:
                page, after = await reconcile(session, after)
                found += page.differences
                if after is None:
                    return found
