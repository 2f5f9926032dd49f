"""Decisions about API keys: pure, no clock, no I/O."""

import hmac
import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence

from penstock.access.errors import KEY_INVALID
from penstock.access.matrix import is_allowed
from penstock.access.model import (
    ApiKey,
    KeyRecord,
    KeyRefusal,
    KeyScope,
    KeySecret,
    NewKey,
    Principal,
    SecretState,
)
from penstock.kit.errors import PenstockError
from penstock.tenancy.labels import are_labels, find_labels_fault
from penstock.tenancy.model import Role, Status
from penstock.tenancy.rules import normalize_name

MAX_ALIASES = 1_000
MAX_CIDRS = 100
MAX_GRACE_S = 30 * 86_400
MIN_ROTATION_INTERVAL_S = 3_600
MAX_ROTATION_INTERVAL_S = 3_650 * 86_400
DEFAULT_SCHEDULE_GRACE_S = 86_400

OPERATORS_SCOPES = frozenset({KeyScope.INFERENCE_STEER, KeyScope.INFERENCE_PRIORITY})
"""Scopes that only the platform's operator gives: servers are shared."""
_DATA_PLANE = OPERATORS_SCOPES | {KeyScope.INFERENCE, KeyScope.MODELS_READ}
"""Scopes that data planes ask for."""
_LIVE = (SecretState.ACTIVE, SecretState.RETIRING)
# Made once: a million keys are asked for a node that begins.
_ROLES = frozenset(Role)
_SCOPES = frozenset(KeyScope)
_US = 1_000_000


def normalize_scopes(scopes: Sequence[str]) -> list[str]:
    """Return scopes sorted and each once.

    Raises:
        PenstockError: `KEY_INVALID`: none, or one that does not exist.
    """
    if not scopes or not set(scopes) <= _SCOPES:
        message = f"Scopes are one or more of: {', '.join(KeyScope)}."
        raise PenstockError(KEY_INVALID, message)
    return sorted({str(scope) for scope in scopes})


def normalize_aliases(aliases: Sequence[str] | None) -> list[str] | None:
    """Return names of aliases sorted and each once; None, for all, stays None.

    Raises:
        PenstockError: `KEY_INVALID`: over 1,000; `NAME_INVALID`.
    """
    if aliases is None:
        return None
    if len(aliases) > MAX_ALIASES:
        raise PenstockError(KEY_INVALID, f"A key has at most {MAX_ALIASES} allowed aliases.")
    return sorted({normalize_name(alias) for alias in aliases})


def normalize_cidrs(cidrs: Sequence[str] | None) -> list[str] | None:
    """Return networks in their one form; None, for everywhere, stays None.

    Raises:
        PenstockError: `KEY_INVALID`: over 100, or one is no network: `10.0.0.1/8` is none, since
            it can mean an address or a network.
    """
    if cidrs is None:
        return None
    if len(cidrs) > MAX_CIDRS:
        raise PenstockError(KEY_INVALID, f"A key has at most {MAX_CIDRS} allowed networks.")
    try:
        return sorted({str(ipaddress.ip_network(cidr)) for cidr in cidrs})
    except ValueError:
        message = "An allowed network is an address or a CIDR without host bits, e.g. 10.0.0.0/8."
        raise PenstockError(KEY_INVALID, message) from None


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels sorted by name.

    Raises:
        PenstockError: `KEY_INVALID`: over 32, or a name or value that cannot be one.
    """
    fault = find_labels_fault(labels)
    if fault is not None:
        raise PenstockError(KEY_INVALID, fault)
    return dict(sorted(labels.items()))


def check_expiry(expires_at_us: int | None, now_us: int) -> None:
    """Check that a key is not to expire before it exists.

    Raises:
        PenstockError: `KEY_INVALID`.
    """
    if expires_at_us is not None and expires_at_us <= now_us:
        raise PenstockError(KEY_INVALID, "A key expires in the future, or never.")


def check_rotation(interval_s: int | None, grace_s: int | None) -> None:
    """Check a policy of scheduled rotation.

    Raises:
        PenstockError: `KEY_INVALID`: the interval is not within an hour and ten years, or the
            grace period is not shorter, at most 30 days, or without an interval.
    """
    if interval_s is None and grace_s is None:
        return
    if interval_s is None or not MIN_ROTATION_INTERVAL_S <= interval_s <= MAX_ROTATION_INTERVAL_S:
        message = "A rotation interval is 3,600 seconds to 3,650 days."
        raise PenstockError(KEY_INVALID, message)
    check_grace(grace_s or 0)
    if (grace_s or 0) >= interval_s:
        raise PenstockError(KEY_INVALID, "A rotation's grace period is shorter than its interval.")


def check_grace(grace_s: int) -> None:
    """Check how long an old secret is to live on.

    Raises:
        PenstockError: `KEY_INVALID`: negative or over 30 days.
    """
    if not 0 <= grace_s <= MAX_GRACE_S:
        raise PenstockError(KEY_INVALID, f"A grace period is 0 to {MAX_GRACE_S} seconds.")


def find_key_fault(key: ApiKey) -> str | None:
    """Return why a stored key cannot be used, or None when it can.

    A row that something else wrote harms itself only: it is refused, and everything else goes on.
    """
    if key.role not in _ROLES:
        return "its role is unknown"
    if not _is_text_list(key.scopes) or not set(key.scopes) <= _SCOPES:
        return "its scopes are unknown"
    if key.allowed_aliases is not None and not _is_text_list(key.allowed_aliases):
        return "its allowed aliases are no list of names"
    if key.allowed_cidrs is not None and not _are_networks(key.allowed_cidrs):
        return "its allowed networks are none"
    if not are_labels(key.labels):
        return "its labels are unknown"
    if key.service_account_id is not None and key.member_id is not None:
        return "it belongs to two"
    if not key.organization_id or not key.project_id:
        return "its organization or project is missing"
    return None


def is_live(secret: KeySecret, now_us: int) -> bool:
    """Return whether a secret still opens its key, as far as the secret is concerned."""
    return secret.state in _LIVE and (secret.not_after_us is None or now_us < secret.not_after_us)


def has_active_owner(record: KeyRecord) -> bool:
    """Return whether a key's owner is there, whole, and active where the key is, if it has one."""
    if not record.key.has_owner:
        return True
    owner = record.owner
    return (
        owner is not None
        and owner.is_disabled is False
        and are_labels(owner.labels)
        and owner.project_id in {None, record.key.project_id}
    )


def may_hold(principal: Principal, key: ApiKey | NewKey) -> bool:
    """Return whether a principal may be told a secret of a key.

    Whoever belongs to a person or machine gets keys of the same one only: no secret that they got
    works on when that one is removed or has fewer rights.
    """
    own = (principal.service_account_id, principal.member_id)
    return own in {(None, None), (key.service_account_id, key.member_id)}


def effective_scopes(record: KeyRecord) -> list[str]:
    """Return what a key may be used for: its scopes, as far as all its roles allow them.

    The admin API asks the roles operation by operation; the data plane knows scopes only.
    """
    return allowed_scopes(record.key.scopes, record.roles)


def allowed_scopes(scopes: Iterable[str], roles: Collection[str]) -> list[str]:
    """Return the scopes that roles allow; all of the roles must."""
    may_invoke = is_allowed(roles, "inference:invoke")
    return [scope for scope in scopes if may_invoke or scope not in _DATA_PLANE]


def find_record_refusal(record: KeyRecord, now_us: int) -> KeyRefusal | None:
    """Return why no secret of a key is let in, from wherever; None when a live one is."""
    key = record.key
    refusals = (
        (key.revoked_at_us is not None, KeyRefusal.REVOKED),
        (key.is_disabled is not False, KeyRefusal.DISABLED),
        (key.expires_at_us is not None and now_us >= key.expires_at_us, KeyRefusal.EXPIRED),
        (record.organization_status != Status.ACTIVE, KeyRefusal.ORGANIZATION_INACTIVE),
        (record.project_status != Status.ACTIVE, KeyRefusal.PROJECT_INACTIVE),
        (not has_active_owner(record), KeyRefusal.OWNER_INACTIVE),
        (find_key_fault(key) is not None, KeyRefusal.DAMAGED),
    )
    return next((refusal for is_so, refusal in refusals if is_so), None)


def match_secret(secrets: Sequence[KeySecret], macs: Mapping[int, bytes]) -> KeySecret | None:
    """Return the secret that a key was shown with, whatever its state; None for none.

    Every secret is compared in constant time, and something is compared when there is none.

    Args:
        secrets: Those of the key's id, none when the id is unknown.
        macs: The keyed hashes of the key under each pepper, by the pepper's id.
    """
    found = None
    none = bytes(32)
    for secret in secrets:
        is_equal = hmac.compare_digest(macs.get(secret.pepper_id, none), secret.mac)
        if is_equal and secret.pepper_id in macs:
            found = secret
    if not secrets:
        hmac.compare_digest(next(iter(macs.values()), none), none)
    return found


def find_secret_refusal(secret: KeySecret, now_us: int) -> KeyRefusal | None:
    """Return why the right secret does not open its key any more, or None when it does."""
    if secret.state not in _LIVE:
        return KeyRefusal.REVOKED
    return None if is_live(secret, now_us) else KeyRefusal.EXPIRED


def may_nodes_rehash(key: ApiKey, secret: KeySecret) -> bool:
    """Return whether a node can be believed when it says what a key's hash is under a new pepper.

    Only for keys that are good for the data plane alone: whoever holds a node sees those anyway,
    and must not make themselves one that opens the control plane.
    """
    return secret.state in _LIVE and find_key_fault(key) is None and set(key.scopes) <= _DATA_PLANE


def is_address_allowed(cidrs: Sequence[str] | None, address: str | None) -> bool:
    """Return whether a key may be used from an address; an unknown one is only without a list."""
    if cidrs is None:
        return True
    try:
        caller = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    if isinstance(caller, ipaddress.IPv6Address) and caller.ipv4_mapped is not None:
        caller = caller.ipv4_mapped
    return any(caller in ipaddress.ip_network(cidr) for cidr in cidrs)


def end_of_grace(key: ApiKey, secret: KeySecret, now_us: int, grace_s: int) -> int:
    """Return when a secret that is being replaced stops working: never after it would anyway."""
    ends = (now_us + grace_s * _US, key.expires_at_us, secret.not_after_us)
    return min(end for end in ends if end is not None)


def is_rotation_due(key: ApiKey, secret: KeySecret, now_us: int) -> bool:
    """Return whether a key's active secret is as old as its policy lets it become."""
    if key.rotation_interval_s is None or secret.state != SecretState.ACTIVE:
        return False
    return now_us >= secret.created_at_us + key.rotation_interval_s * _US


def schedule_grace_s(key: ApiKey) -> int:
    """Return how long a secret lives on once its rotation is due.

    Without a word about it a day, but never more than half of the interval.
    """
    if key.rotation_grace_s is not None:
        return key.rotation_grace_s
    return min(DEFAULT_SCHEDULE_GRACE_S, (key.rotation_interval_s or 0) // 2)


def find_scheduled_end(key: ApiKey, secret: KeySecret, now_us: int) -> int | None:
    """Return the end that a key's policy gives its active secret now; None when it gives none.

    The grace period begins when the rotation is found to be due, however late that is: before,
    nobody could be told. Nothing lives longer for it than it would have.
    """
    if not is_rotation_due(key, secret, now_us) or secret.not_after_us is not None:
        return None
    return end_of_grace(key, secret, now_us, schedule_grace_s(key))


def _are_networks(value: list[str]) -> bool:
    try:
        return _is_text_list(value) and normalize_cidrs(value) is not None
    except PenstockError:
        return False


def _is_text_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(member, str) for member in value)
