"""What the API of applying and exporting takes and answers."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from penstock.audit.schemas import RequestBody
from penstock.catalog.apply.model import Action, Applied, Change, Ref

SetName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$"),
    Field(description="Which set of files: 1 to 63 of a-z, 0-9, dot, underscore and hyphen."),
]
DEFAULT_SET = "default"

_DOCUMENT: dict[str, Any] = {"version": 1, "organizations": [{"name": "acme"}]}


class ApplyBody(RequestBody):
    """A document that is to be applied."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"set": "default", "document": _DOCUMENT}]}
    )

    set: SetName = DEFAULT_SET
    is_dry_run: Annotated[
        StrictBool, Field(description="Say what would be done, and do nothing of it.")
    ] = False
    prune: Annotated[
        StrictBool,
        Field(description="Remove what this set made earlier and the document has no more."),
    ] = False
    document: Annotated[
        dict[str, Any],
        Field(
            description="A platform file as JSON. `secret` of keys and credentials is the secret "
            "itself; it is never answered.",
            repr=False,
        ),
    ]


class DifferenceBody(BaseModel):
    """What a member was and is to be; null where there is no object."""

    before: Any
    after: Any


class ObjectBody(BaseModel):
    """An object, told by names."""

    kind: Annotated[str, Field(description="E.g. `service_account`.", examples=["project"])]
    names: Annotated[
        dict[str, str],
        Field(description="What it is told by.", examples=[{"organization": "acme", "name": "a"}]),
    ]

    @classmethod
    def of(cls, ref: Ref) -> Self:
        """Return an object as it is answered."""
        return cls(kind=ref.kind, names=ref.names)


class ChangeBody(BaseModel):
    """What was done to one object, or would be."""

    action: Annotated[
        Action, Field(description="`rotate`: it got another secret. `delete`: archived, for some.")
    ]
    object: ObjectBody
    members: dict[str, DifferenceBody]

    @classmethod
    def of(cls, change: Change) -> Self:
        """Return a change as it is answered."""
        return cls(
            action=change.action,
            object=ObjectBody.of(change.ref),
            members={
                name: DifferenceBody(before=before, after=after)
                for name, (before, after) in change.differences.items()
            },
        )


class AppliedBody(BaseModel):
    """What an application did, or would do, in its order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "is_dry_run": False,
                    "changes": [
                        {
                            "action": "update",
                            "object": {"kind": "alias", "names": {"name": "llama-70b"}},
                            "members": {"is_open": {"before": True, "after": False}},
                        }
                    ],
                    "leftovers": [],
                }
            ]
        }
    )

    is_dry_run: bool
    changes: list[ChangeBody]
    leftovers: Annotated[
        list[ObjectBody],
        Field(description="What this set made, and pruning would remove."),
    ]

    @classmethod
    def of(cls, applied: Applied, *, is_dry_run: bool) -> Self:
        """Return what was applied as it is answered."""
        return cls(
            is_dry_run=is_dry_run,
            changes=[ChangeBody.of(change) for change in applied.changes],
            leftovers=[ObjectBody.of(ref) for ref in applied.leftovers],
        )


class ExportQuery(RequestBody):
    """What is to be exported."""

    set: Annotated[
        SetName | None, Field(description="Only what this set made; everything without.")
    ] = None


class ExportBody(BaseModel):
    """A document of what is there."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"document": _DOCUMENT}]})

    document: Annotated[
        dict[str, Any],
        Field(description="A platform file as JSON, without secrets. Applied, it changes nothing."),
    ]
