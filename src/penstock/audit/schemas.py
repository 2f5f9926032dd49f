"""What the audit API takes and answers, and what all bodies of the admin API have in common."""

from collections.abc import Iterable
from typing import Annotated, Any, Generic, Self, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from penstock.audit.model import PLATFORM_CHAIN, EntryFilter, Outcome, StoredEntry, Verification
from penstock.kit.moments import format_time
from penstock.storage.paging import DEFAULT_PAGE_ROWS, MAX_PAGE_ROWS, Page, PageRequest

Id = Annotated[str, StringConstraints(pattern="^[0-9A-Za-z_-]{1,64}$")]
"""An id in a body or a query."""
Text = Annotated[str, StringConstraints(max_length=1_024, pattern=r"^[^\x00]*$")]
"""A text that a database can be asked for; services say what it may be."""
Reason = Annotated[
    str,
    StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"),
    Field(description="For the audit log: one line, without control characters."),
]
Time = Annotated[str, Field(description="ISO 8601 in UTC, to the microsecond.")]

Item = TypeVar("Item", bound=BaseModel)


def example(**members: Any) -> ConfigDict:
    """Return the configuration of a body that shows this example in the OpenAPI document.

    Every body has one: tests call each operation with it, ids replaced by those of real objects.
    """
    return ConfigDict(json_schema_extra={"examples": [members]})


class RequestBody(BaseModel):
    """A body or a query: an unknown member is refused."""

    model_config = ConfigDict(extra="forbid")


class AnswerBody(BaseModel):
    """An object as it is answered."""

    @classmethod
    def of(cls, item: Any, **members: Any) -> Self:
        """Return a value of a room as it is answered; times become ISO 8601.

        Args:
            item: Has the members of the body; `created_at_us` is what `created_at` is made of.
            **members: Those that it has not, or that differ.

        A row that something else wrote is answered, too: what it cannot have in a member is left
        out, so that it can be found and mended.
        """
        found = {
            name: members[name] if name in members else _find_member(item, name)
            for name in cls.model_fields
        }
        try:
            return cls(**found)
        except ValidationError as error:
            for name in {str(fault["loc"][0]) for fault in error.errors(include_url=False)}:
                found[name] = _empty(cls.model_fields[name].annotation)
            return cls(**found)


class PageQuery(RequestBody):
    """Which page of a listing is meant."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE_ROWS, description="Most objects.")] = (
        DEFAULT_PAGE_ROWS
    )
    cursor: Annotated[
        str | None, Field(description="`next_cursor` of the page before; the first page without.")
    ] = None

    def to_page(self) -> PageRequest:
        """Return the page as the storage room asks for it.

        Raises:
            PenstockError: `PAGE_CURSOR_INVALID`.
        """
        return PageRequest.of(self.cursor, self.limit)


class PageBody(BaseModel, Generic[Item]):
    """A page of a listing, oldest first."""

    data: list[Item]
    next_cursor: Annotated[
        str | None, Field(description="Where to go on; null when there is nothing more.")
    ]

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Show the example of an item as that of a page."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        (kind,) = cls._kinds()
        extra: Any = kind.model_config.get("json_schema_extra")
        schema["examples"] = [{"data": extra["examples"], "next_cursor": None}]
        return schema

    @classmethod
    def of(cls, page: Page[Any]) -> Self:
        """Return a page as it is answered."""
        return cls.build(page.items, page.next_cursor)

    @classmethod
    def build(cls, items: Iterable[Any], next_cursor: str | None) -> Self:
        """Return the page with these values of a room."""
        (kind,) = cls._kinds()
        return cls(data=[kind.of(item) for item in items], next_cursor=next_cursor)

    @classmethod
    def _kinds(cls) -> tuple[Any, ...]:
        # A subclass `ThingPage(PageBody[ThingBody])` has its argument one step up.
        for base in cls.__mro__:
            arguments = getattr(base, "__pydantic_generic_metadata__", {}).get("args", ())
            if arguments:
                return tuple(arguments)
        return ()


class EntriesQuery(PageQuery):
    """Which audit entries are meant."""

    organization_id: Annotated[
        Id | None,
        Field(description="Whose chain; the caller's own, or the platform's, without."),
    ] = None
    resource: Annotated[Text | None, Field(description="Id of what was changed.")] = None
    actor: Annotated[Text | None, Field(description="Id of who did it.")] = None
    action: Annotated[Text | None, Field(description="E.g. `key.rotate`.")] = None
    outcome: Outcome | None = None

    def to_filter(self) -> EntryFilter:
        """Return the members that `EntryFilter` has."""
        return EntryFilter(
            actor_id=self.actor,
            resource_id=self.resource,
            action=self.action,
            outcome=self.outcome,
        )


class EntryBody(BaseModel):
    """A link of a chain."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "organization_id": "org_4mJ0wq8ZtK1c",
                    "number": 17,
                    "recorded_at": "2026-06-15T12:00:00.000000Z",
                    "actor_kind": "admin_token",
                    "actor_id": "admin_token",
                    "action": "project.create",
                    "resource_kind": "project",
                    "resource_id": "prj_9d21E8c0f1aX",
                    "outcome": "done",
                    "detail": "",
                    "request_id": "01977f5e-3c00-7a4b-9d21-5b8e0c7f1a00",
                    "before": None,
                    "after": {"name": "search"},
                    "address": "192.0.2.7",
                    "hash": "00" * 32,
                }
            ]
        }
    )

    organization_id: Annotated[str | None, Field(description="Null for the platform's chain.")]
    number: Annotated[int, Field(description="Place in its chain, from 1.")]
    recorded_at: Time
    actor_kind: str
    actor_id: str
    action: str
    resource_kind: str
    resource_id: str
    outcome: str
    detail: str
    request_id: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    address: str | None
    hash: str

    @classmethod
    def of(cls, entry: StoredEntry) -> Self:
        """Return an entry as it is answered."""
        members: dict[str, Any] = {name: getattr(entry, name, None) for name in cls.model_fields}
        members["organization_id"] = None if entry.chain == PLATFORM_CHAIN else entry.chain
        members["recorded_at"] = format_time(entry.recorded_at_us)
        members["hash"] = entry.hash.hex()
        # What somebody wrote into the file by hand is shown as nothing; `verify` tells of it.
        for name in ("before", "after"):
            if not isinstance(members[name], dict):
                members[name] = None
        return cls(**members)


class EntryPage(PageBody[EntryBody]):
    """A page of a chain, in its order."""


class VerifyBody(RequestBody):
    """Which chains are to be verified."""

    model_config = example(organization_id="org_4mJ0wq8ZtK1c")

    organization_id: Annotated[
        Id | None, Field(description="One organization's; all that the caller may see without.")
    ] = None


class BrokenLink(BaseModel):
    """The first link that is not what it was."""

    organization_id: Annotated[str | None, Field(description="Null for the platform's chain.")]
    number: int
    reason: str


class VerificationBody(BaseModel):
    """What a walk along the chains found."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"is_intact": True, "entries": 1_204, "checkpoints": 31, "broken": None}]
        }
    )

    is_intact: bool
    entries: Annotated[int, Field(description="Links that were found whole.")]
    checkpoints: Annotated[int, Field(description="Signed statements that hold.")]
    broken: BrokenLink | None

    @classmethod
    def of(cls, verifications: list[Verification]) -> Self:
        """Return the sum of walks along several chains, and the first that is broken."""
        broken = next((one for one in verifications if not one.is_whole), None)
        link = None
        if broken is not None:
            chain = None if broken.chain == PLATFORM_CHAIN else broken.chain
            link = BrokenLink(
                organization_id=chain, number=broken.broken_at or 0, reason=broken.reason
            )
        return cls(
            is_intact=broken is None,
            entries=sum(one.entries for one in verifications),
            checkpoints=sum(one.checkpoints for one in verifications),
            broken=link,
        )


def _find_member(item: Any, name: str) -> Any:
    if hasattr(item, name):
        return getattr(item, name)
    try:
        return format_time(getattr(item, f"{name}_us"))
    except (TypeError, OverflowError):
        return None  # NULL, or what somebody wrote by hand


def _empty(annotation: Any) -> Any:
    """Return what a member of a type is when there is nothing: None, or an empty text or list."""
    if type(None) in get_args(annotation):
        return None
    return (get_origin(annotation) or annotation)()
