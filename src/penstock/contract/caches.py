"""What is said to and by the process that knows engines' KV caches, in frames as in `node`.

Its agent tells it on its standard input what to follow, and hears of it on its standard output.
Both are lists of all engines, in parts where they are long (`node_parts`).
"""

import msgspec

from penstock.contract.node import LogLevel, frame


class FollowedEngine(msgspec.Struct, frozen=True, array_like=True):
    """An endpoint whose engine tells of its caches."""

    upstream: str
    url: str
    host: str
    """Where its engine publishes, as everything else of it: nobody else is asked."""
    events: tuple[int, ...]
    """Ports there, one for each of the engine's ranks."""
    replay: tuple[int, ...] = ()
    """As many ports where what was missed can be had again, or none."""


class FollowedModel(msgspec.Struct, frozen=True, array_like=True):
    """A model whose prompts are looked up in what engines tell of their caches."""

    upstream: str
    model: str
    """The upstream's own name of it."""
    tokenizer: str
    """Folder with its `tokenizer.json`."""
    adapter: str = ""
    """The LoRA adapter that it is; "" when it is none."""


class Follow(msgspec.Struct, frozen=True, tag="follow"):
    """Agent to process: follow these, and no others."""

    engines: tuple[FollowedEngine, ...]
    models: tuple[FollowedModel, ...] = ()
    is_last: bool = True
    """Whether no more parts of it follow."""


class EngineFigures(msgspec.Struct, frozen=True, array_like=True):
    """What is known of an endpoint's caches. Counts are since it is followed by this process."""

    upstream: str
    url: str
    is_connected: bool
    """To all of its ranks."""
    blocks: int
    events: int
    unknown: int
    """Events, batches and messages that were not understood."""
    gaps: int
    resets: int
    failures: int
    """Times one of its lines could not be made, or was given up."""
    lag_s: float | None
    """How old the last batch was when it came; None before the first one."""


class Figures(msgspec.Struct, frozen=True, tag="figures"):
    """Process to agent, once a second."""

    engines: tuple[EngineFigures, ...]
    is_last: bool = True
    """As `Follow`'s."""


class Emptied(msgspec.Struct, frozen=True, tag="emptied"):
    """Process to agent: an engine emptied its caches, or started anew."""

    upstream: str
    url: str


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Worker to process: which endpoints of an upstream have this prompt?"""

    number: int
    """Of the question; the answer has it."""
    upstream: str
    model: str
    body: bytes
    """Of the request, as an engine is sent it; it is kept nowhere."""
    sent: tuple[str, ...] = ()
    """URLs of its endpoints that the worker sent the prompt, or its beginning: of those it wants to
    know whether they can have it yet."""


class Found(msgspec.Struct, frozen=True, tag="found"):
    """Process to worker: the answer to an `Ask`; empty where nobody can tell."""

    number: int
    endpoints: tuple[tuple[str, int], ...] = ()
    """URLs of those that have most of it, and how many tokens from its beginning on; of many some,
    others each time."""
    heard: tuple[str, ...] = ()
    """Where nobody has any of it, which of those that were asked about are known all: what they
    have not told of they do not have."""


AgentSays = Follow | LogLevel
ProcessSays = Figures | Emptied

_encode = msgspec.msgpack.Encoder().encode
decode_agent_says = msgspec.msgpack.Decoder(AgentSays).decode
decode_ask = msgspec.msgpack.Decoder(Ask).decode
decode_found = msgspec.msgpack.Decoder(Found).decode
decode_process_says = msgspec.msgpack.Decoder(ProcessSays).decode


def encode_said(message: AgentSays | ProcessSays | Ask | Found) -> bytes:
    """Return a message as one frame."""
    return frame(_encode(message))
