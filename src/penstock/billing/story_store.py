"""Every SQL statement that follows a request through the books, each within a scope."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, select

from penstock.billing.story_model import Arrival, Billed, BookedLine, Booking, BudgetUse, Rating
from penstock.billing.tables import Invoices, InvoiceTransfers
from penstock.ledger.tables import Entries, LedgerAccounts, Transfers
from penstock.limits.budget_tables import BudgetCharges, Budgets
from penstock.limits.prices import join_amount
from penstock.metering.rules import day_of
from penstock.metering.tables import UsageEvents
from penstock.rating.tables import RatedUsage
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession


async def list_arrivals(
    session: ReadSession, scope: Scope, event_ids: Collection[str]
) -> dict[str, Arrival]:
    """Return how usage came, by event."""
    statement = select(
        UsageEvents.event_id, UsageEvents.producer, UsageEvents.epoch, UsageEvents.recorded_at
    ).where(scope.where(UsageEvents.organization), *_is_one_of(UsageEvents, event_ids))
    return {row[0]: Arrival(*row[1:]) for row in await session.rows(statement)}


async def list_ratings(
    session: ReadSession, scope: Scope, event_ids: Collection[str], kinds: Collection[str]
) -> list[Rating]:
    """Return what events were rated at, in the order in which it was recorded."""
    statement = (
        select(
            RatedUsage.event_id,
            RatedUsage.kind,
            RatedUsage.run_id,
            RatedUsage.currency,
            RatedUsage.price_id,
            RatedUsage.transfer_id,
            RatedUsage.recorded_at,
            RatedUsage.amount,
            RatedUsage.amount_rest,
        )
        .where(
            scope.where(RatedUsage.organization),
            *_is_one_of(RatedUsage, event_ids),
            RatedUsage.kind.in_(kinds),
        )
        .order_by(RatedUsage.recorded_at, RatedUsage.kind, RatedUsage.run_id)
    )
    return [
        Rating(*row[:-2], amount_atto=join_amount(*row[-2:]))
        for row in await session.rows(statement)
    ]


async def list_budget_uses(
    session: ReadSession, scope: Scope, organization: str, event_ids: Collection[str]
) -> list[BudgetUse]:
    """Return what events of one organization cost its budgets."""
    statement = (
        select(
            BudgetCharges.event_id,
            BudgetCharges.budget_id,
            BudgetCharges.subject,
            Budgets.currency,
            BudgetCharges.starts_at,
            BudgetCharges.amount,
            BudgetCharges.amount_rest,
        )
        .join(Budgets, Budgets.id == BudgetCharges.budget_id)
        # Charges are found by budget first: so those of the organization are looked through.
        .where(
            scope.where(BudgetCharges.organization_id),
            scope.where(Budgets.organization_id),
            Budgets.organization_id == organization,
            BudgetCharges.event_id.in_(event_ids),
        )
        .order_by(BudgetCharges.budget_id)
    )
    return [BudgetUse(*row[:5], join_amount(*row[5:])) for row in await session.rows(statement)]


async def list_bookings(
    session: ReadSession, scope: Scope, transfer_ids: Collection[str]
) -> dict[str, Booking]:
    """Return transfers with their entries, in the order of those."""
    statement: Any = (
        select(
            Transfers.id,
            Transfers.kind,
            Transfers.currency,
            Transfers.booked_at,
            Transfers.recorded_at,
            LedgerAccounts.kind,
            LedgerAccounts.qualifier,
            Entries.amount,
            Entries.amount_rest,
        )
        .join(Entries, Entries.transfer_id == Transfers.id)
        .join(LedgerAccounts, LedgerAccounts.id == Entries.account_id)
        .where(scope.where(Transfers.organization_id), Transfers.id.in_(transfer_ids))
        .order_by(Transfers.id, Entries.line)
    )
    found: dict[str, Booking] = {}
    for *transfer, account, qualifier, amount, rest in await session.rows(statement):
        booking = found.setdefault(transfer[0], Booking(*transfer))
        booking.lines.append(BookedLine(account, qualifier, join_amount(amount, rest)))
    return found


async def list_bills(
    session: ReadSession, scope: Scope, transfer_ids: Collection[str]
) -> dict[str, Billed]:
    """Return which invoice, that is not taken back, each of some transfers is on."""
    statement = (
        select(InvoiceTransfers.transfer_id, Invoices.id, Invoices.label, Invoices.issued_at)
        .join(Invoices, Invoices.id == InvoiceTransfers.invoice_id)
        .where(
            scope.where(InvoiceTransfers.organization_id),
            InvoiceTransfers.transfer_id.in_(transfer_ids),
            InvoiceTransfers.credit_note_id.is_(None),
        )
    )
    return {row[0]: Billed(*row) for row in await session.rows(statement)}


def _is_one_of(table: Any, event_ids: Collection[str]) -> tuple[ColumnElement[bool], ...]:
    days = {day_of(event_id) for event_id in event_ids}
    return table.day.in_(days), table.event_id.in_(event_ids)
