"""What an alias offers to a project: the deployments that its requests may be sent to, in tiers.

From the snapshot's records alone: alias -> route -> choices -> deployments -> upstreams, then the
routes that stand in for it. A record that cannot be read is as good as absent: it harms nothing
beside it. Only what limits somebody is taken for a No when it cannot be read.
"""

import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

from penstock.contract.snapshot import (
    CREDENTIAL_SCHEME,
    GRPC_SCHEMES,
    Alias,
    Choice,
    Deployment,
    Endpoint,
    Policy,
    Route,
    Timeouts,
    Upstream,
)
from penstock.engines.model import Engine, Priority
from penstock.engines.registry import engine_of
from penstock.gateway import log_events, priced
from penstock.gateway.errors import MODEL_UNPRICED, RESIDENCY_DENIED, UNUSABLE
from penstock.gateway.limits import CHOICES, FALLBACK_DEPTH
from penstock.gateway.priced import Pricing
from penstock.gateway.tokens import Tokens
from penstock.kit.errors import Refusal
from penstock.kit.logs.event import Event
from penstock.kit.secrets import SecretUnavailableError

Found = TypeVar("Found")

_encode = msgspec.json.Encoder().encode
_DENIED = Refusal(RESIDENCY_DENIED)
_UNPRICED = Refusal(MODEL_UNPRICED)
_UNUSABLE = Refusal(UNUSABLE)


class ServedUpstream(msgspec.Struct, frozen=True):
    """An upstream ready to be used, by whomever: nothing in it is one organization's."""

    name: str
    version: int
    """Of the snapshot that it was read from."""
    endpoints: tuple[Endpoint, ...]
    forward_names: frozenset[bytes]
    forward_prefixes: tuple[bytes, ...]
    timeouts: Timeouts
    max_connections: int
    tls: ssl.SSLContext | None
    settings: Upstream
    engine: Engine
    data_class: str
    """"" when nobody said; the same for the region."""
    region: str
    fixed_lines: bytes = b""
    """Header lines that its engine wants with each request."""
    by_grpc: "ServedUpstream | None" = None
    """The same as it is asked by gRPC; None where it cannot be."""
    is_by_grpc: bool = False
    """Whether this is that."""

    @property
    def priority(self) -> Priority | None:
        """How its engines are told what is urgent; None where they are not."""
        return self.engine.priority if self.settings.takes_priority else None

    @property
    def hosts(self) -> Iterator[str]:
        """Where its endpoints are."""
        return (
            name
            for endpoint in self.endpoints
            for name in (endpoint.host, endpoint.server_name)
            if name
        )


class Target(msgspec.Struct, frozen=True):
    """A deployment, ready to be sent to on behalf of one project."""

    alias: str
    deployment: Deployment
    upstream: ServedUpstream
    model: msgspec.Raw
    """The upstream's own name of the model, as JSON."""
    authorization: bytes
    """Header lines with the credential, which is in the first, if at all, and of the engine's kind.

    Each ends in CRLF."""
    weight: int
    """Its share of the tier; with 0 it only stands in for others."""
    cache_salt: msgspec.Raw | None = None
    """What keeps the organization's prompts apart in the engine's cache, as JSON; None where the
    engine knows no such thing."""
    fairness_line: bytes = b""
    """Header line that names the organization to engines that are fair among several."""
    is_adapter: bool = False
    """Whether only those endpoints can be asked that have loaded it."""
    is_told_of: bool = False
    """Whether its engines tell what is in their KV caches, and its prompts can be found there."""

    @property
    def most_choices(self) -> int:
        """The largest `n` that its engine answers in full."""
        return self.upstream.engine.most_choices or CHOICES


class Offer(msgspec.Struct, frozen=True):
    """Where the requests of a project for an alias may go."""

    tiers: tuple[tuple[Target, ...], ...]
    """Each stands in for those before it; none is empty."""
    first: Target
    """The only one, when there is no choice."""
    has_choice: bool
    max_output_tokens: int
    """The largest of all targets'."""
    most_choices: int
    """The largest `n` that one of them answers in full."""
    has_adapter: bool
    """Whether one of them is a LoRA adapter, which is not at every endpoint."""
    is_spread: bool
    """Whether one of them is at several endpoints."""
    is_complete: bool
    """Whether all could be used that may be: else it is worth looking again."""
    by_grpc: "Offer | None" = None
    """What of it can be asked by gRPC; None when nothing can."""


def offer_of(tiers: tuple[tuple[Target, ...], ...], *, is_complete: bool) -> Offer:
    """Return what targets, one at least, offer together."""
    targets = [target for tier in tiers for target in tier]
    return Offer(
        tiers=tiers,
        first=targets[0],
        has_choice=len(targets) > 1,
        max_output_tokens=max(each.deployment.max_output_tokens for each in targets),
        most_choices=max(each.most_choices for each in targets),
        has_adapter=any(each.is_adapter for each in targets),
        is_spread=any(len(each.upstream.endpoints) > 1 for each in targets),
        is_complete=is_complete,
    )


def _by_grpc(offer: Offer) -> Offer | None:
    """Return what of an offer can be asked by gRPC."""
    tiers = [
        tuple(
            msgspec.structs.replace(target, upstream=target.upstream.by_grpc)
            for target in tier
            if target.upstream.by_grpc is not None
        )
        for tier in offer.tiers
    ]
    left = tuple(tier for tier in tiers if tier)
    return offer_of(left, is_complete=offer.is_complete) if left else None


Contexts: TypeAlias = Mapping[tuple[str, str], int]
"""The most tokens of a request, by an upstream's name and its own name of a model."""


class Owner(NamedTuple):
    """On whose behalf a request is sent."""

    organization: str
    project: str


class Records(priced.Records, Protocol):
    """Where the snapshot's records of the catalog are."""

    def find_alias(self, name: str) -> Alias | None:
        """Return an alias."""

    def list_aliases(self) -> list[Alias]:
        """Return all aliases, by name."""

    def has_grant(self, alias: str, organization: str, project: str) -> bool:
        """Return whether a project, or its whole organization, may use an alias."""

    def find_route(self, name: str) -> Route | None:
        """Return a route."""

    def find_deployment(self, name: str) -> Deployment | None:
        """Return a deployment."""

    def find_upstream(self, name: str) -> Upstream | None:
        """Return an upstream."""

    def find_policy(self, organization: str, project: str | None = None) -> Policy | None:
        """Return where the data of an owner may go; None when it may go anywhere."""

    def find_own_credential(self, organization: str, upstream: str) -> str | None:
        """Return the id of the credential that an organization brought for an upstream."""


class _Candidate(NamedTuple):
    choice: Choice
    deployment: Deployment
    upstream: Upstream


class Catalog:
    """One version of the catalog. What it made ready is kept, and gone with the version.

    Args:
        records: Where it is read.
        tokens: What credentials stand for.
        version: Of the records.
        pricing: Says what has a price.
        pseudonym: Returns what stands for something of an organization towards engines.
    """

    def __init__(
        self,
        records: Records,
        tokens: Tokens,
        version: int,
        pricing: Pricing,
        pseudonym: Callable[[str, bytes], bytes],
    ) -> None:
        """See the class."""
        self._pseudonym = pseudonym
        self._records = records
        self._pricing = pricing
        self._tokens = tokens
        self._version = version
        self._upstreams: dict[str, Upstream | None] = {}
        self._served: dict[str, ServedUpstream] = {}
        self._places: dict[str, frozenset[tuple[str | None, str | None]]] = {}
        self._aliases_by_model: dict[tuple[str, str], list[str]] | None = None
        self._told: set[tuple[Event, str]] = set()

    def make_offer(self, name: str, owner: Owner) -> Offer | Refusal | None:
        """Return what an alias offers to a project.

        Returns:
            None when there is no such alias, when it is not for this project, and when its route
            leads nowhere: the three are not to be told apart.
        """
        alias = self._find(self._records.find_alias, name)
        if alias is None or not self._is_granted(alias, owner):
            return None
        tiers = [tier for tier in self._read_tiers(alias.route) if tier]
        if not tiers:
            return None
        policies = self._read_policies(owner)
        if policies is None:
            return _UNUSABLE
        allowed = [
            [each for each in tier if _is_allowed(policies, *_place(each.upstream))]
            for tier in tiers
        ]
        if not any(allowed):
            return _DENIED
        is_priced = self._is_priced(name, owner)
        if not is_priced:
            return _UNUSABLE if is_priced is None else _UNPRICED
        # An upstream without an endpoint is one again with another version, and not before.
        found = [[each for each in tier if each.upstream.plain_endpoints] for tier in allowed]
        made = [[self._make_target(name, each, owner) for each in tier] for tier in found]
        usable = (tuple(each for each in tier if each is not None) for tier in made)
        left = tuple(tier for tier in usable if tier)
        if not left:
            return _UNUSABLE
        count = sum(map(len, left))
        offer = offer_of(left, is_complete=count == sum(map(len, found)))
        return msgspec.structs.replace(offer, by_grpc=_by_grpc(offer))

    def may_use(self, name: str, owner: Owner) -> bool:
        """Return whether there is such an alias for this project, usable just now or not."""
        alias = self._find(self._records.find_alias, name)
        policies = self._read_policies(owner)
        return alias is not None and policies is not None and self._is_for(alias, owner, policies)

    def find_context(self, name: str, contexts: Contexts) -> int | None:
        """Return how many tokens a request for an alias may have wherever its route sends it."""
        places = self._read_first_places(name, lambda each: each.base_model)
        return min((contexts[place] for place in places if place in contexts), default=None)

    def list_parents(self, name: str) -> Iterator[str]:
        """Yield the aliases of the model that an alias' adapter adapts; nothing for others."""
        for place in self._read_first_places(name, lambda each: each.adapter_of):
            yield from self._list_aliases_by_model().get(place, ())

    def _list_aliases_by_model(self) -> dict[tuple[str, str], list[str]]:
        """Return all aliases by what their first choices serve, put together once a version."""
        found = self._aliases_by_model
        if found is None:
            found = self._aliases_by_model = {}
            for each in self._records.list_aliases():
                for place in self._read_first_places(each.name, _plain_model):
                    found.setdefault(place, []).append(each.name)
        return found

    def _read_first_places(
        self, name: str, model_of: Callable[[Deployment], str | None]
    ) -> Iterator[tuple[str, str]]:
        """Yield the upstreams of an alias' first choices, each with a model of theirs."""
        alias = self._find(self._records.find_alias, name)
        for each in [] if alias is None else next(self._read_tiers(alias.route), []):
            model = model_of(each.deployment)
            if model is not None:
                yield each.upstream.name, model

    def list_names(self, owner: Owner) -> tuple[str, ...]:
        """Return the names of all aliases that `may_use` holds for, in order."""
        policies = self._read_policies(owner)
        if policies is None:
            return ()
        aliases = self._records.list_aliases()
        return tuple(each.name for each in aliases if self._is_for(each, owner, policies))

    def _is_for(self, alias: Alias, owner: Owner, policies: Sequence[Policy]) -> bool:
        if not self._is_granted(alias, owner) or not self._is_priced(alias.name, owner):
            return False
        return not policies or any(
            _is_allowed(policies, *place) for place in self._list_places(alias.route)
        )

    def _is_priced(self, alias: str, owner: Owner) -> bool | None:
        """Return whether an alias costs an owner what is known; None when it cannot be read."""
        try:
            return self._pricing.allows(alias, owner.organization)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._tell(log_events.PRICES_UNUSABLE, alias, error)
            return None

    def _is_granted(self, alias: Alias, owner: Owner) -> bool:
        return alias.is_open or self._records.has_grant(alias.name, *owner)

    # Reading

    def _find(self, find: Callable[[str], Found | None], name: str) -> Found | None:
        try:
            return find(name)
        except msgspec.DecodeError as error:
            self._tell(log_events.RECORD_UNUSABLE, name, error)
            return None

    def _tell(self, trouble: Event, name: str, error: Exception) -> None:
        """Log it, once a version: a request may meet it a thousand times a second."""
        if (trouble, name) not in self._told:
            self._told.add((trouble, name))
            trouble.log(name=name, error=error)

    def _read_policies(self, owner: Owner) -> tuple[Policy, ...] | None:
        """Return the policies of organization and project; None when one cannot be read."""
        find = self._records.find_policy
        try:
            policies = find(owner.organization), find(*owner)
        except msgspec.DecodeError as error:
            self._tell(log_events.POLICY_UNUSABLE, "/".join(owner), error)
            return None
        return tuple(policy for policy in policies if policy is not None)

    def _read_tiers(self, route_name: str) -> Iterator[list[_Candidate]]:
        """Yield the candidates of a route, then of those that stand in for it."""
        name: str | None = route_name
        for _ in range(1 + FALLBACK_DEPTH):
            route = None if name is None else self._find(self._records.find_route, name)
            if route is None:
                return
            candidates = map(self._read_candidate, route.choices)
            yield [candidate for candidate in candidates if candidate is not None]
            name = route.fallback

    def _read_candidate(self, choice: Choice) -> _Candidate | None:
        deployment = self._find(self._records.find_deployment, choice.deployment)
        if deployment is None:
            return None
        name = deployment.upstream
        if name not in self._upstreams:
            self._upstreams[name] = self._find(self._records.find_upstream, name)
        upstream = self._upstreams[name]
        if upstream is None or not (upstream.endpoints or upstream.discover):
            return None
        return _Candidate(choice, deployment, upstream)

    def _list_places(self, route: str) -> frozenset[tuple[str | None, str | None]]:
        found = self._places.get(route)
        if found is None:
            tiers = self._read_tiers(route)
            found = frozenset(_place(each.upstream) for tier in tiers for each in tier)
            self._places[route] = found
        return found

    # Making ready

    def _make_target(self, alias: str, candidate: _Candidate, owner: Owner) -> Target | None:
        """Return a target; None when its credential or its CA file cannot be read."""
        choice, deployment, upstream = candidate
        try:
            own = self._records.find_own_credential(owner.organization, upstream.name)
            if own is not None:  # nothing stands in for it: others' credentials are others' money
                reference: str | None = CREDENTIAL_SCHEME + own
            else:
                reference = deployment.credential or upstream.credential
            engine = engine_of(upstream.provider)
            authorization = self._tokens.authorization(reference, engine.key_header)
            served = self._served.get(upstream.name)
            if served is None:
                served = self._served[upstream.name] = _serve(upstream, self._version)
        except (SecretUnavailableError, OSError, UnicodeError) as error:
            self._tell(log_events.CHOICE_UNUSABLE, deployment.name, error)
            return None
        name, base = deployment.model, deployment.adapter_of
        if base is not None:
            name = served.engine.adapter_form.format(model=base, adapter=name)
        return Target(
            alias,
            deployment,
            served,
            msgspec.Raw(_encode(name)),
            authorization + served.fixed_lines,
            choice.weight,
            _cache_salt(owner.organization) if served.engine.takes_cache_salt else None,
            self._fairness_line(served.engine, owner),
            is_adapter=base is not None,
            is_told_of=None not in (deployment.tokenizer, upstream.kv_events),
        )

    def _fairness_line(self, engine: Engine, owner: Owner) -> bytes:
        if engine.fairness_header is None:
            return b""
        name = self._pseudonym(owner.organization, b"fairness\0")
        return b"%b: %b\r\n" % (engine.fairness_header.encode("ascii"), name)


def _plain_model(deployment: Deployment) -> str | None:
    return deployment.model if deployment.adapter_of is None else None


def _cache_salt(organization: str) -> msgspec.Raw:
    """Return the same for an organization on all nodes; others' are not told to anybody."""
    return msgspec.Raw(_encode(sha256(b"cache_salt\0" + organization.encode()).hexdigest()))


def _place(upstream: Upstream) -> tuple[str | None, str | None]:
    return upstream.data_class, upstream.region


def _is_allowed(policies: Sequence[Policy], data_class: str | None, region: str | None) -> bool:
    """Return whether data may be sent to a place; what nobody said of it is never enough."""
    return all(
        (policy.data_classes is None or data_class in policy.data_classes)
        and (policy.regions is None or region in policy.regions)
        for policy in policies
    )


def header_patterns(names: Iterable[str]) -> tuple[frozenset[bytes], tuple[bytes, ...]]:
    """Split header patterns into plain names and prefixes (`x-foo-*`)."""
    lower = [name.lower().encode("ascii") for name in names]
    prefixes = sorted({name[:-1] for name in lower if name.endswith(b"*")})
    return frozenset(name for name in lower if not name.endswith(b"*")), tuple(prefixes)


def _serve(upstream: Upstream, version: int) -> ServedUpstream:
    engine = engine_of(upstream.provider)
    grpc = [each for each in upstream.endpoints if each.scheme in GRPC_SCHEMES]
    names, prefixes = header_patterns(upstream.forward_headers)
    served = ServedUpstream(
        name=upstream.name,
        version=version,
        endpoints=upstream.plain_endpoints,
        forward_names=names,
        forward_prefixes=prefixes,
        timeouts=upstream.timeouts,
        max_connections=upstream.max_connections,
        tls=_tls(upstream, "https", "http/1.1"),
        settings=upstream,
        engine=engine,
        data_class=upstream.data_class or "",
        region=upstream.region or "",
        fixed_lines=b"".join(
            f"{name}: {value}\r\n".encode("ascii") for name, value in engine.fixed_headers.items()
        ),
    )
    if not grpc or not engine.speaks_oip:
        return served
    by_grpc = msgspec.structs.replace(
        served, endpoints=tuple(grpc), tls=_tls(upstream, "grpcs", "h2"), is_by_grpc=True
    )
    return msgspec.structs.replace(served, by_grpc=by_grpc)


def _tls(upstream: Upstream, scheme: str, protocol: str) -> ssl.SSLContext | None:
    """Return how endpoints of a scheme are greeted; None where there are none."""
    if all(endpoint.scheme != scheme for endpoint in upstream.endpoints):
        return None
    tls = ssl.create_default_context(cafile=upstream.tls_ca_file)
    tls.set_alpn_protocols([protocol])
    return tls
