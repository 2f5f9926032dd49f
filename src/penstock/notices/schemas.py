"""What the API of notices takes and answers."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, Field

from penstock.audit.schemas import Id, RequestBody, Text, Time, example
from penstock.kit.moments import format_time
from penstock.notices.model import StoredNotice, Topic
from penstock.notices.service import write_cursor
from penstock.storage.paging import DEFAULT_PAGE_ROWS, MAX_PAGE_ROWS

_NOTICE: dict[str, Any] = {
    "id": "ntc_4mJ0wq8ZtK1c",
    "cursor": "81234.17",
    "topic": "budget.alert",
    "organization_id": "org_4mJ0wq8ZtK1c",
    "key": "bud_4mJ0wq8ZtK1c//1780272000000000/80",
    "payload": {"budget_id": "bud_4mJ0wq8ZtK1c", "percentage": 80, "currency": "EUR"},
    "created_at": "2026-06-15T12:00:00.000000Z",
}


class NoticesQuery(RequestBody):
    """Which notices are meant."""

    after: Annotated[
        Text | None,
        Field(description="`cursor` of the answer before; from the oldest on without."),
    ] = None
    organization_id: Annotated[
        Id | None, Field(description="Of this organization; all that may be seen without.")
    ] = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_ROWS, description="Most notices.")] = (
        DEFAULT_PAGE_ROWS
    )


class NoticeBody(BaseModel):
    """What somebody must be told."""

    model_config = example(**_NOTICE)

    id: Annotated[str, Field(description="The same whenever it is delivered: act on it once.")]
    cursor: Annotated[str, Field(description="Where the feed goes on behind it.")]
    topic: Topic
    organization_id: str
    key: Annotated[str, Field(description="What it tells of; of a topic, told once.")]
    payload: dict[str, Any]
    created_at: Time

    @classmethod
    def of(cls, notice: StoredNotice) -> Self:
        """Return a notice as it is answered."""
        return cls(
            id=notice.id,
            cursor=write_cursor(notice.position),
            topic=notice.topic,
            organization_id=notice.organization_id,
            key=notice.key,
            payload=notice.payload,
            created_at=format_time(notice.created_at_us),
        )


class NoticesBody(BaseModel):
    """A part of the feed."""

    model_config = example(data=[_NOTICE], cursor=_NOTICE["cursor"])

    data: list[NoticeBody]
    cursor: Annotated[str, Field(description="Pass it as `after` to go on, now or later.")]
