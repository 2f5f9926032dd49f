"""Puts LiteLLM's entries together to upstreams, deployments, routes and aliases; writes them."""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from penstock.catalog.errors import quoted
from penstock.catalog.litellm_model import Deployment, NoteKind, Notes, Place
from penstock.catalog.object_rules import MAX_WEIGHT
from penstock.catalog.rules import NAME

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
"""What YAML of some version takes for something else than text."""
_FALLBACK = (
    "the other route is tried when connecting to this one failed, and never once a request was "
    "sent; have callers retry what answered 503"
)
_SECOND_FALLBACK = "give the first one the second as its own fallback, if that is meant"
_NO_FALLBACK = (
    "leads to no model that was carried, or the route has a fallback already; name one of "
    "model_list"
)
_MAX_SLUG_CHARS = 63
_MAX_NAME_CHARS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class _Upstream:
    name: str
    provider: str
    endpoints: tuple[str, ...]
    credential: str | None
    timeout_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deployment:
    name: str
    upstream: str
    model: str
    weight: int


class PlatformWriter:
    """Writes the sections upstreams, deployments, routes and aliases.

    Args:
        notes: Collects what cannot be put together.
    """

    def __init__(self, notes: Notes) -> None:
        """See the class."""
        self._notes = notes
        self._upstreams: dict[tuple[object, ...], _Upstream] = {}
        self._upstream_names: set[str] = set()
        self._deployment_names: set[str] = set()
        self._routes: dict[str, list[_Deployment]] = {}
        self._fallbacks: dict[str, str] = {}
        self._aliases: dict[str, str] = {}
        self._public_names: dict[str, str] = {}
        """Alias of each `model_name`, which may hold characters that an alias cannot have."""

    def add_pools(self, deployments: Iterable[Deployment]) -> None:
        """Add all deployments; those of one public name are a pool."""
        pools: dict[str, list[Deployment]] = {}
        for deployment in deployments:
            pools.setdefault(deployment.alias, []).append(deployment)
        for name, pool in pools.items():
            alias = self._public_name(name, pool[0].place)
            if alias is not None:
                self._add_pool(alias, pool)

    def add_second_names(self, place: Place | None) -> None:
        """Add other names of models: `{name: model_name}` or `{name: {model: model_name}}`."""
        for member in place.members() if place else ():
            named = member.member("model") or member
            route = self._aliases.get(self._public_names.get(named.text or "", ""))
            if route is None:
                problem = "leads to no model that was carried; name one of model_list"
            elif NAME.fullmatch(member.name) is None or member.name in self._aliases:
                problem = "is no name that an alias can have, or one that is taken; choose another"
            else:
                self._aliases[member.name] = route
                continue
            self._notes.add(NoteKind.LOST, member, problem)

    def add_fallbacks(self, place: Place | None) -> None:
        """Add `fallbacks`, a list of `{model_name: [model_name, ...]}`: the first of each."""
        for group in place.members() if place else ():
            for member in group.members():
                route = self._route_of(member.name)
                wanted = [one.text or "" for one in member.members()]
                if route is None or not wanted:
                    self._notes.add(NoteKind.LOST, member, _NO_FALLBACK)
                else:
                    self._add_fallback(route, wanted, member)

    def add_default_fallbacks(self, place: Place | None) -> None:
        """Add `default_fallbacks`, a list of names: the first, to routes that have none yet."""
        wanted = [one.text or "" for one in place.members()] if place else []
        if place is None or not wanted:
            return
        for route in self._routes:
            if route not in self._fallbacks and route != self._route_of(wanted[0]):
                self._add_fallback(route, wanted, place)

    def credentials(self) -> set[str]:
        """Return the references to secrets that are written."""
        return {one.credential for one in self._upstreams.values() if one.credential is not None}

    def lines(self) -> Iterator[str]:
        """Yield the lines of the sections."""
        if self._upstreams:
            yield "upstreams:"
        for upstream in self._upstreams.values():
            yield from _upstream_lines(upstream)
        pools = [pool for pool in self._routes.values() if len(pool) > 1]
        if pools:
            yield "deployments:"
        for deployment in (one for pool in pools for one in pool):
            yield f"  - {{name: {scalar(deployment.name)}, {_target(deployment)}}}"
        if self._routes:
            yield "routes:"
        for name, deployments in self._routes.items():
            yield self._route_line(name, deployments)
        if self._aliases:
            yield "aliases:"
        for name, route in self._aliases.items():
            yield f"  - {{name: {scalar(name)}, route: {scalar(route)}}}"

    def _route_line(self, name: str, deployments: list[_Deployment]) -> str:
        if len(deployments) == 1:
            fields = [f"name: {scalar(name)}", _target(deployments[0])]
        else:
            choices = ", ".join(
                f"{{deployment: {scalar(one.name)}, weight: {one.weight}}}" for one in deployments
            )
            fields = [f"name: {scalar(name)}", f"deployments: [{choices}]"]
        if name in self._fallbacks:
            fields.append(f"fallback: {scalar(self._fallbacks[name])}")
        return f"  - {{{', '.join(fields)}}}"

    def _route_of(self, name: str) -> str | None:
        """Return the route of a `model_name` or of another name of it."""
        return self._aliases.get(self._public_names.get(name, name))

    def _add_fallback(self, route: str, wanted: list[str], place: Place) -> None:
        fallback = self._route_of(wanted[0])
        if fallback is None or route in self._fallbacks:
            self._notes.add(NoteKind.LOST, place, _NO_FALLBACK)
            return
        if route in self._behind(fallback):
            problem = f"{quoted(wanted[0])} leads back here, and no route may stand in for itself"
            self._notes.add(NoteKind.LOST, place, f"{problem}; decide which one comes first")
            return
        self._fallbacks[route] = fallback
        kind, problem = NoteKind.CHANGED, _FALLBACK
        if len(wanted) > 1:
            kind = NoteKind.LOST
            problem = f"a route has one fallback, so the first is taken; {_SECOND_FALLBACK}"
        self._notes.add(kind, place, problem)

    def _behind(self, route: str) -> list[str]:
        """Return a route and the fallbacks behind it."""
        chain = [route]
        while chain[-1] in self._fallbacks:
            chain.append(self._fallbacks[chain[-1]])
        return chain

    def _add_pool(self, alias: str, pool: list[Deployment]) -> None:
        groups: dict[tuple[object, ...], list[Deployment]] = {}
        for deployment in pool:
            key = (*deployment.upstream_key, deployment.model)
            groups.setdefault(key, []).append(deployment)
        name = free_name(alias, self._routes, _MAX_NAME_CHARS)
        self._routes[name] = [
            self._deployment(alias, group, weight)
            for group, weight in zip(
                groups.values(), _whole_weights([*groups.values()]), strict=True
            )
        ]
        self._aliases[alias] = name

    def _deployment(self, alias: str, group: list[Deployment], weight: int) -> _Deployment:
        name = free_name(alias, self._deployment_names, _MAX_NAME_CHARS)
        self._deployment_names.add(name)
        return _Deployment(
            name=name,
            upstream=self._upstream(group).name,
            model=group[0].model,
            weight=weight,
        )

    def _upstream(self, group: list[Deployment]) -> _Upstream:
        first, endpoints = group[0], _endpoints(group)
        key = (*first.upstream_key, *sorted(endpoints))
        upstream = self._upstreams.get(key)
        if upstream is None:
            name = free_name(_slug(first.upstream_name), self._upstream_names, _MAX_SLUG_CHARS)
            self._upstream_names.add(name)
            upstream = self._upstreams[key] = _Upstream(
                name=name,
                provider=first.provider,
                endpoints=tuple(endpoints.values()),
                credential=first.credential,
                timeout_ms=first.timeout_ms,
            )
        return upstream

    def _public_name(self, name: str, place: Place) -> str | None:
        """Return the alias for a `model_name`, or None when nothing of it can be kept."""
        alias = name
        if NAME.fullmatch(name) is None:
            alias = re.sub(r"[^A-Za-z0-9._:/-]+", "-", name).strip("._:/-")[:_MAX_NAME_CHARS]
            if not alias:
                problem = f"{quoted(name)} has no character that an alias can have; rename it"
                self._notes.add(NoteKind.LOST, place, problem)
                return None
        alias = free_name(alias, self._aliases, _MAX_NAME_CHARS)
        if alias != name:
            problem = f"{quoted(name)} is no name here; have callers say {quoted(alias)}"
            self._notes.add(NoteKind.CHANGED, place, problem)
        self._public_names[name] = alias
        return alias


def scalar(text: str) -> str:
    """Return a text as YAML that every reader takes for this text.

    >>> scalar("llama-70b"), scalar("on"), scalar("1.5"), scalar("env:X")
    ('llama-70b', '"on"', '"1.5"', '"env:X"')
    """
    is_plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _WORDS
    return text if is_plain else json.dumps(text)


def free_name(wanted: str, taken: Collection[str], max_chars: int) -> str:
    """Return a name that is not taken, by a number at its end if need be."""
    number, name = 1, wanted[:max_chars]
    while name in taken:
        number += 1
        suffix = f"-{number}"
        name = wanted[: max_chars - len(suffix)] + suffix
    return name


def _endpoints(group: list[Deployment]) -> dict[str, str]:
    """Return the endpoints of a group, each once, by what makes them the same."""
    endpoints: dict[str, str] = {}
    for deployment in group:
        endpoints.setdefault(deployment.endpoint.lower(), deployment.endpoint)
    return endpoints


def _whole_weights(groups: list[list[Deployment]]) -> list[int]:
    """Return the shares of groups of entries, as whole numbers up to `MAX_WEIGHT`.

    An entry without a weight counts as one.
    """
    weights = [sum(deployment.weight for deployment in group) for group in groups]
    if all(weight == int(weight) <= MAX_WEIGHT for weight in weights):
        return [int(weight) for weight in weights]
    most = max(weights)
    return [max(round(weight * MAX_WEIGHT / most), 1 if weight else 0) for weight in weights]


def _target(deployment: _Deployment) -> str:
    return f"upstream: {scalar(deployment.upstream)}, model: {scalar(deployment.model)}"


def _slug(text: str) -> str:
    slug = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")
    return slug[:_MAX_SLUG_CHARS] or "upstream"


def _upstream_lines(upstream: _Upstream) -> Iterator[str]:
    yield f"  - name: {scalar(upstream.name)}"
    if upstream.provider != "openai_compatible":
        yield f"    provider: {scalar(upstream.provider)}"
    yield f"    endpoints: {json.dumps(upstream.endpoints)}"
    if upstream.credential is not None:
        yield f"    credential: {scalar(upstream.credential)}"
    if upstream.timeout_ms is not None:
        limit = upstream.timeout_ms
        yield f"    timeouts: {{first_byte_ms: {limit}, total_ms: {limit}}}"
