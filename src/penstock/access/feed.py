"""What nodes are told of keys and their owners. Pure.

Suspension of organizations and projects, and where their data may go, is told by records of their
own, so that one change of an organization is one record and not one for each of its keys.
"""

from penstock.access.key_rules import effective_scopes, find_key_fault, has_active_owner
from penstock.access.model import KeyRecord, SecretState
from penstock.contract.snapshot import Key, Policy
from penstock.contract.snapshot_store import key_record, policy_record, suspension_name
from penstock.tenancy.labels import join_labels
from penstock.tenancy.model import Organization, Project, Status

Records = dict[bytes, bytes]

# Made once: a million keys are asked for a node that begins.
_STATUSES = frozenset(Status)


def key_records(record: KeyRecord) -> tuple[Records, set[bytes]]:
    """Return the records of a key that nodes shall have, and the names of those they shall not.

    Each live secret is a record of its own under the same key id; one that is retiring expires
    with its grace. A key that is revoked, disabled or damaged has none.

    Args:
        record: All that decides about the key.
    """
    key = record.key
    names = {b"k" + secret.mac for secret in record.secrets}
    is_usable = (
        key.revoked_at_us is None
        and key.is_disabled is False
        and has_active_owner(record)
        and {record.organization_status, record.project_status} <= _STATUSES
        and find_key_fault(key) is None
    )
    puts: Records = {}
    for secret in record.secrets if is_usable else ():
        if secret.state not in {SecretState.ACTIVE, SecretState.RETIRING}:
            continue
        if secret.state == SecretState.RETIRING and secret.not_after_us is None:
            continue  # a damaged row: without an end it would live for ever
        ends = [end for end in (key.expires_at_us, secret.not_after_us) if end is not None]
        name, value = key_record(
            Key(
                id=key.id,
                mac=secret.mac,
                organization=key.organization_id,
                project=key.project_id,
                aliases=None if key.allowed_aliases is None else tuple(key.allowed_aliases),
                expires_at=min(ends) // 1_000_000 if ends else None,
                networks=None if key.allowed_cidrs is None else tuple(key.allowed_cidrs),
                scopes=tuple(effective_scopes(record)),
                secret=secret.id,
                member=key.member_id or key.service_account_id or "",
                labels=tuple(join_labels(key.labels, record.owner.labels if record.owner else {})),
            )
        )
        puts[name] = value
    return puts, names - puts.keys()


def hash_record_name(hexadecimal: str) -> bytes:
    """Return the name of the record that a change of kind `key_hash` takes away."""
    return b"k" + bytes.fromhex(hexadecimal)


def owner_records(owner: Organization | Project) -> tuple[Records, set[bytes]]:
    """Return the records of an organization or project, and the names of those not to be there.

    One says that it may not work, the other where its data may go.
    """
    ids = (owner.organization_id, owner.id) if isinstance(owner, Project) else (owner.id, None)
    puts: Records = {}
    if owner.status != Status.ACTIVE:
        puts[suspension_name(*ids)] = b""
    policy = Policy(_places(owner.allowed_data_classes), _places(owner.allowed_regions))
    name, value = policy_record(policy, *ids)
    if policy != Policy():
        puts[name] = value
    return puts, {suspension_name(*ids), name} - puts.keys()


def _places(value: object) -> tuple[str, ...] | None:
    """Return allowed data classes or regions; of a damaged row none, which leads nowhere."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(place, str) for place in value):
        return ()
    return tuple(value)
