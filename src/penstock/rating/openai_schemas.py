"""What the endpoint of costs in OpenAI's form takes and answers."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, WithJsonSchema

from penstock.audit.schemas import example
from penstock.metering.openai_schemas import Ids, OpenAiPageBody, OpenAiQuery, openai_example
from penstock.rating.cost_model import CostResult
from penstock.rating.cost_schemas import Amount, show

_Member = Annotated[str | None, Field(description="Null unless it is grouped by.")]
_EXAMPLE: dict[str, Any] = {
    "object": "organization.costs.result",
    "amount": {"value": 3, "currency": "eur", "decimal": "3"},
    "project_id": "prj_9d21E8c0f1aX",
}


class OpenAiCostsQuery(OpenAiQuery):
    """Which costs are meant."""

    line_items: Annotated[Ids, Field(description="Aliases that callers asked for.")]
    group_by: Annotated[
        list[Literal["project_id", "api_key_id", "line_item"]],
        Field(
            default_factory=list,
            description="One result for each; a line item is an alias.",
            max_length=3,
        ),
    ]
    bucket_width: Annotated[Literal["1d"], Field(description="A day of UTC.")] = "1d"
    limit: Annotated[int, Field(ge=1, le=180, description="Buckets of a page.")] = 7


class AmountBody(BaseModel):
    """What is charged, exactly, twice."""

    value: Annotated[
        Decimal,
        WithJsonSchema({"type": "number"}),
        Field(description="All its digits; many a reader of JSON rounds them."),
    ]
    currency: Annotated[str, Field(description="ISO 4217, in small letters.")]
    decimal: Amount


class OpenAiCostResultBody(BaseModel):
    """What a group is charged in a bucket, in one currency."""

    model_config = example(**_EXAMPLE)

    object: Literal["organization.costs.result"] = "organization.costs.result"
    amount: AmountBody
    line_item: _Member = None
    project_id: _Member = None
    api_key_id: _Member = None

    @classmethod
    def of(cls, result: CostResult, group_by: Sequence[str]) -> Self:
        """Return a result as it is answered."""
        decimal = show(result.amount_atto)
        currency = result.currency.lower()
        members: dict[str, Any] = dict(zip(group_by, result.group, strict=False))
        amount = AmountBody(value=Decimal(decimal), currency=currency, decimal=decimal)
        return cls(amount=amount, **members)


class OpenAiCostsBody(OpenAiPageBody[OpenAiCostResultBody]):
    """What usage is charged."""

    model_config = openai_example(_EXAMPLE)
