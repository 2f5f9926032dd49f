"""Statements that return no row when invoices are right; see `verify_store`.

Their tables are those of a room above: what is written out here leans on nothing of it.
"""

from typing import Final

CHECKS: Final[dict[str, str]] = {
    # What an invoice is booked at is what its charges left unpaid, for those taken back, too.
    "invoice_sum": """
        SELECT invoice_id FROM (
            SELECT c.invoice_id, e.amount, e.amount_rest FROM invoice_transfers c
                JOIN entries e ON e.transfer_id = c.transfer_id
                JOIN ledger_accounts a ON a.id = e.account_id
                WHERE a.kind = 'accrued_usage'
            UNION ALL
            SELECT i.id, e.amount, e.amount_rest FROM invoices i
                JOIN entries e ON e.transfer_id = i.transfer_id
                JOIN ledger_accounts a ON a.id = e.account_id
                WHERE a.kind = 'accrued_usage' AND i.kind = 'invoice'
        ) both_sides GROUP BY invoice_id HAVING IS_NOT_ZERO
    """,
    # It is over charges of its organization, in its currency, until the end of its month.
    "invoice_charge": """
        SELECT c.invoice_id FROM invoice_transfers c
        WHERE NOT EXISTS (SELECT 1 FROM invoices i JOIN transfers t ON t.id = c.transfer_id
            WHERE i.id = c.invoice_id AND i.number IS NOT NULL AND i.kind = 'invoice'
            AND t.kind = 'charge' AND t.currency = i.currency AND t.booked_at < i.until
            AND t.organization_id = i.organization_id AND c.organization_id = i.organization_id)
        GROUP BY c.invoice_id
    """,
    # Each charge is on one that is not taken back, at most; and those of one taken back are free.
    "invoice_once": """
        SELECT transfer_id FROM invoice_transfers WHERE credit_note_id IS NULL
        GROUP BY transfer_id HAVING count(*) > 1
    """,
    "invoice_taken_back": """
        SELECT c.invoice_id FROM invoice_transfers c
            LEFT JOIN invoices n ON n.preceding_id = c.invoice_id
        WHERE (n.id IS NULL AND c.credit_note_id IS NOT NULL)
            OR (n.id IS NOT NULL AND (c.credit_note_id IS NULL OR c.credit_note_id <> n.id))
        GROUP BY c.invoice_id
    """,
    # What was there well before an invoice was issued, and was free then, is on it.
    "invoice_left_out": """
        SELECT t.id FROM transfers t
            JOIN invoices i ON i.organization_id = t.organization_id AND i.currency = t.currency
        WHERE t.kind = 'charge' AND i.kind = 'invoice' AND i.number IS NOT NULL
            AND t.booked_at < i.until AND t.recorded_at + AN_HOUR < i.issued_at
            AND NOT EXISTS (SELECT 1 FROM invoices n WHERE n.preceding_id = i.id)
            AND NOT EXISTS (SELECT 1 FROM invoice_transfers c
                LEFT JOIN invoices n ON n.id = c.credit_note_id
                WHERE c.transfer_id = t.id
                    AND (c.credit_note_id IS NULL OR n.issued_at >= i.issued_at))
        GROUP BY t.id
    """,
    # Numbers are 1 to as many as there are.
    "invoice_number": """
        SELECT last FROM (
            SELECT max(number) AS last, count(*) AS found, count(DISTINCT number) AS different
            FROM invoices WHERE number IS NOT NULL
        ) numbers WHERE found <> last OR different <> last
    """,
    # Nothing is owed any more for what was paid or taken back; and it was not both.
    "invoice_settled": """
        SELECT invoice_id FROM (
            SELECT i.id AS invoice_id, e.amount, e.amount_rest FROM invoices i
                JOIN entries e ON e.transfer_id = i.transfer_id
                JOIN ledger_accounts a ON a.id = e.account_id
                WHERE a.kind = 'receivable' AND i.kind = 'invoice'
                    AND (EXISTS (SELECT 1 FROM invoice_payments p WHERE p.invoice_id = i.id)
                        OR EXISTS (SELECT 1 FROM invoices n WHERE n.preceding_id = i.id))
            UNION ALL
            SELECT n.preceding_id, e.amount, e.amount_rest FROM invoices n
                JOIN entries e ON e.transfer_id = n.transfer_id
                JOIN ledger_accounts a ON a.id = e.account_id
                WHERE a.kind = 'receivable' AND n.kind = 'credit_note'
            UNION ALL
            SELECT p.invoice_id, e.amount, e.amount_rest FROM invoice_payments p
                JOIN entries e ON e.transfer_id = p.transfer_id
                JOIN ledger_accounts a ON a.id = e.account_id
                WHERE a.kind = 'receivable'
        ) all_sides GROUP BY invoice_id HAVING IS_NOT_ZERO
    """,
}
