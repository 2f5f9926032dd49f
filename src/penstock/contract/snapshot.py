"""The snapshot: the whole configuration that a node serves from, immutable and versioned.

It goes down from where configuration is decided to the node, which keeps it on disk and starts
from it when the control plane is away. It holds no secret in clear: API keys as keyed hashes,
upstream credentials as references (`kit.secrets`).
"""

import msgspec

FORMAT = 3
"""Another one where a record that nodes have would let more through: they are told all anew."""
CREDENTIAL_SCHEME = "credential:"
"""Begins a reference to a credential that the agent opens; other references are `kit.secrets`'."""

GRPC_SCHEMES = frozenset({"grpc", "grpcs"})
"""Of endpoints that are asked by gRPC, in clear or with TLS."""

MAX_ENDPOINT_WEIGHT = 65_535
"""Of an endpoint, as of an SRV record."""
MAX_FOUND = 1024
"""Endpoints of an upstream that says where they are found; fewer are listed."""


class SnapshotFormatError(Exception):
    """The bytes are no snapshot, or one of a format that this version cannot read."""


class Timeouts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Time limits towards an upstream, in milliseconds; each has its own error code.

    What is as usual is left out: nodes that do not know a newer one understand the others.
    """

    connect_ms: int = 5_000
    """To a connected (and, with TLS, greeted) socket, > 0."""
    first_byte_ms: int = 120_000
    """From the request sent to the first byte of the answer, > 0."""
    first_byte_ms_per_1k_tokens: int = 0
    """So much longer for each 1,000 input tokens, as estimated from the size of the request, >= 0:
    prefill takes the longer the more there is to read."""
    idle_ms: int = 60_000
    """Between two reads of an answer, > 0."""
    total_ms: int = 3_600_000
    """From admission to the last byte, > 0."""


_DEFAULT_PORTS = {"http": 80, "https": 443}


class Endpoint(msgspec.Struct, frozen=True):
    """One address of an upstream."""

    scheme: str
    """`http` or `https`, or one of `GRPC_SCHEMES`."""
    host: str
    """Name or address, without brackets."""
    port: int
    """1..65535."""
    path_prefix: str = ""
    """Put before the operation's path, e.g. "" (then `/v1/chat/completions` follows)."""
    server_name: str = ""
    """What it is called in `Host` and by its certificate, where `host` is an address that was found
    under a name; the host when empty."""
    weight: int = 1
    """How much it takes beside others of its upstream, 1..`MAX_ENDPOINT_WEIGHT`: with 2 it has
    twice as many requests in flight."""
    engine: str = ""
    """Which provider's it is, where that was found with it: upstreams of others do without it."""

    @property
    def authority(self) -> str:
        """What the `Host` header says."""
        name = self.server_name or self.host
        host = f"[{name}]" if ":" in name else name
        return host if self.port == _DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """What operations' paths are appended to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path_prefix}"


class Upstream(msgspec.Struct, frozen=True):
    """A named set of interchangeable endpoints."""

    name: str
    provider: str
    """Which engine serves it: `openai_compatible`, `vllm`, `emulator`, `llama_cpp`, ..."""
    endpoints: tuple[Endpoint, ...]
    """As configured; where there is a `discover`, those that the node found last."""
    credential: str | None = None
    """Reference of the bearer token sent to it: `env:`, `file:` or `credential:<id>`."""
    forward_headers: tuple[str, ...] = ()
    """Lower-case names of request headers that are passed on; `x-foo-*` matches a prefix."""
    timeouts: Timeouts = Timeouts()
    max_connections: int = 16_384
    """Connections of one worker to one endpoint."""
    tls_ca_file: str | None = None
    """PEM file that https endpoints are verified with; the system's store when None."""
    region: str | None = None
    """Where it stands, e.g. `eu-de`; None when nobody said."""
    data_class: str | None = None
    """What data may be sent to it, e.g. `eu_only`; None when nobody said."""
    takes_priority: bool = False
    """Whether its engines serve urgent requests first: some refuse requests that say how urgent
    they are where they were not started for it."""
    kv_events: str | None = None
    """Ports of the endpoints' hosts where engines publish events of their KV caches, as
    `catalog.kv_events` reads them; None where nobody listens to them."""
    discover: str | None = None
    """Where its endpoints are found, as `catalog.discovery` reads it; None when they are listed."""

    @property
    def plain_endpoints(self) -> tuple[Endpoint, ...]:
        """Those that are asked by HTTP; gRPC's are on the same servers."""
        return tuple(each for each in self.endpoints if each.scheme not in GRPC_SCHEMES)


class Deployment(msgspec.Struct, frozen=True):
    """One model on one upstream."""

    name: str
    upstream: str
    model: str
    """The upstream's own name of the model."""
    continuous_usage: bool = False
    """Ask the engine for cumulative usage in every chunk: exact on abort, but costly."""
    max_output_tokens: int = 1_000_000
    """The largest `max_tokens` that is let through."""
    credential: str | None = None
    """As an upstream's, and used instead of it."""
    adapter_of: str | None = None
    """Where `model` is a LoRA adapter: the upstream's own name of the model that it adapts."""
    adapter_path: str | None = None
    """Where engines find its weights: it is loaded when it is needed. When None it is used where
    somebody loaded it."""
    tokenizer: str | None = None
    """Folder on the node with `tokenizer.json`, by which prompts are looked up in what engines tell
    of their KV caches; they are not when None."""

    @property
    def base_model(self) -> str:
        """What is served or adapted: how long requests may be, and whether it is ready, is its."""
        return self.adapter_of or self.model


class Choice(msgspec.Struct, frozen=True):
    """A deployment that a route may choose."""

    deployment: str
    weight: int = 1
    """Its share among the route's choices, 0..1,000; with 0 it only stands in for others."""


class Route(msgspec.Struct, frozen=True):
    """Where the requests of an alias go."""

    name: str
    choices: tuple[Choice, ...]
    fallback: str | None = None
    """The route that is tried when no choice of this one can be connected to or has room."""


class Alias(msgspec.Struct, frozen=True):
    """A public model name."""

    name: str
    route: str
    is_open: bool = True
    """Whether every key may use it; else only those whose project or organization has a grant."""


class Policy(msgspec.Struct, frozen=True):
    """Where the data of an organization, or of one project of it, may go."""

    data_classes: tuple[str, ...] | None = None
    """Only to upstreams of these data classes; None for all."""
    regions: tuple[str, ...] | None = None
    """Only to upstreams in these regions; None for all."""


class OwnedPolicy(msgspec.Struct, frozen=True):
    """A policy and whom it is about."""

    policy: Policy
    organization: str
    project: str | None = None
    """The whole organization when None."""


class Grant(msgspec.Struct, frozen=True):
    """Leave to use an alias that is not open to all."""

    alias: str
    organization: str
    project: str | None = None
    """The whole organization when None."""


class SealedCredential(msgspec.Struct, frozen=True):
    """A credential of an upstream as it lies on a node: encrypted; only the agent opens it."""

    id: str
    organization: str | None
    """Whose it is; None for the platform's."""
    provider: str
    aad_version: int
    nonce: bytes
    ciphertext: bytes
    dek: "WrappedDek"


class WrappedDek(msgspec.Struct, frozen=True):
    """The data key that opens a credential, itself encrypted by a key-encryption key."""

    id: str
    kek_uri: str
    kek_version: int
    ciphertext: bytes


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
    secret: str = ""
    """Id of the secret whose hash this is."""
    member: str = ""
    """Id of the member or service account that it belongs to; "" when it belongs to nobody."""
    labels: tuple[str, ...] = ()
    """Each `name=value`, by which limits choose it."""


class Snapshot(msgspec.Struct, frozen=True):
    """Everything a node serves from. References are by name and complete."""

    version: int
    """Grows with every change; a node never goes back on its own."""
    created_at_ns: int
    keys: tuple[Key, ...]
    upstreams: tuple[Upstream, ...]
    deployments: tuple[Deployment, ...]
    routes: tuple[Route, ...]
    aliases: tuple[Alias, ...]
    grants: tuple[Grant, ...] = ()
    policies: tuple[OwnedPolicy, ...] = ()
    format: int = FORMAT
