"""The sections of penstock.yaml: strict, and nothing beside them."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from penstock.access.key_rules import check_rotation
from penstock.access.model import KeyScope
from penstock.catalog import fields
from penstock.catalog.discovery import find_misplaced
from penstock.catalog.object_rules import MAX_CHOICES, MAX_WEIGHT
from penstock.catalog.rules import (
    MAX_CONNECTIONS,
    MAX_OUTPUT_TOKENS,
    check_endpoints,
    find_adapter_fault,
    list_endpoints,
)
from penstock.catalog.written_rules import MAX_RULES, default_window_s
from penstock.contract import snapshot
from penstock.contract.limits import Enforcement, Limit, Metric, find_limit_fault
from penstock.tenancy.model import Role
from penstock.tenancy.rules import check_role

_timeouts = snapshot.Timeouts()


def _check_endpoints(urls: tuple[str, ...]) -> tuple[str, ...]:
    check_endpoints(list_endpoints(urls))
    return urls


def _check_role(role: str, project: str | None) -> None:
    with fields.as_finding("choose one of them"):
        check_role(role, project)


def _check_rotation(rotation: "RotationItem") -> None:
    with fields.as_finding("correct it"):
        check_rotation(rotation.interval_s, rotation.grace_s)


class Item(BaseModel):
    """Base of every entry: types are exact and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class OrganizationItem(Item):
    """The unit that is isolated and pays."""

    name: fields.FreeName = Field(examples=["acme"])
    allowed_data_classes: fields.Slugs | None = None
    allowed_regions: fields.Slugs | None = None


class ProjectItem(Item):
    """A subdivision of an organization; owns keys."""

    name: fields.FreeName = Field(examples=["chatbot"])
    organization: fields.FreeName = Field(examples=["acme"])
    allowed_data_classes: fields.Slugs | None = None
    allowed_regions: fields.Slugs | None = None


class MemberItem(Item):
    """A person in an organization, or in one project of it."""

    subject: fields.Subject = Field(examples=["auth0|42"])
    organization: fields.FreeName = Field(examples=["acme"])
    project: fields.FreeName | None = None
    role: fields.RoleName = Field(examples=["developer"])
    email: fields.Email | None = None
    labels: fields.Labels = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_role(self.role, self.project)
        return self


class ServiceAccountItem(Item):
    """A machine in an organization, or in one project of it."""

    name: fields.FreeName = Field(examples=["nightly"])
    organization: fields.FreeName = Field(examples=["acme"])
    project: fields.FreeName | None = None
    role: fields.RoleName = Field(examples=["developer"])
    is_disabled: bool = False
    labels: fields.Labels = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_role(self.role, self.project)
        return self


class RotationItem(Item):
    """How a key's secret is rotated on a schedule."""

    interval_s: int = Field(examples=[7_776_000])
    grace_s: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_rotation(self)
        return self


class KeyItem(Item):
    """An API key of a project."""

    name: fields.FreeName = Field(examples=["chatbot-1"])
    project: fields.FreeName = Field(examples=["chatbot"])
    organization: fields.FreeName | None = None
    secret: fields.SecretReference | None = None
    role: fields.RoleName = Role.INFERENCE_ONLY.value
    scopes: fields.Scopes = (KeyScope.INFERENCE.value, KeyScope.MODELS_READ.value)
    aliases: Annotated[tuple[str, ...], fields.AsTuple] | None = None
    networks: fields.Networks | None = None
    labels: fields.Labels = {}
    expires_at: fields.Time | None = None
    rotation: RotationItem | None = None
    service_account: fields.FreeName | None = None


class CredentialItem(Item):
    """What upstreams are shown; the platform's, or one that an organization brings along."""

    name: fields.CredentialName = Field(examples=["openai"])
    provider: fields.Provider = Field(examples=["openai_compatible"])
    secret: fields.SecretReference | None = None
    organization: fields.FreeName | None = None
    upstream: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.upstream is not None and self.organization is None:
            message = (
                "names an upstream and no organization; name its organization, or name the "
                "credential in the upstream instead"
            )
            raise ValueError(message)
        return self


class TimeoutsItem(Item):
    """Time limits towards an upstream, in milliseconds."""

    connect_ms: fields.Milliseconds = _timeouts.connect_ms
    first_byte_ms: fields.Milliseconds = _timeouts.first_byte_ms
    first_byte_ms_per_1k_tokens: fields.MillisecondsOrNone = _timeouts.first_byte_ms_per_1k_tokens
    idle_ms: fields.Milliseconds = _timeouts.idle_ms
    total_ms: fields.Milliseconds = _timeouts.total_ms


class UpstreamItem(Item):
    """A set of interchangeable endpoints."""

    name: fields.Slug = Field(examples=["gpu-pool"])
    endpoints: Annotated[
        tuple[fields.Url, ...],
        Field(examples=['["http://10.0.0.5:8000"]']),
        AfterValidator(_check_endpoints),
        fields.AsTuple,
    ] = ()
    discover: fields.Source | None = None
    provider: fields.Provider = "openai_compatible"
    region: fields.Slug | None = None
    data_class: fields.Slug | None = None
    credential: fields.CredentialOrReference | None = None
    forward_headers: Annotated[tuple[fields.HeaderPattern, ...], fields.AsTuple] = ()
    timeouts: TimeoutsItem = TimeoutsItem()
    max_connections: int = Field(default=16_384, ge=1, le=MAX_CONNECTIONS)
    tls_ca_file: fields.FilePath | None = None
    takes_priority: bool = False
    kv_events: fields.KvPorts | None = None
    is_disabled: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.endpoints) == bool(self.discover):
            message = (
                "lists endpoints and says where they are found; leave one out"
                if self.endpoints
                else "has no endpoints; list their addresses, or say in discover where they are "
                "found"
            )
            raise ValueError(message)
        fault = find_misplaced(self.name, self.discover)
        if fault is not None:
            message = f"{fault} in discover"
            raise ValueError(message)
        return self


class ServedItem(Item):
    """What deployments and short routes have in common."""

    name: fields.Name = Field(examples=["llama-70b"])
    upstream: str = Field(examples=["gpu-pool"])
    model: fields.ServedModel = Field(examples=["meta-llama/Llama-3.3-70B-Instruct"])
    continuous_usage: bool = False
    max_output_tokens: int = Field(default=1_000_000, ge=1, le=MAX_OUTPUT_TOKENS)
    adapter_of: fields.ServedModel | None = None
    adapter_path: fields.AdapterPath | None = None
    tokenizer: fields.FilePath | None = None

    @model_validator(mode="after")
    def _check_adapter(self) -> Self:
        fault = find_adapter_fault(self.model, self.adapter_of, self.adapter_path)
        if fault is not None:
            raise ValueError(fault)
        return self


class DeploymentItem(ServedItem):
    """One model on one upstream."""

    credential: str | None = None
    is_disabled: bool = False


class ChoiceItem(Item):
    """A deployment that a route may choose."""

    deployment: str = Field(examples=["llama-70b-eu"])
    weight: int = Field(default=1, ge=0, le=MAX_WEIGHT)


class RouteItem(Item):
    """Where the requests of an alias go: to deployments by weight."""

    name: fields.Name = Field(examples=["llama-70b"])
    deployments: Annotated[
        tuple[ChoiceItem, ...],
        Field(min_length=1, max_length=MAX_CHOICES, examples=["[{deployment: llama-70b-eu}]"]),
        fields.AsTuple,
    ]
    fallback: str | None = None


class ShortRouteItem(ServedItem):
    """A route with one deployment, which has the route's name."""

    fallback: str | None = None

    @property
    def deployment(self) -> DeploymentItem:
        """The deployment that it stands for."""
        return DeploymentItem(**self.model_dump(exclude={"fallback"}))

    @property
    def route(self) -> RouteItem:
        """The route in its long form."""
        choice = ChoiceItem(deployment=self.name)
        return RouteItem(name=self.name, deployments=(choice,), fallback=self.fallback)


class AliasItem(Item):
    """A public model name."""

    name: fields.Name = Field(examples=["llama-70b"])
    route: str = Field(examples=["llama-70b"])
    is_open: bool = True


class GrantItem(Item):
    """Leave to use an alias that is not open to all."""

    alias: str = Field(examples=["llama-70b"])
    organization: fields.FreeName = Field(examples=["acme"])
    project: fields.FreeName | None = None


class RuleItem(Item):
    """A rule of a plan or of an owner."""

    metric: fields.MetricName = Field(examples=["requests"])
    limit: int = Field(examples=[600])
    window_s: int | None = None
    alias: str | None = None
    model: fields.ServedModel | None = None
    per: fields.PerName | None = None
    enforcement: fields.EnforcementName = Enforcement.HARD.value
    raised_limit: int | None = None
    raised_until: fields.Time | None = None
    label: fields.Label | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        metric = Metric(self.metric)
        window_s = default_window_s(metric) if self.window_s is None else self.window_s
        until = None if self.raised_until is None else 0
        fault = find_limit_fault(
            Limit(
                "",
                metric,
                self.limit,
                window_s,
                raised_limit=self.raised_limit,
                raised_until=until,
            )
        )
        if fault is not None:
            raise ValueError(fault)
        return self


Rules = Annotated[tuple[RuleItem, ...], Field(max_length=MAX_RULES), fields.AsTuple]


class PlanItem(Item):
    """A named set of rules."""

    name: fields.Name = Field(examples=["gold"])
    rules: Rules = ()


class OwnedItem(Item):
    """What is for an organization, a project, a key, a member or a service account."""

    organization: fields.FreeName = Field(examples=["acme"])
    project: fields.FreeName | None = None
    key: fields.FreeName | None = None
    member: fields.Subject | None = None
    service_account: fields.FreeName | None = None

    @model_validator(mode="after")
    def _check_owner(self) -> Self:
        if sum(one is not None for one in (self.key, self.member, self.service_account)) > 1:
            message = "names several of key, member and service_account; write an entry for each"
            raise ValueError(message)
        if self.key is not None and self.project is None:
            message = "names a key without its project; add project"
            raise ValueError(message)
        if self.service_account is not None and self.project is not None:
            message = "names a project beside a service account; name its organization only"
            raise ValueError(message)
        return self


class LimitsItem(OwnedItem):
    """What limits somebody."""

    plan: str | None = None
    rules: Rules = ()


class BudgetItem(OwnedItem):
    """What somebody may spend in each day or month, or once."""

    currency: fields.Currency = Field(examples=["EUR"])
    amount: fields.Amount = Field(examples=["250"])
    period: fields.PeriodName = Field(examples=["month"])
    time_zone: str = "UTC"
    is_hard: bool = False
    per: fields.PerName | None = None
    alias: str | None = None
    alert_percentages: Annotated[tuple[int, ...], fields.AsTuple] = ()
    lowers_cap: bool = True
    exhausted_status: int = 429
    when_away: fields.WhenAwayName = "spend_held"
    label: fields.Label | None = None


class FileItem(Item):
    """The file as a whole; its entries are checked one by one."""

    version: fields.Version = Field(examples=[1])
    organizations: list[Any] = []
    projects: list[Any] = []
    members: list[Any] = []
    service_accounts: list[Any] = []
    keys: list[Any] = []
    credentials: list[Any] = []
    upstreams: list[Any] = []
    deployments: list[Any] = []
    routes: list[Any] = []
    aliases: list[Any] = []
    grants: list[Any] = []
    plans: list[Any] = []
    limits: list[Any] = []
    budgets: list[Any] = []


SECTIONS: dict[str, type[Item]] = {
    "organizations": OrganizationItem,
    "projects": ProjectItem,
    "members": MemberItem,
    "service_accounts": ServiceAccountItem,
    "keys": KeyItem,
    "credentials": CredentialItem,
    "upstreams": UpstreamItem,
    "deployments": DeploymentItem,
    "routes": RouteItem,
    "aliases": AliasItem,
    "grants": GrantItem,
    "plans": PlanItem,
    "limits": LimitsItem,
    "budgets": BudgetItem,
}
"""The lists of the file and what they hold; short routes are `ShortRouteItem`."""


class SentKeyItem(KeyItem):
    """A key as it is sent to the control plane: with its secret instead of a reference."""

    secret: fields.KeySecret | None = Field(default=None, repr=False)


class SentCredentialItem(CredentialItem):
    """A credential as it is sent to the control plane: with its secret instead of a reference."""

    secret: fields.Secret | None = Field(default=None, repr=False)


SENT_SECTIONS = SECTIONS | {"keys": SentKeyItem, "credentials": SentCredentialItem}
"""The same as they are sent to the control plane."""
