"""Tables of the rating room."""

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from penstock.storage.base import Base, Microseconds, Versioned


class Prices(Versioned, Base):
    """What an alias costs from a moment on; the platform's. Rows do not change.

    Prices are whole numbers of a unit's 1/PRICE_SCALE for a million tokens.
    """

    __tablename__ = "prices"
    __table_args__ = (
        Index("uq_prices_alias_currency", "alias", "currency", "valid_from", unique=True),
        Index(None, "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str]
    """By name: what it cost stays true when it has gone."""
    currency: Mapped[str]
    valid_from: Mapped[Microseconds]
    input: Mapped[int]
    cached_input: Mapped[int]
    output: Mapped[int]
