"""Step 2, authenticate: who is calling, by the key in one of three headers."""

import asyncio
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

from penstock.gateway.dialects.oip import V2
from penstock.gateway.errors import (
    KEY_INVALID,
    KEY_MISSING,
    KEYS_CONFLICT,
    LIMITS_UNAVAILABLE,
    NETWORK_NOT_ALLOWED,
    SCOPE_MISSING,
)
from penstock.gateway.labels import check_labels
from penstock.gateway.request import MODEL_PREFIX, MODELS, Request
from penstock.gateway.runtime import Principal, Runtime
from penstock.kit.errors import Refusal

if TYPE_CHECKING:
    from penstock.gateway.worker import Worker

_MISSING = Refusal(KEY_MISSING)
_INVALID = Refusal(KEY_INVALID)
_CONFLICT = Refusal(KEYS_CONFLICT)
_NOT_IN_SCOPE = Refusal(SCOPE_MISSING)
_WRONG_NETWORK = Refusal(NETWORK_NOT_ALLOWED)
_UNREADABLE = Refusal(LIMITS_UNAVAILABLE)


def identify(
    worker: "Worker", request: Request, transport: asyncio.BaseTransport
) -> Refusal | None:
    """Make a request its principal's, where it has to be somebody's.

    Args:
        worker: What it runs in.
        request: Its header.
        transport: Of the caller's connection.

    Returns:
        Why it is nobody's, or what its principal may not do, if so.
    """
    is_read = request.operation is None
    if is_read and not _is_keyed_read(request):
        return None
    principal = authenticate(
        worker.runtime,
        request.authorization,
        request.x_api_key,
        request.api_key,
        worker.wall_ns() / 1e9,
    )
    if isinstance(principal, Refusal):
        return principal
    request.principal = principal
    if request.labels:
        refusal = check_labels(request.labels, worker.labels)
        if refusal is not None:
            return refusal
    peer = None
    if principal.networks is not None:
        name = transport.get_extra_info("peername")
        peer = str(name[0]) if name else None
    return may_use(principal, "models:read" if is_read else "inference", peer)


def _is_keyed_read(request: Request) -> bool:
    is_read = request.method in {b"GET", b"HEAD"}
    return is_read and (request.target in {MODELS, V2} or request.target.startswith(MODEL_PREFIX))


def authenticate(
    runtime: Runtime,
    authorization: bytes | None,
    x_api_key: bytes | None,
    api_key: bytes | None,
    now_s: float,
) -> Principal | Refusal:
    """Return who is calling.

    Unknown, mistyped and expired keys take the same path and get the same answer.

    Args:
        runtime: What the worker serves from.
        authorization: Value of `Authorization`, `Bearer <key>`.
        x_api_key: Value of `x-api-key`.
        api_key: Value of `api-key`.
        now_s: Seconds since the Unix epoch, for expiry.
    """
    key = None
    if authorization is not None:
        scheme, _, key = authorization.partition(b" ")
        if scheme != b"Bearer" and scheme.lower() != b"bearer":
            return _INVALID
        key = key.strip()
    for other in (x_api_key, api_key):
        if other is not None:
            if key is not None and other != key:
                return _CONFLICT
            key = other
    if not key:
        return _MISSING
    principal = runtime.find_principal(key)
    if principal is None or (principal.expires_at is not None and now_s >= principal.expires_at):
        return _INVALID
    return principal


def may_use(principal: Principal, scope: str, peer: str | None) -> Refusal | None:
    """Return why a principal may not do something, or from where it is, if so.

    Args:
        principal: Who asks.
        scope: What for: `inference` or `models:read`.
        peer: The caller's address, None when it is not known.
    """
    if scope not in principal.scopes:
        return _NOT_IN_SCOPE
    if principal.networks is not None and not _is_within(peer, principal.networks):
        return _WRONG_NETWORK
    return _UNREADABLE if principal.has_unreadable_limits and scope == "inference" else None


def _is_within(peer: str | None, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        address = ip_address(peer or "")
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
