"""What the API of corrections takes and answers."""

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, StringConstraints

from penstock.audit.schemas import (
    AnswerBody,
    Id,
    PageBody,
    PageQuery,
    Reason,
    RequestBody,
    Text,
    Time,
    example,
)
from penstock.contract.usage import METERS
from penstock.rating.cost_schemas import show
from penstock.rating.model import Booked, NewCorrection
from penstock.rating.rules import MAX_QUANTITY

Reference = Annotated[str, StringConstraints(pattern="^[0-9A-Za-z._:/-]{1,128}$")]
Quantities = Annotated[
    dict[Text, Annotated[int, Field(strict=True, ge=0, le=MAX_QUANTITY)]] | None,
    Field(
        description=f"By meter ({', '.join(METERS)}): what was used. Meters without a figure stay "
        "as they are. Without any, the event counts for nothing."
    ),
]
_CORRECTION: dict[str, Any] = {
    "event_id": "01977f5e-3c00-7000-8000-000000000001",
    "quantities": {"output": 120},
    "reference": "ticket-4711",
    "reason": "the engine counted a stop sequence",
}


class NewCorrectionBody(RequestBody):
    """What was wrong about a usage event."""

    model_config = example(**_CORRECTION)

    event_id: Id
    quantities: Quantities = None
    reference: Annotated[
        Reference,
        Field(description="A ticket, say. It names one correction of the event, for ever."),
    ]
    reason: Reason = ""
    is_dry_run: Annotated[bool, Field(description="Only say what would be booked.")] = False

    def to_new(self) -> NewCorrection:
        """Return what is to be."""
        return NewCorrection(self.event_id, self.quantities, self.reference, self.reason)


class DifferenceBody(BaseModel):
    """What a correction changed."""

    currency: str
    amount: Annotated[str, Field(description="Exactly, as a decimal; below 0 it was given back.")]


_SHOWN: dict[str, Any] = {
    "id": "cor_6a1c0f4be2d97835aa40c1b7",
    "organization": "org_3Qd7Lk2vXsPm",
    "is_void": False,
    "deltas": {"output": -100},
    "charge": {"currency": "EUR", "amount": "-0.0002"},
    "cost": None,
    "created_at": "2026-06-15T12:00:00.000000Z",
}


class CorrectionBody(AnswerBody):
    """What was corrected about a usage event, and what that changed."""

    model_config = example(**_CORRECTION, **_SHOWN)

    id: str
    event_id: str
    organization: str
    is_void: bool
    quantities: Annotated[
        dict[str, int] | None, Field(description="By meter: what was used; null of a void.")
    ]
    deltas: Annotated[dict[str, int], Field(description="By meter: what that changed.")]
    reference: str
    reason: str
    charge: Annotated[
        DifferenceBody | None, Field(description="What the organization is charged more or less.")
    ]
    cost: Annotated[
        DifferenceBody | None, Field(description="What it costs the platform; for its operator.")
    ]
    created_at: Time

    @classmethod
    def build(cls, booked: Booked, *, has_costs: bool, **members: Any) -> Self:
        """Return a correction as it is answered.

        Args:
            booked: The correction.
            has_costs: Whether what the platform pays is told, too: to its operator alone.
            **members: Of a subclass.
        """
        amounts = {
            kind: DifferenceBody(currency=currency, amount=show(atto))
            for kind, (currency, atto) in booked.amounts.items()
        }
        cost = amounts.get("cost") if has_costs else None
        return cls.of(booked.correction, charge=amounts.get("charge"), cost=cost, **members)


class CorrectedBody(CorrectionBody):
    """A correction that was just made, or would be."""

    model_config = example(is_dry_run=False, **_CORRECTION, **_SHOWN)

    is_dry_run: bool


class CorrectionPage(PageBody[CorrectionBody]):
    """A page of corrections, oldest first."""

    @classmethod
    def show(cls, found: Iterable[Booked], next_cursor: str | None, *, has_costs: bool) -> Self:
        """Return the page as it is answered."""
        data = [CorrectionBody.build(one, has_costs=has_costs) for one in found]
        return cls(data=data, next_cursor=next_cursor)


class CorrectionsQuery(PageQuery):
    """Which corrections are meant."""

    organization_id: Annotated[
        Id | None, Field(description="Of whose usage; the caller's own organization's without.")
    ] = None
    event_id: Annotated[Id | None, Field(description="Only of this event.")] = None
