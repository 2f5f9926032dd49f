"""What the API of routes, aliases and grants takes and answers.

On bodies of changes see `upstream_schemas`.
"""

from typing import Annotated, Any, Self

from pydantic import Field, StrictBool, StrictInt

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
from penstock.catalog.objects import (
    AliasChanges,
    Choice,
    NewAlias,
    NewGrant,
    NewRoute,
    Route,
    RouteChanges,
)
from penstock.catalog.upstream_schemas import NameText

_TIMES = {"created_at": "2026-06-15T12:00:00.000000Z", "updated_at": "2026-06-15T12:00:00.000000Z"}
_DEPLOYMENT_ID = "dep_1Zx8Wm1nPqRs"
_ROUTE_ID = "rte_5Kd3Yt5uIoPa"
_ALIAS_ID = "als_9Vb7Qe4rTyUi"
_ORGANIZATION_ID = "org_4mJ0wq8ZtK1c"
_PROJECT_ID = "prj_9d21E8c0f1aX"

FallbackId = Annotated[
    Id | None, Field(description="The route to try when no choice can be connected to.")
]
IsOpen = Annotated[
    StrictBool, Field(description="For every key; else only for those that have a grant.")
]


class NewChoiceBody(RequestBody):
    """A deployment that a route may choose."""

    model_config = example(deployment_id=_DEPLOYMENT_ID, weight=1)

    deployment_id: Id
    weight: Annotated[
        StrictInt,
        Field(description="Its share, 0 to 1,000; with 0 it only stands in for the others."),
    ] = 1


Choices = Annotated[list[NewChoiceBody], Field(description="1 to 64, each deployment once.")]


class NewRouteBody(RequestBody):
    """A route that is to be."""

    model_config = example(
        name="llama-70b", choices=[{"deployment_id": _DEPLOYMENT_ID, "weight": 1}]
    )

    name: NameText
    choices: Choices
    fallback_id: FallbackId = None

    def to_new(self) -> NewRoute:
        """Return what is to be."""
        return NewRoute(
            name=self.name, choices=_to_choices(self.choices), fallback_id=self.fallback_id
        )


class RouteChangesBody(RequestBody):
    """What of a route is to change; what is left out stays."""

    model_config = example(
        choices=[{"deployment_id": _DEPLOYMENT_ID, "weight": 3}], fallback_id=None
    )

    choices: Choices = Field(default_factory=list)
    fallback_id: FallbackId = Field(default_factory=lambda: None)

    def to_changes(self) -> RouteChanges:
        """Return the members that were sent."""
        changes: RouteChanges = {}
        if "choices" in self.model_fields_set:
            changes["choices"] = _to_choices(self.choices)
        if "fallback_id" in self.model_fields_set:
            changes["fallback_id"] = self.fallback_id
        return changes


class RoutesQuery(PageQuery):
    """Which routes are meant."""

    name: Text | None = None


class ChoiceBody(AnswerBody):
    """A deployment that a route may choose."""

    deployment_id: str
    weight: int


class RouteBody(AnswerBody):
    """Where the requests of aliases go."""

    model_config = example(
        id=_ROUTE_ID,
        name="llama-70b",
        choices=[{"deployment_id": _DEPLOYMENT_ID, "weight": 1}],
        fallback_id=None,
        version=1,
        **_TIMES,
    )

    id: str
    name: str
    choices: list[ChoiceBody]
    fallback_id: str | None
    version: int
    created_at: Time
    updated_at: Time

    @classmethod
    def of(cls, item: Route, **members: Any) -> Self:
        """Return a route as it is answered."""
        return super().of(
            item, choices=[ChoiceBody.of(choice) for choice in item.choices], **members
        )


class RoutePage(PageBody[RouteBody]):
    """A page of routes, oldest first."""


class NewAliasBody(RequestBody):
    """An alias that is to be."""

    model_config = example(name="llama-70b", route_id=_ROUTE_ID)

    name: NameText
    route_id: Id
    is_open: IsOpen = False

    def to_new(self) -> NewAlias:
        """Return what is to be."""
        return NewAlias(**self.model_dump())


class AliasChangesBody(RequestBody):
    """What of an alias is to change; what is left out stays."""

    model_config = example(is_open=True)

    route_id: Id = Field(default_factory=str)
    is_open: IsOpen = Field(default_factory=bool)

    def to_changes(self) -> AliasChanges:
        """Return the members that were sent."""
        changes: AliasChanges = {**self.model_dump(exclude_unset=True)}  # type: ignore[typeddict-item]  # its names are ours
        return changes


class AliasesQuery(PageQuery):
    """Which aliases are meant."""

    name: Text | None = None
    route_id: Id | None = None


class AliasBody(AnswerBody):
    """A public model name."""

    model_config = example(
        id=_ALIAS_ID,
        name="llama-70b",
        route_id=_ROUTE_ID,
        is_open=False,
        version=1,
        **_TIMES,
    )

    id: str
    name: str
    route_id: Annotated[str | None, Field(description="Null for callers of an organization.")]
    is_open: bool
    version: int
    created_at: Time
    updated_at: Time


class AliasPage(PageBody[AliasBody]):
    """A page of aliases, oldest first."""


class NewGrantBody(RequestBody):
    """A grant that is to be."""

    model_config = example(
        alias_id=_ALIAS_ID, organization_id=_ORGANIZATION_ID, project_id=_PROJECT_ID
    )

    alias_id: Id
    organization_id: Id
    project_id: Annotated[
        Id | None, Field(description="For one project only; for the whole organization without.")
    ] = None

    def to_new(self) -> NewGrant:
        """Return what is to be."""
        return NewGrant(**self.model_dump())


class GrantsQuery(PageQuery):
    """Which grants are meant."""

    alias_id: Id | None = None
    organization_id: Id | None = None
    project_id: Id | None = None


class GrantBody(AnswerBody):
    """Leave to use an alias that is not open."""

    model_config = example(
        id="grt_8Hq2Lr90aBcD",
        alias_id=_ALIAS_ID,
        organization_id=_ORGANIZATION_ID,
        project_id=None,
        version=1,
        **_TIMES,
    )

    id: str
    alias_id: str
    organization_id: str
    project_id: str | None
    version: int
    created_at: Time
    updated_at: Time


class GrantPage(PageBody[GrantBody]):
    """A page of grants, oldest first."""


def _to_choices(bodies: list[NewChoiceBody]) -> list[Choice]:
    return [Choice(deployment_id=body.deployment_id, weight=body.weight) for body in bodies]
