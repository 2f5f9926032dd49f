"""Registered endpoints, and the tokens that engines do it with. Times as everywhere."""

from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple

import msgspec

from penstock.contract.snapshot import MAX_ENDPOINT_WEIGHT

MIN_TTL_S: Final = 10
MAX_TTL_S: Final = 300
MAX_URL_CHARS: Final = 512
_MAX_ENGINE_CHARS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationToken:
    """Lets engines register as endpoints of one upstream; what it is hashed to is not in here."""

    id: str
    upstream_id: str
    version: int
    created_at_us: int
    updated_at_us: int


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A token that is new."""

    token: RegistrationToken
    text: str
    """What its holder shows; it is kept nowhere."""

    def __repr__(self) -> str:
        """Leave the text out."""
        return f"CreatedToken({self.token!r})"


class Holder(NamedTuple):
    """Who showed a token."""

    token_id: str
    upstream_id: str
    new_mac: bytes | None
    """What it is hashed to under the active pepper, when it is stored under an old one."""


class NewRegistration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an engine says of itself, each time that it registers or renews."""

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_URL_CHARS)]
    """Where it is asked, `http://ADDRESS:PORTS`: each port is an endpoint."""
    ttl_s: Annotated[int, msgspec.Meta(ge=MIN_TTL_S, le=MAX_TTL_S)] = 30
    """For how long this holds unless it is said again."""
    weight: Annotated[int, msgspec.Meta(ge=1, le=MAX_ENDPOINT_WEIGHT)] = 1
    """How much it takes beside others."""
    engine: Annotated[str, msgspec.Meta(max_length=_MAX_ENGINE_CHARS)] = ""
    """Which provider's it is: upstreams of others do without it. "" when it is not said."""


class Lease(NamedTuple):
    """What was said, and from when until when it holds."""

    url: str
    ttl_s: int
    weight: int
    engine: str
    at_us: int

    @property
    def expires_at_us(self) -> int:
        """When it lapses, unless it is renewed before."""
        return self.at_us + self.ttl_s * 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A registered engine."""

    id: str
    upstream_id: str
    url: str
    ttl_s: int
    weight: int
    engine: str
    expires_at_us: int
    lapsed_at_us: int | None = None
    """When it did: no request goes there since."""
    version: int
    created_at_us: int
    updated_at_us: int
