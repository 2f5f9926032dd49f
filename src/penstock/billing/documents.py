"""What an invoice says: one JSON text, which is kept, hashed, shown and made XML of."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from penstock.billing.model import Bill, Content, Invoice, Issuer, Line, Recipient
from penstock.kit.decimals import format_decimal
from penstock.ledger.money import digits_of, show_exact

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_QUANTITIES = ("requests", "input_tokens", "output_tokens", "images", "audio_seconds", "characters")
BPS_PLACES = 2
"""Decimals of a rate in percent."""


def day_of(at_us: int) -> str:
    """Return the day of a moment, in UTC.

    >>> day_of(1_781_524_800_000_001)
    '2026-06-15'
    """
    return f"{_EPOCH + timedelta(microseconds=at_us):%Y-%m-%d}"


def format_minor(amount: int, currency: str) -> str:
    """Return an amount on paper with all its decimals.

    >>> format_minor(-120, "EUR"), format_minor(7, "JPY")
    ('-1.20', '7')
    """
    digits = digits_of(currency)
    whole, part = divmod(abs(amount), 10**digits)
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole}.{part:0{digits}}" if digits else f"{sign}{whole}"


def describe(invoice: Invoice, bill: Bill) -> dict[str, Any]:
    """Return what a draft says: what was used and what it comes to."""
    currency = bill.currency

    def paper(amount: int) -> str:
        return format_minor(amount, currency)

    return {
        "kind": invoice.kind,
        "organization_id": invoice.organization_id,
        "currency": currency,
        "since": day_of(invoice.since_us),
        "until": day_of(invoice.until_us - 1),
        "lines": [_line(line, currency) for line in bill.lines],
        "credit": {
            "promo": show_exact(bill.paid.promo_atto),
            "prepaid": show_exact(bill.paid.prepaid_atto),
            "net": paper(bill.credit),
        },
        "accrued": show_exact(bill.paid.accrued_atto),
        "rounding": show_exact(bill.rounding_atto),
        "vat": {
            "category": bill.vat.category,
            "rate": format_decimal(bill.vat.rate_bps, BPS_PLACES),
            "reason": bill.vat.reason,
        },
        "net": paper(bill.net),
        "tax": paper(bill.tax),
        "gross": paper(bill.gross),
    }


def _line(line: Line, currency: str) -> dict[str, Any]:
    usage = line.usage
    return {
        "project_id": usage.project,
        "model": usage.model,
        "month": usage.month,
        "quantities": {name: getattr(usage, name) for name in _QUANTITIES if getattr(usage, name)},
        "amount": show_exact(usage.amount_atto),
        "net": format_minor(line.net, currency),
    }


def finish(
    content: Content,
    issuer: Issuer,
    recipient: Recipient,
    *,
    label: str,
    now_us: int,
    transfers: int,
) -> dict[str, Any]:
    """Return what an issued invoice says: a draft, with who it is from and to.

    Args:
        content: What the draft says.
        issuer: From whom.
        recipient: To whom.
        label: Its number, as it is written.
        now_us: The time.
        transfers: How many transfers of charges it is over.
    """
    due = _EPOCH + timedelta(microseconds=now_us, days=issuer.payment_days)
    return {
        **content,
        "number": label,
        "issued_on": day_of(now_us),
        "due_on": f"{due:%Y-%m-%d}",
        "payment_note": issuer.payment_note,
        "seller": asdict(issuer.party),
        "buyer": asdict(recipient.party),
        "leitweg_id": recipient.leitweg_id,
        "transfers": transfers,
    }


def take_back(content: Content, *, label: str, now_us: int) -> dict[str, Any]:
    """Return what the credit note of an invoice says: the same, taken back."""
    day = day_of(now_us)
    preceding = {"number": content["number"], "issued_on": content["issued_on"]}
    own = {"kind": "credit_note", "number": label, "issued_on": day, "due_on": day}
    return {**content, **own, "preceding": preceding}


def write_canonical(content: Mapping[str, Any]) -> str:
    """Return JSON that is the same for the same content: names sorted, no spaces, no escapes."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def said_of(invoice: Invoice) -> dict[str, Any]:
    """Return what an issued invoice says."""
    content: dict[str, Any] = json.loads(invoice.content or "{}")
    return content


def hash_of(text: str) -> str:
    """Return the SHA-256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()
