"""HTTP endpoints that show the chain of money. They are the operator's alone."""

from datetime import date
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.audit.schemas import RequestBody, example
from penstock.kit.decimals import format_decimal
from penstock.ledger.chain import MAX_DIFFERENCES, Chain, read_chain
from penstock.metering.model import MAX_COMPARED, Comparison
from penstock.metering.service import compare_events

reconciliation = APIRouter(
    prefix="/api/v1/reconciliation", tags=["reconciliation"], route_class=AdminRoute
)

_Call = Annotated[Call, Depends(get_call)]
_EPOCH = date(1970, 1, 1)
_PLACES = 18

Count = Annotated[int, Field(ge=0)]
_EventId = Annotated[str, Field(pattern="^[0-9A-Za-z-]{1,64}$")]
_Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the content.")]


class DayQuery(RequestBody):
    """Which day."""

    on: Annotated[
        date,
        Field(
            ge=_EPOCH,
            le=date(2200, 1, 1),
            description="A day of UTC. Events whose ids tell no time are under 1970-01-01.",
        ),
    ]


class Charge(BaseModel):
    """An exact amount."""

    currency: str
    amount: str


class LinkBody(BaseModel):
    """What is stored of one producer."""

    producer: str
    events: Count
    rated: Count
    unpriced: Annotated[Count, Field(description="Of the rated ones: without a price.")]
    unbooked: Annotated[Count, Field(description="Of the rated ones: in no transfer.")]
    charges: list[Charge]
    is_whole: Annotated[bool, Field(description="Every event is rated, and all of it booked.")]


class DifferenceBody(BaseModel):
    """A figure that does not say what the events say."""

    figure: str
    of: Annotated[dict[str, str], Field(description="Whose figure it is, by name.")]
    expected: int
    found: int


class ChainBody(BaseModel):
    """What one day is made of."""

    model_config = example(
        on="2026-11-26",
        data=[
            {
                "producer": "node-1/0",
                "events": 3,
                "rated": 3,
                "unpriced": 0,
                "unbooked": 0,
                "charges": [{"currency": "EUR", "amount": "0.0042"}],
                "is_whole": True,
            }
        ],
        differences=[],
    )

    on: date
    data: list[LinkBody]
    differences: Annotated[
        list[DifferenceBody],
        Field(description=f"The first {MAX_DIFFERENCES}. Amounts are in 10^-18 of a unit."),
    ]

    @classmethod
    def from_chain(cls, on: date, chain: Chain) -> Self:
        """Return what is answered."""
        links = [
            LinkBody(
                producer=link.producer,
                events=link.events,
                rated=link.rated,
                unpriced=link.unpriced,
                unbooked=link.unbooked,
                charges=[
                    Charge(currency=currency, amount=format_decimal(atto, _PLACES))
                    for currency, atto in sorted(link.charges_atto.items())
                ],
                is_whole=link.is_whole,
            )
            for link in chain.links
        ]
        differences = [
            DifferenceBody(
                figure=one.figure, of=dict(one.of), expected=one.expected, found=one.found
            )
            for one in chain.differences
        ]
        return cls(on=on, data=links, differences=differences)


class CompareBody(RequestBody):
    """Events as a journal has them."""

    model_config = example(hashes={"01977f5e-3c00-7a4b-9d21-5b8e0c7f1a00": "0f" * 32})

    hashes: Annotated[
        dict[_EventId, _Hash],
        Field(max_length=MAX_COMPARED, description="Fingerprints of contents by event id."),
    ]


class ComparisonBody(BaseModel):
    """What came of it."""

    model_config = example(missing=[], different=["01977f5e-3c00-7a4b-9d21-5b8e0c7f1a00"])

    missing: Annotated[list[str], Field(description="Ids of events that are not stored.")]
    different: Annotated[list[str], Field(description="Ids stored with another content.")]

    @classmethod
    def from_comparison(cls, found: Comparison) -> Self:
        """Return what is answered."""
        return cls(missing=list(found.missing), different=list(found.different))


@reconciliation.get(
    "",
    summary="Look at a day's usage, what it was rated at and where that is booked",
    description="By producer: a worker of a node. `differences` are of figures.",
    response_model=ChainBody,
    **operation("reconciliation:read"),
)
async def show_chain(call: _Call, query: Annotated[DayQuery, Query()]) -> Response:
    """Look at a day's usage, what it was rated at and where that is booked."""
    async with call.read() as session:
        chain = await read_chain(session, (query.on - _EPOCH).days)
    return call.answer(ChainBody.from_chain(query.on, chain))


@reconciliation.post(
    "/events",
    summary="Compare events of a journal with what is stored",
    description="Changes nothing.",
    response_model=ComparisonBody,
    **operation("reconciliation:compare"),
)
async def compare(call: _Call, body: CompareBody) -> Response:
    """Compare events of a journal with what is stored."""
    async with call.read() as session:
        found = await compare_events(
            session,
            session.scope,
            {event_id: bytes.fromhex(text) for event_id, text in body.hashes.items()},
        )
    return call.answer(ComparisonBody.from_comparison(found))
