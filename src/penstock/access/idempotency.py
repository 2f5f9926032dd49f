"""Repeated requests: the first is worked on, the others get its answer.

`begin` commits before the work starts, so that a second request sees the first. `finish` goes into
the transaction of the work itself: the work is done if and only if its answer is kept. A process
that died in between holds the key until its lease ends; then the next request starts anew.
"""

import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import bindparam, delete, select, update

from penstock.access.errors import (
    IDEMPOTENCY_IN_FLIGHT,
    IDEMPOTENCY_KEY_INVALID,
    IDEMPOTENCY_MISMATCH,
)
from penstock.access.model import Principal
from penstock.access.tables import IdempotencyKeys
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.storage.sessions import WriteSession

KEEP_S = 86_400
LEASE_S = 60

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_US = 1_000_000
_NONCE = bytes(12)

_FINISH = (
    update(IdempotencyKeys)
    .where(
        IdempotencyKeys.id == bindparam("ticket_id"),
        IdempotencyKeys.attempt == bindparam("ticket_attempt"),
        IdempotencyKeys.answer.is_(None),
    )
    .values(answer=bindparam("answer"))
)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request was answered."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to do the work of an idempotency key, and to say how it ended."""

    id: str
    attempt: str
    seal: bytes = field(repr=False)


class IdempotencyLostError(Exception):
    """The lease ended and another request took over: this one's work must be rolled back."""


async def begin(
    session: WriteSession,
    principal: Principal,
    secret: bytes,
    *,
    key: str,
    request: bytes,
    now_us: int,
    lease_s: int = LEASE_S,
) -> Ticket | Answer:
    """Claim an idempotency key, or return the answer of the request that had it first.

    Args:
        session: A transaction of its own, committed before the work begins.
        principal: Who asks: keys of others are other keys.
        secret: What ids and seals are derived from, kept outside the database.
        key: The header's value.
        request: Method, path and body.
        now_us: The time.
        lease_s: How long the work may take: then somebody else may begin it anew, and what is done
            later than that is undone.

    Raises:
        PenstockError: `IDEMPOTENCY_KEY_INVALID`, `IDEMPOTENCY_MISMATCH`, `IDEMPOTENCY_IN_FLIGHT`.
    """
    if not _KEY.fullmatch(key):
        raise PenstockError(IDEMPOTENCY_KEY_INVALID)
    # Only who knows the key, which is not stored, and the secret can open an answer again.
    owner = f"{principal.kind}\n{principal.id}\n{key}".encode()
    row_id = hmac.digest(secret, b"id\n" + owner, "sha256").hex()
    attempt = create_id("try")
    ticket = Ticket(row_id, attempt, hmac.digest(secret, b"seal\n" + owner, "sha256"))
    row = {
        "id": row_id,
        "organization_id": principal.organization_id or "",
        "fingerprint": hashlib.sha256(request).digest(),
        "attempt": attempt,
        "lease_until": now_us + lease_s * _US,
        "expires_at": now_us + KEEP_S * _US,
        "answer": None,
    }
    table = IdempotencyKeys
    if await session.insert_new(table, [row], table.id):
        return ticket
    found = await session.first(
        select(table.fingerprint, table.lease_until, table.expires_at, table.answer)
        .where(table.id == row_id)
        .with_for_update()
    )
    if found is None:
        raise PenstockError(IDEMPOTENCY_IN_FLIGHT)
    if found.expires_at <= now_us:
        await session.change(update(table).where(table.id == row_id).values(row))
        return ticket
    if not hmac.compare_digest(found.fingerprint, row["fingerprint"]):
        raise PenstockError(IDEMPOTENCY_MISMATCH)
    if found.answer is not None:
        return _open(ticket, found.answer)
    if now_us < found.lease_until:
        raise PenstockError(IDEMPOTENCY_IN_FLIGHT)
    claim = {"attempt": attempt, "lease_until": row["lease_until"]}
    await session.change(update(table).where(table.id == row_id).values(**claim))
    return ticket


async def finish(session: WriteSession, ticket: Ticket, answer: Answer) -> None:
    """Keep the answer, in the transaction of the work.

    Raises:
        IdempotencyLostError: Another request took over; let the transaction fail with it.
    """
    count = await session.change(
        _FINISH,
        {
            "ticket_id": ticket.id,
            "ticket_attempt": ticket.attempt,
            "answer": _seal(ticket, answer),
        },
    )
    if count != 1:
        raise IdempotencyLostError


async def release(session: WriteSession, ticket: Ticket) -> None:
    """Give the key back after a failure that changed nothing: a repetition is a new try."""
    await session.change(
        delete(IdempotencyKeys).where(
            IdempotencyKeys.id == ticket.id,
            IdempotencyKeys.attempt == ticket.attempt,
            IdempotencyKeys.answer.is_(None),
        )
    )


async def forget_expired(session: WriteSession, now_us: int) -> int:
    """Remove what is older than a day, and return how many."""
    return await session.change(delete(IdempotencyKeys).where(IdempotencyKeys.expires_at <= now_us))


def _seal(ticket: Ticket, answer: Answer) -> bytes:
    head = json.dumps([answer.status, answer.headers]).encode()
    content = len(head).to_bytes(4, "big") + head + answer.body
    # One message for each attempt, and a key of its own for each: the nonce is never used twice.
    return ticket.attempt.encode() + AESGCM(_key_of(ticket, ticket.attempt)).encrypt(
        _NONCE, content, ticket.id.encode()
    )


def _open(ticket: Ticket, sealed: bytes) -> Answer:
    size = len(ticket.attempt)
    attempt = sealed[:size].decode("ascii", "replace")
    try:
        content = AESGCM(_key_of(ticket, attempt)).decrypt(
            _NONCE, sealed[size:], ticket.id.encode()
        )
    except InvalidTag:
        # Somebody edited the row. The work was done, so it is not done again.
        raise PenstockError(IDEMPOTENCY_MISMATCH, "The first answer cannot be read.") from None
    end = 4 + int.from_bytes(content[:4], "big")
    status, headers = json.loads(content[4:end])
    return Answer(status, headers, content[end:])


def _key_of(ticket: Ticket, attempt: str) -> bytes:
    return hmac.digest(ticket.seal, attempt.encode(), "sha256")
