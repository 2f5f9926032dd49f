"""Tables of budgets: what may be spent, what is spent and held of each window, and by whom.

Amounts are whole nano-units. What was spent is exact: it has the rest, billionths of a nano-unit,
in a column of its own, so that both kinds of databases add it up without rounding (ADR 19).
"""

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from penstock.storage.base import Base, Json, Microseconds, Versioned

_IS_OPEN = text("state = 'open'")


def _of_same(column: str, other: str) -> ForeignKeyConstraint:
    """Return the constraint that a column names a row of the same organization."""
    return ForeignKeyConstraint(
        ["organization_id", column],
        [f"{other}.organization_id", f"{other}.id"],
        name=f"fk_budgets_organization_id_{column}_{other}",
    )


def _owner_index(column: str, where: str) -> Index:
    name, condition = f"ix_budgets_owner_{column}", text(where)
    return Index(name, column, sqlite_where=condition, postgresql_where=condition)


class Budgets(Versioned, Base):
    """What an organization, project, key, member or service account may spend."""

    __tablename__ = "budgets"
    __table_args__ = (
        _of_same("project_id", "projects"),
        _of_same("key_id", "api_keys"),
        _of_same("service_account_id", "service_accounts"),
        _owner_index("organization_id", "owner_kind = 'organization'"),
        _owner_index("project_id", "owner_kind = 'project'"),
        _owner_index("key_id", "key_id IS NOT NULL"),
        _owner_index("member_id", "member_id IS NOT NULL"),
        _owner_index("service_account_id", "service_account_id IS NOT NULL"),
        Index(None, "organization_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    project_id: Mapped[str | None]
    """The owner, or where it is."""
    owner_kind: Mapped[str]
    key_id: Mapped[str | None]
    member_id: Mapped[str | None]
    """Names a row of `members`, which goes when the person does; what was spent stays."""
    service_account_id: Mapped[str | None]
    currency: Mapped[str]
    amount: Mapped[int]
    period: Mapped[str]
    time_zone: Mapped[str]
    is_hard: Mapped[bool]
    is_wallet: Mapped[bool] = mapped_column(server_default=text("false"))
    per: Mapped[str]
    alias: Mapped[str | None]
    alert_percentages: Mapped[list[int]] = mapped_column(Json)
    lowers_cap: Mapped[bool]
    exhausted_status: Mapped[int]
    when_away: Mapped[str] = mapped_column(server_default="spend_held")
    label: Mapped[str | None]


class BudgetWindows(Base):
    """What is spent and held of a budget in a stretch of time, for one subject."""

    __tablename__ = "budget_windows"
    __table_args__ = (
        CheckConstraint("held >= 0", name="held"),
        CheckConstraint("settled >= 0", name="settled"),
        CheckConstraint("settled_rest BETWEEN 0 AND 999999999", name="settled_rest"),
        Index(None, "organization_id"),
    )

    budget_id: Mapped[str] = mapped_column(ForeignKey("budgets.id"), primary_key=True)
    subject: Mapped[str] = mapped_column(primary_key=True)
    """`k.<key>` or `m.<member>` where each has one of its own; else empty."""
    starts_at: Mapped[Microseconds] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    ends_at: Mapped[Microseconds | None]
    settled_high: Mapped[int] = mapped_column(server_default=text("0"))
    """Of what is spent, how often 10**9 units (ADR 55)."""
    settled: Mapped[int]
    settled_rest: Mapped[int]
    held: Mapped[int]
    """Sum of what its open holds have left."""
    balance_high: Mapped[int] = mapped_column(server_default=text("0"))
    """Of what is in a wallet, how often 10**9 units (ADR 52)."""
    balance: Mapped[int] = mapped_column(server_default=text("0"))
    balance_rest: Mapped[int] = mapped_column(server_default=text("0"))
    told_percentage: Mapped[int] = mapped_column(server_default=text("0"))
    """The highest alert percentage that was told; 0 before."""
    is_exhaustion_told: Mapped[bool] = mapped_column(server_default=text("false"))


class BudgetHolds(Base):
    """What one life of a worker may spend of a window. `amount - used - freed` is held of it."""

    __tablename__ = "budget_holds"
    __table_args__ = (
        ForeignKeyConstraint(
            ["budget_id", "subject", "starts_at"],
            ["budget_windows.budget_id", "budget_windows.subject", "budget_windows.starts_at"],
            name="fk_budget_holds_budget_windows",
        ),
        CheckConstraint("used >= 0 AND freed >= 0 AND used + freed <= amount", name="amount"),
        Index("uq_budget_holds_take_id", "organization_id", "take_id", "place", unique=True),
        Index(None, "budget_id", "subject", "starts_at"),
        Index(None, "created_at", "id"),
        Index(
            "ix_budget_holds_producer_epoch",
            "producer",
            "epoch",
            sqlite_where=_IS_OPEN,
            postgresql_where=_IS_OPEN,
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    take_id: Mapped[str]
    place: Mapped[int]
    """Which of the asks of its taking."""
    budget_id: Mapped[str]
    subject: Mapped[str]
    starts_at: Mapped[Microseconds]
    producer: Mapped[str]
    epoch: Mapped[int]
    amount: Mapped[int]
    used: Mapped[int]
    """What requests held of it whose usage is stored."""
    freed: Mapped[int]
    state: Mapped[str]
    """`open`; `closed` when nothing is held by it; `expired` when that was taken from it."""
    created_at: Mapped[Microseconds]


class WorkerLives(Base):
    """When a life of a worker that holds money gave its last sign."""

    __tablename__ = "worker_lives"
    __table_args__ = (Index(None, "seen_at"),)

    producer: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    seen_at: Mapped[Microseconds]
    is_over: Mapped[bool]
    """All its usage is stored: it gets no more holds."""


class BudgetCharges(Base):
    """What a usage event cost a budget; rows are only ever added."""

    __tablename__ = "budget_charges"
    __table_args__ = (
        ForeignKeyConstraint(
            ["budget_id", "subject", "starts_at"],
            ["budget_windows.budget_id", "budget_windows.subject", "budget_windows.starts_at"],
            name="fk_budget_charges_budget_windows",
        ),
        Index(None, "budget_id", "subject", "starts_at"),
    )

    budget_id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    organization_id: Mapped[str]
    subject: Mapped[str]
    starts_at: Mapped[Microseconds]
    amount: Mapped[int]
    amount_rest: Mapped[int]


class WalletOverdrafts(Base):
    """What a transfer took from a wallet beyond what was free in it; rows are only ever added."""

    __tablename__ = "wallet_overdrafts"
    __table_args__ = (
        CheckConstraint("amount_rest BETWEEN 0 AND 999999999", name="amount_rest"),
        Index(None, "organization_id", "recorded_at"),
    )

    organization_id: Mapped[str] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(primary_key=True)
    cause: Mapped[str] = mapped_column(primary_key=True)
    currency: Mapped[str]
    amount_high: Mapped[int] = mapped_column(server_default=text("0"))
    amount: Mapped[int]
    amount_rest: Mapped[int]
    recorded_at: Mapped[Microseconds]
