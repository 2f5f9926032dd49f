"""Step 2, authenticate: who is calling, by the key in one of three headers."""

from hashlib import sha256

from penstock.access.rules import key_mac
from penstock.gateway.errors import KEY_INVALID, KEY_MISSING, KEYS_CONFLICT
from penstock.gateway.runtime import Principal, Runtime
from penstock.kit.errors import Refusal

_MISSING = Refusal(KEY_MISSING)
_INVALID = Refusal(KEY_INVALID)
_CONFLICT = Refusal(KEYS_CONFLICT)


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
    digest = sha256(key).digest()
    principal = runtime.known.get(digest)
    if principal is None:
        principal = runtime.principals.get(key_mac(runtime.pepper, key))
        if principal is not None:
            runtime.known[digest] = principal
    if principal is None or (principal.expires_at is not None and now_s >= principal.expires_at):
        return _INVALID
    return principal
