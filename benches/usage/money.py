"""Hard budgets and wallets of the organizations that usage is of, and what workers hold of them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import text
from tests.fakes.organizations import ALL, actor, create_organization

from penstock.contract.money import NANO, HoldAsk, HoldRequest, HoldUse
from penstock.ledger.credits import set_terms, top_up
from penstock.ledger.prepaying import find_lapses
from penstock.limits import budget_holds, budgets
from penstock.limits.budget_model import NewBudget
from penstock.limits.model import Owner
from penstock.limits.prices import ATTO
from penstock.storage.database import Database

Holds: TypeAlias = Mapping[str, Mapping[str, tuple[HoldUse, ...]]]
"""What an event names, by producer and organization."""
EPOCH = 1
"""Of the one life of each producer."""
_AMOUNT = 1_000_000
"""Of each budget and wallet, EUR: more than is ever used."""
_HELD = 1_000
"""Of each, by each producer."""
_WORST_NANO = 10_000_000
"""What one request holds: more than any of them costs."""


async def make_money(location: Path | str, count: int, producers: Sequence[str]) -> Holds:
    """Return holds of organizations that have a hard budget and are prepaid, all made here."""
    database = Database(location)
    await database.open()
    holds: dict[str, dict[str, tuple[HoldUse, ...]]] = {name: {} for name in producers}
    for number in range(count):
        organization = (await create_organization(database, f"bench-{number}")).id
        await _pay_ahead(database, organization)
        for producer in producers:
            holds[producer][organization] = await _hold(database, organization, producer)
    await database.close()
    return holds


async def _pay_ahead(database: Database, organization: str) -> None:
    async with database.write(ALL) as session:
        owner = Owner(organization_id=organization, owner_kind="organization")
        new = NewBudget(owner=owner, currency="EUR", amount=_AMOUNT * NANO, is_hard=True)
        await budgets.create_budget(session, actor(), new)
        await set_terms(session, actor(), organization, currency="EUR", mode="prepaid")
        await top_up(
            session,
            actor(),
            organization_id=organization,
            amount_atto=_AMOUNT * ATTO,
            currency="EUR",
            reference="bench",
            default="EUR",
        )


async def _hold(database: Database, organization: str, producer: str) -> tuple[HoldUse, ...]:
    every: Any = text("SELECT id FROM budgets WHERE organization_id = :organization ORDER BY id")
    async with database.write(ALL) as session:
        ids = [str(row[0]) for row in await session.rows(every, {"organization": organization})]
        request = HoldRequest(
            producer=producer,
            epoch=EPOCH,
            take_id=f"{producer}-{organization}",
            organization=organization,
            asks=tuple(HoldAsk(one, "", _HELD * NANO, _HELD * NANO) for one in ids),
        )
        now_us = time.time_ns() // 1_000
        answer = await budget_holds.hold(session, request, now_us, find_lapses)
    if answer.holds is None or len(ids) != 2:
        message = f"nothing is held: {answer}"
        raise RuntimeError(message)
    return tuple(HoldUse(one.id, _WORST_NANO) for one in answer.holds)
