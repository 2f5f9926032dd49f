"""What the catalog's objects may be like: pure, no clock, no I/O.

The same rules hold for what somebody asks for and for what is in the database, which something
else may have written: an object with a fault is not served from, and harms nothing else.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec

from penstock.catalog.discovery import find_misplaced, parse_source
from penstock.catalog.errors import CATALOG_INVALID, FALLBACK_CYCLE
from penstock.catalog.kv_events import parse_kv_events
from penstock.catalog.objects import Alias, Deployment, Grant, Route, Upstream
from penstock.catalog.rules import (
    MAX_CONNECTIONS,
    MAX_OUTPUT_TOKENS,
    MAX_TIMEOUT_MS,
    check_adapter_path,
    check_endpoints,
    check_forward_header,
    check_model,
    check_name,
    check_path,
    check_provider,
    check_reference,
    find_adapter_fault,
    list_unreachable,
    parse_endpoints,
)
from penstock.contract.snapshot import Endpoint, Timeouts
from penstock.kit.errors import PenstockError
from penstock.kit.slugs import check_slug

MAX_ENDPOINTS = 256
"""Endpoints of an upstream, and headers that it is sent."""
MAX_CHOICES = 64
"""Deployments of a route."""
MAX_WEIGHT = 1_000

AnyObject: TypeAlias = Upstream | Deployment | Route | Alias | Grant
Object = TypeVar("Object", bound=AnyObject)


def check(item: Object) -> Object:
    """Return an object unchanged, if it may be as it is.

    Raises:
        PenstockError: `CATALOG_INVALID`, with the member that may not.
    """
    fault = find_fault(item)
    if fault is not None:
        raise PenstockError(CATALOG_INVALID, fault)
    return item


def find_fault(item: AnyObject) -> str | None:
    """Return the first thing that is wrong with an object, as a sentence; None for nothing.

    That what it names is there is looked at elsewhere.
    """
    try:
        msgspec.convert(dataclasses.asdict(item), type(item))
    except msgspec.ValidationError as error:
        return f"{error}."
    contradiction = _find_contradiction(item)
    if contradiction is not None:
        return contradiction
    for member, check_value in _CHECKS[type(item)].items():
        value = getattr(item, member)
        try:
            if value is not None:
                check_value(value)
        except ValueError as error:
            return f"`{member}`: {error}."
    return None


def check_fallbacks(names: Sequence[str]) -> None:
    """Check that a route's fallbacks end.

    Args:
        names: Of the route, of its fallback, of that one's fallback, and so on, up to the first
            that comes a second time.

    Raises:
        PenstockError: `FALLBACK_CYCLE`, with the names of the cycle.
    """
    last = names[-1]
    if names.index(last) < len(names) - 1:
        cycle = " -> ".join(names[names.index(last) :])
        raise PenstockError(FALLBACK_CYCLE, f"The fallbacks go round in a circle: {cycle}.")


def _find_contradiction(item: AnyObject) -> str | None:
    """Return what is wrong with members that are right each by itself."""
    if isinstance(item, Deployment):
        fault = find_adapter_fault(item.model, item.adapter_of, item.adapter_path)
        return None if fault is None else f"It {fault}."
    return _find_contradiction_of(item) if isinstance(item, Upstream) else None


def _find_contradiction_of(upstream: Upstream) -> str | None:
    if upstream.credential_id and upstream.credential_reference:
        return "`credential_id` and `credential_reference` exclude each other."
    if upstream.endpoints and upstream.discover:
        return "`endpoints` and `discover` exclude each other: they are listed, or found."
    if not upstream.endpoints and upstream.discover is None:
        return "`endpoints`: has 0 addresses; list some, or say in `discover` where they are found."
    fault = find_misplaced(upstream.name, upstream.discover)
    return None if fault is None else f"`discover`: {fault}."


def _check_endpoints(urls: list[str]) -> None:
    endpoints: list[Endpoint] = []
    for found in _each(urls, parse_endpoints):
        endpoints += found
        if len(endpoints) > MAX_ENDPOINTS:
            message = f"has more than {MAX_ENDPOINTS} addresses; list fewer"
            raise ValueError(message)
    if len(set(endpoints)) < len(endpoints):
        message = "has an address twice; list each once"
        raise ValueError(message)
    check_endpoints(endpoints)


def _check_headers(patterns: list[str]) -> None:
    if len(patterns) > MAX_ENDPOINTS:
        message = f"has {len(patterns)} names; list at most {MAX_ENDPOINTS}, or use x-prefix-*"
        raise ValueError(message)
    list(_each(patterns, check_forward_header))


def _check_timeouts(timeouts: dict[str, int]) -> None:
    for name, limit_ms in timeouts.items():
        if name not in Timeouts.__struct_fields__:
            message = f"has no such member; use {', '.join(Timeouts.__struct_fields__)}"
            raise ValueError(message)
        _check_range(min(1, getattr(Timeouts(), name)), MAX_TIMEOUT_MS)(limit_ms)
    unreachable = list_unreachable(timeouts)
    if unreachable:
        message = f"has {unreachable[0]} longer than total_ms; shorten it or raise total_ms"
        raise ValueError(message)


def _check_place(reference: str) -> None:
    """Check a reference or path on nodes, which have no folder to begin a relative one in."""
    check_reference(reference)
    kind, _, path = reference.partition(":")
    if kind == "file":
        _check_file(path)


def _check_file(path: str) -> None:
    check_path(path)
    if not path.startswith("/"):
        message = "is no absolute path; begin it with /, for it is one on each node"
        raise ValueError(message)


def _check_choices(choices: list[Any]) -> None:
    if not 0 < len(choices) <= MAX_CHOICES:
        message = f"has {len(choices)} deployments; choose from 1 to {MAX_CHOICES}"
        raise ValueError(message)
    if len({choice.deployment_id for choice in choices}) < len(choices):
        message = "has a deployment twice; choose each once"
        raise ValueError(message)
    for choice in choices:
        _check_range(0, MAX_WEIGHT)(choice.weight)


def _check_range(least: int, most: int) -> Callable[[int], None]:
    def check_number(number: int) -> None:
        if not least <= number <= most:
            message = f"has a number out of range; use {least:,} to {most:,}"
            raise ValueError(message)

    return check_number


def _each(texts: list[str], check_text: Callable[[str], Any]) -> Iterator[Any]:
    for index, text in enumerate(texts):
        try:
            yield check_text(text)
        except ValueError as error:
            message = f"[{index}] {error}"
            raise ValueError(message) from None


_CHECKS: Mapping[type[AnyObject], Mapping[str, Callable[[Any], Any]]] = {
    Upstream: {
        "name": check_slug,
        "provider": check_provider,
        "endpoints": _check_endpoints,
        "discover": parse_source,
        "region": check_slug,
        "data_class": check_slug,
        "credential_reference": _check_place,
        "forward_headers": _check_headers,
        "timeouts": _check_timeouts,
        "max_connections": _check_range(1, MAX_CONNECTIONS),
        "tls_ca_file": _check_file,
        "kv_events": parse_kv_events,
    },
    Deployment: {
        "name": check_name,
        "model": check_model,
        "adapter_of": check_model,
        "adapter_path": check_adapter_path,
        "tokenizer": _check_file,
        "max_output_tokens": _check_range(1, MAX_OUTPUT_TOKENS),
    },
    Route: {"name": check_name, "choices": _check_choices},
    Alias: {"name": check_name},
    Grant: {},
}
