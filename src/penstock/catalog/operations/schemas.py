"""What the API of operations of engines takes and answers."""

from typing import Annotated, Any, Self

from pydantic import Field

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
from penstock.catalog.operations.model import EngineOperation, NewEngineOperation, Status
from penstock.catalog.operations.rules import status_of

_UPSTREAM_ID = "ups_7Hq2Lr90aBcD"
_LORA = {"lora_name": "legal", "lora_path": "/adapters/legal"}


class NewEngineOperationBody(RequestBody):
    """An operation that is to be done."""

    model_config = example(upstream_id=_UPSTREAM_ID, operation="load_lora_adapter", arguments=_LORA)

    upstream_id: Id
    operation: Annotated[
        Text, Field(description="One that `docs/reference/engines.md` has for its provider.")
    ]
    arguments: Annotated[
        dict[Text, Text], Field(max_length=16, description="Those that it takes, by name.")
    ] = Field(default_factory=dict)
    endpoint: Annotated[
        Text | None, Field(description="URL of the only endpoint that is meant; all without.")
    ] = None

    def to_new(self) -> NewEngineOperation:
        """Return what is to be."""
        return NewEngineOperation(**self.model_dump())


class EngineOperationsQuery(PageQuery):
    """Which operations are meant."""

    upstream_id: Id | None = None


class OutcomeBody(AnswerBody):
    """What one endpoint answered."""

    model_config = example(endpoint="http://10.0.0.5:8000", status=200, text="ok")

    endpoint: str
    status: Annotated[int | None, Field(description="HTTP status; null without an answer.")]
    text: str


class EngineOperationBody(AnswerBody):
    """An operation that was wanted, and what came of it."""

    model_config = example(
        id="eop_5Kd8Rm2sWqYz",
        upstream_id=_UPSTREAM_ID,
        upstream="gpu",
        operation="load_lora_adapter",
        arguments=_LORA,
        endpoint=None,
        status="done",
        node_id="node-1",
        outcomes=[{"endpoint": "http://10.0.0.5:8000", "status": 200, "text": "ok"}],
        fault=None,
        version=3,
        created_at="2026-06-15T12:00:00.000000Z",
        updated_at="2026-06-15T12:00:01.000000Z",
    )

    id: str
    upstream_id: str
    upstream: str
    operation: str
    arguments: dict[str, str]
    endpoint: str | None
    status: Annotated[
        Status,
        Field(
            description=(
                "`waiting` for a node, `running`, `done`; `expired`: no node took it; `lost`: one "
                "did and never said what came of it."
            )
        ),
    ]
    node_id: str | None
    outcomes: list[OutcomeBody]
    fault: Annotated[str | None, Field(description="Why nobody was asked.")]
    version: int
    created_at: Time
    updated_at: Time

    @classmethod
    def at(cls, operation: EngineOperation, now_us: int) -> Self:
        """Return an operation as it is answered at a time."""
        members: dict[str, Any] = {
            "status": status_of(operation, now_us),
            "outcomes": [OutcomeBody(**each) for each in operation.outcomes],
        }
        return cls.of(operation, **members)


class EngineOperationPage(PageBody[EngineOperationBody]):
    """A page of operations, oldest first."""
