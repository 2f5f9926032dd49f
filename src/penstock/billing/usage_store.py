"""Every SQL statement that adds up what charges are made of, each within a scope."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Select, case, func, select

from penstock.billing.model import Invoice, Paid, Usage
from penstock.billing.store import parameters_of
from penstock.ledger.balance_store import SUMS, sums_of, total_of
from penstock.ledger.months import month_of
from penstock.ledger.tables import Entries, LedgerAccounts
from penstock.metering.tables import COUNTED, FIGURE_OF, UsageEvents
from penstock.rating.tables import RatedUsage, UsageCorrections
from penstock.storage.exact_sums import exact_sum, join_halves
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

_ACCOUNTS: Final = {
    "wallet_promo": "promo_atto",
    "wallet_prepaid": "prepaid_atto",
    "accrued_usage": "accrued_atto",
}
_OF_EVENT: Final = (UsageEvents.day == RatedUsage.day) & (
    UsageEvents.event_id == RatedUsage.event_id
)
Place = tuple[str, str, str]
"""Project, model and month."""


async def count_charges(
    session: ReadSession, scope: Scope, charges: Select[Any], invoice: Invoice
) -> int:
    """Return how many transfers some charges are."""
    statement: Select[Any] = select(func.count()).select_from(charges.subquery())
    row: Any = await session.first(statement, parameters_of(scope, invoice))
    return 0 if row is None else int(row[0])


async def sum_paid(
    session: ReadSession, scope: Scope, charges: Select[Any], invoice: Invoice
) -> Paid:
    """Return what charges were booked on, by who paid.

    Args:
        session: Where from.
        scope: Whose.
        charges: `store.UNBILLED` or `store.BILLED`.
        invoice: What these are asked for.
    """
    statement: Any = (
        select(LedgerAccounts.kind, *SUMS)
        .join(LedgerAccounts, LedgerAccounts.id == Entries.account_id)
        .where(
            scope.where(Entries.organization_id),
            Entries.transfer_id.in_(charges),
            LedgerAccounts.kind.in_(_ACCOUNTS),
        )
        .group_by(LedgerAccounts.kind)
    )
    rows: Iterable[Any] = await session.rows(statement, parameters_of(scope, invoice))
    return Paid(**{_ACCOUNTS[kind]: total_of(*sums) for kind, *sums in rows})


async def list_usage(
    session: ReadSession, scope: Scope, charges: Select[Any], invoice: Invoice
) -> list[Usage]:
    """Return what charges are for, by project, model and month of use.

    Quantities are those of events that were rated for the first time, and what corrections changed;
    a second rating has amounts only.

    Args:
        session: Where from.
        scope: Whose.
        charges: `store.UNBILLED` or `store.BILLED`.
        invoice: What these are asked for.
    """
    is_first = RatedUsage.run_id == ""
    place = (UsageEvents.project, UsageEvents.model, _month(session))
    sums = [half for one in COUNTED.values() for half in exact_sum(case((is_first, one), else_=0))]
    statement: Select[Any] = (
        select(
            *place,
            func.count(case((is_first & UsageEvents.first_byte_at.is_not(None), 1))),
            *sums,
            *sums_of(RatedUsage.amount, RatedUsage.amount_rest),
        )
        .join(UsageEvents, _OF_EVENT)
        .where(scope.where(RatedUsage.organization), *_charged(charges))
        .group_by(*place)
    )
    parameters = parameters_of(scope, invoice)
    found = [_usage(row) for row in await session.rows(statement, parameters)]
    deltas = await _list_deltas(session, scope, charges, invoice)
    last = month_of(invoice.since_us)
    return _merge([_correct(one, deltas) for one in found], last)


def _charged(charges: Select[Any]) -> tuple[Any, ...]:
    return RatedUsage.kind == "charge", RatedUsage.transfer_id.in_(charges)


def _month(session: ReadSession) -> Any:
    at = UsageEvents.started_at
    if session.is_postgresql:
        return func.to_char(func.timezone("UTC", at), "YYYY-MM")
    return func.strftime("%Y-%m", at // 1_000_000, "unixepoch")


def _usage(row: Any) -> Usage:
    project, model, month, requests, *figures, high, low, rest = row
    quantities = dict(zip(COUNTED, join_halves(figures), strict=True))
    amount_atto = total_of(high, low, rest)
    return Usage(
        project=project,
        model=model,
        month=month,
        requests=requests,
        amount_atto=amount_atto,
        **quantities,
    )


async def _list_deltas(
    session: ReadSession, scope: Scope, charges: Select[Any], invoice: Invoice
) -> dict[Place, dict[str, int]]:
    """Return what corrections that are charged or given back changed of quantities."""
    statement: Select[Any] = (
        select(UsageEvents.project, UsageEvents.model, _month(session), UsageCorrections.deltas)
        .join(RatedUsage, RatedUsage.run_id == UsageCorrections.id)
        .join(UsageEvents, _OF_EVENT)
        .where(scope.where(UsageCorrections.organization), *_charged(charges))
    )
    found: defaultdict[Place, dict[str, int]] = defaultdict(dict)
    rows: Iterable[Any] = await session.rows(statement, parameters_of(scope, invoice))
    for project, model, month, deltas in rows:
        sums = found[project, model, month]
        for meter, delta in deltas.items():
            name = FIGURE_OF[meter]
            sums[name] = sums.get(name, 0) + delta
    return found


def _correct(usage: Usage, deltas: dict[Place, dict[str, int]]) -> Usage:
    changed = deltas.get((usage.project, usage.model, usage.month), {})
    return replace(usage, **{name: getattr(usage, name) + one for name, one in changed.items()})


def _merge(usages: Iterable[Usage], last: str) -> list[Usage]:
    """Put what a node whose clock is ahead says of months to come into the last one."""
    merged: dict[Place, Usage] = {}
    for one in usages:
        month = min(one.month, last)
        place = (one.project, one.model, month)
        other = merged.get(place)
        sums = {
            name: getattr(one, name) + (0 if other is None else getattr(other, name))
            for name in ("requests", *COUNTED, "amount_atto")
        }
        merged[place] = replace(one, month=month, **sums)
    return list(merged.values())
