"""What the admin API of registrations takes and answers."""

from typing import Annotated, Literal, Self

from pydantic import Field

from penstock.audit.schemas import (
    AnswerBody,
    Id,
    PageBody,
    PageQuery,
    RequestBody,
    Time,
    example,
)
from penstock.catalog.registrations.model import CreatedToken, Registration

_UPSTREAM_ID = "ups_7Hq2Lr90aBcD"
_TIMES = {
    "created_at": "2026-06-15T12:00:00.000000Z",
    "updated_at": "2026-06-15T12:00:20.000000Z",
}
_TOKEN = {"id": "rgt_9aPd3Xk2LmQz", "upstream_id": _UPSTREAM_ID, "version": 1, **_TIMES}


class NewRegistrationTokenBody(RequestBody):
    """A token that is to be."""

    model_config = example(upstream_id=_UPSTREAM_ID)

    upstream_id: Annotated[Id, Field(description="Whose endpoints may be registered with it.")]


class OfUpstreamQuery(PageQuery):
    """Which ones are meant."""

    upstream_id: Id | None = None


class RegistrationTokenBody(AnswerBody):
    """A token that engines of one upstream register with."""

    model_config = example(**_TOKEN)

    id: str
    upstream_id: str
    version: int
    created_at: Time
    updated_at: Time


class CreatedRegistrationTokenBody(RegistrationTokenBody):
    """A token as it is shown here and never again."""

    model_config = example(**_TOKEN, secret="ps_reg_...")  # noqa: S106  # none

    secret: str

    @classmethod
    def of_created(cls, created: CreatedToken) -> Self:
        """Return a new token as it is answered."""
        return cls.of(created.token, secret=created.text)


class RegistrationTokenPage(PageBody[RegistrationTokenBody]):
    """A page of tokens, oldest first."""


class RegistrationBody(AnswerBody):
    """A registered engine."""

    model_config = example(
        id="reg_4fZk9QmT0aXb",
        upstream_id=_UPSTREAM_ID,
        url="http://10.0.0.5:8000",
        status="held",
        ttl_s=30,
        weight=1,
        engine="vllm",
        expires_at="2026-06-15T12:00:50.000000Z",
        version=3,
        **_TIMES,
    )

    id: str
    upstream_id: str
    url: str
    status: Annotated[
        Literal["held", "lapsed"],
        Field(description="`lapsed`: it was not renewed in time, and gets no new request."),
    ]
    ttl_s: int
    weight: int
    engine: Annotated[str, Field(description="Its provider, if it said one.")]
    expires_at: Time
    version: int
    created_at: Time
    updated_at: Annotated[Time, Field(description="When it registered, or renewed last.")]

    @classmethod
    def of_registration(cls, found: Registration) -> Self:
        """Return a registration as it is answered."""
        return cls.of(found, status="held" if found.lapsed_at_us is None else "lapsed")


class RegistrationPage(PageBody[RegistrationBody]):
    """A page of registered engines, oldest first."""
