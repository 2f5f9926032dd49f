"""Prices; budgets, what is spent and held of them."""

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import (
    flag,
    foreign,
    foreign_of_same,
    index,
    json,
    key,
    moment,
    number,
    unique,
    versioned,
    wall,
    words,
)

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_WINDOW = ("budget_id", "subject", "starts_at")


def upgrade() -> None:
    """Create the tables, then the walls."""
    _create_prices()
    _create_budgets()
    _create_windows()
    _create_holds()
    _create_charges()
    wall("budgets", "budget_windows", "budget_holds", "budget_charges")


def downgrade() -> None:
    """Take the tables down, with all they hold."""
    for table in (
        "budget_charges",
        "worker_lives",
        "budget_holds",
        "budget_windows",
        "budgets",
        "prices",
    ):
        op.drop_table(table)


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=f"ck_{table}_{name}")


def _index_where(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)


def _of_window(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        list(_WINDOW),
        [f"budget_windows.{column}" for column in _WINDOW],
        name=f"fk_{table}_budget_windows",
    )


def _create_prices() -> None:
    op.create_table(
        "prices",
        words("id"),
        words("alias"),
        words("currency"),
        moment("valid_from"),
        number("input"),
        number("cached_input"),
        number("output"),
        *versioned(),
        key("prices"),
    )
    unique("uq_prices_alias_currency", "prices", "alias", "currency", "valid_from")
    index("prices", "created_at", "id")


def _create_budgets() -> None:
    table = "budgets"
    op.create_table(
        table,
        words("id"),
        words("organization_id"),
        words("project_id", nullable=True),
        words("owner_kind"),
        words("key_id", nullable=True),
        words("member_id", nullable=True),
        words("service_account_id", nullable=True),
        words("currency"),
        number("amount"),
        words("period"),
        words("time_zone"),
        flag("is_hard"),
        words("per"),
        words("alias", nullable=True),
        json("alert_percentages"),
        flag("lowers_cap"),
        number("exhausted_status"),
        *versioned(),
        key(table),
        foreign(table, "organization_id", "organizations"),
        foreign_of_same(table, "project_id", "projects"),
        foreign_of_same(table, "key_id", "api_keys"),
        foreign_of_same(table, "service_account_id", "service_accounts"),
    )
    index(table, "organization_id", "created_at", "id")
    for column, where in (
        ("organization_id", "owner_kind = 'organization'"),
        ("project_id", "owner_kind = 'project'"),
        ("key_id", "key_id IS NOT NULL"),
        ("member_id", "member_id IS NOT NULL"),
        ("service_account_id", "service_account_id IS NOT NULL"),
    ):
        _index_where(f"ix_budgets_owner_{column}", table, [column], where)


def _create_windows() -> None:
    table = "budget_windows"
    op.create_table(
        table,
        words("budget_id"),
        words("subject"),
        moment("starts_at"),
        words("organization_id"),
        moment("ends_at", nullable=True),
        number("settled"),
        number("settled_rest"),
        number("held"),
        key(table, *_WINDOW),
        foreign(table, "budget_id", "budgets"),
        _check(table, "held", "held >= 0"),
        _check(table, "settled", "settled >= 0"),
        _check(table, "settled_rest", "settled_rest BETWEEN 0 AND 999999999"),
    )
    index(table, "organization_id")


def _create_holds() -> None:
    table = "budget_holds"
    op.create_table(
        table,
        words("id"),
        words("organization_id"),
        words("take_id"),
        number("place"),
        *(words(name) for name in _WINDOW[:2]),
        moment("starts_at"),
        words("producer"),
        number("epoch"),
        number("amount"),
        number("used"),
        number("freed"),
        words("state"),
        moment("created_at"),
        key(table),
        _of_window(table),
        _check(table, "amount", "used >= 0 AND freed >= 0 AND used + freed <= amount"),
    )
    unique("uq_budget_holds_take_id", table, "organization_id", "take_id", "place")
    index(table, *_WINDOW)
    index(table, "created_at", "id")
    columns = ["producer", "epoch"]
    _index_where("ix_budget_holds_producer_epoch", table, columns, "state = 'open'")
    op.create_table(
        "worker_lives",
        words("producer"),
        number("epoch"),
        moment("seen_at"),
        flag("is_over"),
        key("worker_lives", "producer", "epoch"),
    )
    index("worker_lives", "seen_at")


def _create_charges() -> None:
    table = "budget_charges"
    op.create_table(
        table,
        words("budget_id"),
        words("event_id"),
        words("organization_id"),
        words("subject"),
        moment("starts_at"),
        number("amount"),
        number("amount_rest"),
        key(table, "budget_id", "event_id"),
        _of_window(table),
    )
    index(table, *_WINDOW)
