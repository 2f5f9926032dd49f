"""What the API of providers, upstreams and deployments takes and answers.

In bodies of changes, defaults are made by factories: so they are not shown in the OpenAPI document,
where they would mislead, and null is refused for what must have a value.
"""

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from penstock.audit.schemas import (
    AnswerBody,
    Id,
    PageBody,
    PageQuery,
    RequestBody,
    Text,
    Time,
    example,
)
from penstock.catalog.objects import (
    DeploymentChanges,
    NewDeployment,
    NewUpstream,
    UpstreamChanges,
)
from penstock.contract.snapshot import Timeouts

_TIMES = {"created_at": "2026-06-15T12:00:00.000000Z", "updated_at": "2026-06-15T12:00:00.000000Z"}
_UPSTREAM_ID = "ups_7Hq2Lr90aBcD"
_DEPLOYMENT_ID = "dep_1Zx8Wm1nPqRs"
_limits = Timeouts()
_upstream = NewUpstream(name="")
_deployment = NewDeployment(name="", upstream_id="", model="")

SlugText = Annotated[
    Text, Field(description="1 to 63 of a-z, 0-9, dot, underscore and hyphen.", examples=["gpu"])
]
NameText = Annotated[
    Text,
    Field(
        description="1 to 128 of a-z, A-Z, 0-9 and . _ : / -, beginning with a letter or digit.",
        examples=["llama-70b"],
    ),
]
Provider = Annotated[Text, Field(description="One of `/providers`.")]
Endpoints = Annotated[
    list[Text],
    Field(
        description="Up to 256 addresses, `scheme://host:port/prefix`, each once. `8000-8003` and "
        "`8000,8002` are several ports, each of them an address."
    ),
]
Discover = Annotated[
    Text | None,
    Field(
        description="Where each node finds its endpoints, instead of a list: `dns://NAME:PORT`, "
        "`srv://_SERVICE._PROTOCOL.NAME`, `file:///PATH.json`, or `kubernetes://NAMESPACE/` and "
        "`services/NAME:PORT`, `pods/LABEL=VALUE:PORT` or `inferencepools/NAME`; or "
        "`registered://UPSTREAM?networks=NETWORK,...` for engines that register themselves.",
        examples=["dns://vllm.models.svc:8000"],
    ),
]
Region = Annotated[Text | None, Field(description="Where it stands, e.g. `eu-de`: a slug.")]
DataClass = Annotated[
    Text | None, Field(description="What data may be sent to it, e.g. `eu_only`: a slug.")
]
CredentialId = Annotated[Id | None, Field(description="One of the platform's credentials.")]
CredentialReference = Annotated[
    Text | None,
    Field(
        description="`env:NAME` or `file:/PATH` on each node, instead of a credential kept here."
    ),
]
ForwardHeaders = Annotated[
    list[Text],
    Field(description="Lower-case names of request headers to pass on; `x-foo-*` is a prefix."),
]
Connections = Annotated[StrictInt, Field(description="Of one worker to one endpoint, 1 to 65,535.")]
CaFile = Annotated[Text | None, Field(description="Absolute path of a PEM file on each node.")]
TakesPriority = Annotated[
    StrictBool,
    Field(description="Whether its engines were started to serve urgent requests first."),
]
KvEvents = Annotated[
    Text | None,
    Field(
        description="Ports of its endpoints' hosts where engines publish events of their KV "
        "caches: `PORT`, or `PORT/REPLAY_PORT`; null where they do not.",
        examples=["5557/5558"],
    ),
]
Tokenizer = Annotated[
    Text | None,
    Field(
        description="Absolute path of a folder on each node with the model's `tokenizer.json`: "
        "prompts are looked up in what engines tell of their KV caches. Unused where the upstream "
        "has no `kv_events`.",
        examples=["/models/llama-70b"],
    ),
]
Model = Annotated[
    Text,
    Field(
        description="The upstream's own name of the model.",
        examples=["meta-llama/Llama-3.3-70B-Instruct"],
    ),
]
AdapterOf = Annotated[
    Text | None,
    Field(
        description="The upstream's own name of the model that `model` is a LoRA adapter of; "
        "null for none.",
        examples=["meta-llama/Llama-3.3-70B-Instruct"],
    ),
]
AdapterPath = Annotated[
    Text | None,
    Field(
        description="Where engines find the adapter, to load it when it is needed; null when it "
        "is used only where somebody loaded it.",
        examples=["/adapters/legal"],
    ),
]
OutputTokens = Annotated[
    StrictInt, Field(description="The largest `max_tokens` that is let through.")
]


class ProviderBody(AnswerBody):
    """A kind of engine, or a company, that serves upstreams."""

    model_config = example(name="vllm", description="vLLM's server.")

    name: str
    description: str


class ProvidersBody(AnswerBody):
    """All providers."""

    model_config = example(data=[{"name": "vllm", "description": "vLLM's server."}])

    data: list[ProviderBody]


class TimeoutsBody(RequestBody):
    """Time limits in milliseconds, 1 to 86,400,000; those that are left out are as shown.

    The first byte may be later by `first_byte_ms_per_1k_tokens` for each 1,000 input tokens, or 0.
    """

    model_config = example(first_byte_ms=30_000)

    connect_ms: StrictInt = _limits.connect_ms
    first_byte_ms: StrictInt = _limits.first_byte_ms
    first_byte_ms_per_1k_tokens: StrictInt = _limits.first_byte_ms_per_1k_tokens
    idle_ms: StrictInt = _limits.idle_ms
    total_ms: StrictInt = _limits.total_ms


class NewUpstreamBody(RequestBody):
    """An upstream that is to be."""

    model_config = example(
        name="gpu",
        provider="vllm",
        endpoints=["http://10.0.0.5:8000"],
        region="eu-de",
        data_class="eu_only",
        credential_reference="env:GPU_TOKEN",
        timeouts={"first_byte_ms": 30_000},
    )

    name: SlugText
    provider: Provider = "openai_compatible"
    endpoints: Endpoints = Field(default_factory=list)
    discover: Discover = None
    region: Region = None
    data_class: DataClass = None
    credential_id: CredentialId = None
    credential_reference: CredentialReference = None
    forward_headers: ForwardHeaders = Field(default_factory=list)
    timeouts: TimeoutsBody = Field(default_factory=TimeoutsBody)
    max_connections: Connections = _upstream.max_connections
    tls_ca_file: CaFile = None
    takes_priority: TakesPriority = False
    kv_events: KvEvents = None
    is_disabled: StrictBool = False

    def to_new(self) -> NewUpstream:
        """Return what is to be."""
        return NewUpstream(**self.model_dump(exclude_unset=True))


class UpstreamChangesBody(RequestBody):
    """What of an upstream is to change; what is left out stays."""

    model_config = example(
        endpoints=["http://10.0.0.5:8000", "http://10.0.0.6:8000"], data_class=None
    )

    provider: Provider = Field(default_factory=str)
    endpoints: Endpoints = Field(default_factory=list)
    discover: Discover = Field(default_factory=lambda: None)
    region: Region = Field(default_factory=lambda: None)
    data_class: DataClass = Field(default_factory=lambda: None)
    credential_id: CredentialId = Field(default_factory=lambda: None)
    credential_reference: CredentialReference = Field(default_factory=lambda: None)
    forward_headers: ForwardHeaders = Field(default_factory=list)
    timeouts: TimeoutsBody = Field(default_factory=TimeoutsBody)
    max_connections: Connections = Field(default_factory=int)
    tls_ca_file: CaFile = Field(default_factory=lambda: None)
    takes_priority: TakesPriority = Field(default_factory=bool)
    kv_events: KvEvents = Field(default_factory=lambda: None)
    is_disabled: StrictBool = Field(default_factory=bool)

    def to_changes(self) -> UpstreamChanges:
        """Return the members that were sent."""
        changes: UpstreamChanges = {**self.model_dump(exclude_unset=True)}  # type: ignore[typeddict-item]  # its names are ours
        return changes


class UpstreamsQuery(PageQuery):
    """Which upstreams are meant."""

    name: Text | None = None
    provider: Text | None = None
    region: Text | None = None
    data_class: Text | None = None


class UpstreamBody(AnswerBody):
    """A set of interchangeable endpoints."""

    model_config = example(
        id=_UPSTREAM_ID,
        name="gpu",
        provider="vllm",
        endpoints=["http://10.0.0.5:8000"],
        discover=None,
        region="eu-de",
        data_class="eu_only",
        credential_id=None,
        credential_reference="env:GPU_TOKEN",
        forward_headers=["x-trace-*"],
        timeouts={"first_byte_ms": 30_000},
        max_connections=_upstream.max_connections,
        tls_ca_file=None,
        takes_priority=False,
        kv_events=None,
        is_disabled=False,
        version=1,
        **_TIMES,
    )

    id: str
    name: str
    provider: str
    endpoints: list[str]
    discover: str | None
    region: str | None
    data_class: str | None
    credential_id: str | None
    credential_reference: str | None
    forward_headers: list[str]
    timeouts: Annotated[dict[str, int], Field(description="Those that differ from the defaults.")]
    max_connections: int
    tls_ca_file: str | None
    takes_priority: bool
    kv_events: str | None
    is_disabled: bool
    version: int
    created_at: Time
    updated_at: Time


class UpstreamPage(PageBody[UpstreamBody]):
    """A page of upstreams, oldest first."""


class NewDeploymentBody(RequestBody):
    """A deployment that is to be."""

    model_config = example(
        name="llama-70b", upstream_id=_UPSTREAM_ID, model="meta-llama/Llama-3.3-70B-Instruct"
    )

    name: NameText
    upstream_id: Id
    model: Model
    credential_id: CredentialId = None
    continuous_usage: StrictBool = False
    max_output_tokens: OutputTokens = _deployment.max_output_tokens
    adapter_of: AdapterOf = None
    adapter_path: AdapterPath = None
    tokenizer: Tokenizer = None
    is_disabled: StrictBool = False

    def to_new(self) -> NewDeployment:
        """Return what is to be."""
        return NewDeployment(**self.model_dump())


class DeploymentChangesBody(RequestBody):
    """What of a deployment is to change; what is left out stays."""

    model_config = example(max_output_tokens=4_096, is_disabled=True)

    upstream_id: Id = Field(default_factory=str)
    model: Model = Field(default_factory=str)
    credential_id: CredentialId = Field(default_factory=lambda: None)
    continuous_usage: StrictBool = Field(default_factory=bool)
    max_output_tokens: OutputTokens = Field(default_factory=int)
    adapter_of: AdapterOf = Field(default_factory=lambda: None)
    adapter_path: AdapterPath = Field(default_factory=lambda: None)
    tokenizer: Tokenizer = Field(default_factory=lambda: None)
    is_disabled: StrictBool = Field(default_factory=bool)

    def to_changes(self) -> DeploymentChanges:
        """Return the members that were sent."""
        changes: DeploymentChanges = {**self.model_dump(exclude_unset=True)}  # type: ignore[typeddict-item]  # its names are ours
        return changes


class DeploymentsQuery(PageQuery):
    """Which deployments are meant."""

    name: Text | None = None
    upstream_id: Id | None = None
    model: Text | None = None


class DeploymentBody(AnswerBody):
    """One model on one upstream."""

    model_config = example(
        id=_DEPLOYMENT_ID,
        name="llama-70b",
        upstream_id=_UPSTREAM_ID,
        model="meta-llama/Llama-3.3-70B-Instruct",
        credential_id=None,
        continuous_usage=False,
        max_output_tokens=_deployment.max_output_tokens,
        adapter_of=None,
        adapter_path=None,
        tokenizer=None,
        is_disabled=False,
        version=1,
        **_TIMES,
    )

    id: str
    name: str
    upstream_id: str
    model: str
    credential_id: str | None
    continuous_usage: bool
    max_output_tokens: int
    adapter_of: str | None
    adapter_path: str | None
    tokenizer: str | None
    is_disabled: bool
    version: int
    created_at: Time
    updated_at: Time


class DeploymentPage(PageBody[DeploymentBody]):
    """A page of deployments, oldest first."""
