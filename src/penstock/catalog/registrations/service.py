"""Use cases of registrations. None commits; the time is the caller's.

A lease that was not renewed in time ends once it is looked for (`end_leases`): while no control
plane is there nobody could renew it, and it ends for nobody.
"""

import hmac

from penstock.access.peppers import Peppers
from penstock.audit.model import Actor
from penstock.audit.service import record
from penstock.catalog import store as catalog_store
from penstock.catalog.collection import entry_of
from penstock.catalog.discovery import parse_source
from penstock.catalog.errors import (
    REGISTRATION_INVALID,
    REGISTRATION_REFUSED,
    REGISTRATIONS_FULL,
)
from penstock.catalog.registrations import store
from penstock.catalog.registrations.model import (
    CreatedToken,
    Holder,
    Lease,
    NewRegistration,
    Registration,
    RegistrationToken,
)
from penstock.catalog.registrations.rules import (
    create_token,
    find_fault,
    find_token_id,
    normalize_url,
)
from penstock.contract.registrations import Registered
from penstock.contract.snapshot import MAX_FOUND
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession

KEEP_S = 3_600
"""How long a registration that lapsed is shown: somebody may look for it."""


async def create_registration_token(
    session: WriteSession, actor: Actor, peppers: Peppers, upstream_id: str
) -> CreatedToken:
    """Create a token for the engines of an upstream.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    await session.lock_configuration()
    await catalog_store.upstreams.get(session, session.scope, upstream_id)
    token_id, text = create_token()
    token = RegistrationToken(
        id=token_id,
        upstream_id=upstream_id,
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )
    await store.insert_token(session, session.scope, token, peppers.mac(text))
    await record(session, entry_of(actor, "registration_token.create", token, after=token))
    return CreatedToken(token, text)


async def get_registration_token(session: ReadSession, token_id: str) -> RegistrationToken:
    """Return a token, without what its holder shows.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.tokens.get(session, session.scope, token_id)


async def list_registration_tokens(
    session: ReadSession, page: PageRequest, *, upstream_id: str | None = None
) -> Page[RegistrationToken]:
    """Return tokens, oldest first."""
    return await store.tokens.list(session, session.scope, page, upstream_id=upstream_id)


async def delete_registration_token(
    session: WriteSession, actor: Actor, token_id: str, *, expected_version: int | None = None
) -> None:
    """Let nobody register with a token any more; what is registered stays until it lapses.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`.
    """
    token = await store.tokens.lock(session, session.scope, token_id, expected_version)
    await store.tokens.delete(session, session.scope, token)
    await record(session, entry_of(actor, "registration_token.delete", token, before=token))


async def list_registrations(
    session: ReadSession, page: PageRequest, *, upstream_id: str | None = None
) -> Page[Registration]:
    """Return registrations, oldest first, with those that lapsed lately."""
    return await store.registrations.list(session, session.scope, page, upstream_id=upstream_id)


async def identify(session: ReadSession, peppers: Peppers, text: str) -> Holder | None:
    """Return who has a token; None when it is none, or none any more."""
    token_id = find_token_id(text)
    if token_id is None:
        return None
    found = await store.find_mac(session, session.scope, token_id)
    macs = peppers.macs(text)
    if found is None or not any(hmac.compare_digest(found[1], mac) for mac in macs.values()):
        return None
    active = macs[peppers.active_id]
    return Holder(token_id, found[0], None if found[1] == active else active)


async def rehash(session: WriteSession, holder: Holder) -> None:
    """Store a token under the active pepper, so that the old one can go."""
    if holder.new_mac is not None:
        await store.update_mac(session, session.scope, holder.token_id, holder.new_mac)


async def register(
    session: WriteSession, upstream_id: str, new: NewRegistration, now_us: int
) -> tuple[Lease, bool]:
    """Register an engine, or renew its lease; return it, and whether requests go there anew.

    However it writes its URL, it is one.

    Raises:
        PenstockError: `REGISTRATION_REFUSED`, `REGISTRATION_INVALID`, `REGISTRATIONS_FULL`,
            `OBJECT_UNKNOWN` when the upstream is gone.
    """
    await _check_place(session, upstream_id, new)
    lease = Lease(normalize_url(new.url), new.ttl_s, new.weight, new.engine, now_us)
    # Most only renew: they do not queue with those who change the configuration.
    if await store.renew(session, session.scope, upstream_id, lease):
        return lease, False
    await session.lock_configuration()
    # Whoever had the lock may have deleted the upstream meanwhile, or said where else it is.
    await _check_place(session, upstream_id, new)
    if await store.renew(session, session.scope, upstream_id, lease):
        return lease, False
    await _make_room(session, lease, upstream_id)
    await store.registrations.insert(
        session,
        session.scope,
        Registration(
            id=create_id("reg"),
            upstream_id=upstream_id,
            url=lease.url,
            ttl_s=lease.ttl_s,
            weight=lease.weight,
            engine=lease.engine,
            expires_at_us=lease.expires_at_us,
            version=1,
            created_at_us=now_us,
            updated_at_us=now_us,
        ),
    )
    return lease, True


async def _check_place(session: ReadSession, upstream_id: str, new: NewRegistration) -> None:
    """Check that an upstream has its endpoints where this one says that it is.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `REGISTRATION_REFUSED`, `REGISTRATION_INVALID`.
    """
    upstream = await catalog_store.upstreams.get(session, session.scope, upstream_id)
    source = None if upstream.discover is None else parse_source(upstream.discover)
    if source is None or source.kind != "registered":
        message = f"The upstream `{upstream.name}` says otherwise where its endpoints are."
        raise PenstockError(REGISTRATION_REFUSED, message)
    fault = find_fault(new.url, new.engine, source.networks)
    if fault is not None:
        raise PenstockError(REGISTRATION_INVALID, fault)


async def _make_room(session: WriteSession, lease: Lease, upstream_id: str) -> None:
    """Forget that this one lapsed, and all that did where they are many.

    Raises:
        PenstockError: `REGISTRATIONS_FULL`.
    """
    if await store.count(session, session.scope, upstream_id, with_lapsed=False) >= MAX_FOUND:
        raise PenstockError(REGISTRATIONS_FULL)
    lapsed = await store.find_registration(session, session.scope, upstream_id, lease.url)
    if lapsed is not None:
        await store.registrations.delete(session, session.scope, lapsed)
    if await store.count(session, session.scope, upstream_id, with_lapsed=True) >= 2 * MAX_FOUND:
        await store.forget_lapsed(session, session.scope, lease.at_us, upstream_id)


async def withdraw(session: WriteSession, upstream_id: str, url: str) -> bool:
    """Forget an engine: it gets no new request. Return whether it was registered."""
    await session.lock_configuration()
    found = await store.find_registration(session, session.scope, upstream_id, normalize_url(url))
    if found is None:
        return False
    await store.registrations.delete(session, session.scope, found)
    return found.lapsed_at_us is None


async def list_held(session: ReadSession, upstream: str) -> tuple[Registered, ...]:
    """Return what is registered for an upstream and has not lapsed, by URL."""
    held = await store.list_held(session, session.scope, upstream, MAX_FOUND)
    return tuple(Registered(*each) for each in held)


async def has_overdue(session: ReadSession, now_us: int, since_us: int) -> bool:
    """Return whether there is something for `end_leases` to do."""
    return await store.count_overdue(session, session.scope, now_us, since_us) > 0


async def end_leases(session: WriteSession, now_us: int, since_us: int) -> int:
    """End the leases that were not renewed in time; return how many.

    Args:
        session: A transaction.
        now_us: The time.
        since_us: Since when they could be renewed: each could for as long as it lasts, at least.
    """
    return await store.end_overdue(session, session.scope, now_us, since_us)


async def forget_old_registrations(session: WriteSession, now_us: int) -> None:
    """Remove what lapsed so long ago that nobody looks for it."""
    await store.forget_lapsed(session, session.scope, now_us - KEEP_S * 1_000_000)
