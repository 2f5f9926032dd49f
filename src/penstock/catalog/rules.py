"""What members of the catalog's objects may look like: pure, no clock, no I/O.

A check returns its value unchanged, or raises `ValueError` with what is wrong and, behind a
semicolon, the remedy: a sentence without its subject, which is the member's name.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence

from penstock.catalog.errors import quoted, suggest
from penstock.contract.snapshot import GRPC_SCHEMES, Endpoint, Timeouts
from penstock.engines.model import MAX_ARGUMENT_CHARS
from penstock.engines.registry import ENGINES
from penstock.kit.addresses import Address, is_never_a_server, write_host

PROVIDERS = {engine.name: f"{engine.title}." for engine in ENGINES.values()}
"""Which kinds of engines and companies serve upstreams, and what each is."""
MAX_TIMEOUT_MS = 86_400_000
MAX_CONNECTIONS = 65_535
MAX_OUTPUT_TOKENS = 1_000_000_000
MAX_MODEL_CHARS = 512

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/-]{0,127}")
REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+")

SECRET_HEADERS = (
    "api-key",
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-api-key",
)
"""Headers that hold what a caller proves itself with; an upstream never sees them."""

FRAMING_HEADERS = (
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
"""Headers that belong to one connection or one body; the gateway writes its own."""

_URL = re.compile(
    r"(?P<scheme>[a-z]+)://(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+))"
    r"(?::(?P<ports>[0-9,-]+))?(?P<prefix>(?:/[A-Za-z0-9._~-]+)*)/?"
)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
_HEADER = re.compile(r"[a-z0-9!#$%&'+.^_`|~-]+\*?")
_DEFAULT_PORT = {"http": 80, "https": 443} | dict.fromkeys(GRPC_SCHEMES, 8001)
_MAX_HOST_CHARS = 253
MAX_PORT = 65_535
MAX_PORTS = 64
"""Of one host: with data parallelism, one a rank of a machine."""
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def parse_endpoint(url: str) -> Endpoint:
    """Return the endpoint that a URL names, which has one port.

    Raises:
        ValueError: What is wrong and the remedy, as of `parse_endpoints`.

    >>> parse_endpoint("https://[::1]").port
    443
    """
    endpoints = parse_endpoints(url)
    if len(endpoints) > 1:
        message = "has several ports; name one"
        raise ValueError(message)
    return endpoints[0]


def parse_endpoints(url: str) -> tuple[Endpoint, ...]:
    """Return the endpoints that a URL names, one a port, in canonical form.

    There is one reading of a URL here and none is guessed: what another parser could take for
    something else is refused.

    Args:
        url: `scheme://host[:ports][/prefix]`; the port is the scheme's own when absent, and
            `8000-8003` or `8000,8002` are several.

    Raises:
        ValueError: What is wrong and the remedy. The message never repeats the URL, which may
            hold a password.

    >>> [each.url for each in parse_endpoints("http://Models.internal:8000/serve/")]
    ['http://models.internal:8000/serve']
    >>> [each.port for each in parse_endpoints("http://gpu:8000-8002")]
    [8000, 8001, 8002]
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(_explain_url(url))
    scheme = match["scheme"]
    if scheme not in _DEFAULT_PORT:
        message = "has another scheme than http, https, grpc and grpcs; write http://host:port"
        raise ValueError(message)
    ports = parse_ports(match["ports"]) if match["ports"] else (_DEFAULT_PORT[scheme],)
    prefix = match["prefix"]
    if {".", ".."} & set(prefix.split("/")):
        message = 'has "." or ".." in its path; write the path that is meant'
        raise ValueError(message)
    if prefix and scheme in GRPC_SCHEMES:
        message = "has a path, which gRPC does not know; leave it out"
        raise ValueError(message)
    host = _parse_ipv6(match["ipv6"]) if match["ipv6"] else parse_host(match["host"])
    return tuple(Endpoint(scheme, host, port, prefix) for port in ports)


def parse_ports(text: str) -> tuple[int, ...]:
    """Return the ports that a text names, in order, each once.

    Args:
        text: One port, or several with commas between them, each also as a range.

    Raises:
        ValueError: What is wrong and the remedy.

    >>> parse_ports("8000-8002,9000")
    (8000, 8001, 8002, 9000)
    """
    found: set[int] = set()
    for part in text.split(","):
        match = _PORTS.fullmatch(part)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if not 0 < first <= last <= MAX_PORT:
            message = "has a port that does not exist; use 1 to 65535, several as 8000-8003"
            raise ValueError(message)
        if last - first >= MAX_PORTS or len(found := found | {*range(first, last + 1)}) > MAX_PORTS:
            message = f"has more than {MAX_PORTS} ports; name fewer"
            raise ValueError(message)
    return tuple(sorted(found))


def write_url(endpoints: Sequence[Endpoint]) -> str:
    """Return the one way to write the endpoints of a URL, whichever way it was written.

    Args:
        endpoints: As `parse_endpoints` returns them: at least one, of one place, by their ports.

    >>> write_url(parse_endpoints("http://[FD00::0:1]/serve/"))
    'http://[fd00::1]:80/serve'
    >>> write_url(parse_endpoints("http://[::ffff:10.0.0.5]"))
    'http://10.0.0.5:80'
    >>> write_url(parse_endpoints("http://gpu:8002,8000-8001,9000"))
    'http://gpu:8000-8002,9000'
    """
    ranges: list[tuple[int, int]] = []
    for endpoint in endpoints:
        if ranges and endpoint.port == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], endpoint.port)
        else:
            ranges.append((endpoint.port, endpoint.port))
    ports = ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in ranges)
    place = endpoints[0]
    host = f"[{place.host}]" if ":" in place.host else place.host
    return f"{place.scheme}://{host}:{ports}{place.path_prefix}"


def list_endpoints(urls: Iterable[str]) -> tuple[Endpoint, ...]:
    """Return the endpoints of URLs that `parse_endpoints` takes, in order."""
    return tuple(endpoint for url in urls for endpoint in parse_endpoints(url))


def check_endpoints(endpoints: Iterable[Endpoint]) -> None:
    """Refuse endpoints none of which is asked by HTTP, unless there are none.

    By that alone the server's health is asked, and all that gRPC has no calls for.

    Raises:
        ValueError: What is wrong and the remedy.
    """
    schemes = {endpoint.scheme for endpoint in endpoints}
    if schemes and schemes <= GRPC_SCHEMES:
        message = "has addresses of gRPC only; add the server's http:// or https:// one"
        raise ValueError(message)


def _explain_url(url: str) -> str:
    """Say why a URL is not in the form, the most telling reason first."""
    if "@" in url:
        return "holds a user name or password; take it out and name it as the upstream's credential"
    if "?" in url or "#" in url:
        return "has a query or fragment; leave only http://host:port/prefix"
    if "://" not in url:
        return "has no scheme; write http://host:port"
    if any(character.isspace() or not character.isprintable() for character in url):
        return "holds white space or control characters; remove them"
    if not url.isascii():
        return "holds characters beyond ASCII; write the host in its xn-- form"
    return "is not of the form http://host:port/prefix; correct it"


def _parse_ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        message = "has no IPv6 address between its brackets; correct it"
        raise ValueError(message) from None
    return _check_address(address)


def _check_address(address: Address) -> str:
    if is_never_a_server(address):
        message = "has an address that no model server has, such as a cloud's metadata; correct it"
        raise ValueError(message)
    return write_host(str(address))


def parse_host(text: str) -> str:
    """Return a host name, or an IPv4 address, in canonical form.

    Raises:
        ValueError: What is wrong and the remedy.
    """
    host = text.lower()
    labels = host.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        # `127.1`, `2130706433` and `0x7f.1` are addresses to some parsers and names to others.
        try:
            address = ipaddress.IPv4Address(host)
        except ValueError:
            message = "has a host that is neither a name nor an address like 10.0.0.1; correct it"
            raise ValueError(message) from None
        return _check_address(address)
    if len(host) > _MAX_HOST_CHARS or not all(map(_LABEL.fullmatch, labels)):
        message = "has a host that is no host name; use letters, digits, hyphens and dots"
        raise ValueError(message)
    return host


def check_name(text: str) -> str:
    """Check the name of a deployment, a route or an alias."""
    if NAME.fullmatch(text) is None:
        message = (
            "is no name; begin with a letter or digit and use at most 128 of "
            "a-z, A-Z, 0-9 and . _ : / -"
        )
        raise ValueError(message)
    return text


def check_model(text: str) -> str:
    """Check an upstream's own name of a model; engines name them also by the path of a file."""
    if not 0 < len(text) <= MAX_MODEL_CHARS or not text.isprintable():
        message = f"is no model name; use 1 to {MAX_MODEL_CHARS} printable characters"
        raise ValueError(message)
    return text


def check_adapter_path(text: str) -> str:
    """Check where engines find a LoRA adapter: a path of theirs, or a name in a hub."""
    if not 0 < len(text) <= MAX_ARGUMENT_CHARS or not text.isprintable():
        message = f"is no place of an adapter; use 1 to {MAX_ARGUMENT_CHARS} printable characters"
        raise ValueError(message)
    return text


def find_adapter_fault(model: str, adapter_of: str | None, adapter_path: str | None) -> str | None:
    """Return what is wrong with a deployment's members about adapters; None for nothing."""
    if adapter_of == model:
        return "is an adapter of itself; name the model that it adapts in adapter_of"
    if adapter_path is not None and adapter_of is None:
        return "has an adapter_path and adapts no model; name the model in adapter_of"
    return None


def check_provider(text: str) -> str:
    """Check the name of a provider."""
    if text not in PROVIDERS:
        remedy = suggest(text, PROVIDERS, otherwise="leave it out for openai_compatible")
        message = f"no provider is named {quoted(text)}; {remedy}"
        raise ValueError(message)
    return text


def check_reference(text: str) -> str:
    """Check a reference to a secret. The text is not repeated: it may be the secret itself."""
    if REFERENCE.fullmatch(text) is None or not text.isprintable():
        message = "is no reference to a secret; write env:NAME or file:PATH, never the secret"
        raise ValueError(message)
    return text


def check_path(text: str) -> str:
    """Check the path of a file."""
    if not text or not text.isprintable():
        message = "is no path; name a file"
        raise ValueError(message)
    return text


def list_unreachable(timeouts: Mapping[str, int]) -> list[str]:
    """Return the names of time limits that never come about: they are longer than the total.

    Args:
        timeouts: Members of `Timeouts` that somebody wrote, by name.
    """
    total_ms = timeouts.get("total_ms", Timeouts().total_ms)
    return sorted(name for name, limit_ms in timeouts.items() if limit_ms > total_ms)


def check_forward_header(pattern: str) -> str:
    """Return the header pattern unchanged if it may be forwarded.

    Args:
        pattern: A lower-case header name, or its beginning followed by `*`.

    Raises:
        ValueError: What is wrong and the remedy.
    """
    if _HEADER.fullmatch(pattern) is None:
        message = 'is no header name; use lower-case letters, e.g. "x-trace-id" or "x-trace-*"'
        raise ValueError(message)
    if pattern.endswith("*"):
        matched = [name for name in _GUARDED_HEADERS if name.startswith(pattern[:-1])]
    else:
        matched = [name for name in _GUARDED_HEADERS if name == pattern]
    if matched:
        message = f'covers "{matched[0]}", which is never forwarded; name a narrower one'
        raise ValueError(message)
    return pattern


_GUARDED_HEADERS = (
    SECRET_HEADERS
    + FRAMING_HEADERS
    # As whom a server treats a request is for us to say.
    + tuple(each.fairness_header for each in ENGINES.values() if each.fairness_header is not None)
)


def is_header_safe(secret: str) -> bool:
    """Tell whether a secret can be sent in a header: visible ASCII, no white space."""
    return secret.isascii() and secret.isprintable() and " " not in secret
