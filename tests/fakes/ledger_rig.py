"""Books to test with: what is booked, and what raw SQL makes of it."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from sqlalchemy import text
from tests.fakes.organizations import ALL, NOW_US

from penstock.ledger.balances import list_balances
from penstock.ledger.credits import book_grant
from penstock.ledger.model import Balance, Grant, GrantKind, Mode, UsagePosting
from penstock.ledger.service import post_usage
from penstock.ledger.tables import BillingTerms
from penstock.ledger.verifying import verify
from penstock.limits.prices import ATTO, split_amount
from penstock.limits.wallets import move_wallets
from penstock.metering.bucket_rules import DAY_US, bucket_start
from penstock.rating.rated_store import add_charged
from penstock.rating.tables import RatedUsage
from penstock.storage.database import Database
from penstock.storage.scope import Scope


def posting(
    charge: object = 0,
    *,
    cost: object = 0,
    organization: str = "acme",
    currency: str = "EUR",
    at_us: int = NOW_US,
    reverses: str | None = None,
) -> UsagePosting:
    """Return what usage cost, of decimals such as "1.5"."""
    return UsagePosting(organization, currency, atto(charge), atto(cost), at_us, reverses)


def atto(amount: object) -> int:
    """Return a decimal in atto-units."""
    whole = Fraction(str(amount)) * ATTO
    assert whole.denominator == 1
    return whole.numerator


async def post(
    database: Database, *postings: UsagePosting, key: str = "k", recorded_at_us: int = NOW_US
) -> dict[tuple[str, str, str], str]:
    """Book usage in a transaction of its own."""
    async with database.write(ALL) as session:
        posted = await post_usage(session, postings, key=key, recorded_at_us=recorded_at_us)
        await move_wallets(session, posted.moves, "unheld", recorded_at_us)
    return dict(posted.transfers)


async def add_grant(
    database: Database,
    grant_id: str,
    amount: object,
    *,
    organization: str = "acme",
    currency: str = "EUR",
    kind: GrantKind = "promo",
    priority: int = 5,
    expires_at_us: int | None = None,
    created_at_us: int = NOW_US,
) -> Grant:
    """Give credit in a transaction of its own."""
    grant = Grant(
        id=grant_id,
        organization=organization,
        currency=currency,
        kind=kind,
        priority=priority,
        expires_at_us=expires_at_us,
        amount_atto=atto(amount),
        remaining_atto=atto(amount),
        created_at_us=created_at_us,
    )
    async with database.write(ALL) as session:
        await book_grant(session, grant, key=grant_id, recorded_at_us=created_at_us)
    return grant


async def set_mode(
    database: Database, mode: Mode, *, organization: str = "acme", currency: str = "EUR"
) -> None:
    """Say how an organization pays."""
    row = {"organization_id": organization, "currency": currency, "mode": mode, "version": 1}
    async with database.write(ALL) as session:
        await session.insert(BillingTerms, row | {"created_at": NOW_US, "updated_at": NOW_US})


async def run_sql(database: Database, *statements: str) -> Sequence[Any]:
    """Run SQL with nothing of ours in between, in one transaction, and return the last rows."""
    async with database.write(ALL) as session:
        for statement in statements:
            result = await session._connection.execute(text(statement))
        return result.all() if result.returns_rows else []


async def read_amounts(database: Database, organization: str = "acme") -> dict[str, Fraction]:
    """Return what is on the accounts of an organization, by kind, added up without our code."""
    rows = await run_sql(
        database,
        "SELECT a.kind, sum(e.amount), sum(e.amount_rest) FROM entries e "  # noqa: S608 - a test's own
        "JOIN ledger_accounts a ON a.id = e.account_id "
        f"WHERE e.organization_id = '{organization}' GROUP BY a.kind",
    )
    return {
        kind: Fraction(int(nano), 10**9) + Fraction(int(rest), 10**18) for kind, nano, rest in rows
    }


async def post_rated(
    database: Database, *postings: UsagePosting, key: str = "k", recorded_at_us: int = NOW_US
) -> dict[tuple[str, str, str], str]:
    """Book usage, and store what was rated of it: for each amount one row."""
    async with database.write(ALL) as session:
        posted = await post_usage(session, postings, key=key, recorded_at_us=recorded_at_us)
        booked = dict(posted.transfers)
        rows = [
            rated_row(f"{key}-{place}", one, kind, booked, recorded_at_us)
            for place, one in enumerate(postings)
            for kind in ("charge", "cost")
        ]
        await session.insert(RatedUsage, *rows)
        await add_charged(session, ALL, _hours_of(postings, key), {})
        await move_wallets(session, posted.moves, "unheld", recorded_at_us)
    return booked


def _hours_of(postings: Sequence[UsagePosting], key: str) -> dict[tuple[Any, ...], int]:
    """Return figures of hours, each posting in a project of its own: no sum is too large."""
    return {
        (
            *(one.organization, f"{key}-{place}", "key", "small", ""),
            *(one.currency, kind, bucket_start("hour", one.at_us)),
        ): amount_atto
        for place, one in enumerate(postings)
        for kind, amount_atto in (("charge", one.charge_atto), ("cost", one.cost_atto))
    }


def rated_row(
    event_id: str,
    one: UsagePosting,
    kind: str,
    booked: Mapping[tuple[str, str, str], str],
    recorded_at_us: int = NOW_US,
) -> dict[str, Any]:
    """Return the row of what a part of a posting was rated at."""
    amount, rest = split_amount(one.charge_atto if kind == "charge" else one.cost_atto)
    return {
        "day": one.at_us // DAY_US,
        "event_id": event_id,
        "kind": kind,
        "run_id": "",
        "organization": one.organization,
        "currency": one.currency,
        "price_id": "prc_1",
        "amount": amount,
        "amount_rest": rest,
        "transfer_id": booked.get((one.organization, one.currency, kind)),
        "reverses": None,
        "recorded_at": recorded_at_us,
    }


async def balance_of(
    database: Database, before_us: int, organization: str = "acme"
) -> Balance | None:
    """Return the balance in euros as of a moment, or None when there is none."""
    async with database.read(Scope.of(organization)) as session:
        found = await list_balances(session, organization, before_us)
    return next((one for one in found if one.currency == "EUR"), None)


async def find_violations(database: Database) -> set[str]:
    """Return the names of checks that find something."""
    return {one.check for one in await verify(lambda: database.read(ALL, is_long=True))}
