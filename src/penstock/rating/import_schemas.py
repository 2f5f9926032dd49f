"""What an import of prices takes and answers."""

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field

from penstock.audit.schemas import AnswerBody, RequestBody, Text, example
from penstock.rating.model import NewPrice, PutPrice
from penstock.rating.schemas import PRICE_EXAMPLE, Figure, NewPriceBody, PriceBody

MAX_IMPORTED = 2_000
"""Most prices that are imported at once."""


class WrittenPrice(RequestBody):
    """A price as price files have it: everything is called by its name."""

    model_config = example(
        model="llama-70b", currency="EUR", input="0.15", output="0.6", book="acme-2030"
    )

    model: Text
    currency: Text
    book: Text | None = None
    upstream: Text = ""
    service_tier: Text = ""
    input: Figure | None = None
    cached_input: Figure | None = None
    output: Figure | None = None
    rates: dict[Text, Any] | None = None
    valid_from: AwareDatetime | None = None
    valid_to: AwareDatetime | None = None

    def to_new(self, **place: str | None) -> NewPrice:
        """Return what is to be, in a place of `NewPriceBody`'s members.

        Raises:
            PenstockError: `PRICE_INVALID` for what is no decimal.
        """
        members = self.model_dump(exclude={"model", "book"})
        return NewPriceBody(**members | place).to_new()


class ImportBody(RequestBody):
    """Prices that are to be."""

    model_config = example(prices=[])

    is_dry_run: Annotated[bool, Field(description="Only say what would be changed.")] = False
    prices: Annotated[
        list[Any],
        Field(
            max_length=MAX_IMPORTED,
            description="`model` (the alias; in a cost book, the upstream's own name), `currency`, "
            "`book` by name (the currency's list without), and members of a new price.",
        ),
    ]


class ImportedBody(AnswerBody):
    """What became of a price."""

    model_config = example(index=0, action="none", price=PRICE_EXAMPLE, before=None)

    index: Annotated[int, Field(description="Its place in what was sent.")]
    action: Annotated[str, Field(description="`none`, `create` or `replace`.")]
    price: PriceBody
    before: Annotated[PriceBody | None, Field(description="What held at its start.")]


class ImportAnswerBody(AnswerBody):
    """What became of prices, or would."""

    model_config = example(is_dry_run=True, data=[])

    is_dry_run: bool
    data: list[ImportedBody]

    @classmethod
    def build(cls, imported: Iterable[tuple[int, PutPrice]], *, is_dry_run: bool) -> Self:
        """Return what became of prices as it is answered."""
        data = [
            ImportedBody(
                index=index,
                action=one.action,
                price=PriceBody.of(one.price),
                before=None if one.before is None else PriceBody.of(one.before),
            )
            for index, one in imported
        ]
        return cls(is_dry_run=is_dry_run, data=data)
