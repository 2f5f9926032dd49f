"""The snapshot: the whole configuration that a node serves from, immutable and versioned.

It goes down from where configuration is decided to the node, which keeps it on disk and starts
from it when the control plane is away. It holds no secret in clear: API keys as keyed hashes,
upstream credentials as references (`kit.secrets`).
"""

import msgspec

FORMAT = 1


class SnapshotFormatError(Exception):
    """The bytes are no snapshot, or one of a format that this version cannot read."""


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Time limits towards an upstream, in milliseconds, each > 0; each has its own error code."""

    connect_ms: int = 5_000
    """To a connected (and, with TLS, greeted) socket."""
    first_byte_ms: int = 120_000
    """From the request sent to the first byte of the answer."""
    idle_ms: int = 60_000
    """Between two reads of an answer."""
    total_ms: int = 3_600_000
    """From admission to the last byte."""


class Endpoint(msgspec.Struct, frozen=True):
    """One address of an upstream."""

    scheme: str
    """`http` or `https`."""
    host: str
    """Name or address, without brackets."""
    port: int
    """1..65535."""
    path_prefix: str = ""
    """Put before the operation's path, e.g. "" (then `/v1/chat/completions` follows)."""


class Upstream(msgspec.Struct, frozen=True):
    """A named set of interchangeable endpoints."""

    name: str
    provider: str
    """Which engine serves it: `openai_compatible`, `vllm`, `emulator`, `llama_cpp`, ..."""
    endpoints: tuple[Endpoint, ...]
    credential: str | None = None
    """Secret reference of the bearer token sent to it."""
    forward_headers: tuple[str, ...] = ()
    """Lower-case names of request headers that are passed on; `x-foo-*` matches a prefix."""
    timeouts: Timeouts = Timeouts()
    max_connections: int = 16_384
    """Connections of one worker to one endpoint."""
    tls_ca_file: str | None = None
    """PEM file that https endpoints are verified with; the system's store when None."""


class Route(msgspec.Struct, frozen=True):
    """Where the requests of an alias go."""

    name: str
    upstream: str
    model: str
    """The upstream's own name of the model."""
    continuous_usage: bool = False
    """Ask the engine for cumulative usage in every chunk: exact on abort, but costly."""
    max_output_tokens: int = 1_000_000
    """The largest `max_tokens` that is let through."""


class Alias(msgspec.Struct, frozen=True):
    """A public model name."""

    name: str
    route: str


class Key(msgspec.Struct, frozen=True):
    """An API key, without its secret."""

    id: str
    mac: bytes
    """HMAC-SHA256 of the whole key under the node's pepper."""
    organization: str
    project: str
    aliases: tuple[str, ...] | None = None
    """Aliases that it may use; all when None."""
    expires_at: int | None = None
    """Seconds since the Unix epoch."""
    networks: tuple[str, ...] | None = None
    """CIDR blocks that it may be used from; anywhere when None."""
    scopes: tuple[str, ...] = ("inference", "models:read")
    """What it may do; of those the worker knows `inference` and `models:read`."""


class Snapshot(msgspec.Struct, frozen=True):
    """Everything a node serves from. References are by name and complete."""

    version: int
    """Grows with every change; a node never goes back on its own."""
    created_at_ns: int
    keys: tuple[Key, ...]
    upstreams: tuple[Upstream, ...]
    routes: tuple[Route, ...]
    aliases: tuple[Alias, ...]
    format: int = FORMAT
