"""What the emulator does by default; a request's headers change a part of it.

Every field is a plain scalar, so that each maps to one flag (`flags.py`) and the fields of
`Behavior` each to one request header (`overlay.py`).
"""

from typing import Annotated, Literal

import msgspec

from penstock.emulator.kinds import Kind

Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=3_600_000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
CountOrUnset = Annotated[int, msgspec.Meta(ge=-1, le=10_000_000)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Status = Annotated[int, msgspec.Meta(ge=200, le=599)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]

UsageHabit = Literal[
    "asked",
    "always",
    "never",
    "twice",
    "after_done",
    "negative",
    "text",
    "huge",
    "missing",
    "null",
    "fraction",
    "flag",
    "nested",
    "parts",
]
Fault = Literal[
    "none",
    "disconnect",
    "stall",
    "status",
    "error_in_200",
    "malformed",
    "slow",
    "html",
    "empty",
    "truncate",
]
Hangup = Literal["fin", "reset"]


class Behavior(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one request is answered."""

    kind: Kind = "openai_compatible"
    """Which kind of server it plays: shapes of its errors, status and words when it has no room,
    and for the server as a whole paths of health and metrics."""
    ttft_ms: Milliseconds = 0.0
    """Time to first token: from the request's last byte to the first byte of the answer."""
    itl_ms: Milliseconds = 0.0
    """Time between tokens. With 0 all that is left of an answer is written at once."""
    input_tokens: CountOrUnset = -1
    """Input tokens to report; -1 reports a quarter of the characters sent, at least 1."""
    output_tokens: Count = 32
    """Tokens to answer with, for each choice; the request's own maximum caps it."""
    cached_tokens: CountOrUnset = -1
    """`prompt_tokens_details.cached_tokens` to report; -1 leaves the details out."""
    usage: UsageHabit = "asked"
    """When and how usage is reported. `asked`: in plain answers, and in streams that ask for it.
    `always`, `never`: as they say. `twice`: streams repeat it. `after_done`: streams send it
    behind `[DONE]`. `negative`, `text`, `huge`, `missing`, `null`, `fraction`, `flag`, `nested`,
    `parts`: always, with figures that are below zero, strings, absurd, absent from the usage
    object, null, no whole numbers, `true`, inside other objects, or whose parts make no sense."""
    fault: Fault = "none"
    """What goes wrong. `disconnect`: the connection ends early. `stall`: nothing more comes.
    `status`: an error answer. `error_in_200`: an error object under status 200. `malformed`:
    broken JSON. `slow`: the answer drips. `html`: a web page. `empty`: no body. `truncate`: a
    body or a chunk shorter than announced, then the end."""
    fault_after: Count = 0
    """Stream chunks sent before the fault; beyond the last chunk the fault never comes. A plain
    answer has no chunks: there 0 means before the first byte, more means in mid-body."""
    status: Status = 200
    """Status of an answer by the faults `status`, `html` and `empty`; for `status`, 200 stands
    for what its kind answers when it has no room, mostly 503."""
    retry_after_s: CountOrUnset = 1
    """`Retry-After` of fault answers with status 429, 503 or 529; -1 leaves it out."""
    hangup: Hangup = "fin"
    """How `disconnect` and `truncate` end the connection: `fin` closes it, `reset` resets it."""
    drip_ms: Milliseconds = 20.0
    """Time between two pieces of a `slow` answer."""
    drip_bytes: Positive = 1
    """Size of a piece of a `slow` answer."""


class EmulatorSettings(Behavior, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server, and how it answers requests that do not say otherwise."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 18_080
    """Port to listen on; 0 takes a free one."""
    grpc_port: Annotated[int, msgspec.Meta(ge=-1, le=65_535)] = -1
    """Port to speak gRPC on, as Triton does on 8001; 0 takes a free one, -1 none. It wants the
    package `grpcio`."""
    kv_events_port: Annotated[int, msgspec.Meta(ge=-1, le=65_535)] = -1
    """Port to publish events of its cache on by ZeroMQ, as vLLM and SGLang do on 5557; 0 takes a
    free one, -1 none. It wants the package `pyzmq`, and the kind `vllm` or `sglang`."""
    kv_replay_port: Port = 0
    """Port where those of them can be asked for that were missed; 0 takes a free one."""
    kv_events_form: Literal["map", "array"] = "map"
    """How such an event is written: its members by name, or in their order as older versions do."""
    kv_blocks: Positive = 1_024
    """Blocks of 16 tokens that the cache holds."""
    prefix_cache: bool = False
    """Report in `cached_tokens` how many tokens of a prompt's beginning the cache had: for requests
    that do not say what is to be reported."""
    prefill_ms_per_1k_tokens: Milliseconds = 0.0
    """With that: how much longer the first token takes for each 1,000 tokens that it had not."""
    models: str = "emulated-70b"
    """Names of the models served, with commas between them; other names answer 404. `*` serves
    every name."""
    adapters: str = ""
    """Names of the LoRA adapters that are loaded at the start, with commas between them."""
    adapter_limit: Count = 8
    """How many adapters can be loaded at once."""
    adapter_load_ms: Milliseconds = 0.0
    """How long the answer takes to a request that loads one."""
    batch: Count = 0
    """How many answers it says it works on at once: further ones wait, and its cache is as full as
    that many are there. With 0 it says that nothing ever waits and nothing is in its cache."""
    embedding_dimensions: Positive = 16
    """Length of embedding vectors, for requests that do not give one."""
    keep_alive_requests: Count = 0
    """Requests after which a connection is closed; 0 never closes."""
    keep_alive_announced: bool = True
    """Whether the last answer before that says `connection: close`; some servers do not."""
    log: str = ""
    """File to which the x-request-id of every request is appended, one a line, before it is
    answered (`-` for a request without one)."""
    record: bool = False
    """Keep headers and bodies of the last requests for `GET /emulator/stats`."""
    keep: Count = 10_000
    """How many requests the statistics look back on (with bodies: the last 100 of them)."""
    announce: bool = False
    """Print one line with the address when ready."""

    def adapter_names(self) -> tuple[str, ...]:
        """Return the names of the adapters that are there at the start."""
        return tuple(name.strip() for name in self.adapters.split(",") if name.strip())

    def serves(self, model: str) -> bool:
        """Return whether this server has the model."""
        return self.models == "*" or model in self.model_names()

    def model_names(self) -> tuple[str, ...]:
        """Return the names to list; none when every name is served."""
        if self.models == "*":
            return ()
        return tuple(name.strip() for name in self.models.split(",") if name.strip())
