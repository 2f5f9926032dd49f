"""What the agent and its workers say to each other over a Unix socket.

Each message is a frame `length (u32 BE) | MessagePack`, at most `MAX_MESSAGE_BYTES`. Workers
connect to the agent, and connect again when it comes back: a worker outlives its agent, and a new
agent adopts the workers that greet it.
"""

import struct
from collections.abc import Iterator

import msgspec

from penstock.contract.finished import FinishedRequest
from penstock.contract.limits import Ask, Bucket, Lease, Return, Shortage
from penstock.contract.money import Hold, HoldAsk, HoldShortage
from penstock.kit.logs.setup import Form, LevelName

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_length = struct.Struct(">I")


class Tracing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it is decided which requests are to be seen in traces."""

    ratio: float = 1.0
    """Which part of them, 0..1, by their trace ids: all who use the same ratio choose the same."""
    is_parent_based: bool = True
    """Where a caller names a trace, its decision counts."""


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a worker is started: `python -m penstock.gateway '<these as JSON>'`."""

    slot: int
    """0 .. workers-1."""
    epoch: int
    """Start number, unique in the node's life."""
    node_id: str
    snapshot_path: str
    """Folder of the snapshot store to serve from."""
    journal_path: str
    """Folder in which the worker makes its own, `<slot>-<epoch:08d>/`."""
    pepper_path: str
    agent_socket: str
    """Path of the agent's Unix socket; "" for a worker without an agent (tests, benches)."""
    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None
    """Where gRPC is spoken; nowhere when None."""
    tls_cert: str | None = None
    tls_key: str | None = None
    max_connections: int = 20_000
    drain_grace_s: float = 30.0
    drain_delay_s: float = 0.0
    """How much of that callers are let in for, who have not yet seen that it is not ready."""
    orphan_grace_s: float = 60.0
    """How long a worker serves on without an agent before it drains and ends."""
    journal_strict: bool = False
    """Wait for fsync, not only for write, before the last byte."""
    journal_segment_bytes: int = 16 * 1024 * 1024
    labels: tuple[str, ...] = ()
    """Names of the labels that requests may have."""
    metadata_labels: tuple[str, ...] = ()
    """Names of members of a request's `metadata` that are labels, too."""
    form_bytes: int = 256 * 1024 * 1024
    """Largest multipart form that is taken, such as sound to transcribe."""
    stream_keep_alive_s: float = 0.0
    """After how much silence the caller of a stream gets a comment; never when 0."""
    overloaded_status: int = 429
    """HTTP status of answers that say that engines have no room."""
    heeds_load: bool = True
    """Whether endpoints get less when their engines say how busy they are; reports are asked for
    then, too."""
    prefix_index_bytes: int = 32 * 1024 * 1024
    """How much is remembered of which endpoint had which prompts; nothing when 0, and how prompts
    begin decides nothing then."""
    caches_socket: str = ""
    """Path of the Unix socket where it is known what is in engines' KV caches; "" for nowhere."""
    caches_wait_s: float = 0.02
    """How long requests wait for an answer there."""
    tells_refused: bool = False
    """Whether the agent wants to hear of each request that no engine was asked for."""
    tracing: Tracing | None = None
    """How requests are traced; not at all when None: what callers say of theirs is passed on."""
    organizations_shown: int = 100
    """Organizations that have metrics of their own; the others are added up as `other`."""
    models_shown: int = 50
    """The same of models, by the names that callers use."""
    upstreams_shown: int = 100
    """The same of upstreams."""
    log_format: Form = "auto"
    log_level: LevelName = "info"


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Worker to agent, first on every connection."""

    slot: int
    epoch: int
    pid: int
    snapshot_version: int
    is_draining: bool


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One counter or gauge; `name` and the order of `labels` are those of `contract.metrics`."""

    name: str
    labels: tuple[str, ...]
    value: float


class Exemplar(msgspec.Struct, frozen=True, array_like=True):
    """A request that fell into a bucket of a histogram, and whose trace is kept."""

    bucket: int
    """Which, from 0."""
    trace_id: str
    value: float
    at_s: float
    """When it ended, seconds since the Unix epoch."""


class HistogramSample(msgspec.Struct, frozen=True, array_like=True):
    """One histogram: counts per bucket (not cumulative; the last is +Inf) and the sum."""

    name: str
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    sum: float
    exemplars: tuple[Exemplar, ...] = ()
    """The last of each bucket that has one."""


class Stats(msgspec.Struct, frozen=True, tag="stats"):
    """Worker to agent, once a second: totals since the worker's start, as far as they changed.

    On a new connection all are told.
    """

    samples: tuple[Sample, ...]
    histograms: tuple[HistogramSample, ...]
    is_ready: bool
    has_gauges: bool = True
    """Whether all gauges are in it; those that are not are no more."""


class Applied(msgspec.Struct, frozen=True, tag="applied"):
    """Worker to agent: it serves from this version now, or says why it does not."""

    version: int
    error: str | None = None


class Apply(msgspec.Struct, frozen=True, tag="apply"):
    """Agent to worker: the snapshot store has another version, or secrets changed: look."""

    version: int


class Credentials(msgspec.Struct, frozen=True, tag="credentials"):
    """Agent to worker: all opened credentials, in parts; they are in memory only, never on a disk.

    It comes before the `Apply` of the snapshot that refers to them, and behind each Hello.
    """

    tokens: dict[str, str]
    """What is sent as bearer token, by the credential's id."""
    is_last: bool = True
    """False when further parts follow; the parts together replace all that was sent before."""

    def __repr__(self) -> str:
        """Show which, and no token."""
        return f"Credentials({sorted(self.tokens)})"


class Rehashed(msgspec.Struct, frozen=True, tag="rehashed"):
    """Worker to agent: keys that were shown and are stored under an old pepper."""

    hashes: tuple[tuple[bytes, bytes], ...]
    """Each key's hash under the old pepper, and under the new one."""


class NotReady(msgspec.Struct, frozen=True, tag="not_ready"):
    """Agent to worker: endpoints that said that they cannot be asked; replaces all that was told.

    It comes behind each Hello, when something changed, and again every few seconds.
    """

    endpoints: tuple[tuple[str, str], ...]
    """Each is the name of an upstream and the endpoint's URL."""
    believed_s: float
    """After so long without another one, nothing is known any more."""
    is_last: bool = True
    """False when further parts follow: see `node_parts`."""


class EngineLoads(msgspec.Struct, frozen=True, tag="engine_loads"):
    """Agent to worker: how busy engines said that they are; replaces all that was told.

    It comes behind each Hello, and after each round of reading, as long as somebody said anything.
    """

    endpoints: tuple[tuple[str, str, float | None, float | None, float | None], ...]
    """Each is the name of an upstream, the endpoint's URL, requests that run and that wait there,
    and the share of the KV cache in use; None for what the engine does not say."""
    believed_s: float
    """After so long without another one, nothing is known any more."""
    is_last: bool = True
    """False when further parts follow: see `node_parts`."""


class ContextLengths(msgspec.Struct, frozen=True, tag="context_lengths"):
    """Agent to worker: how many tokens a request may have; replaces all that was told.

    It comes behind each Hello, and when something changed.
    """

    lengths: tuple[tuple[str, str, int], ...]
    """Each is the name of an upstream, the upstream's own name of a model, and tokens."""
    is_last: bool = True
    """False when further parts follow: see `node_parts`."""


class Inspect(msgspec.Struct, frozen=True, tag="inspect"):
    """Agent to worker: an operator wants to know something of it; one question at a time."""

    number: int
    """Of the question; the answer has it."""
    topic: str
    """One of `kit.inspection.Topic`."""
    rows: int
    trace_s: float = 0.0


class Inspected(msgspec.Struct, frozen=True, tag="inspected"):
    """Worker to agent: the answer to an `Inspect`."""

    number: int
    found: bytes
    """A JSON object; b"" when there is no answer."""
    fault: str = ""
    """Why there is none."""


class LoadedAdapters(msgspec.Struct, frozen=True, tag="loaded_adapters"):
    """Agent to worker: which LoRA adapters are where; replaces all that was told.

    It comes behind each Hello, when something changed, and again every few seconds; never where no
    deployment is an adapter.
    """

    endpoints: tuple[tuple[str, str, tuple[str, ...]], ...]
    """Each is the name of an upstream, the URL of an endpoint that was asked, and the names of the
    adapters there, as far as a deployment has them."""
    failing: tuple[tuple[str, str], ...] = ()
    """Upstreams and adapters that could not be loaded lately, and are not tried just now."""
    is_last: bool = True
    """False when further parts follow: see `node_parts`."""


class CachesEmptied(msgspec.Struct, frozen=True, tag="caches_emptied"):
    """Agent to worker: an engine emptied its KV caches, or started anew: it has no prompt."""

    upstream: str
    url: str
    """Of the endpoint."""


class WantAdapter(msgspec.Struct, frozen=True, tag="want_adapter"):
    """Worker to agent: have one endpoint of an upstream load an adapter. `LoadedAdapters` answers.

    Where it is loaded from is in the snapshot alone.
    """

    upstream: str
    adapter: str


class UsedAdapters(msgspec.Struct, frozen=True, tag="used_adapters"):
    """Worker to agent, once a second at most: adapters that requests were sent to since."""

    used: tuple[tuple[str, str, str], ...]
    """Each is the name of an upstream, the URL of an endpoint, and an adapter."""


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Agent to worker: stop taking requests, finish those in flight within the grace, end."""

    grace_s: float


class RefusedRequests(msgspec.Struct, frozen=True, tag="refused_requests"):
    """Worker to agent, once a second if it wants to know: requests that no engine was asked for."""

    requests: tuple[FinishedRequest, ...]
    dropped: int = 0
    """How many more there were."""


class Want(msgspec.Struct, frozen=True, tag="want"):
    """Worker to agent: lease something of each bucket, or nothing of any."""

    take_id: str
    """Unique among all takings of all workers."""
    asks: tuple[Ask, ...]
    """All of one organization."""


class Granted(msgspec.Struct, frozen=True, tag="granted"):
    """Agent to worker: the answer to a `Want`. Both None: the authority cannot be reached."""

    take_id: str
    leases: tuple[Lease, ...] | None
    shortage: Shortage | None = None


class Returned(msgspec.Struct, frozen=True, tag="returned"):
    """Worker to agent: what was leased and not used, or used beyond."""

    returns: tuple[Return, ...]


class PermitsHeld(msgspec.Struct, frozen=True, tag="permits_held"):
    """Worker to agent, behind each Hello but its first: the permits that it has, unused ones too.

    The agent counts exactly these for it from then on. So nothing is stranded that was given or
    returned while nobody listened.
    """

    held: tuple[tuple[Bucket, int], ...]
    """Buckets of which it has any, and how many."""
    is_last: bool = True
    """False: more follow. What none of them names is 0."""


class LimitsClock(msgspec.Struct, frozen=True, tag="limits_clock"):
    """Agent to worker: time as the authority over limits reckons it; behind each Hello.

    It is milliseconds of `CLOCK_MONOTONIC` plus `base_ms`, so nobody's wall clock matters.
    """

    base_ms: int


class WantHolds(msgspec.Struct, frozen=True, tag="want_holds"):
    """Worker to agent: hold something of each budget, or nothing of any."""

    take_id: str
    organization: str
    asks: tuple[HoldAsk, ...]


class HoldsGranted(msgspec.Struct, frozen=True, tag="holds_granted"):
    """Agent to worker: the answer to `WantHolds`. Both None: nobody could be asked."""

    take_id: str
    holds: tuple[Hold, ...] | None
    shortage: HoldShortage | None = None


class FreeHolds(msgspec.Struct, frozen=True, tag="free_holds"):
    """Worker to agent: parts of its holds that it will not use."""

    freed: tuple[tuple[str, int], ...]
    """Ids of holds, and how much of each was freed in all."""


class CheckHolds(msgspec.Struct, frozen=True, tag="check_holds"):
    """Worker to agent: is the control plane's database there, without which some holds are nothing?

    Asked every second while the worker has holds of budgets that refuse when they are away.
    """

    at_ms: int
    """When it is asked, by the worker's clock."""


class HoldsChecked(msgspec.Struct, frozen=True, tag="holds_checked"):
    """Agent to worker: the answer to `CheckHolds`."""

    at_ms: int
    """As it was asked."""
    is_there: bool


WorkerMessage = (
    Hello
    | Stats
    | Applied
    | Rehashed
    | RefusedRequests
    | Want
    | Returned
    | PermitsHeld
    | WantHolds
    | FreeHolds
    | CheckHolds
    | Inspected
    | WantAdapter
    | UsedAdapters
)


class LogLevel(msgspec.Struct, frozen=True, tag="log_level"):
    """Agent to its processes: log from this level on, as the agent does."""

    level: LevelName


AgentMessage = (
    Apply
    | CachesEmptied
    | ContextLengths
    | Credentials
    | Drain
    | EngineLoads
    | Granted
    | LimitsClock
    | LoadedAdapters
    | HoldsGranted
    | HoldsChecked
    | Inspect
    | LogLevel
    | NotReady
)

_encode = msgspec.msgpack.Encoder().encode
decode_worker_message = msgspec.msgpack.Decoder(WorkerMessage).decode
decode_agent_message = msgspec.msgpack.Decoder(AgentMessage).decode


def encode_message(message: WorkerMessage | AgentMessage) -> bytes:
    """Return the message as one frame."""
    return frame(_encode(message))


def frame(payload: bytes) -> bytes:
    """Return a message's payload as one frame."""
    return _length.pack(len(payload)) + payload


class MessageTooLongError(Exception):
    """The peer announced a message over `MAX_MESSAGE_BYTES`; the connection is of no more use."""


class Frames:
    """Cuts a byte stream into message payloads."""

    def __init__(self) -> None:
        """Start with nothing received."""
        self._buffer = bytearray()

    def feed(self, content: bytes) -> Iterator[bytes]:
        """Yield the payload of every message that `content` completes.

        Raises:
            MessageTooLongError: See there.
        """
        self._buffer += content
        while len(self._buffer) >= _length.size:
            (length,) = _length.unpack_from(self._buffer)
            if length > MAX_MESSAGE_BYTES:
                raise MessageTooLongError
            end = _length.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_length.size : end])
            del self._buffer[:end]
            yield payload
