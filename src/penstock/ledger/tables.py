"""Tables of the ledger. Amounts have two columns: nano-units, and the rest in 1/10^9 of one.

Rows of accounts, transfers and entries are only ever added: the database refuses anything else,
and a transfer whose entries do not add up to nothing. No row points at an organization: nodes may
run from a file, and their organizations are names.
"""

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from penstock.storage.base import Base, Microseconds, Versioned

_IS_LEFT = text("remaining > 0 OR remaining_rest > 0")
_HAS_GRANT = text("grant_id IS NOT NULL")


def _rest(name: str) -> CheckConstraint:
    return CheckConstraint(f"{name} BETWEEN 0 AND 999999999", name=name)


class BillingTerms(Versioned, Base):
    """How an organization pays; without a row after it used something, in the default currency."""

    __tablename__ = "billing_terms"

    organization_id: Mapped[str] = mapped_column(primary_key=True)
    currency: Mapped[str]
    mode: Mapped[str]
    unpriced: Mapped[str] = mapped_column(server_default="refuse")
    """Whether what has no price in the currency is refused to it."""


class LedgerAccounts(Base):
    """Where amounts are added up."""

    __tablename__ = "ledger_accounts"
    __table_args__ = (
        Index(
            "uq_ledger_accounts_organization_id",
            "organization_id", "kind", "currency", "qualifier",
            unique=True,
        ),
        Index("uq_ledger_accounts_id", "id", "organization_id", "currency", unique=True),
    )  # fmt: skip

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    kind: Mapped[str]
    currency: Mapped[str]
    qualifier: Mapped[str]


class Transfers(Base):
    """What was booked at once. It is inserted after its entries, and seals them."""

    __tablename__ = "transfers"
    __table_args__ = (
        ForeignKeyConstraint(
            ["reverses_id"], ["transfers.id"], name="fk_transfers_reverses_id_transfers"
        ),
        CheckConstraint("lines >= 2", name="lines"),
        Index(
            "uq_transfers_organization_id",
            "organization_id", "kind", "idempotency_key",
            unique=True,
        ),
        Index(
            "uq_transfers_id",
            "id", "organization_id", "currency", "booked_at", "lines",
            unique=True,
        ),
        Index(None, "organization_id", "recorded_at", "id"),
        Index(
            "ix_transfers_reverses_id",
            "reverses_id",
            sqlite_where=text("reverses_id IS NOT NULL"),
            postgresql_where=text("reverses_id IS NOT NULL"),
        ),
    )  # fmt: skip

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    kind: Mapped[str]
    idempotency_key: Mapped[str]
    currency: Mapped[str]
    booked_at: Mapped[Microseconds]
    """When it counts: of usage the time of use, of an expiry its moment."""
    recorded_at: Mapped[Microseconds]
    reverses_id: Mapped[str | None]
    lines: Mapped[int]
    """How many entries it has: each of their places is taken, so there is no room for another."""


class Entries(Base):
    """A debit of an account, or below zero a credit.

    What it repeats of its transfer and account, foreign keys compare with them: so an entry is of
    the currency and organization of both, whoever wrote it.
    """

    __tablename__ = "entries"
    __table_args__ = (
        ForeignKeyConstraint(
            ["transfer_id", "organization_id", "currency", "booked_at", "lines"],
            [
                f"transfers.{name}"
                for name in ("id", "organization_id", "currency", "booked_at", "lines")
            ],
            name="fk_entries_transfers",
            deferrable=True,
            initially="DEFERRED",
        ),
        ForeignKeyConstraint(
            ["account_id", "organization_id", "currency"],
            [f"ledger_accounts.{name}" for name in ("id", "organization_id", "currency")],
            name="fk_entries_ledger_accounts",
        ),
        ForeignKeyConstraint(
            ["grant_id", "organization_id", "currency"],
            [f"credit_grants.{name}" for name in ("id", "organization_id", "currency")],
            name="fk_entries_credit_grants",
        ),
        CheckConstraint("line BETWEEN 1 AND lines", name="line"),
        _rest("amount_rest"),
        Index(None, "account_id", "booked_at"),
        Index(
            "ix_entries_grant_id", "grant_id", sqlite_where=_HAS_GRANT, postgresql_where=_HAS_GRANT
        ),
    )

    transfer_id: Mapped[str] = mapped_column(primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[int]
    organization_id: Mapped[str]
    currency: Mapped[str]
    booked_at: Mapped[Microseconds]
    account_id: Mapped[str]
    amount: Mapped[int]
    amount_rest: Mapped[int]
    grant_id: Mapped[str | None]


class CreditGrants(Base):
    """Credit of an organization. Only what remains of it changes, with the entries that use it."""

    __tablename__ = "credit_grants"
    __table_args__ = (
        CheckConstraint("amount >= 0", name="amount"),
        CheckConstraint("remaining >= 0", name="remaining"),
        CheckConstraint(
            "remaining < amount OR (remaining = amount AND remaining_rest <= amount_rest)",
            name="within",
        ),
        _rest("amount_rest"),
        _rest("remaining_rest"),
        Index("uq_credit_grants_id", "id", "organization_id", "currency", unique=True),
        Index(None, "organization_id", "created_at", "id"),
        Index(
            "ix_credit_grants_expires_at",
            "expires_at",
            sqlite_where=_IS_LEFT,
            postgresql_where=_IS_LEFT,
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    currency: Mapped[str]
    kind: Mapped[str]
    priority: Mapped[int]
    expires_at: Mapped[Microseconds | None]
    amount: Mapped[int]
    amount_rest: Mapped[int]
    remaining: Mapped[int]
    remaining_rest: Mapped[int]
    created_at: Mapped[Microseconds]
    name: Mapped[str]


class BalanceSnapshots(Base):
    """What an account's entries that were booked before a moment add up to; may go at any time."""

    __tablename__ = "balance_snapshots"
    __table_args__ = (_rest("amount_rest"), Index(None, "organization_id"))

    account_id: Mapped[str] = mapped_column(ForeignKey("ledger_accounts.id"), primary_key=True)
    at: Mapped[Microseconds] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    amount: Mapped[int]
    amount_rest: Mapped[int]
