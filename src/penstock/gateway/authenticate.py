"""Step 2, authenticate: who is calling, by the key in one of three headers."""

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from penstock.gateway.errors import (
    KEY_INVALID,
    KEY_MISSING,
    KEYS_CONFLICT,
    LIMITS_UNAVAILABLE,
    NETWORK_NOT_ALLOWED,
    SCOPE_MISSING,
)
from penstock.gateway.runtime import Principal, Runtime
from penstock.kit.errors import Refusal

_MISSING = Refusal(KEY_MISSING)
_INVALID = Refusal(KEY_INVALID)
_CONFLICT = Refusal(KEYS_CONFLICT)
_NOT_IN_SCOPE = Refusal(SCOPE_MISSING)
_WRONG_NETWORK = Refusal(NETWORK_NOT_ALLOWED)
_UNREADABLE = Refusal(LIMITS_UNAVAILABLE)


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
