"""Values of the catalog as it is in the database. Times are microseconds since the Unix epoch.

What is to be (`NewUpstream`) has the members that somebody chooses; what is there (`Upstream`) has
them, too, and those that we add. Members that come from the database are not narrowed: a row that
somebody wrote by hand may hold anything. `object_rules` say what such a row is good for: nothing.
"""

from dataclasses import dataclass, field
from typing import TypedDict

from penstock.contract import snapshot

_upstream = snapshot.Upstream("", "", ())
_deployment = snapshot.Deployment("", "", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpstream:
    """A set of interchangeable endpoints that is to be."""

    name: str
    provider: str = "openai_compatible"
    endpoints: list[str] = field(default_factory=list)
    """URLs, `scheme://host:port/prefix`; none where they are found."""
    discover: str | None = None
    """Where they are found, as `discovery` reads it; None when they are listed."""
    region: str | None = None
    """Where it stands, e.g. `eu-de`; None when nobody said."""
    data_class: str | None = None
    """What data may be sent to it, e.g. `eu_only`; None when nobody said."""
    credential_id: str | None = None
    """One of the platform's credentials."""
    credential_reference: str | None = None
    """`env:NAME` or `file:PATH` on each node, instead of a credential that is kept here."""
    forward_headers: list[str] = field(default_factory=list)
    timeouts: dict[str, int] = field(default_factory=dict)
    """Members of `contract.snapshot.Timeouts` that differ from its defaults."""
    max_connections: int = _upstream.max_connections
    """Connections of one worker to one endpoint."""
    tls_ca_file: str | None = None
    """PEM file on each node; the system's store when None."""
    takes_priority: bool = False
    """Whether its engines were started to serve urgent requests first."""
    kv_events: str | None = None
    """Ports where its engines tell of their KV caches, as `kv_events` reads them."""
    is_disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream(NewUpstream):
    """A set of interchangeable endpoints."""

    id: str
    version: int
    created_at_us: int
    updated_at_us: int


class UpstreamChanges(TypedDict, total=False):
    """Members of an upstream that are to change; those that are not there stay."""

    provider: str
    endpoints: list[str]
    discover: str | None
    region: str | None
    data_class: str | None
    credential_id: str | None
    credential_reference: str | None
    forward_headers: list[str]
    timeouts: dict[str, int]
    max_connections: int
    tls_ca_file: str | None
    takes_priority: bool
    kv_events: str | None
    is_disabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDeployment:
    """One model on one upstream, that is to be."""

    name: str
    upstream_id: str
    model: str
    """The upstream's own name of the model."""
    credential_id: str | None = None
    """One of the platform's credentials, used instead of the upstream's."""
    continuous_usage: bool = False
    """Ask the engine for cumulative usage in every chunk: exact on abort, but costly."""
    max_output_tokens: int = _deployment.max_output_tokens
    """The largest `max_tokens` that is let through."""
    adapter_of: str | None = None
    """The upstream's own name of the model that `model` is a LoRA adapter of, if it is one."""
    adapter_path: str | None = None
    """Where engines find the adapter, to load it when it is needed."""
    tokenizer: str | None = None
    """Folder on each node with the model's `tokenizer.json`."""
    is_disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment(NewDeployment):
    """One model on one upstream."""

    id: str
    version: int
    created_at_us: int
    updated_at_us: int


class DeploymentChanges(TypedDict, total=False):
    """Members of a deployment that are to change; those that are not there stay."""

    upstream_id: str
    model: str
    credential_id: str | None
    continuous_usage: bool
    max_output_tokens: int
    adapter_of: str | None
    adapter_path: str | None
    tokenizer: str | None
    is_disabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A deployment that a route may choose."""

    deployment_id: str
    weight: int = 1
    """Its share among the route's choices, 0..1,000; with 0 it only stands in for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRoute:
    """Where the requests of aliases are to go."""

    name: str
    choices: list[Choice]
    fallback_id: str | None = None
    """The route that is tried when no choice of this one can be connected to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(NewRoute):
    """Where the requests of aliases go."""

    id: str
    version: int
    created_at_us: int
    updated_at_us: int


class RouteChanges(TypedDict, total=False):
    """Members of a route that are to change; those that are not there stay."""

    choices: list[Choice]
    fallback_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAlias:
    """A public model name that is to be."""

    name: str
    route_id: str
    is_open: bool = False
    """Whether every key may use it; else those whose project or organization has a grant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias(NewAlias):
    """A public model name."""

    id: str
    version: int
    created_at_us: int
    updated_at_us: int


class AliasChanges(TypedDict, total=False):
    """Members of an alias that are to change; those that are not there stay."""

    route_id: str
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewGrant:
    """Leave to use an alias that is not open to all."""

    alias_id: str
    organization_id: str
    project_id: str | None = None
    """For one project only; for the whole organization when None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant(NewGrant):
    """Leave to use an alias that is not open to all; it is given and taken, never changed."""

    id: str
    version: int
    created_at_us: int
    updated_at_us: int
