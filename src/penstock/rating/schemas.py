"""What the API of prices takes and answers. Prices are decimals in texts, for a million tokens."""

from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field

from penstock.audit.schemas import (
    AnswerBody,
    Id,
    PageBody,
    PageQuery,
    RequestBody,
    Text,
    Time,
    example,
)
from penstock.kit.decimals import format_decimal, parse_decimal
from penstock.kit.errors import PenstockError
from penstock.kit.moments import microseconds
from penstock.rating.errors import PRICE_INVALID
from penstock.rating.model import NewPrice, Price

PLACES = 12

_ALIAS_ID = "als_5Tn1Jq7yHgBd"
_FIGURES: dict[str, Any] = {"input": "0.15", "cached_input": "0.075", "output": "0.6"}

Figure = Annotated[
    Text,
    Field(description="For a million tokens: 0 or more, at most 12 decimals.", examples=["0.15"]),
]


class NewPriceBody(RequestBody):
    """A price that is to be."""

    model_config = example(
        alias_id=_ALIAS_ID, currency="EUR", **_FIGURES, valid_from="2030-01-01T00:00:00Z"
    )

    alias_id: Id
    currency: Annotated[Text, Field(description="Three capitals, ISO 4217.", examples=["EUR"])]
    input: Figure
    cached_input: Annotated[Figure | None, Field(description="As `input` without.")] = None
    output: Figure
    valid_from: Annotated[
        AwareDatetime | None,
        Field(
            description="ISO 8601 with a time zone, to the second. The earliest time without: now, "
            "or ten minutes from now when it is higher than the one before."
        ),
    ] = None

    def to_new(self) -> NewPrice:
        """Return what is to be.

        Raises:
            PenstockError: `PRICE_INVALID` for what is no decimal.
        """
        return NewPrice(
            alias_id=self.alias_id,
            currency=self.currency,
            valid_from_us=microseconds(self.valid_from),
            input=_read("input", self.input),
            cached_input=(
                None if self.cached_input is None else _read("cached_input", self.cached_input)
            ),
            output=_read("output", self.output),
        )


class PricesQuery(PageQuery):
    """Which prices are meant."""

    alias: Text | None = None
    currency: Text | None = None


class PriceBody(AnswerBody):
    """What an alias costs from a moment on, until the next price of the same currency begins."""

    model_config = example(
        id="prc_7Gk3Wz9xMnRt",
        alias="llama-70b",
        currency="EUR",
        **_FIGURES,
        valid_from="2030-01-01T00:00:00.000000Z",
        version=1,
        created_at="2026-06-15T12:00:00.000000Z",
    )

    id: str
    alias: str
    currency: str
    input: str
    cached_input: str
    output: str
    valid_from: Time
    version: int
    created_at: Time

    @classmethod
    def of(cls, item: Price, **members: Any) -> Self:
        """Return a price as it is answered."""
        figures = {name: _shown(getattr(item, name)) for name in _FIGURES}
        return super().of(item, **figures, **members)


class PricePage(PageBody[PriceBody]):
    """A page of prices, oldest first."""


def _read(member: str, text: str) -> int:
    figure = parse_decimal(text, PLACES)
    if figure is None:
        message = f"`{member}`: is no decimal; write it like 0.15, with at most {PLACES} decimals."
        raise PenstockError(PRICE_INVALID, message)
    return figure


def _shown(figure: object) -> str:
    return format_decimal(figure, PLACES) if isinstance(figure, int) else ""
