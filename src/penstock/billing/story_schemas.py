"""What the API answers about one request."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, Field

from penstock.audit.schemas import AnswerBody, RequestBody, Text, Time, example
from penstock.billing.story_model import MAX_STORIES, Booking, BudgetUse, Rating, Story
from penstock.metering.schemas import EVENT_EXAMPLE, UsageRecord
from penstock.rating.cost_schemas import show
from penstock.rating.model import Price, PriceBook
from penstock.rating.schemas import PRICE_EXAMPLE, PriceBody


class RequestsQuery(RequestBody):
    """Which requests are meant."""

    id: Annotated[
        Text,
        Field(
            min_length=1,
            description="The `x-request-id` that it was sent or answered with, or its `event_id`.",
        ),
    ]


class ArrivalBody(AnswerBody):
    """How its usage came."""

    producer: Annotated[str, Field(description="The worker that measured it: node and slot.")]
    epoch: Annotated[int, Field(description="Which life of the worker.")]
    recorded_at: Annotated[str, Field(description="When it was stored, rated and booked.")]


class RatingBody(AnswerBody):
    """What it was rated at, or what changed that later."""

    kind: Annotated[str, Field(description="`charge`; and `cost`, told to the operator alone.")]
    currency: str
    amount: Annotated[str, Field(description="Exactly; below 0 it was given back.")]
    price_id: Annotated[str, Field(description='"" without a price: then it is nothing.')]
    run_id: Annotated[str, Field(description='The rating or correction; "" for the first one.')]
    transfer_id: Annotated[str | None, Field(description="Where it is booked, if it is.")]
    recorded_at: Time

    @classmethod
    def build(cls, rating: Rating) -> Self:
        """Return a rating as it is answered."""
        return cls.of(rating, amount=show(rating.amount_atto))


class StoryPriceBody(PriceBody):
    """A price that it was rated by; told to the operator alone."""

    model_config = example(**PRICE_EXAMPLE, book_name="list-EUR")

    book_name: str

    @classmethod
    def build(cls, price: Price, book: PriceBook) -> Self:
        """Return a price as it is answered."""
        return cls.of(price, book_name=book.name)


class StoryCorrectionBody(AnswerBody):
    """What was wrong about its usage."""

    id: str
    is_void: bool
    deltas: Annotated[dict[str, int], Field(description="By meter: what that changed.")]
    reference: str
    reason: str
    created_at: Time


class BudgetUseBody(AnswerBody):
    """What it cost a budget."""

    budget_id: str
    subject: Annotated[str, Field(description="Whose part of the budget; empty when it is one.")]
    currency: str
    amount: str
    window_starts_at: Time

    @classmethod
    def build(cls, use: BudgetUse) -> Self:
        """Return it as it is answered."""
        return cls.of(use, amount=show(use.amount_atto))


class EntryBody(BaseModel):
    """A debit of an account, or below zero a credit."""

    account: str
    qualifier: str
    amount: str


class BookingBody(AnswerBody):
    """The transfer in which it was booked: with others of the organization that came with it."""

    id: str
    kind: str
    currency: str
    booked_at: Time
    recorded_at: Time
    entries: list[EntryBody]

    @classmethod
    def build(cls, booking: Booking) -> Self:
        """Return a transfer as it is answered."""
        entries = [
            EntryBody(account=line.account, qualifier=line.qualifier, amount=show(line.amount_atto))
            for line in booking.lines
        ]
        return cls.of(booking, entries=entries)


class BilledBody(AnswerBody):
    """The invoice that it is on."""

    invoice_id: str
    label: Annotated[str | None, Field(description="Its number; null of a draft.")]
    issued_at: Time | None
    transfer_id: str


_STORY: dict[str, Any] = {
    "usage": EVENT_EXAMPLE,
    "arrival": {
        "producer": "node-1/0",
        "epoch": 7,
        "recorded_at": "2026-06-15T12:00:02.950000Z",
    },
    "ratings": [
        {
            "kind": "charge",
            "currency": "EUR",
            "amount": "0.00136",
            "price_id": "prc_2Yb7Qm4fKd1s",
            "run_id": "",
            "transfer_id": "xfr_5Hn2Wc8pLr3k",
            "recorded_at": "2026-06-15T12:00:02.950000Z",
        }
    ],
    "prices": [],
    "corrections": [],
    "budgets": [],
    "bookings": [],
    "bills": [],
}


class StoryBody(BaseModel):
    """What became of one request. What the caller may not see is an empty list."""

    model_config = example(**_STORY)

    usage: UsageRecord
    arrival: ArrivalBody
    ratings: list[RatingBody]
    prices: list[StoryPriceBody]
    corrections: list[StoryCorrectionBody]
    budgets: list[BudgetUseBody]
    bookings: list[BookingBody]
    bills: list[BilledBody]

    @classmethod
    def build(cls, story: Story) -> Self:
        """Return a story as it is answered."""
        return cls(
            usage=UsageRecord.from_row(story.usage),
            arrival=ArrivalBody.of(story.arrival),
            ratings=[RatingBody.build(one) for one in story.ratings],
            prices=[StoryPriceBody.build(*one) for one in story.prices],
            corrections=[StoryCorrectionBody.of(one) for one in story.corrections],
            budgets=[BudgetUseBody.build(one) for one in story.budgets],
            bookings=[BookingBody.build(one) for one in story.bookings],
            bills=[BilledBody.of(one) for one in story.bills],
        )


class StoriesBody(BaseModel):
    """The requests that are called so, oldest first."""

    model_config = example(data=[_STORY])

    data: Annotated[
        list[StoryBody],
        Field(description=f"Several when a caller used its id again; {MAX_STORIES} at most."),
    ]
