"""What the API of credentials takes and answers; a secret is only ever taken."""

from typing import Annotated

from pydantic import Field, SecretStr

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
from penstock.catalog.credentials.model import CredentialChanges, NewCredential
from penstock.tenancy.schemas import Name

_SECRET = "sk-0123456789"  # noqa: S105 - an example
_ORGANIZATION_ID = "org_4mJ0wq8ZtK1c"

Secret = Annotated[
    SecretStr,
    Field(
        description="What is sent as bearer token: visible ASCII, at most 16384 characters.",
        examples=[_SECRET],
    ),
]


class NewCredentialBody(RequestBody):
    """A credential that is to be."""

    model_config = example(
        name="vllm production", provider="vllm", secret=_SECRET, organization_id=_ORGANIZATION_ID
    )

    name: Name
    provider: Annotated[Text, Field(description="That of the upstream that it is for.")]
    secret: Secret
    organization_id: Annotated[Id | None, Field(description="The platform's own without.")] = None
    upstream_id: Annotated[
        Id | None,
        Field(description="Where an organization's own is used instead of the upstream's."),
    ] = None

    def to_new_credential(self, organization_id: str | None) -> NewCredential:
        """Return the members that `NewCredential` has, for the organization that is meant."""
        return NewCredential(
            name=self.name,
            provider=self.provider,
            secret=self.secret.get_secret_value(),
            organization_id=organization_id,
            upstream_id=self.upstream_id,
        )


class CredentialChangesBody(RequestBody):
    """What of a credential is to change; what is left out stays."""

    model_config = example(name="vllm production", secret=_SECRET)

    # Made by a factory, the default is not shown in the OpenAPI document, where it would mislead.
    name: Name = Field(default_factory=str)
    secret: Secret = Field(default_factory=lambda: SecretStr(""))

    def to_changes(self) -> CredentialChanges:
        """Return the members that were sent."""
        changes: CredentialChanges = {}
        if "name" in self.model_fields_set:
            changes["name"] = self.name
        if "secret" in self.model_fields_set:
            changes["secret"] = self.secret.get_secret_value()
        return changes


class CredentialsQuery(PageQuery):
    """Which credentials are meant."""

    organization_id: Id | None = None
    name: Text | None = None
    provider: Text | None = None


class CredentialBody(AnswerBody):
    """A credential of an upstream, without its secret."""

    model_config = example(
        id="crd_5nQ0aB7xYz12",
        organization_id=_ORGANIZATION_ID,
        name="vllm production",
        provider="vllm",
        upstream_id=None,
        state="active",
        created_by="admin_token",
        version=1,
        created_at="2026-06-15T12:00:00.000000Z",
        updated_at="2026-06-15T12:00:00.000000Z",
    )

    id: str
    organization_id: Annotated[str | None, Field(description="Null for the platform's own.")]
    name: str
    provider: str
    upstream_id: str | None
    state: Annotated[
        str,
        Field(
            description="`active`, or `needs_reconfiguration` when it does not open: set it again."
        ),
    ]
    created_by: str
    version: int
    created_at: Time
    updated_at: Time


class CredentialPage(PageBody[CredentialBody]):
    """A page of credentials, oldest first."""


class KeyRotationBody(RequestBody):
    """Whose data key is rotated."""

    model_config = example(organization_id=_ORGANIZATION_ID)

    organization_id: Annotated[Id | None, Field(description="The platform's own without.")] = None


class RotationReportBody(AnswerBody):
    """How a rotation ended."""

    model_config = example(renewed=12, unreadable=0, outdated=0, is_complete=True)

    renewed: Annotated[int, Field(description="Records that were renewed, over all starts.")]
    unreadable: Annotated[int, Field(description="Records that do not open.")]
    outdated: Annotated[int, Field(description="Records that still need the old key.")]
    is_complete: Annotated[bool, Field(description="Whether the old key is needed no more.")]
