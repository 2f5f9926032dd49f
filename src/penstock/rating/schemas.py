"""What the API of prices takes and answers. Prices are decimals in texts."""

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
from penstock.rating.model import BookKind, NewBook, NewPrice, Price
from penstock.rating.rates import PLACES

_ALIAS_ID = "als_5Tn1Jq7yHgBd"
_FIGURES: dict[str, Any] = {"input": "0.15", "cached_input": "0.075", "output": "0.6"}
PRICE_EXAMPLE: dict[str, Any] = {
    "id": "prc_7Gk3Wz9xMnRt",
    "book_id": "pbk_list_EUR",
    "organization_id": None,
    "alias": "llama-70b",
    "upstream": "",
    "service_tier": "",
    "currency": "EUR",
    **_FIGURES,
    "rates": None,
    "valid_from": "2030-01-01T00:00:00.000000Z",
    "valid_to": None,
    "version": 1,
    "created_at": "2026-06-15T12:00:00.000000Z",
}

_RATES: dict[str, Any] = {
    "output": {
        "scheme": "graduated",
        "per": 1_000_000,
        "tiers": [{"price": "0.6", "up_to": 1_000_000_000}, {"price": "0.5"}],
    },
    "requests": {"scheme": "flat", "per": 1, "price": "0.0001"},
}

Figure = Annotated[
    Text,
    Field(description="For a million tokens: 0 or more, at most 12 decimals.", examples=["0.15"]),
]


class NewPriceBody(RequestBody):
    """A price that is to be."""

    model_config = example(
        alias_id=_ALIAS_ID, currency="EUR", **_FIGURES, valid_from="2030-01-01T00:00:00Z"
    )

    alias_id: Annotated[
        Id | None, Field(description="What it is the price of; in a cost book, `model` says it.")
    ] = None
    model: Annotated[
        Text | None,
        Field(description="In a cost book: the upstream's own name of the model."),
    ] = None
    currency: Annotated[Text, Field(description="Three capitals, ISO 4217.", examples=["EUR"])]
    book_id: Annotated[
        Id | None,
        Field(description="The list of the currency without, or its costs for a `model`."),
    ] = None
    upstream: Annotated[
        Text, Field(description="In a cost book: at this upstream only, by its name.")
    ] = ""
    service_tier: Annotated[
        Text, Field(description="For requests that the engine served in this tier, as it names it.")
    ] = ""
    input: Annotated[
        Figure | None, Field(description="Needed, unless `rates` has it. 0 is free.")
    ] = None
    cached_input: Annotated[Figure | None, Field(description="As `input` without.")] = None
    output: Annotated[
        Figure | None, Field(description="Needed, unless `rates` has it. 0 is free.")
    ] = None
    rates: Annotated[
        dict[Text, Any] | None,
        Field(
            description="By meter, what is not a flat price for a million tokens: `scheme` "
            "(`flat`, `graduated`, `volume`, `package`), `per` (1000000, 1000 or 1; the size of a "
            "package), and `price`, or `tiers` of `price` and `up_to`. Steps count a calendar "
            "month of UTC.",
            examples=[_RATES],
        ),
    ] = None
    valid_from: Annotated[
        AwareDatetime | None,
        Field(
            description="ISO 8601 with a time zone, to the second. The earliest time without: now, "
            "or ten minutes from now when it is higher than the one before."
        ),
    ] = None
    valid_to: Annotated[
        AwareDatetime | None,
        Field(description="When it ends, to the second; when the next one begins without."),
    ] = None

    def to_new(self) -> NewPrice:
        """Return what is to be.

        Raises:
            PenstockError: `PRICE_INVALID` for what is no decimal.
        """
        return NewPrice(
            alias_id=self.alias_id,
            model=self.model,
            currency=self.currency,
            book_id=self.book_id,
            upstream=self.upstream,
            service_tier=self.service_tier,
            valid_from_us=microseconds(self.valid_from),
            valid_to_us=microseconds(self.valid_to),
            input=_read("input", self.input),
            cached_input=_read("cached_input", self.cached_input),
            output=_read("output", self.output),
            rates=self.rates,
        )


class PricesQuery(PageQuery):
    """Which prices are meant."""

    alias: Annotated[
        Text | None, Field(description="By name; in a cost book, the upstream's model.")
    ] = None
    currency: Text | None = None
    book_id: Id | None = None


class PriceBody(AnswerBody):
    """What an alias costs from a moment on, until the next price of the same currency begins."""

    model_config = example(**PRICE_EXAMPLE)

    id: str
    book_id: str
    organization_id: Annotated[str | None, Field(description="Whose contract it is in.")]
    alias: str
    upstream: str
    service_tier: str
    currency: str
    input: Annotated[str, Field(description="For a million tokens; at most, if `rates` has it.")]
    cached_input: str
    output: str
    rates: Annotated[
        dict[str, Any] | None, Field(description="All meters, when the three above are not enough.")
    ]
    valid_from: Time
    valid_to: Time | None
    version: int
    created_at: Time

    @classmethod
    def of(cls, item: Price, **members: Any) -> Self:
        """Return a price as it is answered."""
        figures = {name: _shown(getattr(item, name)) for name in _FIGURES}
        return super().of(item, **figures, **members)


class PricePage(PageBody[PriceBody]):
    """A page of prices, oldest first."""


class NewBookBody(RequestBody):
    """A price book that is to be."""

    model_config = example(name="draft-2030", kind="list", currency="EUR")

    name: Text
    kind: Annotated[
        BookKind,
        Field(
            description="`contract`: for one organization, before the list. Further books of "
            "`list` and `cost` are for simulations and new ratings."
        ),
    ]
    currency: Annotated[Text, Field(description="Three capitals, ISO 4217.", examples=["EUR"])]
    organization_id: Annotated[Id | None, Field(description="Whose contract it is.")] = None

    def to_new(self) -> NewBook:
        """Return what is to be."""
        return NewBook(**self.model_dump())


class BooksQuery(PageQuery):
    """Which price books are meant."""

    kind: BookKind | None = None
    currency: Text | None = None
    organization_id: Id | None = None
    name: Text | None = None


class BookBody(AnswerBody):
    """A price book."""

    model_config = example(
        id="pbk_4Hs8Vb1cTqZn",
        name="draft-2030",
        kind="list",
        currency="EUR",
        organization_id=None,
        is_used=False,
        version=1,
        created_at="2026-06-15T12:00:00.000000Z",
    )

    id: str
    name: str
    kind: str
    currency: str
    organization_id: str | None
    is_used: Annotated[bool, Field(description="Whether usage is rated by it when it comes in.")]
    version: int
    created_at: Time


class BookPage(PageBody[BookBody]):
    """A page of price books, oldest first."""


def _read(member: str, text: str | None) -> int | None:
    if text is None:
        return None
    figure = parse_decimal(text, PLACES)
    if figure is None:
        message = f"`{member}`: is no decimal; write it like 0.15, with at most {PLACES} decimals."
        raise PenstockError(PRICE_INVALID, message)
    return figure


def _shown(figure: object) -> str:
    return format_decimal(figure, PLACES) if isinstance(figure, int) else ""
