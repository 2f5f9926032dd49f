"""What an entry holds and what its hash covers: pure, no clock, no I/O."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from penstock.audit.model import PLATFORM_CHAIN, Checkpoint, Entry, StoredEntry

FIRST_HASH = bytes(32)
"""What stands before the first link."""
REDACTED = "[redacted]"
PERSONAL = "[personal]"
MAX_TEXT_CHARS = 500

_SECRET_WORDS = {
    "secret", "secrets", "password", "passphrase", "token", "mac", "pepper", "credential",
    "ciphertext", "authorization", "cookie", "wrapped", "nonce", "dek", "kek", "signature",
}  # fmt: skip
_SECRET_NAMES = {"api_key", "private_key", "access_key", "client_key", "key"}
_PERSONAL_NAMES = {"email", "subject", "address", "display_name"}
_HARMLESS_SUFFIXES = ("_id", "_ids", "_at", "_at_us", "_count", "_kind", "_state", "_version")
_KEY = re.compile(r"\b[a-z][a-z0-9]{1,7}_(?:live|test|reg)_([0-9A-Za-z]{12})_[0-9A-Za-z]{38}")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[0-9a-z._~+/=-]{8,}")


def redact(value: Any) -> Any:
    """Return JSON without secrets and without what names a person.

    A member is told by its name; API keys and bearer tokens also by their form, wherever they are.
    """
    match value:
        case Mapping():
            return {str(name): _redact_member(str(name), member) for name, member in value.items()}
        case list() | tuple() | set() | frozenset():
            return [redact(member) for member in value]
        case str():
            return _redact_text(value)
        case None | bool() | int():
            return value
    # Binary fractions have more than one way to be written, bytes are secrets more often than not.
    return REDACTED


def canonical_json(value: Any) -> bytes:
    """Return the one way to write a value: sorted members, no white space, ASCII only."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def clean_text(text: str) -> str:
    """Return a text that any database keeps as it is: bounded, without odd characters."""
    kept = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return _redact_text(kept[:MAX_TEXT_CHARS])


def chain_of(organization_id: str | None) -> str:
    """Return the name of the chain of an organization, or of the platform."""
    return organization_id or PLATFORM_CHAIN


def link_entry(entry: Entry, number: int, previous_hash: bytes) -> StoredEntry:
    """Return the link that follows another.

    Args:
        entry: What happened; secrets are taken out here.
        number: That of the link before, and one.
        previous_hash: That of the link before, or `FIRST_HASH`.
    """
    actor = entry.actor
    link = StoredEntry(
        chain=chain_of(entry.organization_id),
        number=number,
        recorded_at_us=actor.at_us,
        actor_kind=actor.kind,
        actor_id=clean_text(actor.id),
        action=entry.action,
        resource_kind=entry.resource_kind,
        resource_id=clean_text(entry.resource_id),
        outcome=entry.outcome,
        detail=clean_text(entry.detail),
        request_id=None if actor.request_id is None else clean_text(actor.request_id),
        before=None if entry.before is None else redact(entry.before),
        after=None if entry.after is None else redact(entry.after),
        address=None if actor.address is None else clean_text(actor.address),
        hash=b"",
    )
    return StoredEntry(**{**_members(link), "hash": hash_link(link, previous_hash)})


def hash_link(link: StoredEntry, previous_hash: bytes) -> bytes:
    """Return the hash that a link must have behind another."""
    content = {
        name: value for name, value in _members(link).items() if name not in {"hash", "address"}
    }
    return hashlib.sha256(previous_hash + canonical_json(content)).digest()


def find_break(link: StoredEntry, number: int, previous_hash: bytes) -> str | None:
    """Return why a link does not follow another, or None when it does.

    Args:
        link: The link.
        number: The number that it must have.
        previous_hash: The hash of the link before it.
    """
    if link.number > number:
        return "entries were deleted before it"
    if link.number < number:
        return "its number is there twice"
    try:
        expected = hash_link(link, previous_hash)
    except (TypeError, ValueError):
        return "it cannot be read"
    if link.hash != expected:
        return "it was edited, moved or put in"
    return None


def checkpoint_content(checkpoint: Checkpoint) -> bytes:
    """Return the bytes that a checkpoint's signature covers."""
    return b"penstock-audit-checkpoint-1\n" + canonical_json(
        {
            "chain": checkpoint.chain,
            "number": checkpoint.number,
            "hash": checkpoint.hash.hex(),
            "signed_at_us": checkpoint.signed_at_us,
            "signer": checkpoint.signer,
        }
    )


def _members(link: StoredEntry) -> dict[str, Any]:
    return {name: getattr(link, name) for name in StoredEntry.__dataclass_fields__}


def _redact_member(name: str, value: Any) -> Any:
    lowered = name.lower()
    if value is None or lowered.endswith(_HARMLESS_SUFFIXES):
        return redact(value)
    if lowered in _PERSONAL_NAMES:
        return PERSONAL
    if lowered in _SECRET_NAMES or _SECRET_WORDS & set(re.split(r"[^a-z0-9]+", lowered)):
        return REDACTED
    return redact(value)


def _redact_text(text: str) -> str:
    return _BEARER.sub(rf"\1 {REDACTED}", _KEY.sub(rf"\1 {REDACTED}", text))
