"""Price books, and what usage was rated at.

Rated usage is only ever added to: both databases refuse to change or delete its rows. A table that
is dropped, as old partitions are, is not asked.
"""

import sqlalchemy as sa
from alembic import op

from penstock.storage.migrations.columns import (
    flag,
    foreign,
    index,
    json,
    key,
    moment,
    number,
    only_added,
    parts_by_day,
    unique,
    versioned,
    words,
)

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_VERSIONED = "version, created_at, updated_at"
_OLD = f"alias, currency, valid_from, input, cached_input, output, {_VERSIONED}"
_BY_ORGANIZATION = (
    "rated_usage",
    "rating_runs",
    "rated_meters",
    "charge_days",
    "charge_months",
    "charge_project_days",
    "charge_label_days",
    "usage_corrections",
)
_BOOKS = ("price_books", "prices")


def upgrade() -> None:
    """Create the tables, then the walls."""
    _create_books()
    op.execute("CREATE TABLE old_prices AS SELECT * FROM prices")
    op.drop_table("prices")
    _create_prices()
    _put_into_books()
    op.execute("DROP TABLE old_prices")
    _create_rated()
    _create_figures()
    _create_corrections()
    only_added("rated_usage")
    _wall()


def downgrade() -> None:
    """Take the tables down, with all they hold; of prices, those of the lists stay."""
    if _is_postgresql():
        for table in _BOOKS:
            op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE TABLE old_prices AS SELECT id, {_OLD} FROM prices "  # noqa: S608 - columns of ours
        "WHERE book_id = 'pbk_list_' || currency AND service_tier = '' AND rates IS NULL"
    )
    for table in (*_BY_ORGANIZATION, "prices", "price_books"):
        op.drop_table(table)
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
    op.execute(
        f"INSERT INTO prices (id, {_OLD}) SELECT id, {_OLD} FROM old_prices"  # noqa: S608 - as above
    )
    op.execute("DROP TABLE old_prices")


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _check(table: str, name: str, condition: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=f"ck_{table}_{name}")


def _amount(table: str) -> tuple[sa.Column[int], sa.Column[int], sa.CheckConstraint]:
    return (
        number("amount"),
        number("amount_rest"),
        _check(table, "amount_rest", "amount_rest BETWEEN 0 AND 999999999"),
    )


def _create_books() -> None:
    table = "price_books"
    op.create_table(
        table,
        words("id"),
        words("name"),
        words("kind"),
        words("currency"),
        words("organization_id", nullable=True),
        *versioned(),
        key(table),
        _check(table, "contract", "(kind = 'contract') = (organization_id IS NOT NULL)"),
    )
    unique("uq_price_books_name", table, "name")
    unique(
        "uq_price_books_contract", table, "organization_id", "currency", where="kind = 'contract'"
    )
    index(table, "created_at", "id")


def _create_prices() -> None:
    table = "prices"
    op.create_table(
        table,
        words("id"),
        words("book_id"),
        words("organization_id", nullable=True),
        words("alias"),
        words("upstream"),
        words("service_tier"),
        words("currency"),
        moment("valid_from"),
        moment("valid_to", nullable=True),
        number("input"),
        number("cached_input"),
        number("output"),
        json("rates", nullable=True),
        *versioned(),
        key(table),
        foreign(table, "book_id", "price_books"),
        _check(table, "valid_to", "valid_to IS NULL OR valid_to > valid_from"),
    )
    unique("uq_prices_start", table, "book_id", "alias", "upstream", "service_tier", "valid_from")
    index(table, "alias")
    index(table, "created_at", "id")


def _put_into_books() -> None:
    op.execute(
        f"INSERT INTO price_books (id, name, kind, currency, {_VERSIONED}) "  # noqa: S608 - as above
        "SELECT 'pbk_list_' || currency, 'list-' || currency, 'list', currency, "
        "1, min(created_at), min(created_at) FROM old_prices GROUP BY currency"
    )
    op.execute(
        f"INSERT INTO prices (id, book_id, upstream, service_tier, {_OLD}) "  # noqa: S608 - as above
        f"SELECT id, 'pbk_list_' || currency, '', '', {_OLD} FROM old_prices"
    )


def _create_rated() -> None:
    table = "rated_usage"
    op.create_table(
        table,
        number("day"),
        words("event_id"),
        words("kind"),
        words("run_id"),
        words("organization"),
        words("currency"),
        words("price_id"),
        *_amount(table),
        words("transfer_id", nullable=True),
        words("reverses", nullable=True),
        moment("recorded_at"),
        key(table, "day", "event_id", "kind", "run_id"),
        postgresql_partition_by="RANGE (day)",
    )
    parts_by_day(table)
    index(table, "run_id")
    index(table, "transfer_id")
    table = "rating_runs"
    op.create_table(
        table,
        words("id"),
        words("reason"),
        words("book_id", nullable=True),
        moment("since"),
        moment("until"),
        words("organization", nullable=True),
        number("watermark"),
        words("place"),
        number("event_count"),
        number("changed_count"),
        words("actor"),
        moment("created_at"),
        moment("finished_at", nullable=True),
        key(table),
    )
    index(table, "created_at", "id")
    table = "rated_meters"
    names = ("organization", "book_id", "price_id", "model", "meter")
    op.create_table(
        table,
        *(words(name) for name in names),
        moment("period_start"),
        number("quantity"),
        *_amount(table),
        key(table, *names, "period_start"),
        _check(table, "quantity", "quantity >= 0"),
    )


def _create_figures() -> None:
    for table, names in (
        (
            "charge_days",
            ("organization", "project", "key_id", "model", "data_class", "currency", "kind"),
        ),
        (
            "charge_months",
            ("organization", "project", "key_id", "model", "data_class", "currency", "kind"),
        ),
        (
            "charge_project_days",
            ("organization", "project", "model", "data_class", "currency", "kind"),
        ),
        ("charge_label_days", ("organization", "name", "value", "currency", "kind")),
    ):
        op.create_table(
            table,
            *(words(name) for name in names),
            moment("at"),
            *_amount(table),
            key(table, *names, "at"),
        )
    for table in ("charge_days", "charge_months", "charge_project_days"):
        index(table, "organization", "at")
    index("charge_days", "key_id", "at")


def _create_corrections() -> None:
    table = "usage_corrections"
    op.create_table(
        table,
        words("id"),
        words("event_id"),
        number("day"),
        words("organization"),
        flag("is_void"),
        json("deltas"),
        words("reason"),
        words("actor"),
        moment("created_at"),
        key(table),
    )
    index(table, "event_id")
    index(table, "organization", "created_at")


def _wall() -> None:
    """Have PostgreSQL show a session what is its organization's, and the lists' prices."""
    if not _is_postgresql():
        return
    is_own = "{} = NULLIF(current_setting('app.organization_id', true), '')"
    conditions = {table: is_own.format("organization") for table in _BY_ORGANIZATION}
    # What is on the list everybody may know; costs and others' contracts nobody.
    conditions |= {
        "price_books": is_own.format("organization_id"),
        "prices": f"{is_own.format('organization_id')} OR book_id = 'pbk_list_' || currency",
    }
    for table, condition in conditions.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(
            f"CREATE POLICY {table}_organization ON {table} USING ("
            f"{condition} OR current_setting('app.is_platform', true) = 'on') WITH CHECK ("
            f"{is_own.format('organization' if table in _BY_ORGANIZATION else 'organization_id')} "
            "OR current_setting('app.is_platform', true) = 'on')"
        )
