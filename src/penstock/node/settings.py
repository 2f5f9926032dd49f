"""What an agent is started with."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from penstock.contract.kafka import KafkaSettings
from penstock.kit.logs.setup import Form, LevelName
from penstock.node.access_log import Which
from penstock.node.discovery.settings import DiscoverySettings
from penstock.node.errors import SETTINGS_INVALID, AgentError
from penstock.node.telemetry.settings import OtlpSettings

Port = Annotated[int, Meta(ge=0, le=65_535)]
Positive = Annotated[int, Meta(ge=1)]
Names = Annotated[int, Meta(ge=2, le=1_000)]
Seconds = Annotated[float, Meta(ge=0)]
KeepAlive = Annotated[float, Meta(ge=0, le=3_600)]
LabelName = Annotated[str, Meta(pattern="^[a-z][a-z0-9_.-]{0,31}$")]
LABELS = ("cost_center", "environment", "feature", "team")
"""Names of labels where nobody lists others."""
_LEAST_LOAD_S = 0.1
"""Engines have other things to do."""


class AgentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How an agent is started: `python -m penstock.node '<these as JSON>'`."""

    data_path: Annotated[str, Meta(min_length=1)]
    """Folder with everything that outlives the process."""
    control_url: Annotated[str, Meta(pattern=r"^https?://[^/]")]
    """The control plane's base URL: where configuration comes from and usage is shipped to."""
    config_path: Annotated[str, Meta(min_length=1)] | None = None
    """A `penstock.yaml` to serve from as well; without it the control plane says everything."""
    kek: str | None = None
    """What opens the data keys of credentials: `file:PATH`, `vault:MOUNT/KEY` or `aws:KEY`; several
    with commas between them while data keys move. `secrets/kek.json` when None."""
    limits_url: Annotated[str, Meta(pattern=r"^(redis|rediss|unix)://")] | None = None
    """Redis or Valkey by which several nodes share their limits: `redis://user@host:6379/0`,
    `rediss://` for TLS, `unix:///path`; no password. Without it the node is alone."""
    limits_password: Annotated[str, Meta(pattern=r"^(env|file):")] | None = None
    """Where its password is: `env:NAME` or `file:PATH`."""
    nats_url: Annotated[str, Meta(pattern=r"^(nats|tls)://")] | None = None
    """NATS server by which usage goes to the control plane: `nats://host:4222`, `tls://` for TLS;
    several with commas between them; no password. Without it usage goes by HTTP."""
    nats_password: Annotated[str, Meta(pattern=r"^(env|file):")] | None = None
    """Where its token is: `env:NAME` or `file:PATH`."""
    kafka: KafkaSettings | None = None
    """Kafka cluster by which usage goes to the control plane, instead of a NATS server."""
    host: str = "127.0.0.1"
    """Address that workers listen on."""
    port: Port = 8080
    """Port that workers listen on, all of them."""
    grpc_port: Port | None = None
    """Port on which they speak gRPC, such as 8001; none of them does when None."""
    metrics_host: str = "127.0.0.1"
    """Address of `/metrics`: not for the world, it names organizations and models."""
    metrics_port: Port = 9464
    """Port of `/metrics`; any free one when 0."""
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    """How many workers to keep running."""
    tls_cert: str | None = None
    """PEM file with the workers' certificate."""
    tls_key: str | None = None
    """PEM file with the certificate's key."""
    max_connections: Positive = 20_000
    """Connections of callers to one worker, as far as it may open two files for each."""
    journal_strict: bool = False
    """Wait for fsync, not only for write, before the last byte."""
    journal_segment_bytes: Annotated[int, Meta(ge=65_536)] = 16 * 1024 * 1024
    """Size of a journal segment."""
    journal_retention_s: Seconds = 72 * 3600.0
    """How long journals are kept after all in them is stored."""
    drain_grace_s: Seconds = 30.0
    """How long streams may finish when the node stops."""
    drain_delay_s: Seconds = 0.0
    """How much of that callers are still let in for, though the node says that it is not ready: so
    long load balancers take to see it."""
    orphan_grace_s: Seconds = 60.0
    """How long workers serve on without an agent."""
    ship_grace_s: Seconds = 10.0
    """How long a stopping agent waits for the control plane to take what is left."""
    discovery: DiscoverySettings = DiscoverySettings()
    """How endpoints are found, where upstreams say by which source."""
    labels: Annotated[tuple[LabelName, ...], Meta(max_length=256)] = LABELS
    """Names that requests may use in `x-penstock-labels`; others are 400."""
    metadata_labels: Annotated[tuple[LabelName, ...], Meta(max_length=16)] = ()
    """Members of a request's `metadata` that are labels, too; nobody's unless it is said."""
    form_bytes: Annotated[int, Meta(ge=64 * 1024, le=16 * 1024**3)] = 256 * 1024 * 1024
    """Largest multipart form that is taken, such as sound to transcribe; larger ones are 413."""
    stream_keep_alive_s: KeepAlive = 0.0
    """After how much silence the caller of a stream gets a comment, so that nothing on the way
    takes its connection for dead; never when 0. Errors that come later are events under 200."""
    overloaded_status: Literal[429, 503] = 429
    """What callers are answered when engines have no room, `Retry-After` beside it: 429, or 503 for
    clients to whom 429 means that they themselves asked too much."""
    engine_load_s: Annotated[float, Meta(ge=0, le=60)] = 5.0
    """How often engines are asked how busy they are, where an upstream has several endpoints: every
    0.1 s or less often; never when 0, and what they say in answers is not heeded then, either."""
    prefix_index_bytes: Annotated[int, Meta(ge=0, le=16 * 1024**3)] = 32 * 1024 * 1024
    """How much a worker remembers of which endpoint had which prompts, so that those that begin
    alike go to the same; nothing when 0, and they go to any then."""
    kv_answer_ms: Annotated[float, Meta(ge=1, le=10_000)] = 20.0
    """How long a request waits to be told which engines have its prompt in their KV caches, where
    they tell of them and its deployment has a tokenizer; it goes by what was sent where then."""
    organizations_shown: Names = 100
    """Organizations that have metrics of their own; the others are added up as `other`."""
    models_shown: Names = 50
    """The same of models, by the names that callers use."""
    upstreams_shown: Names = 100
    """The same of upstreams."""
    otlp: OtlpSettings | None = None
    """A collector that spans of requests, and metrics, are sent to; what the variables of
    OpenTelemetry say when None, and nowhere when they say nothing."""
    worker_command: tuple[str, ...] = ()
    """Starts a worker, its settings are added as JSON; our own gateway when empty."""
    log_to_stderr: bool = False
    """Workers write to the agent's stderr and not to `logs/worker-<slot>.log`."""
    access_log: Which = "errors"
    """Which requests have a line in the access log: `off`, `errors` (refused, failed, or their
    caller left) or `all`."""
    access_log_path: Annotated[str, Meta(min_length=1)] | None = None
    """The access log's file; stdout when None."""
    log_format: Form = "auto"
    """How log lines look: `json`, `text`, or `auto`, which is text on a terminal and else JSON."""
    log_level: LevelName = "info"
    """What is logged at the start: this level and those above it."""


def decode_settings(text: str) -> AgentSettings:
    """Return the settings that a command line carries, with absolute paths.

    Raises:
        AgentError: They are not valid; the message names the member.
    """
    try:
        settings = msgspec.json.decode(text, type=AgentSettings)
    except msgspec.DecodeError as error:
        raise AgentError(SETTINGS_INVALID, f"bad settings: {error}") from None
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise AgentError(SETTINGS_INVALID, "bad settings: tls_cert and tls_key go together")
    if settings.nats_url is not None and settings.kafka is not None:
        raise AgentError(SETTINGS_INVALID, "bad settings: usage goes by nats_url or by kafka")
    if 0 < settings.engine_load_s < _LEAST_LOAD_S:
        message = f"bad settings: engine_load_s is 0, or {_LEAST_LOAD_S} and more"
        raise AgentError(SETTINGS_INVALID, message)
    paths = {
        name: str(Path(path).absolute())
        for name in ("data_path", "config_path", "tls_cert", "tls_key", "access_log_path")
        if (path := getattr(settings, name)) is not None
    }
    return msgspec.structs.replace(settings, **paths)
