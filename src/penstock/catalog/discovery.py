"""Where the endpoints of an upstream are found: what such a source looks like. Pure.

A source is one text, the same in the database, in penstock.yaml, on the command line and in
metrics. It never holds a secret.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from penstock.catalog.rules import MAX_PORTS, parse_endpoint, parse_host, parse_ports
from penstock.contract.snapshot import GRPC_SCHEMES, Endpoint
from penstock.kit.addresses import Network, write_host
from penstock.kit.slugs import check_slug

MAX_SOURCE_CHARS = 400
"""A node keeps what it found under the text of the source."""

Kind: TypeAlias = Literal["dns", "srv", "file", "services", "pods", "inferencepools", "registered"]

_TEXT = re.compile(r"[a-z]+://[A-Za-z0-9._~:/@?&=,+%#!-]+")
_PATH = re.compile(r"(?:/[A-Za-z0-9._-]+)+\.(?:json|ya?ml)")
_OBJECT = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_LABEL = rf"(?:[a-z0-9.-]{{1,253}}/)?{_WORD}!?={_WORD}"
_SELECTOR = re.compile(rf"{_LABEL}(?:,{_LABEL})*")
_PORT_NAME = re.compile(r"(?=[0-9-]*[a-z])[a-z0-9](?:[a-z0-9-]{0,13}[a-z0-9])?")
_SRV_NAME = re.compile(r"_[a-z0-9-]+\._[a-z]+\.[a-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Source:
    """Where endpoints are found, and what those have in common that are found there."""

    kind: Kind
    name: str
    """Of what is looked up; the path of a file; which labels pods have."""
    ports: tuple[int, ...] = ()
    """Of what is found, where that does not say it: each is an endpoint of its own."""
    port_names: tuple[str, ...] = ()
    """The same in a cluster, where ports have names."""
    scheme: str = "http"
    server_name: str = ""
    """What endpoints are called in `Host` and by their certificates; "" for as they are found."""
    path_prefix: str = ""
    namespace: str = ""
    """Of a cluster, where it is in."""
    networks: tuple[Network, ...] = ()
    """Where engines have to be that register themselves."""

    def endpoint(self, host: str, port: int, name: str = "") -> Endpoint:
        """Return the endpoint at an address.

        Args:
            host: The address.
            port: Where it listens.
            name: What it is called when nobody said otherwise.
        """
        host, name = write_host(host), self.server_name or name
        return Endpoint(self.scheme, host, port, self.path_prefix, name)


def parse_source(text: str) -> Source:
    """Return the source that a text names.

    Args:
        text: `dns://NAME:PORTS`, `srv://_SERVICE._PROTOCOL.NAME`, `file:///PATH`, or
            `kubernetes://NAMESPACE/` with `services/NAME:PORTS`, `pods/LABEL=VALUE,...:PORTS` or
            `inferencepools/NAME`; behind each, `?scheme=https`, `host=NAME` or `path=/PREFIX`,
            with `&` between them; or `registered://UPSTREAM?networks=NETWORK,...`.

    Raises:
        ValueError: What is wrong and the remedy.

    >>> parse_source("dns://vllm.models.svc:8000-8002").ports
    (8000, 8001, 8002)
    >>> parse_source("file:///etc/penstock/gpu.json?scheme=https&path=/v1").path_prefix
    '/v1'
    """
    if len(text) > MAX_SOURCE_CHARS or _TEXT.fullmatch(text) is None:
        message = f"is no source of endpoints; write one of {_FORMS}"
        raise ValueError(message)
    parts = urlsplit(text)
    read = _KINDS.get(parts.scheme)
    if read is None:
        message = f"has a scheme that nothing is found by; write one of {_FORMS}"
        raise ValueError(message)
    if parts.fragment or "@" in parts.netloc:
        message = "has a user name, a password or a fragment; take it out"
        raise ValueError(message)
    return _with_options(read(parts.netloc, parts.path), parts.query)


def find_misplaced(name: str, source: str | None) -> str | None:
    """Return what is wrong with a source as that of the upstream of a name; None for nothing.

    What is no source at all is nothing: `parse_source` says so.
    """
    try:
        found = None if source is None else parse_source(source)
    except ValueError:
        return None
    if found is not None and found.kind == "registered" and found.name != name:
        return f"has engines registered for another upstream; write registered://{name}?networks="
    return None


def _read_dns(place: str, path: str) -> Source:
    name, _, ports = place.rpartition(":")
    if not name or path:
        message = "is not of the form dns://NAME:PORT; correct it"
        raise ValueError(message)
    return Source("dns", parse_host(name), parse_ports(ports))


def _read_srv(place: str, path: str) -> Source:
    if path or _SRV_NAME.fullmatch(place) is None:
        message = "is not of the form srv://_SERVICE._PROTOCOL.NAME; correct it"
        raise ValueError(message)
    return Source("srv", parse_host(place))


def _read_file(place: str, path: str) -> Source:
    if place or _PATH.fullmatch(path) is None or {".", ".."} & set(path.split("/")):
        message = "names no file; write file:///PATH.json or file:///PATH.yaml, without . and .."
        raise ValueError(message)
    return Source("file", path)


def _read_kubernetes(place: str, path: str) -> Source:
    kind, _, rest = path.removeprefix("/").partition("/")
    name, _, ports = rest.partition(":")
    if _OBJECT.fullmatch(place) is None:
        message = "has no namespace; write kubernetes://NAMESPACE/services/NAME:PORT"
        raise ValueError(message)
    if kind == "services" and _OBJECT.fullmatch(name):
        numbers, names = _ports_or_names(ports) if ports else ((), ())
        return Source("services", name, numbers, names, namespace=place)
    if kind == "pods" and _SELECTOR.fullmatch(name):
        return Source("pods", name, *_ports_or_names(ports), namespace=place)
    if kind == "inferencepools" and _OBJECT.fullmatch(name) and not ports:
        return Source("inferencepools", name, namespace=place)
    message = (
        "names nothing in the namespace; write services/NAME:PORT, pods/LABEL=VALUE:PORT or "
        "inferencepools/NAME behind it"
    )
    raise ValueError(message)


def _read_registered(place: str, path: str) -> Source:
    if path:
        message = f"has a path; {_REGISTERED}"
        raise ValueError(message)
    return Source("registered", check_slug(place))


def _ports_or_names(text: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return numbers of ports, or else names of some."""
    names = tuple(dict.fromkeys(text.split(",")))
    if len(names) <= MAX_PORTS and all(map(_PORT_NAME.fullmatch, names)):
        return (), names
    return parse_ports(text), ()


def _with_options(source: Source, query: str) -> Source:
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = {"networks", "host"} if source.kind == "registered" else {"scheme", "host", "path"}
    if options.keys() - known or query.count("=") != len(options):
        message = f"has an option that there is not, or one twice; use {', '.join(sorted(known))}"
        raise ValueError(message)
    if source.kind == "registered":
        source = replace(source, networks=_parse_networks(options.get("networks", "")))
    scheme, host = options.get("scheme", "http"), options.get("host", "")
    # Whatever they make of an address has to be what an endpoint may be.
    sample = parse_endpoint(f"{scheme}://10.0.0.1:80{options.get('path', '')}")
    if scheme in GRPC_SCHEMES and source.kind != "file":
        message = "finds addresses of gRPC only; list them in a file, beside those of HTTP"
        raise ValueError(message)
    return replace(
        source,
        scheme=sample.scheme,
        server_name=parse_host(host) if host else "",
        path_prefix=sample.path_prefix,
    )


def _parse_networks(text: str) -> tuple[Network, ...]:
    # Without any, whoever has a token could have requests sent anywhere.
    try:
        networks = tuple(map(ip_network, text.split(",")))
    except ValueError:
        message = f"says no networks where engines may be; {_REGISTERED}"
        raise ValueError(message) from None
    return networks


_KINDS: Mapping[str, Callable[[str, str], Source]] = {
    "dns": _read_dns,
    "srv": _read_srv,
    "file": _read_file,
    "kubernetes": _read_kubernetes,
    "registered": _read_registered,
}
_REGISTERED = "write registered://UPSTREAM?networks=10.0.0.0/8"
_FORMS = (
    "dns://NAME:PORT, srv://_SERVICE._PROTOCOL.NAME, file:///PATH.json, "
    "kubernetes://NAMESPACE/services/NAME:PORT, registered://UPSTREAM?networks=NETWORK"
)
