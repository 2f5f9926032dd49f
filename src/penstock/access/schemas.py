"""What the API of keys takes and answers."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, ConfigDict, Field, StrictBool, StrictInt

from penstock.access.model import ApiKey, CreatedKey, DueSecret, KeyChanges, KeyScope, NewKey
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
from penstock.tenancy.labels import known_labels
from penstock.tenancy.model import Role
from penstock.tenancy.schemas import ByOperator, Labels, Name

Expiry = Annotated[
    AwareDatetime, Field(description="ISO 8601 with a time zone, e.g. `2027-01-01T00:00:00Z`.")
]

_KEY: dict[str, Any] = {
    "id": "4mJ0wq8ZtK1c",
    "organization_id": "org_4mJ0wq8ZtK1c",
    "project_id": "prj_9d21E8c0f1aX",
    "service_account_id": None,
    "member_id": None,
    "name": "web shop",
    "is_live": True,
    "role": "inference_only",
    "scopes": ["inference", "models:read"],
    "allowed_aliases": None,
    "allowed_cidrs": ["192.0.2.0/24"],
    "labels": {"stage": "production"},
    "expires_at": None,
    "is_disabled": False,
    "is_disabled_by_operator": False,
    "revoked_at": None,
    "revoked_reason": None,
    "rotation_interval_s": None,
    "rotation_grace_s": None,
    "created_by": "admin_token",
    "last_used_at": None,
    "version": 1,
    "created_at": "2026-06-15T12:00:00.000000Z",
    "updated_at": "2026-06-15T12:00:00.000000Z",
}
_SECRET = "ps_live_4mJ0wq8ZtK1c_" + "0" * 38  # an example without a valid checksum


_DUE_EXAMPLE: dict[str, Any] = {
    "reason": "rotation_due",
    "key_id": "4mJ0wq8ZtK1c",
    "key_name": "web shop",
    "organization_id": "org_4mJ0wq8ZtK1c",
    "project_id": "prj_9d21E8c0f1aX",
    "secret_id": "sec_2Vb7Yt5uIoPa",
    "created_at": "2026-06-15T12:00:00.000000Z",
    "not_after": "2026-09-14T12:00:00.000000Z",
    "last_used_at": None,
}


_PEPPER_EXAMPLE: dict[str, Any] = {
    "id": 1,
    "is_active": False,
    "is_loaded": True,
    "secrets": 1,
    "key_ids": ["4mJ0wq8ZtK1c"],
}


class NewKeyBody(RequestBody):
    """A key that is to be."""

    model_config = example(
        project_id=_KEY["project_id"],
        name="web shop",
        role="developer",
        scopes=["inference", "usage:read"],
        allowed_cidrs=["192.0.2.0/24"],
        labels={"stage": "production"},
        expires_at="2030-01-01T00:00:00Z",
    )

    project_id: Id
    name: Name
    role: Role = Role.INFERENCE_ONLY
    scopes: list[KeyScope] = Field(
        default_factory=lambda: [KeyScope.INFERENCE, KeyScope.MODELS_READ]
    )
    is_live: Annotated[StrictBool, Field(description="`ps_live_...` or `ps_test_...`.")] = True
    service_account_id: Annotated[
        Id | None, Field(description="The machine that it belongs to: it can do no more than that.")
    ] = None
    member_id: Annotated[
        Id | None,
        Field(description="The person that it belongs to: it can do no more, and goes with them."),
    ] = None
    allowed_aliases: Annotated[list[Text] | None, Field(description="All when null.")] = None
    allowed_cidrs: Annotated[list[Text] | None, Field(description="Everywhere when null.")] = None
    labels: Labels = Field(default_factory=dict)
    expires_at: Expiry | None = None
    rotation_interval_s: Annotated[
        StrictInt | None,
        Field(description="How old a secret may become: then it gets an end. Null for any age."),
    ] = None
    rotation_grace_s: Annotated[
        StrictInt | None,
        Field(
            description="How long it works on then; when null a day, or half the interval if less."
        ),
    ] = None

    def to_new_key(self) -> NewKey:
        """Return the members that `NewKey` has."""
        members = self.model_dump(exclude={"project_id", "expires_at"})
        return NewKey(**members, expires_at_us=microseconds(self.expires_at))


class KeyChangesBody(RequestBody):
    """What of a key is to change; what is left out stays."""

    model_config = example(allowed_aliases=["emulated-70b"], labels={})

    # Made by a factory, the default is not shown in the OpenAPI document, where it would mislead.
    name: Name = Field(default_factory=str)
    role: Role = Field(default_factory=lambda: Role.INFERENCE_ONLY)
    scopes: list[KeyScope] = Field(default_factory=list)
    allowed_aliases: list[Text] | None = Field(default_factory=lambda: None)
    allowed_cidrs: list[Text] | None = Field(default_factory=lambda: None)
    labels: Labels = Field(default_factory=dict)
    expires_at: Expiry | None = Field(default_factory=lambda: None)
    rotation_interval_s: StrictInt | None = Field(default_factory=lambda: None)
    rotation_grace_s: StrictInt | None = Field(default_factory=lambda: None)

    def to_changes(self) -> KeyChanges:
        """Return the members that were sent."""
        members = self.model_dump(exclude_unset=True)
        if "expires_at" in members:
            moment: datetime | None = members.pop("expires_at")
            members["expires_at_us"] = microseconds(moment)
        changes: KeyChanges = {**members}  # type: ignore[typeddict-item]  # its names are ours
        return changes


class KeysQuery(PageQuery):
    """Which keys are meant."""

    organization_id: Id | None = None
    project_id: Id | None = None
    service_account_id: Id | None = None
    member_id: Id | None = None
    name: Text | None = None


class DueQuery(RequestBody):
    """Whose secrets are meant."""

    organization_id: Id | None = None
    project_id: Id | None = None


class RotationBody(RequestBody):
    """How a key is rotated."""

    model_config = example(grace_s=3_600)

    grace_s: Annotated[
        StrictInt, Field(description="Seconds that the old secret works on, 0 to 2,592,000.")
    ] = 0


class RevocationBody(RequestBody):
    """Why a key is revoked."""

    model_config = example(reason="leaked")

    reason: Reason = ""


class KeyBody(AnswerBody):
    """A credential of a project, without its secrets."""

    model_config = ConfigDict(json_schema_extra={"examples": [_KEY]})

    id: Annotated[str, Field(description="The 12 characters inside the key.")]
    organization_id: str
    project_id: str
    service_account_id: str | None
    member_id: str | None
    name: str
    is_live: bool
    role: str
    scopes: list[str]
    allowed_aliases: Annotated[list[str] | None, Field(description="All when null.")]
    allowed_cidrs: Annotated[list[str] | None, Field(description="Everywhere when null.")]
    labels: dict[str, str]
    expires_at: str | None
    is_disabled: bool
    is_disabled_by_operator: ByOperator
    revoked_at: str | None
    revoked_reason: str | None
    rotation_interval_s: int | None
    rotation_grace_s: int | None
    created_by: str
    last_used_at: Annotated[str | None, Field(description="Some seconds behind.")]
    version: int
    created_at: Time
    updated_at: Time

    @classmethod
    def of(cls, item: ApiKey, **members: Any) -> Self:
        """Return a key as it is answered; members of a damaged row are empty."""
        return super().of(
            item,
            scopes=_texts(item.scopes) or [],
            allowed_aliases=_texts(item.allowed_aliases),
            allowed_cidrs=_texts(item.allowed_cidrs),
            labels=known_labels(item.labels),
            **members,
        )


class CreatedKeyBody(KeyBody):
    """A key with its secret, which is shown here and never again."""

    model_config = ConfigDict(json_schema_extra={"examples": [_KEY | {"secret": _SECRET}]})

    secret: str

    @classmethod
    def of_created(cls, created: CreatedKey) -> Self:
        """Return a new key as it is answered."""
        return cls.of(created.key, secret=created.text)


class RotatedKeyBody(KeyBody):
    """A key with its new secret, which is shown here and never again."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                _KEY
                | {
                    "version": 2,
                    "secret": _SECRET,
                    "retiring_until": "2026-06-15T12:01:00.000000Z",
                }
            ]
        }
    )

    secret: str
    retiring_until: Annotated[
        str | None, Field(description="When the old secret ends; null when it did at once.")
    ]


class KeyPage(PageBody[KeyBody]):
    """A page of keys, oldest first; revoked ones, too."""


_SECRET_EXAMPLE: dict[str, Any] = {
    "id": "sec_2Vb7Yt5uIoPa",
    "state": "active",
    "created_at": "2026-06-15T12:00:00.000000Z",
    "not_after": None,
    "last_used_at": None,
}


class SecretBody(AnswerBody):
    """A secret of a key, told by its id."""

    model_config = example(**_SECRET_EXAMPLE)

    id: str
    state: Annotated[str, Field(description="`active`, `retiring` or `revoked`.")]
    created_at: Time
    not_after: Annotated[str | None, Field(description="When it ends; null for with the key.")]
    last_used_at: str | None


class DueBody(AnswerBody):
    """A secret that somebody must look after."""

    model_config = example(**_DUE_EXAMPLE)

    reason: Annotated[
        str,
        Field(
            description=(
                "`rotation_due`: it is older than the key's policy allows. `retiring_used`: it was "
                "replaced, and was still used in the last quarter of its grace period."
            )
        ),
    ]
    key_id: str
    key_name: str
    organization_id: str
    project_id: str
    secret_id: str
    created_at: Time
    not_after: Annotated[
        str | None, Field(description="When it ends, or ended; null until the next minute.")
    ]
    last_used_at: str | None

    @classmethod
    def of_due(cls, due: DueSecret) -> Self:
        """Return a secret as it is answered."""
        return cls.of(
            due.secret,
            reason=due.reason,
            key_id=due.key.id,
            key_name=due.key.name,
            project_id=due.key.project_id,
            secret_id=due.secret.id,
        )


class DuesBody(AnswerBody):
    """Secrets that somebody must look after, at most 1,000 of each reason."""

    model_config = example(data=[_DUE_EXAMPLE])

    data: list[DueBody]


class SecretsBody(AnswerBody):
    """The secrets of a key, oldest first."""

    model_config = example(data=[_SECRET_EXAMPLE])

    data: list[SecretBody]


class PepperBody(AnswerBody):
    """How many secrets are hashed under a pepper."""

    model_config = example(**_PEPPER_EXAMPLE)

    id: int
    is_active: Annotated[bool, Field(description="Whether new keys are hashed under it.")]
    is_loaded: Annotated[
        bool, Field(description="Whether its file is there; without it its keys are refused.")
    ]
    secrets: Annotated[
        int, Field(description="Those that can still open a key; at 0 an old file can go.")
    ]
    key_ids: Annotated[
        list[str],
        Field(description="Their keys, at most 100; of the active pepper none is named."),
    ]


class PeppersBody(AnswerBody):
    """Peppers that are there, or that keys are hashed under."""

    model_config = example(data=[_PEPPER_EXAMPLE])

    data: list[PepperBody]


def _texts(value: object) -> list[str] | None:
    if not isinstance(value, list):
        return None
    return [member for member in value if isinstance(member, str)]
