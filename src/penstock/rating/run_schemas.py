"""What the API of runs and simulations takes and answers."""

from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field

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
from penstock.kit.moments import microseconds
from penstock.rating.cost_schemas import show
from penstock.rating.simulation import Simulated

_USUAL_US = 30 * 86_400 * 1_000_000

Since = Annotated[AwareDatetime, Field(description="When the first request was let in.")]
Until = Annotated[AwareDatetime, Field(description="All requests were let in before.")]


class NewRunBody(RequestBody):
    """A run that is to be."""

    model_config = example(since="2026-05-01T00:00:00Z", until="2026-06-01T00:00:00Z")

    since: Since
    until: Until
    book_id: Annotated[
        Id | None, Field(description="By this book only; as usage that comes in without.")
    ] = None
    organization: Annotated[Text | None, Field(description="Only this one's usage, by id.")] = None
    reason: Reason = ""

    def to_new(self) -> dict[str, Any]:
        """Return what is to be."""
        return {
            "since_us": microseconds(self.since),
            "until_us": microseconds(self.until),
            "book_id": self.book_id,
            "organization": self.organization,
            "reason": self.reason,
        }


class RunStepBody(RequestBody):
    """Which run is to go on."""

    model_config = example(price_run_id="run_2Lm9Qx4cVbNz")

    price_run_id: Id


class RunBody(AnswerBody):
    """A run that rates stored usage again."""

    model_config = example(
        id="run_2Lm9Qx4cVbNz",
        reason="",
        book_id=None,
        organization=None,
        since="2026-05-01T00:00:00.000000Z",
        until="2026-06-01T00:00:00.000000Z",
        event_count=1500,
        changed_count=20,
        created_at="2026-06-15T12:00:00.000000Z",
        finished_at=None,
    )

    id: str
    reason: str
    book_id: str | None
    organization: str | None
    since: Time
    until: Time
    event_count: Annotated[int, Field(description="Events that were looked at so far.")]
    changed_count: Annotated[int, Field(description="Events whose charge or cost changed.")]
    created_at: Time
    finished_at: Time | None


class RunPage(PageBody[RunBody]):
    """A page of runs, oldest first."""


class RunsQuery(PageQuery):
    """Which runs are meant."""

    organization: Annotated[
        Text | None, Field(description="Those that looked at this one's usage, by id.")
    ] = None


class SimulationQuery(RequestBody):
    """Which usage is to be rated in thought."""

    since: Annotated[
        AwareDatetime | None,
        Field(description="When the first request was let in; 30 days before `until` without."),
    ] = None
    until: Annotated[
        AwareDatetime | None, Field(description="All were let in before; now without.")
    ] = None
    organization: Annotated[Text | None, Field(description="Only this one's usage, by id.")] = None

    def to_filter(self, now_us: int) -> dict[str, Any]:
        """Return which usage is meant."""
        until_us = microseconds(self.until) or now_us
        return {
            "since_us": microseconds(self.since) or until_us - _USUAL_US,
            "until_us": until_us,
            "organization": self.organization,
        }


_SUM: dict[str, Any] = {
    "organization": "org_3Qd7Lk2vXsPm",
    "model": "llama-70b",
    "currency": "EUR",
    "events": 1500,
    "unpriced": 0,
    "charged": "12.5",
    "simulated": "11.25",
}


class SimulatedBody(AnswerBody):
    """What usage of a model is charged, and what it would have been."""

    model_config = example(**_SUM)

    organization: str
    model: str
    currency: Annotated[str, Field(description="Of what is charged.")]
    events: int
    unpriced: Annotated[
        int, Field(description="Events without a price in the book: they are in neither sum.")
    ]
    charged: Annotated[str, Field(description="Exactly, as a decimal.")]
    simulated: Annotated[str, Field(description="The same, in the book's currency.")]


class SimulationBody(AnswerBody):
    """What usage would have cost by a book."""

    model_config = example(book_id="pbk_4Hs8Vb1cTqZn", currency="EUR", data=[_SUM])

    book_id: str
    currency: str
    data: list[SimulatedBody]

    @classmethod
    def build(cls, book_id: str, currency: str, found: list[Simulated]) -> Self:
        """Return sums as they are answered."""
        data = [
            SimulatedBody(
                organization=one.organization,
                model=one.model,
                currency=one.currency,
                events=one.events,
                unpriced=one.unpriced,
                charged=show(one.charged_atto),
                simulated=show(one.simulated_atto),
            )
            for one in found
        ]
        return cls(book_id=book_id, currency=currency, data=data)
