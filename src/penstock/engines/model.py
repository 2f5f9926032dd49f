"""What is known of a kind of model server. Facts only: what is done with them is elsewhere."""

import msgspec

OVERLOADED = frozenset({429, 503})
"""What most servers answer when they have no room for a request."""

MAX_ARGUMENT_CHARS = 1_024
"""Of what an operation is given, such as where an adapter is."""


class Priority(msgspec.Struct, frozen=True):
    """How a server is told which request is more urgent."""

    path: tuple[str, ...]
    """Where the number stands in the body, e.g. `("nvext", "agent_hints", "priority")`."""
    is_higher_earlier: bool
    """Whether the larger number goes first."""


class Load(msgspec.Struct, frozen=True):
    """Where a server says how busy it is: names of metrics in Prometheus' text form."""

    path: str
    running: str
    """Requests that are being answered."""
    waiting: str
    """Requests that wait."""
    cache_use: str = ""
    """Share of the KV cache in use, 0 to 1; "" when it does not say."""
    queued: str = ""
    """Requests that wait in front of its backends; "" when those that wait are all in `waiting`."""
    port: int | None = None
    """Where that is, if not where requests go."""


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What only the platform's operator has a server do. Each is a POST."""

    name: str
    path: str
    """Where it is; `{model}` stands for the argument of that name."""
    title: str
    """What it does, for people."""
    required: tuple[str, ...] = ()
    """Names of the arguments that it must have."""
    optional: tuple[str, ...] = ()
    """Names of those that it may have."""
    is_in_query: bool = False
    """Whether arguments stand in the query; else they are members of a JSON body."""


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of model server: a provider's name, and how it behaves."""

    name: str
    """The provider's name in the configuration."""
    title: str
    """One line for people."""
    health_path: str | None = "/health"
    """Says whether the process serves; None when nothing does."""
    ready_path: str | None = None
    """Says whether a model can be asked; `{model}` is its name. None where health says it."""
    models_path: str | None = "/v1/models"
    """Lists its models in OpenAI's form."""
    owned_by: str = ""
    """Whose that list says that its models are; "" when that tells nothing."""
    context_member: str | None = None
    """Where an entry of that list says how many tokens a request may have."""
    paths: dict[str, str] = {}  # msgspec makes a new one for each
    """Where operations are that it has not at our path, by that."""
    load: Load | None = None
    reports_load: bool = False
    """Whether it says in an answer's head how busy it is, when a request asks for that."""
    never_polled: tuple[str, ...] = ()
    """Paths that change something when they are read: what one reader took, no other sees."""
    overloaded_statuses: frozenset[int] = OVERLOADED
    """Answers that mean: no room for this request, another server may have some."""
    errors: str
    """The shape of its error bodies, for people."""
    priority: Priority | None = None
    speaks_openai: bool = True
    """Whether it takes requests of OpenAI's protocol; others are translated for it."""
    speaks_oip: bool = False
    """Whether it takes requests of the Open Inference Protocol (KServe v2) at `/v2`."""
    speaks_messages: bool = False
    """Whether it takes requests of Anthropic's Messages at `/v1/messages`."""
    speaks_responses: bool = False
    """Whether it takes requests of OpenAI's Responses at `/v1/responses`."""
    key_header: str = ""
    """In which field of a header it wants its key; "" for `authorization`, behind `Bearer`."""
    fixed_headers: dict[str, str] = {}  # msgspec makes a new one for each
    """What it wants in the header of each request."""
    takes_cache_salt: bool = False
    """Whether `cache_salt` keeps the prefix caches of organizations apart."""
    session_header: str | None = None
    """What it keeps requests of a session together by."""
    fairness_header: str | None = None
    """What it serves organizations fairly by, each under a pseudonym."""
    usage_in_every_chunk: bool = False
    """Whether it understands `stream_options.continuous_usage_stats`."""
    audio_usage_field: str = ""
    """Field of forms by which it is asked for usage in a stream of a transcript."""
    most_choices: int | None = None
    """The largest `n` that it answers in full; None when it knows no bound."""
    adapter_form: str = "{adapter}"
    """How requests name a LoRA adapter; `{model}` stands for the model that it adapts."""
    operations: tuple[Operation, ...] = ()
    """What the platform's operator can have it do; callers reach none of these paths."""
    cancels: str
    """What ends a request that its caller left, for people."""
