"""Every SQL statement about registrations. They are the platform's, and nobody else's."""

import dataclasses
from collections.abc import Sequence

from sqlalchemy import ColumnElement, delete, func, select, update

from penstock.catalog.registrations.model import Lease, Registration, RegistrationToken
from penstock.catalog.tables import Registrations, RegistrationTokens, Upstreams
from penstock.storage.base import Microseconds
from penstock.storage.objects import ObjectStore
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

registrations = ObjectStore(Registrations, Registration, None)
tokens = ObjectStore(RegistrationTokens, RegistrationToken, None)


async def insert_token(
    session: WriteSession, scope: Scope, token: RegistrationToken, mac: bytes
) -> None:
    """Store a new token with its hash."""
    scope.require([""])
    members = dataclasses.asdict(token)
    times = {name: members.pop(f"{name}_us") for name in ("created_at", "updated_at")}
    await session.insert(RegistrationTokens, {**members, **times, "mac": mac})


async def find_mac(session: ReadSession, scope: Scope, token_id: str) -> tuple[str, bytes] | None:
    """Return the upstream's id and the hash of a token, if there is such a token."""
    scope.require([""])
    row = await session.first(
        select(RegistrationTokens.upstream_id, RegistrationTokens.mac).where(
            RegistrationTokens.id == token_id
        )
    )
    return None if row is None else (row.upstream_id, row.mac)


async def update_mac(session: WriteSession, scope: Scope, token_id: str, mac: bytes) -> None:
    """Store a token's hash under another pepper."""
    scope.require([""])
    await session.change(
        update(RegistrationTokens).where(RegistrationTokens.id == token_id).values(mac=mac)
    )


async def find_registration(
    session: ReadSession, scope: Scope, upstream_id: str, url: str
) -> Registration | None:
    """Return what is registered under a URL."""
    scope.require([""])
    row = await session.first(
        select(Registrations.id).where(
            Registrations.upstream_id == upstream_id, Registrations.url == url
        )
    )
    return None if row is None else await registrations.find(session, scope, row.id)


async def list_held(
    session: ReadSession, scope: Scope, upstream: str, limit: int
) -> Sequence[tuple[str, int, str]]:
    """Return URL, weight and kind of what is registered for the upstream of a name, by URL."""
    scope.require([""])
    rows = await session.rows(
        select(Registrations.url, Registrations.weight, Registrations.engine)
        .join(Upstreams, Upstreams.id == Registrations.upstream_id)
        .where(Upstreams.name == upstream, Registrations.lapsed_at.is_(None))
        .order_by(Registrations.url)
        .limit(limit)
    )
    return [(row.url, row.weight, row.engine) for row in rows]


async def count(session: ReadSession, scope: Scope, upstream_id: str, *, with_lapsed: bool) -> int:
    """Return how many registrations an upstream has."""
    scope.require([""])
    conditions = [Registrations.upstream_id == upstream_id]
    if not with_lapsed:
        conditions.append(Registrations.lapsed_at.is_(None))
    row = await session.first(select(func.count()).select_from(Registrations).where(*conditions))
    return 0 if row is None else row[0]


async def renew(session: WriteSession, scope: Scope, upstream_id: str, lease: Lease) -> bool:
    """Renew a lease that has not lapsed; return whether there is one."""
    scope.require([""])
    renewed = await session.change(
        update(Registrations)
        .where(
            Registrations.upstream_id == upstream_id,
            Registrations.url == lease.url,
            Registrations.lapsed_at.is_(None),
        )
        .values(
            ttl_s=lease.ttl_s,
            weight=lease.weight,
            engine=lease.engine,
            expires_at=Microseconds(lease.expires_at_us),
            updated_at=Microseconds(lease.at_us),
            version=Registrations.version + 1,
        )
    )
    return renewed > 0


async def count_overdue(session: ReadSession, scope: Scope, now_us: int, since_us: int) -> int:
    """Return how many leases `end_overdue` would end."""
    scope.require([""])
    row = await session.first(
        select(func.count()).select_from(Registrations).where(*_overdue(now_us, since_us))
    )
    return 0 if row is None else row[0]


async def end_overdue(session: WriteSession, scope: Scope, now_us: int, since_us: int) -> int:
    """End leases that were not renewed in time, though they could have been; return how many.

    Args:
        session: Where to.
        scope: All organizations.
        now_us: The time.
        since_us: Since when they could be renewed.
    """
    scope.require([""])
    return await session.change(
        update(Registrations)
        .where(*_overdue(now_us, since_us))
        .values(lapsed_at=Microseconds(now_us), version=Registrations.version + 1)
    )


def _overdue(now_us: int, since_us: int) -> tuple[ColumnElement[bool], ...]:
    return (
        Registrations.lapsed_at.is_(None),
        Registrations.expires_at < Microseconds(now_us),
        Registrations.ttl_s <= (now_us - since_us) // 1_000_000,
    )


async def forget_lapsed(
    session: WriteSession, scope: Scope, before_us: int, upstream_id: str | None = None
) -> None:
    """Remove registrations that lapsed before a time, all or those of one upstream."""
    scope.require([""])
    statement = delete(Registrations).where(Registrations.lapsed_at < Microseconds(before_us))
    if upstream_id is not None:
        statement = statement.where(Registrations.upstream_id == upstream_id)
    await session.change(statement)
