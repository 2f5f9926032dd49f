"""Statements that return no row when the books are right; each over all organizations.

They are written out, for they must not lean on what they check. Amounts are added up in halves of
32 bits and rests of nano-units, so that no database passes 63 bits or rounds; parts of halves that
are carried over are whole, or the sum is not 0.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import TextClause, text

from penstock.ledger import verify_bills
from penstock.ledger.model import Violation
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

STATEMENT_TIMEOUT_MS: Final = 600_000
"""How long a statement may run on PostgreSQL that reads books as a whole."""
# In halves of amounts and in rests: see above.
_REST = "CAST(sum({rest}) AS BIGINT)"
_HIGH = "CAST(sum({high}) AS BIGINT)"
_LOW = f"(CAST(sum({{low}}) AS BIGINT) + {_REST} / 1000000000)"
_NOT_ZERO: Final = (
    f"({_REST} % 1000000000 <> 0 OR {_LOW} % 4294967296 <> 0 OR {_HIGH} + {_LOW} / 4294967296 <> 0)"
)
_IS_NEGATIVE: Final = (
    f"({_HIGH} + {_LOW} / 4294967296 < 0 "
    f"OR ({_HIGH} + {_LOW} / 4294967296 = 0 AND {_LOW} % 4294967296 < 0))"
)
_PARTS: Final = {"high": "amount / 4294967296", "low": "amount % 4294967296", "rest": "amount_rest"}
# 10**18 nano-units are so many halves and so much.
_LARGE: Final = {
    "high": "amount / 4294967296 + amount_high * 232830643",
    "low": "amount % 4294967296 + amount_high * 2808348672",
    "rest": "amount_rest",
}
_WORDS: Final = {
    "LARGE_IS_NOT_ZERO": _NOT_ZERO.format(**_LARGE),
    "LARGE_IS_NEGATIVE": _IS_NEGATIVE.format(**_LARGE),
    "PARTS_ARE_NOT_ZERO": _NOT_ZERO.format(high="high", low="low", rest="rest"),
    "IS_NOT_ZERO": _NOT_ZERO.format(**_PARTS),
    "SUMS_OF_PARTS": ", ".join(
        f"CAST(sum({part}) AS BIGINT) AS {name}" for name, part in _PARTS.items()
    ),
    "PARTS": ", ".join(f"{part} AS {name}" for name, part in _PARTS.items()),
}
"""What words of the statements below stand for; longer ones first, for they hold others."""
_PROJECTS: Final = "project, "
_KEYS: Final = f"{_PROJECTS}key_id, "
"""What some figures are kept by besides models."""


def _compare(table: str, other: str, at: str, more: str) -> str:
    """Return what finds figures that are not the sums of finer ones, by `more` besides."""
    names = f"organization, {more}model, data_class, currency, kind"
    return f"""
        SELECT organization FROM (
            SELECT {names}, at, amount_high, amount, amount_rest FROM {table}
            UNION ALL
            SELECT {names}, {at}, -amount_high, -amount, -amount_rest FROM {other}
        ) both_sides GROUP BY {names}, at HAVING LARGE_IS_NOT_ZERO
    """  # noqa: S608 - names of ours


_CHECKS: Final[dict[str, str]] = {
    # Σ of the entries of each transfer, and as many as it says.
    "transfer_sum": """
        SELECT transfer_id FROM entries GROUP BY transfer_id HAVING IS_NOT_ZERO
    """,
    "transfer_lines": """
        SELECT t.id FROM transfers t LEFT JOIN
            (SELECT transfer_id, count(*) AS found FROM entries GROUP BY transfer_id) e
            ON e.transfer_id = t.id
        WHERE e.found IS NULL OR e.found <> t.lines
    """,
    "currency_sum": """
        SELECT currency FROM (SELECT DISTINCT currency FROM ledger_accounts) known
        WHERE (SELECT IS_NOT_ZERO FROM entries e WHERE e.currency = known.currency)
    """,
    "entry_transfer": """
        SELECT e.transfer_id FROM entries e
        WHERE NOT EXISTS (SELECT 1 FROM transfers t WHERE t.id = e.transfer_id
            AND t.currency = e.currency AND t.booked_at = e.booked_at
            AND t.organization_id = e.organization_id AND t.lines = e.lines)
    """,
    "entry_account": """
        SELECT e.transfer_id FROM entries e
        WHERE NOT EXISTS (SELECT 1 FROM ledger_accounts a WHERE a.id = e.account_id
            AND a.currency = e.currency AND a.organization_id = e.organization_id)
    """,
    "idempotency_key": """
        SELECT idempotency_key FROM transfers
        GROUP BY organization_id, kind, idempotency_key HAVING count(*) > 1
    """,
    # What is left of a grant is what it was less what its entries took.
    "grant_remaining": """
        SELECT id FROM (
            SELECT id, remaining AS amount, remaining_rest AS amount_rest FROM credit_grants
            UNION ALL
            SELECT grant_id, amount, amount_rest FROM entries WHERE grant_id IS NOT NULL
        ) both_sides GROUP BY id HAVING IS_NOT_ZERO
    """,
    "grant_amount": """
        SELECT id FROM (
            SELECT id, amount, amount_rest FROM credit_grants
            UNION ALL
            SELECT e.grant_id, e.amount, e.amount_rest FROM entries e
                JOIN transfers t ON t.id = e.transfer_id
                WHERE e.grant_id IS NOT NULL AND t.kind = 'grant'
        ) both_sides GROUP BY id HAVING IS_NOT_ZERO
    """,
    "grant_bounds": """
        SELECT id FROM credit_grants
        WHERE remaining < 0 OR remaining_rest NOT BETWEEN 0 AND 999999999
            OR remaining > amount OR (remaining = amount AND remaining_rest > amount_rest)
    """,
    "grant_account": """
        SELECT e.transfer_id FROM entries e
            LEFT JOIN credit_grants g ON g.id = e.grant_id
            LEFT JOIN ledger_accounts a ON a.id = e.account_id
        WHERE e.grant_id IS NOT NULL AND (g.id IS NULL OR g.currency <> e.currency
            OR g.organization_id <> e.organization_id
            OR a.kind <> CASE g.kind WHEN 'promo' THEN 'wallet_promo' ELSE 'wallet_prepaid' END)
    """,
    # What was rated is what was booked, for the same organization and in the same currency: revenue
    # of charges, what providers get of costs. One pass in order of transfers, for there are many
    # rows: SQLite would sort them otherwise, and a text put together for each takes it half as long
    # again as three pairs of ends.
    "rated": """
        SELECT transfer_id FROM (
            SELECT transfer_id, min(kind) AS kind, max(kind) AS last_kind,
                min(organization) AS organization, max(organization) AS last_organization,
                min(currency) AS currency, max(currency) AS last_currency,
                0 AS is_booked, SUMS_OF_PARTS
                FROM rated_usage WHERE transfer_id IS NOT NULL GROUP BY transfer_id
            UNION ALL
            SELECT e.transfer_id, t.kind, t.kind, t.organization_id, t.organization_id,
                t.currency, t.currency, 1, PARTS
                FROM entries e
                JOIN transfers t ON t.id = e.transfer_id
                JOIN ledger_accounts a ON a.id = e.account_id
                WHERE (t.kind = 'charge' AND a.kind = 'revenue')
                    OR (t.kind = 'cost' AND a.kind = 'provider_payable')
        ) both_sides GROUP BY transfer_id
        HAVING max(is_booked) = 0 OR min(kind) <> max(last_kind)
            OR min(currency) <> max(last_currency)
            OR min(organization) <> max(last_organization) OR PARTS_ARE_NOT_ZERO
    """,
    # A batch whose charges add up to 0 has no transfer.
    "rated_unbooked": """
        SELECT organization FROM rated_usage
        WHERE transfer_id IS NULL AND (amount <> 0 OR amount_rest <> 0)
        GROUP BY organization, currency, kind HAVING IS_NOT_ZERO
    """,
    # Figures of charges and costs: those of months are what is booked, the others fold into them.
    "charge_months": """
        SELECT organization FROM (
            SELECT organization, currency, kind, amount_high, amount, amount_rest FROM charge_months
            UNION ALL
            SELECT t.organization_id, t.currency, t.kind, 0, e.amount, e.amount_rest
                FROM ledger_accounts a
                JOIN entries e ON e.account_id = a.id
                JOIN transfers t ON t.id = e.transfer_id
                WHERE (t.kind = 'charge' AND a.kind = 'revenue')
                    OR (t.kind = 'cost' AND a.kind = 'provider_payable')
        ) both_sides GROUP BY organization, currency, kind HAVING LARGE_IS_NOT_ZERO
    """,
    "charge_days": _compare("charge_months", "charge_days", "MONTH_OF_AT", _KEYS),
    "charge_eighths": _compare("charge_days", "charge_eighths", "DAY_OF_AT", _KEYS),
    "charge_quarters": _compare("charge_eighths", "charge_quarters", "EIGHTH_OF_AT", _KEYS),
    "charge_project_days": _compare("charge_project_days", "charge_days", "at", _PROJECTS),
    "charge_project_eighths": _compare(
        "charge_project_days", "charge_project_eighths", "DAY_OF_AT", _PROJECTS
    ),
    "charge_project_quarters": _compare(
        "charge_project_eighths", "charge_project_quarters", "EIGHTH_OF_AT", _PROJECTS
    ),
    "charge_model_eighths": _compare("charge_model_eighths", "charge_project_eighths", "at", ""),
    "charge_model_quarters": _compare("charge_model_quarters", "charge_project_quarters", "at", ""),
    # Each snapshot is the one before it and what was booked between them.
    "snapshot": """
        SELECT account_id FROM (
            SELECT s.account_id, s.at, -s.amount AS amount, -s.amount_rest AS amount_rest
                FROM balance_snapshots s
            UNION ALL
            SELECT s.account_id, s.at, b.amount, b.amount_rest
                FROM (SELECT account_id, at,
                        lag(at) OVER (PARTITION BY account_id ORDER BY at) AS before
                    FROM balance_snapshots) s
                JOIN balance_snapshots b ON b.account_id = s.account_id AND b.at = s.before
            UNION ALL
            SELECT s.account_id, s.at, e.amount, e.amount_rest
                FROM (SELECT account_id, at,
                        lag(at) OVER (PARTITION BY account_id ORDER BY at) AS before
                    FROM balance_snapshots) s
                JOIN entries e ON e.account_id = s.account_id AND e.booked_at < s.at
                    AND (s.before IS NULL OR e.booked_at >= s.before)
        ) both_sides GROUP BY account_id, at HAVING IS_NOT_ZERO
    """,
    # A wallet that counts has what its accounts say.
    "wallet_balance": """
        SELECT id FROM (
            SELECT b.id, w.balance_high AS amount_high, w.balance AS amount,
                    w.balance_rest AS amount_rest
                FROM budgets b JOIN budget_windows w ON w.budget_id = b.id
                WHERE b.is_wallet
            UNION ALL
            SELECT b.id, 0, e.amount, e.amount_rest FROM budgets b
                JOIN ledger_accounts a ON a.organization_id = b.organization_id
                    AND a.currency = b.currency AND a.kind IN ('wallet_prepaid', 'wallet_promo')
                JOIN entries e ON e.account_id = a.id
                WHERE b.is_wallet
        ) both_sides GROUP BY id HAVING LARGE_IS_NOT_ZERO
    """,
    # It is below 0 by no more than what is recorded to have been taken beyond what was free.
    "wallet_causes": """
        SELECT id FROM (
            SELECT b.id, w.balance_high AS amount_high, w.balance AS amount,
                    w.balance_rest AS amount_rest
                FROM budgets b JOIN budget_windows w ON w.budget_id = b.id
                WHERE b.is_wallet
            UNION ALL
            SELECT b.id, o.amount_high, o.amount, o.amount_rest FROM budgets b
                JOIN wallet_overdrafts o ON o.organization_id = b.organization_id
                    AND o.currency = b.currency
                WHERE b.is_wallet
        ) both_sides GROUP BY id HAVING LARGE_IS_NEGATIVE
    """,
    # The wallet of an organization counts if it is prepaid, in that currency, and else not.
    "wallet_terms": """
        SELECT organization_id FROM (
            SELECT t.organization_id, t.currency, 1 AS is_wanted FROM billing_terms t
                JOIN organizations o ON o.id = t.organization_id WHERE t.mode = 'prepaid'
            UNION ALL
            SELECT organization_id, currency, -1 FROM budgets WHERE is_wallet
        ) both_sides GROUP BY organization_id, currency HAVING sum(is_wanted) <> 0
    """,
    **verify_bills.CHECKS,
}
NAMES: Final = tuple(_CHECKS)
_SLOW: Final = (
    "rated",
    "charge_quarters",
    "charge_months",
    "transfer_lines",
    "entry_transfer",
    "transfer_sum",
    "charge_project_quarters",
    "charge_model_quarters",
    "charge_eighths",
    "charge_project_eighths",
    "charge_model_eighths",
)
LONGEST_FIRST: Final = (*_SLOW, *(name for name in NAMES if name not in _SLOW))
"""In this order none is left that takes long when all others have ended."""
_TUNING: Final = {
    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
    "work_mem": "128MB",
    "enable_sort": "off",
    "enable_incremental_sort": "off",
    "enable_mergejoin": "off",
}
"""PostgreSQL takes walls for narrow, and would sort or look up row by row what is better hashed."""
_BY_INDEX: Final = frozenset({"snapshot"})
"""Checks that look a part of many rows up; the others read whole tables, in the disk's order."""
_LOOK_UPS: Final = (
    "enable_nestloop",
    "enable_indexscan",
    "enable_indexonlyscan",
    "enable_bitmapscan",
)


_TIMES: Final = {
    True: {
        "MONTH_OF_AT": "date_trunc('month', at, 'UTC')",
        "DAY_OF_AT": "date_trunc('day', at, 'UTC')",
        "EIGHTH_OF_AT": "date_bin('3 hours', at, TIMESTAMPTZ '1970-01-01 00:00:00+00')",
        "AN_HOUR": "INTERVAL '1 hour'",
    },
    False: {
        "MONTH_OF_AT": (
            "CAST(strftime('%s', at / 1000000, 'unixepoch', 'start of month') AS INTEGER) * 1000000"
        ),
        "DAY_OF_AT": "at - at % 86400000000",
        "EIGHTH_OF_AT": "at - at % 10800000000",
        "AN_HOUR": "3600000000",
    },
}
"""When a month, a day and its eighths begin, and how long an hour is: PostgreSQL, and SQLite."""


def _statement(name: str, *, is_postgresql: bool) -> TextClause:
    # Ours from beginning to end: nothing of a caller's is in it.
    check = _CHECKS[name]
    for word, meaning in {**_WORDS, **_TIMES[is_postgresql]}.items():
        check = check.replace(word, meaning)
    return text(f"SELECT * FROM ({check}) found LIMIT :most")  # noqa: S608 - as above


async def find_violations(
    session: ReadSession, scope: Scope, name: str, most: int
) -> Sequence[Violation]:
    """Return rows that one of `NAMES` should not find, `most` at most."""
    if scope.organization is not None:
        message = "the books are checked as a whole"
        raise PermissionError(message)
    look_ups = dict.fromkeys(_LOOK_UPS, "on" if name in _BY_INDEX else "off")
    await session.tune(**_TUNING, **look_ups)
    statement: Any = _statement(name, is_postgresql=session.is_postgresql)
    rows = await session.rows(statement, {"most": most})
    return [Violation(name, str(row[0])) for row in rows]
