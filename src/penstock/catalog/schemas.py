"""The fields of penstock.yaml and their types: strict, and nothing beside them."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from penstock.catalog.rules import (
    MAX_CONNECTIONS,
    MAX_OUTPUT_TOKENS,
    MAX_TIMEOUT_MS,
    check_forward_header,
    check_model,
    check_name,
    check_path,
    check_provider,
    check_reference,
    parse_endpoint,
)
from penstock.contract import snapshot
from penstock.kit.slugs import check_slug

FORMAT = 1
"""The `version` of the file that is read here."""


def _check_version(number: int) -> int:
    if number != FORMAT:
        message = f"is a format that this Penstock does not read; write version: {FORMAT}"
        raise ValueError(message)
    return number


def _check_url(text: str) -> str:
    parse_endpoint(text)
    return text


def _check_time(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
        is_complete = moment.tzinfo is not None and moment.timestamp() >= 0
    except (ValueError, OverflowError):
        is_complete = False
    if not is_complete:
        message = 'is no date and time with an offset; write e.g. "2030-01-31T00:00:00Z"'
        raise ValueError(message)
    return text


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Slug = Annotated[str, AfterValidator(check_slug)]
Name = Annotated[str, AfterValidator(check_name)]
ServedModel = Annotated[str, AfterValidator(check_model)]
SecretReference = Annotated[str, AfterValidator(check_reference)]
Url = Annotated[str, AfterValidator(_check_url)]
HeaderPattern = Annotated[str, AfterValidator(check_forward_header)]
FilePath = Annotated[str, AfterValidator(check_path)]
Time = Annotated[str, AfterValidator(_check_time)]
Milliseconds = Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS)]
Provider = Annotated[str, AfterValidator(check_provider)]
Version = Annotated[int, AfterValidator(_check_version)]


_timeouts = snapshot.Timeouts()


class Item(BaseModel):
    """Base of every entry: types are exact and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class OrganizationItem(Item):
    """The unit that is isolated and pays."""

    name: Slug = Field(examples=["acme"])


class ProjectItem(Item):
    """A subdivision of an organization; owns keys. Its name is unique in the file."""

    name: Slug = Field(examples=["chatbot"])
    organization: str = Field(examples=["acme"])


class KeyItem(Item):
    """An API key of a project."""

    id: Slug = Field(examples=["chatbot-1"])
    project: str = Field(examples=["chatbot"])
    secret: SecretReference = Field(examples=["file:secrets/chatbot_key"])
    aliases: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] | None = None
    expires_at: Time | None = None


class TimeoutsItem(Item):
    """Time limits towards an upstream, in milliseconds."""

    connect_ms: Milliseconds = _timeouts.connect_ms
    first_byte_ms: Milliseconds = _timeouts.first_byte_ms
    idle_ms: Milliseconds = _timeouts.idle_ms
    total_ms: Milliseconds = _timeouts.total_ms


class UpstreamItem(Item):
    """A set of interchangeable endpoints."""

    name: Slug = Field(examples=["gpu-pool"])
    endpoints: Annotated[
        tuple[Url, ...],
        Field(min_length=1, examples=['["http://10.0.0.5:8000"]']),
        BeforeValidator(_as_tuple),
    ]
    provider: Provider = "openai_compatible"
    credential: SecretReference | None = None
    forward_headers: Annotated[tuple[HeaderPattern, ...], BeforeValidator(_as_tuple)] = ()
    timeouts: TimeoutsItem = TimeoutsItem()
    max_connections: int = Field(default=16_384, ge=1, le=MAX_CONNECTIONS)
    tls_ca_file: FilePath | None = None


class RouteItem(Item):
    """Where the requests of an alias go."""

    name: Name = Field(examples=["llama-70b"])
    upstream: str = Field(examples=["gpu-pool"])
    model: ServedModel = Field(examples=["meta-llama/Llama-3.3-70B-Instruct"])
    continuous_usage: bool = False
    max_output_tokens: int = Field(default=1_000_000, ge=1, le=MAX_OUTPUT_TOKENS)


class AliasItem(Item):
    """A public model name."""

    name: Name = Field(examples=["llama-70b"])
    route: str = Field(examples=["llama-70b"])


class FileItem(Item):
    """The file as a whole; its entries are checked one by one."""

    version: Version = Field(examples=[1])
    organizations: list[Any] = []
    projects: list[Any] = []
    keys: list[Any] = []
    upstreams: list[Any] = []
    routes: list[Any] = []
    aliases: list[Any] = []


SECTIONS: dict[str, type[Item]] = {
    "organizations": OrganizationItem,
    "projects": ProjectItem,
    "keys": KeyItem,
    "upstreams": UpstreamItem,
    "routes": RouteItem,
    "aliases": AliasItem,
}
"""The lists of the file and what they hold."""
