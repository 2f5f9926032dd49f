"""Tables of billing.

What was issued is never changed: the database refuses it, and to take it away. A draft has no
number yet. Amounts on paper are whole minor units; what was charged has two columns, as everywhere.
"""

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from penstock.storage.base import Base, Json, Microseconds, Versioned

_IS_DRAFT = text("number IS NULL")
_IS_LIVE = text("credit_note_id IS NULL")


class BillingParties(Versioned, Base):
    """Who invoices are from (`organization_id` is empty) and to."""

    __tablename__ = "billing_parties"

    organization_id: Mapped[str] = mapped_column(primary_key=True)
    particulars: Mapped[Any] = mapped_column(Json)


class Invoices(Base):
    """Invoices, credit notes and drafts. With its number a row gets all the rest, for good."""

    __tablename__ = "invoices"
    __table_args__ = (
        CheckConstraint(
            "number IS NULL OR (number > 0 AND label IS NOT NULL AND issued_at IS NOT NULL "
            "AND net IS NOT NULL AND tax IS NOT NULL AND gross = net + tax "
            "AND content IS NOT NULL AND hash IS NOT NULL)",
            name="issued",
        ),
        CheckConstraint(
            "(kind = 'credit_note') = (preceding_id IS NOT NULL) "
            "AND (kind = 'invoice' OR number IS NOT NULL)",
            name="kind",
        ),
        Index("uq_invoices_number", "number", unique=True),
        Index("uq_invoices_preceding_id", "preceding_id", unique=True),
        Index(
            "uq_invoices_draft",
            "organization_id", "currency", "since",
            unique=True,
            sqlite_where=_IS_DRAFT,
            postgresql_where=_IS_DRAFT,
        ),
        Index(None, "organization_id", "created_at", "id"),
        Index(None, "created_at", "id"),
    )  # fmt: skip

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    kind: Mapped[str]
    currency: Mapped[str]
    since: Mapped[Microseconds]
    until: Mapped[Microseconds]
    created_at: Mapped[Microseconds]
    number: Mapped[int | None]
    label: Mapped[str | None]
    issued_at: Mapped[Microseconds | None]
    net: Mapped[int | None]
    tax: Mapped[int | None]
    gross: Mapped[int | None]
    transfer_id: Mapped[str | None] = mapped_column(ForeignKey("transfers.id"))
    preceding_id: Mapped[str | None] = mapped_column(ForeignKey("invoices.id"))
    content: Mapped[str | None] = mapped_column(Text)
    hash: Mapped[str | None]


class InvoiceTransfers(Base):
    """Which charges an invoice is over: each is on one that is not taken back, and no more."""

    __tablename__ = "invoice_transfers"
    __table_args__ = (
        Index(
            "uq_invoice_transfers_transfer_id",
            "transfer_id",
            unique=True,
            sqlite_where=_IS_LIVE,
            postgresql_where=_IS_LIVE,
        ),
    )

    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id"), primary_key=True)
    transfer_id: Mapped[str] = mapped_column(ForeignKey("transfers.id"), primary_key=True)
    organization_id: Mapped[str]
    credit_note_id: Mapped[str | None] = mapped_column(
        ForeignKey("invoices.id", deferrable=True, initially="DEFERRED")
    )
    """What took the invoice back: its charges are free for another one."""


class InvoicePayments(Base):
    """That an invoice was paid, in full."""

    __tablename__ = "invoice_payments"

    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id"), primary_key=True)
    organization_id: Mapped[str]
    reference: Mapped[str]
    transfer_id: Mapped[str | None] = mapped_column(ForeignKey("transfers.id"))
    paid_at: Mapped[Microseconds]
