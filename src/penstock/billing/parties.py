"""Use cases of particulars: who invoices are from and to. None commits."""

from dataclasses import asdict, replace
from typing import Any, TypeVar

import msgspec

from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.billing import store
from penstock.billing.errors import BILLING_INVALID
from penstock.billing.model import ISSUER, Issuer, Recipient
from penstock.billing.party_rules import find_issuer_fault, find_recipient_fault
from penstock.kit.errors import PenstockError
from penstock.storage.errors import VERSION_CONFLICT
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy.service import get_organization

Side = TypeVar("Side", Issuer, Recipient)
_STORED_BESIDE = ("organization_id", "version", "updated_at_us")


async def find_issuer(session: ReadSession) -> Issuer | None:
    """Return who sends the invoices; None while nobody has said it. For the platform only."""
    return await _find(session, ISSUER, Issuer)


async def find_recipient(session: ReadSession, organization_id: str) -> Recipient | None:
    """Return who gets the invoices of an organization; None while nobody has said it."""
    return await _find(session, organization_id, Recipient, organization_id=organization_id)


async def set_issuer(
    session: WriteSession, actor: Actor, issuer: Issuer, expected_version: int | None
) -> Issuer:
    """Say who sends the invoices from now on. What was issued stays as it is.

    Raises:
        PenstockError: `BILLING_INVALID`, `VERSION_CONFLICT`.
    """
    await session.lock_configuration()
    _refuse(find_issuer_fault(issuer))
    before = await find_issuer(session)
    return await _set(
        session, actor, before, issuer, owner=ISSUER, expected_version=expected_version
    )


async def set_recipient(
    session: WriteSession, actor: Actor, recipient: Recipient, expected_version: int | None
) -> Recipient:
    """Say who gets the invoices of an organization from now on, and how it is taxed.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `BILLING_INVALID`, `VERSION_CONFLICT`.
    """
    await session.lock_configuration()
    owner = recipient.organization_id
    await get_organization(session, owner)
    _refuse(find_recipient_fault(recipient))
    before = await find_recipient(session, owner)
    return await _set(
        session, actor, before, recipient, owner=owner, expected_version=expected_version
    )


def _refuse(fault: str | None) -> None:
    if fault is not None:
        raise PenstockError(BILLING_INVALID, fault)


async def _find(session: ReadSession, owner: str, side: type[Side], **members: str) -> Side | None:
    found = await store.find_particulars(session, session.scope, owner)
    if found is None:
        return None
    particulars, version, updated_at_us = found
    try:
        known = {**particulars, **members, "version": version, "updated_at_us": updated_at_us}
        return msgspec.convert(known, side)
    except (TypeError, msgspec.ValidationError):
        return None  # what somebody wrote by hand: it is to be said again


async def _set(
    session: WriteSession,
    actor: Actor,
    before: Side | None,
    wanted: Side,
    *,
    owner: str,
    expected_version: int | None,
) -> Side:
    found = await store.find_particulars(session, session.scope, owner)
    version = 0 if found is None else found[1]
    if expected_version not in {None, version}:
        raise PenstockError(VERSION_CONFLICT)
    after = replace(wanted, version=version + 1, updated_at_us=actor.at_us)
    particulars = _particulars(after)
    await store.write_particulars(
        session,
        session.scope,
        owner,
        particulars,
        version=after.version,
        now_us=actor.at_us,
    )
    entry = Entry(
        actor=actor,
        action="billing_party.set",
        resource_kind="billing_party",
        resource_id=owner or "issuer",
        organization_id=owner or None,
        before=None if before is None else _particulars(before),
        after=particulars,
    )
    await record(session, entry)
    return after


def _particulars(side: Issuer | Recipient) -> dict[str, Any]:
    return {name: value for name, value in asdict(side).items() if name not in _STORED_BESIDE}
