"""What the API of costs takes and answers, in the shape that OpenAI's has; amounts are texts."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from penstock.audit.schemas import example
from penstock.kit.decimals import format_decimal
from penstock.limits.prices import ATTO
from penstock.metering.bucket_schemas import (
    BucketPageBody,
    GroupMembers,
    Names,
    SpanQuery,
    bucket_example,
    group_members,
)
from penstock.rating.cost_model import CostResult

ATTO_PLACES = len(str(ATTO)) - 1

Amount = Annotated[
    str, Field(description="A decimal, exact: at most 18 decimals, no zeros behind.")
]
_EXAMPLE: dict[str, Any] = {
    "object": "costs.result",
    "project": "prj_9d21E8c0f1aX",
    "project_name": "search",
    "currency": "EUR",
    "amount": "1.0324",
}
_OPERATOR = _EXAMPLE | {"cost": "0.75", "margin": "0.2824"}


class CostsQuery(SpanQuery):
    """Which costs are meant."""

    bucket: Annotated[Literal["day", "month"], Field(description="How long a bucket is.")] = "day"

    @classmethod
    def dimensions(cls) -> tuple[str, ...]:
        """Return what can be grouped by, besides a label."""
        return "organization", "project", "key_id", "model", "data_class"

    @classmethod
    def label_dimensions(cls) -> tuple[str, ...]:
        """Return what can be grouped by and asked for together with a label."""
        return "organization", "project"


class CostResultBody(GroupMembers):
    """What a group is charged in a bucket, in one currency."""

    model_config = example(**_EXAMPLE)

    object: Literal["costs.result"] = "costs.result"
    currency: str
    amount: Amount

    @classmethod
    def of(cls, result: CostResult, group_by: Sequence[str], names: Names) -> Self:
        """Return a result as it is answered."""
        return cls(**_members(result, group_by, names))


class OperatorCostResultBody(CostResultBody):
    """The same for the operator, with what the platform pays for it."""

    model_config = example(**_OPERATOR)

    cost: Annotated[
        Amount | None, Field(description="What is paid upstream in this currency, if known.")
    ]
    margin: Annotated[Amount | None, Field(description="`amount` less `cost`, if that is known.")]

    @classmethod
    def of(cls, result: CostResult, group_by: Sequence[str], names: Names) -> Self:
        """Return a result as it is answered."""
        cost, margin = result.cost_atto, result.margin_atto
        return cls(
            **_members(result, group_by, names),
            cost=None if cost is None else show(cost),
            margin=None if margin is None else show(margin),
        )


class CostsBody(BucketPageBody[OperatorCostResultBody | CostResultBody]):
    """Costs in order of time, group and currency. A bucket may go on at the next page's begin."""

    model_config = bucket_example(_OPERATOR)


def show(atto: int) -> str:
    """Return an amount as a decimal."""
    return format_decimal(atto, ATTO_PLACES)


def _members(result: CostResult, group_by: Sequence[str], names: Names) -> dict[str, Any]:
    return group_members(group_by, result.group[:-1], names) | {
        "currency": result.currency,
        "amount": show(result.amount_atto),
    }
