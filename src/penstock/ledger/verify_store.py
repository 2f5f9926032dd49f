"""Statements that return no row when the books are right; each over all organizations.

They are written out, for they must not lean on what they check. Amounts are added up in halves of
32 bits and rests of nano-units, so that no database passes 63 bits or rounds; parts of halves that
are carried over are whole, or the sum is not 0.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import TextClause, text

from penstock.ledger.model import Violation
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

# In halves of amounts and in rests: see above.
STATEMENT_TIMEOUT_MS: Final = 600_000
"""How long one of them may run on PostgreSQL."""
_REST = "CAST(sum(amount_rest) AS BIGINT)"
_HIGH = "CAST(sum(amount / 4294967296) AS BIGINT)"
_LOW = f"(CAST(sum(amount % 4294967296) AS BIGINT) + {_REST} / 1000000000)"
_IS_NOT_ZERO: Final = (
    f"({_REST} % 1000000000 <> 0 OR {_LOW} % 4294967296 <> 0 OR {_HIGH} + {_LOW} / 4294967296 <> 0)"
)

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
        SELECT currency FROM entries GROUP BY currency HAVING IS_NOT_ZERO
    """,
    "entry_transfer": """
        SELECT e.transfer_id FROM entries e LEFT JOIN transfers t ON t.id = e.transfer_id
        WHERE t.id IS NULL OR t.currency <> e.currency OR t.booked_at <> e.booked_at
            OR t.organization_id <> e.organization_id OR t.lines <> e.lines
    """,
    "entry_account": """
        SELECT e.transfer_id FROM entries e LEFT JOIN ledger_accounts a ON a.id = e.account_id
        WHERE a.id IS NULL OR a.currency <> e.currency
            OR a.organization_id <> e.organization_id
    """,
    "idempotency_key": """
        SELECT max(id) FROM transfers
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
    # of charges, what providers get of costs. One pass, for there are many rows.
    "rated": """
        SELECT transfer_id FROM (
            SELECT transfer_id, kind, organization, currency, 0 AS is_booked, amount, amount_rest
                FROM rated_usage WHERE transfer_id IS NOT NULL
            UNION ALL
            SELECT e.transfer_id, t.kind, t.organization_id, t.currency, 1, e.amount, e.amount_rest
                FROM entries e
                JOIN transfers t ON t.id = e.transfer_id
                JOIN ledger_accounts a ON a.id = e.account_id
                WHERE (t.kind = 'charge' AND a.kind = 'revenue')
                    OR (t.kind = 'cost' AND a.kind = 'provider_payable')
        ) both_sides GROUP BY transfer_id
        HAVING max(is_booked) = 0 OR min(kind) <> max(kind) OR min(currency) <> max(currency)
            OR min(organization) <> max(organization) OR IS_NOT_ZERO
    """,
    # A batch whose charges add up to 0 has no transfer.
    "rated_unbooked": """
        SELECT organization FROM rated_usage
        WHERE transfer_id IS NULL AND (amount <> 0 OR amount_rest <> 0)
        GROUP BY organization, currency, kind HAVING IS_NOT_ZERO
    """,
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
            SELECT b.id, w.balance AS amount, w.balance_rest AS amount_rest
                FROM budgets b JOIN budget_windows w ON w.budget_id = b.id
                WHERE b.is_wallet
            UNION ALL
            SELECT b.id, e.amount, e.amount_rest FROM budgets b
                JOIN ledger_accounts a ON a.organization_id = b.organization_id
                    AND a.currency = b.currency AND a.kind IN ('wallet_prepaid', 'wallet_promo')
                JOIN entries e ON e.account_id = a.id
                WHERE b.is_wallet
        ) both_sides GROUP BY id HAVING IS_NOT_ZERO
    """,
    # It is below 0 by no more than what is recorded to have been taken beyond what was free.
    "wallet_causes": """
        SELECT w.budget_id FROM budgets b
            JOIN budget_windows w ON w.budget_id = b.id
            LEFT JOIN (
                SELECT organization_id, currency, CAST(sum(amount) AS BIGINT) AS amount,
                    CAST(sum(amount_rest) AS BIGINT) AS rest
                FROM wallet_overdrafts GROUP BY organization_id, currency
            ) o ON o.organization_id = b.organization_id AND o.currency = b.currency
        WHERE b.is_wallet AND w.balance < 0 AND w.balance + coalesce(o.amount, 0)
            + (w.balance_rest + coalesce(o.rest, 0)) / 1000000000 < 0
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
}
NAMES: Final = tuple(_CHECKS)
_TUNING: Final = {
    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
    "work_mem": "128MB",
    "enable_sort": "off",
    "enable_mergejoin": "off",
}
"""PostgreSQL takes walls for narrow, and would sort or look up row by row what is better hashed."""
_BY_INDEX: Final = frozenset({"snapshot"})
"""Checks that look a part of many rows up."""


def _statement(name: str) -> TextClause:
    # Ours from beginning to end: nothing of a caller's is in it.
    check = _CHECKS[name].replace("IS_NOT_ZERO", _IS_NOT_ZERO)
    return text(f"SELECT * FROM ({check}) found LIMIT :most")  # noqa: S608 - as above


async def find_violations(
    session: ReadSession, scope: Scope, name: str, most: int
) -> Sequence[Violation]:
    """Return rows that one of `NAMES` should not find, `most` at most."""
    if scope.organization is not None:
        message = "the books are checked as a whole"
        raise PermissionError(message)
    nested = "on" if name in _BY_INDEX else "off"
    await session.tune(**_TUNING, enable_nestloop=nested)
    rows = await session.rows(_statement(name), {"most": most})  # type: ignore[arg-type,var-annotated]  # written out
    return [Violation(name, str(row[0])) for row in rows]
