"""What engines may register, and what their tokens look like: pure, no clock, no I/O."""

from collections.abc import Sequence
from ipaddress import ip_address

from penstock.access.rules import create_key_id, find_sealed_id, seal_secret
from penstock.catalog.rules import PROVIDERS, parse_endpoints, write_url
from penstock.contract.snapshot import GRPC_SCHEMES
from penstock.kit.addresses import Network, may_connect

TOKEN_KIND = "reg"  # noqa: S105  # what such tokens begin with, behind `ps_`
_PREFIX = "rgt_"


def create_token() -> tuple[str, str]:
    """Return the id of a new token, and the token."""
    name = create_key_id()
    return _PREFIX + name, seal_secret(TOKEN_KIND, name)


def find_token_id(text: str) -> str | None:
    """Return the id of a token, or None when form or checksum is wrong."""
    name = find_sealed_id(TOKEN_KIND, text)
    return None if name is None else _PREFIX + name


def find_fault(url: str, engine: str, networks: Sequence[Network]) -> str | None:
    """Return why something cannot be an endpoint of an upstream, as a sentence; None for nothing.

    Args:
        url: Where it says that it is.
        engine: Which kind it says that it is; "" when it does not.
        networks: Where the upstream has its endpoints, at least one.
    """
    if engine and engine not in PROVIDERS:
        return "`engine` names no provider; leave it out, or use one of `penstock providers list`."
    try:
        endpoints = parse_endpoints(url)
    except ValueError as error:
        return f"`url` {error}."
    try:
        address = ip_address(endpoints[0].host)
    except ValueError:
        # Nobody knows where a name leads when it is used.
        return "`url` has a name; write the address."
    if endpoints[0].scheme in GRPC_SCHEMES:
        return "`url` is of gRPC; write the http:// or https:// one."
    if not may_connect(address, networks):
        return "`url` has an address that is in none of the upstream's networks."
    return None


def normalize_url(url: str) -> str:
    """Return a URL in the one way that an engine is known by; as it is when it is none.

    >>> normalize_url("http://10.0.0.1/"), normalize_url("http://10.0.0.1:80")
    ('http://10.0.0.1:80', 'http://10.0.0.1:80')
    """
    try:
        return write_url(parse_endpoints(url))
    except ValueError:
        return url
