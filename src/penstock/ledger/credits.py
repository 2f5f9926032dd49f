"""Use cases of credit: how organizations pay, what they paid ahead, what they are given.

None commits. What an operator does is told to the audit log, in the same transaction.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.kit.base62 import create_id, random_text
from penstock.kit.errors import PenstockError
from penstock.kit.moments import format_time
from penstock.ledger import credit_store, store
from penstock.ledger.credit_rules import find_grant_fault, find_top_up_fault
from penstock.ledger.drafts import draft_expiry, draft_grant, draft_top_up, moves_of
from penstock.ledger.errors import LEDGER_INVALID, REFERENCE_USED
from penstock.ledger.model import Draft, Grant, Mode, NewGrant, Terms, TopUp, Unpriced
from penstock.ledger.money import show_exact
from penstock.ledger.prepaying import follow_terms
from penstock.ledger.rules import transfer_id_of
from penstock.limits.budget_rules import find_currency_fault
from penstock.limits.wallets import move_wallets
from penstock.storage.changes import record_change
from penstock.storage.errors import OBJECT_UNKNOWN, VERSION_CONFLICT
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy.service import get_organization

EXPIRY_GRACE_US = 600_000_000
"""How long a grant is left alone after its expiry, for usage from before that is on its way."""
MAX_EXPIRIES = 100
"""Most grants that end in one transaction."""
_REFERENCE_CHARS = 24


async def get_terms(session: ReadSession, organization_id: str, default: str) -> Terms:
    """Return how an organization pays.

    Args:
        session: Where from.
        organization_id: Whose.
        default: The currency of those that have no terms of their own.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    organization = await get_organization(session, organization_id)
    found = await credit_store.find_whole_terms(session, session.scope, organization_id)
    return found or Terms(
        organization_id=organization_id,
        currency=default,
        mode="postpaid",
        unpriced="allow",
        version=0,
        created_at_us=organization.created_at_us,
        updated_at_us=organization.created_at_us,
    )


async def set_terms(
    session: WriteSession,
    actor: Actor,
    organization_id: str,
    *,
    currency: str,
    mode: Mode,
    unpriced: Unpriced | None = None,
    expected_version: int | None = None,
) -> Terms:
    """Say how an organization pays from now on. What was booked stays where it is.

    Args:
        session: Where to.
        actor: Who does it.
        organization_id: Whose terms.
        currency: What it is charged in.
        mode: When it pays.
        unpriced: What happens to a request for what has no price; as it is when None.
        expected_version: That it must have.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `LEDGER_INVALID`, `VERSION_CONFLICT`.
    """
    await session.lock_configuration()
    await get_organization(session, organization_id)
    fault = find_currency_fault(currency)
    if fault is not None:
        raise PenstockError(LEDGER_INVALID, f"`currency`: {fault}.")
    before = await credit_store.find_whole_terms(session, session.scope, organization_id)
    version = 0 if before is None else before.version
    if expected_version not in {None, version}:
        raise PenstockError(VERSION_CONFLICT)
    after = Terms(
        organization_id=organization_id,
        currency=currency,
        mode=mode,
        unpriced=unpriced or ("refuse" if before is None else before.unpriced),
        version=version + 1,
        created_at_us=actor.at_us if before is None else before.created_at_us,
        updated_at_us=actor.at_us,
    )
    await credit_store.write_terms(session, session.scope, after, is_new=before is None)
    await record_change(session, "terms", organization_id, actor.at_us)
    what = ("terms.set", "billing_terms", organization_id)
    await _tell(session, actor, what, after, before)
    had = None if before is None or before.mode == "postpaid" else before.currency
    if had != (after.currency if after.mode == "prepaid" else None):
        await follow_terms(session, actor, after)
    return after


async def top_up(
    session: WriteSession,
    actor: Actor,
    *,
    organization_id: str,
    amount_atto: int,
    currency: str | None,
    reference: str | None,
    default: str,
) -> TopUp:
    """Put money into the wallet of an organization, once for a reference.

    Args:
        session: Where to.
        actor: Who does it.
        organization_id: Whose wallet.
        amount_atto: How much was paid.
        currency: That of its terms when None.
        reference: Of the payment; a new one when None.
        default: See `get_terms`.

    Returns:
        The top-up; when the reference was used before, that of then.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `LEDGER_INVALID`, `REFERENCE_USED`.
    """
    await session.lock_configuration()
    terms = await get_terms(session, organization_id, default)
    reference = reference or random_text(_REFERENCE_CHARS)
    wanted = TopUp(
        id=transfer_id_of(organization_id, "topup", reference),
        organization_id=organization_id,
        currency=currency or terms.currency,
        amount_atto=amount_atto,
        reference=reference,
        created_at_us=actor.at_us,
    )
    fault = find_top_up_fault(wanted)
    if fault is not None:
        raise PenstockError(LEDGER_INVALID, fault)
    before = await credit_store.find_top_up(session, session.scope, wanted.id)
    if before is not None:
        if dataclasses.replace(wanted, created_at_us=before.created_at_us) != before:
            raise PenstockError(REFERENCE_USED)
        return before
    await _book(session, [draft_top_up(wanted)], actor.at_us)
    what = ("topup.create", "topup", wanted.id)
    await _tell(session, actor, what, wanted)
    return wanted


async def create_grant(
    session: WriteSession, actor: Actor, new: NewGrant, *, default: str
) -> Grant:
    """Give credit to an organization, from now on.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `LEDGER_INVALID`.
    """
    await session.lock_configuration()
    terms = await get_terms(session, new.organization_id, default)
    fault = find_grant_fault(new, actor.at_us)
    if fault is not None:
        raise PenstockError(LEDGER_INVALID, fault)
    grant = Grant(
        id=create_id("crd"),
        organization=new.organization_id,
        currency=new.currency or terms.currency,
        kind=new.kind,
        priority=new.priority,
        expires_at_us=new.expires_at_us,
        amount_atto=new.amount_atto,
        remaining_atto=new.amount_atto,
        created_at_us=actor.at_us,
        name=new.name,
    )
    await book_grant(session, grant, key=grant.id, recorded_at_us=actor.at_us)
    what = ("credit.create", "credit_grant", grant.id)
    await _tell(session, actor, what, grant)
    return grant


async def book_grant(session: WriteSession, grant: Grant, *, key: str, recorded_at_us: int) -> None:
    """Store a grant of which nothing is used, and book it.

    Raises:
        RowConflictError: It is there already, or its key is.
    """
    await credit_store.insert_grant(session, session.scope, grant)
    await _book(session, [draft_grant(grant, key)], recorded_at_us)


async def get_grant(session: ReadSession, grant_id: str) -> Grant:
    """Return a grant.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    found = await credit_store.find_grant(session, session.scope, grant_id)
    if found is None:
        raise PenstockError(OBJECT_UNKNOWN)
    return found


async def list_grants(
    session: ReadSession, page: PageRequest, organization_id: str | None
) -> Page[Grant]:
    """Return a page of grants that the session may see, oldest first."""
    return await credit_store.list_grants(session, session.scope, page, organization_id)


async def expire_grants(session: WriteSession, now_us: int) -> int:
    """End grants whose time is over, and count them; `MAX_EXPIRIES` when there may be more.

    What nobody used goes to breakage, booked at the moment of expiry.
    """
    before_us = now_us - EXPIRY_GRACE_US
    grants = await credit_store.lock_expired(session, session.scope, before_us, MAX_EXPIRIES)
    drafts = [draft_expiry(grant, now_us) for grant in grants]
    await credit_store.write_grants(session, session.scope, {grant.id: 0 for grant in grants})
    await _book(session, drafts, now_us)
    return len(grants)


async def _book(session: WriteSession, drafts: Sequence[Draft], now_us: int) -> None:
    """Book credit, in wallets too. Of all this only an expiry takes something from them."""
    await store.insert_transfers(session, session.scope, drafts, now_us)
    await move_wallets(session, moves_of(drafts), "grant_expired", now_us)


async def _tell(
    session: WriteSession,
    actor: Actor,
    what: tuple[str, str, str],
    after: Terms | TopUp | Grant,
    before: Terms | None = None,
) -> None:
    """Record a change: its action, and kind and id of what it is about."""
    action, kind, object_id = what
    members = _members(after)
    entry = Entry(
        actor=actor,
        action=action,
        resource_kind=kind,
        resource_id=object_id,
        organization_id=members.get("organization_id") or members["organization"],
        before=None if before is None else _members(before),
        after=members,
    )
    await record(session, entry)


def _members(item: Terms | TopUp | Grant) -> dict[str, Any]:
    """Return the members of an object for the audit log: amounts are decimals there."""
    members: dict[str, Any] = {}
    for name, value in dataclasses.asdict(item).items():
        if name.endswith("_atto"):
            members[name.removesuffix("_atto")] = show_exact(value)
        elif name.endswith("_us"):
            members[name.removesuffix("_us")] = None if value is None else format_time(value)
        else:
            members[name] = value
    return members
