"""Tables of the rating room.

An amount is two columns: whole nano-units, rounded down, and the rest of 0..999,999,999 atto-units.
So both databases add up exactly, and a sum is that of the one times 10**9 and that of the other.
What is added up in its row has a third, `amount_high`, of 10**9 units each (ADR 52).
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from penstock.storage.base import Base, Json, Microseconds, Versioned

_IS_CONTRACT = text("kind = 'contract'")


class PriceBooks(Versioned, Base):
    """Prices in one currency: the platform's list or costs, or one organization's contract."""

    __tablename__ = "price_books"
    __table_args__ = (
        Index("uq_price_books_name", "name", unique=True),
        Index(
            "uq_price_books_contract",
            "organization_id",
            "currency",
            unique=True,
            sqlite_where=_IS_CONTRACT,
            postgresql_where=_IS_CONTRACT,
        ),
        Index(None, "created_at", "id"),
        CheckConstraint("(kind = 'contract') = (organization_id IS NOT NULL)", name="contract"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    kind: Mapped[str]
    currency: Mapped[str]
    organization_id: Mapped[str | None]


class Prices(Versioned, Base):
    """What a model costs from a moment on. Rows do not change.

    Prices are whole numbers of a unit's 1/PRICE_SCALE for a million tokens.
    """

    __tablename__ = "prices"
    __table_args__ = (
        Index(
            "uq_prices_start",
            "book_id",
            "alias",
            "upstream",
            "service_tier",
            "valid_from",
            unique=True,
        ),
        Index(None, "alias"),
        Index(None, "created_at", "id"),
        CheckConstraint("valid_to IS NULL OR valid_to > valid_from", name="valid_to"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    book_id: Mapped[str] = mapped_column(ForeignKey("price_books.id"))
    organization_id: Mapped[str | None]
    """Whose contract its book is."""
    alias: Mapped[str]
    """By name: what it cost stays true when it has gone. In a cost book, the upstream's model."""
    upstream: Mapped[str]
    service_tier: Mapped[str]
    currency: Mapped[str]
    valid_from: Mapped[Microseconds]
    valid_to: Mapped[Microseconds | None]
    input: Mapped[int]
    cached_input: Mapped[int]
    output: Mapped[int]
    rates: Mapped[Any | None] = mapped_column(Json)


class RatedUsage(Base):
    """What usage was rated at. Rows are only added: what changes an amount is a row of its own.

    PostgreSQL keeps the table by day.
    """

    __tablename__ = "rated_usage"
    __table_args__ = (
        Index(None, "run_id"),
        Index(None, "transfer_id"),
        CheckConstraint("amount_rest BETWEEN 0 AND 999999999", name="amount_rest"),
        {"postgresql_partition_by": "RANGE (day)"},
    )

    day: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(primary_key=True)
    """"" when it was rated as it came in."""
    organization: Mapped[str]
    currency: Mapped[str]
    price_id: Mapped[str]
    amount: Mapped[int]
    amount_rest: Mapped[int]
    transfer_id: Mapped[str | None]
    reverses: Mapped[str | None]
    recorded_at: Mapped[Microseconds]


class RatingRuns(Base):
    """A rating of usage that had been rated before."""

    __tablename__ = "rating_runs"
    __table_args__ = (Index(None, "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    reason: Mapped[str]
    book_id: Mapped[str | None]
    since: Mapped[Microseconds]
    until: Mapped[Microseconds]
    organization: Mapped[str | None]
    """Whose usage; everybody's when None."""
    watermark: Mapped[int]
    """Usage that was stored by PostgreSQL's transactions before this one is in it; 0 on SQLite."""
    place: Mapped[str]
    """The last event that was looked at: its start and id."""
    event_count: Mapped[int]
    """Events that were looked at."""
    changed_count: Mapped[int]
    """Events whose amount it changed."""
    actor: Mapped[str]
    created_at: Mapped[Microseconds]
    finished_at: Mapped[Microseconds | None]


class RatedMeters(Base):
    """A month's usage so far, where it matters for what more costs."""

    __tablename__ = "rated_meters"
    __table_args__ = (
        CheckConstraint("quantity >= 0", name="quantity"),
        CheckConstraint("amount_rest BETWEEN 0 AND 999999999", name="amount_rest"),
    )

    organization: Mapped[str] = mapped_column(primary_key=True)
    book_id: Mapped[str] = mapped_column(primary_key=True)
    price_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    meter: Mapped[str] = mapped_column(primary_key=True)
    period_start: Mapped[Microseconds] = mapped_column(primary_key=True)
    quantity: Mapped[int]
    amount_high: Mapped[int] = mapped_column(server_default=text("0"))
    amount: Mapped[int]
    amount_rest: Mapped[int]


class _Charged:
    """An amount that was rated, in a stretch of time."""

    organization: Mapped[str] = mapped_column(primary_key=True)
    currency: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[Microseconds] = mapped_column(primary_key=True)
    """Its beginning, in UTC; the time of admission of its requests decides."""
    amount_high: Mapped[int] = mapped_column(server_default=text("0"))
    amount: Mapped[int]
    amount_rest: Mapped[int]


class _ChargedProject(_Charged):
    """The same, of one project, model and class of data."""

    project: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    data_class: Mapped[str] = mapped_column(primary_key=True)


class _ChargedKey(_ChargedProject):
    """The same, of one key."""

    key_id: Mapped[str] = mapped_column(primary_key=True)


class _ChargedModel(_Charged):
    """The same, of all projects together."""

    model: Mapped[str] = mapped_column(primary_key=True)
    data_class: Mapped[str] = mapped_column(primary_key=True)


def _kept(*indexed: Sequence[str]) -> tuple[Any, ...]:
    """Return the indexes of a table of amounts, and its check."""
    return (
        *(Index(None, *columns) for columns in indexed),
        CheckConstraint("amount_rest BETWEEN 0 AND 999999999", name="amount_rest"),
    )


_BY_TIME = ("organization", "at")
_BY_KEY = ("key_id", "at")
_BY_PROJECT = ("project", "at")


class ChargeDays(_ChargedKey, Base):
    """What a day's usage was rated at, by all that it is asked by."""

    __tablename__ = "charge_days"
    __table_args__ = _kept((*_BY_TIME, "project"), _BY_KEY)


class ChargeQuarters(_ChargedKey, Base):
    """The same of quarters of hours: what days of time zones have at their edges."""

    __tablename__ = "charge_quarters"
    __table_args__ = _kept((*_BY_TIME, "project"), _BY_KEY)


class ChargeEighths(_ChargedKey, Base):
    """The same of eighths of days: what days that begin far from UTC's have there."""

    __tablename__ = "charge_eighths"
    __table_args__ = _kept(("at",), _BY_PROJECT, _BY_KEY)


class ChargeMonths(_ChargedKey, Base):
    """The same of months: those of its days, so that a year is read at once."""

    __tablename__ = "charge_months"
    __table_args__ = _kept(_BY_TIME)


class ChargeProjectDays(_ChargedProject, Base):
    """The same of days, of all keys of a project together: as small as a chart is."""

    __tablename__ = "charge_project_days"
    __table_args__ = _kept(_BY_TIME)


class ChargeProjectQuarters(_ChargedProject, Base):
    """The same of quarters of hours."""

    __tablename__ = "charge_project_quarters"
    __table_args__ = _kept(_BY_TIME, _BY_PROJECT)


class ChargeProjectEighths(_ChargedProject, Base):
    """The same of eighths of days."""

    __tablename__ = "charge_project_eighths"
    __table_args__ = _kept(("at",), _BY_PROJECT)


class ChargeModelQuarters(_ChargedModel, Base):
    """The same of all projects together: so that a year of days of a zone is read at once."""

    __tablename__ = "charge_model_quarters"
    __table_args__ = _kept(_BY_TIME)


class ChargeModelEighths(_ChargedModel, Base):
    """The same of eighths of days."""

    __tablename__ = "charge_model_eighths"
    __table_args__ = _kept(("at",))


class ChargeLabelDays(_Charged, Base):
    """The same by label; a request with several labels is in several rows."""

    __tablename__ = "charge_label_days"
    __table_args__ = _kept()

    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(primary_key=True)
    """`""` of what was rated before it was kept."""


class UsageCorrections(Base):
    """What was wrong about an event. The event stays as it is."""

    __tablename__ = "usage_corrections"
    __table_args__ = (
        Index(None, "event_id"),
        Index(None, "organization", "created_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str]
    day: Mapped[int]
    organization: Mapped[str]
    is_void: Mapped[bool]
    deltas: Mapped[Any] = mapped_column(Json)
    """By meter."""
    reference: Mapped[str] = mapped_column(server_default=text("''"))
    quantities: Mapped[Any] = mapped_column(Json, nullable=True)
    """By meter; NULL when the event is void."""
    reason: Mapped[str]
    actor: Mapped[str]
    created_at: Mapped[Microseconds]
