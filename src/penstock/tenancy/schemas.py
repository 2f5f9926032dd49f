"""What the API of organizations, projects, members and service accounts takes and answers."""

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, StrictBool

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
from penstock.tenancy.labels import known_labels
from penstock.tenancy.model import (
    AccountChanges,
    Member,
    OwnerChanges,
    PersonChanges,
    Role,
    ServiceAccount,
)

Name = Annotated[
    Text,
    Field(
        description="1 to 128 visible characters of any script, without space around them.",
        examples=["search"],
    ),
]

Labels = dict[Text, Text]
ByOperator = Annotated[
    bool, Field(description="Whether the platform's operator disabled it, who alone enables it.")
]
Places = Annotated[
    list[Text],
    Field(description="Sorted, each once; null for all.", examples=[["eu-de"]]),
]
AllowedDataClasses = Annotated[
    list[str] | None, Field(description="Its data goes to such upstreams only; to all when null.")
]
AllowedRegions = Annotated[
    list[str] | None, Field(description="Its data goes to such regions only; to all when null.")
]

_TIMES = {"created_at": "2026-06-15T12:00:00.000000Z", "updated_at": "2026-06-15T12:00:00.000000Z"}
_ORGANIZATION_ID = "org_4mJ0wq8ZtK1c"
_PROJECT_ID = "prj_9d21E8c0f1aX"


class NewOrganization(RequestBody):
    """An organization that is to be."""

    model_config = example(name="acme")

    name: Name


class OwnerChangesBody(RequestBody):
    """What of an organization or project is to change; what is left out stays."""

    # Made by a factory, the default is not shown in the OpenAPI document, where it would mislead.
    name: Name = Field(default_factory=str)
    allowed_data_classes: Places | None = Field(default_factory=lambda: None)
    allowed_regions: Places | None = Field(default_factory=lambda: None)

    def to_changes(self) -> OwnerChanges:
        """Return the members that were sent."""
        changes: OwnerChanges = {**self.model_dump(exclude_unset=True)}  # type: ignore[typeddict-item]  # its names are ours
        return changes


class OrganizationChanges(OwnerChangesBody):
    """What of an organization is to change; what is left out stays."""

    model_config = example(name="Acme Corporation", allowed_regions=["eu-central"])


class SuspensionBody(RequestBody):
    """Why an organization is suspended."""

    model_config = example(reason="unpaid")

    reason: Reason = ""


class OrganizationsQuery(PageQuery):
    """Which organizations are meant."""

    name: Text | None = None
    status: Text | None = None


class OrganizationBody(AnswerBody):
    """The unit that pays and is isolated."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _ORGANIZATION_ID,
                    "name": "acme",
                    "status": "active",
                    "allowed_data_classes": ["eu_only"],
                    "allowed_regions": None,
                    "version": 1,
                    **_TIMES,
                }
            ]
        }
    )

    id: str
    name: str
    status: Annotated[str, Field(description="`active`, `suspended` or `archived`.")]
    allowed_data_classes: AllowedDataClasses
    allowed_regions: AllowedRegions
    version: int
    created_at: Time
    updated_at: Time


class OrganizationPage(PageBody[OrganizationBody]):
    """A page of organizations, oldest first."""


class NewProject(RequestBody):
    """A project that is to be."""

    model_config = example(organization_id=_ORGANIZATION_ID, name="search")

    organization_id: Id
    name: Name


class ProjectChanges(OwnerChangesBody):
    """What of a project is to change; what is left out stays."""

    model_config = example(name="site search", allowed_data_classes=["internal"])


class ProjectsQuery(PageQuery):
    """Which projects are meant."""

    organization_id: Id | None = None
    name: Text | None = None
    status: Text | None = None


class ProjectBody(AnswerBody):
    """A subdivision of an organization; owns keys."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _PROJECT_ID,
                    "organization_id": _ORGANIZATION_ID,
                    "name": "search",
                    "status": "active",
                    "allowed_data_classes": None,
                    "allowed_regions": ["eu-de"],
                    "version": 1,
                    **_TIMES,
                }
            ]
        }
    )

    id: str
    organization_id: str
    name: str
    status: Annotated[str, Field(description="`active` or `archived`.")]
    allowed_data_classes: AllowedDataClasses
    allowed_regions: AllowedRegions
    version: int
    created_at: Time
    updated_at: Time


class ProjectPage(PageBody[ProjectBody]):
    """A page of projects, oldest first."""


class NewMember(RequestBody):
    """A member that is to be."""

    model_config = example(
        organization_id=_ORGANIZATION_ID,
        subject="auth0|42",
        role="developer",
        email="ada@example.com",
        project_id=_PROJECT_ID,
    )

    organization_id: Id
    subject: Annotated[
        Text, Field(description="The `sub` of the identity provider.", examples=["auth0|42"])
    ]
    role: Role
    email: Text | None = None
    project_id: Annotated[Id | None, Field(description="For one project only.")] = None
    labels: Labels = Field(default_factory=dict)


class MemberChanges(RequestBody):
    """What of a member is to change; what is left out stays."""

    model_config = example(role="project_admin", labels={"team": "search"})

    role: Role | None = None
    labels: Labels | None = None

    def to_changes(self) -> PersonChanges:
        """Return the members that were sent."""
        return self.model_dump(exclude_none=True)  # type: ignore[return-value]  # its names are ours


class MembersQuery(PageQuery):
    """Which members are meant."""

    organization_id: Id | None = None
    project_id: Id | None = None
    subject: Text | None = None


class MemberBody(AnswerBody):
    """A person in an organization, or in one project of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "mem_7Qx2Lr90aBcD",
                    "organization_id": _ORGANIZATION_ID,
                    "project_id": None,
                    "subject": "auth0|42",
                    "email": "ada@example.com",
                    "role": "org_admin",
                    "labels": {"team": "search"},
                    "version": 1,
                    **_TIMES,
                }
            ]
        }
    )

    id: str
    organization_id: str
    project_id: str | None
    subject: str
    email: str | None
    role: str
    labels: Annotated[dict[str, str], Field(description="Their keys carry them, too.")]
    version: int
    created_at: Time
    updated_at: Time

    @classmethod
    def of(cls, item: Member, **members: Any) -> Self:
        """Return a member as they are answered."""
        return super().of(item, labels=known_labels(item.labels), **members)


class MemberPage(PageBody[MemberBody]):
    """A page of members, oldest first."""


class NewServiceAccount(RequestBody):
    """A service account that is to be."""

    model_config = example(
        organization_id=_ORGANIZATION_ID, name="nightly", role="developer", project_id=_PROJECT_ID
    )

    organization_id: Id
    name: Name
    role: Role
    project_id: Annotated[Id | None, Field(description="For one project only.")] = None
    labels: Labels = Field(default_factory=dict)


class ServiceAccountChanges(RequestBody):
    """What of a service account is to change; what is left out stays."""

    model_config = example(is_disabled=True)

    role: Role | None = None
    is_disabled: StrictBool | None = None
    labels: Labels | None = None

    def to_changes(self) -> AccountChanges:
        """Return the members that were sent."""
        return self.model_dump(exclude_none=True)  # type: ignore[return-value]  # its names are ours


class ServiceAccountsQuery(PageQuery):
    """Which service accounts are meant."""

    organization_id: Id | None = None
    project_id: Id | None = None
    name: Text | None = None


class ServiceAccountBody(AnswerBody):
    """A machine in an organization, or in one project of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "sa_3Kd8Wm1nPqRs",
                    "organization_id": _ORGANIZATION_ID,
                    "project_id": _PROJECT_ID,
                    "name": "nightly",
                    "role": "developer",
                    "is_disabled": False,
                    "is_disabled_by_operator": False,
                    "labels": {},
                    "version": 1,
                    **_TIMES,
                }
            ]
        }
    )

    id: str
    organization_id: str
    project_id: str | None
    name: str
    role: str
    is_disabled: bool
    is_disabled_by_operator: ByOperator
    labels: Annotated[dict[str, str], Field(description="Its keys carry them, too.")]
    version: int
    created_at: Time
    updated_at: Time

    @classmethod
    def of(cls, item: ServiceAccount, **members: Any) -> Self:
        """Return a service account as it is answered."""
        return super().of(item, labels=known_labels(item.labels), **members)


class ServiceAccountPage(PageBody[ServiceAccountBody]):
    """A page of service accounts, oldest first."""
