"""Use cases of upstreams. See `collection` for what all kinds of objects have in common."""

from penstock.audit.model import Actor
from penstock.catalog import store
from penstock.catalog.collection import Collection
from penstock.catalog.errors import CATALOG_IN_USE, CATALOG_INVALID
from penstock.catalog.objects import NewUpstream, Upstream, UpstreamChanges
from penstock.kit.errors import PenstockError
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession


async def create_upstream(session: WriteSession, actor: Actor, new: NewUpstream) -> Upstream:
    """Create an upstream.

    Raises:
        PenstockError: `CATALOG_INVALID`, `NAME_TAKEN`, `OBJECT_UNKNOWN` for its credential.
    """
    return await _upstreams.create(session, actor, new)


async def get_upstream(session: ReadSession, upstream_id: str) -> Upstream:
    """Return an upstream.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.upstreams.get(session, session.scope, upstream_id)


async def find_upstream_by_name(session: ReadSession, name: str) -> Upstream | None:
    """Return the upstream of that name; None when there is none."""
    return await _upstreams.find_by_name(session, name)


async def list_upstreams(
    session: ReadSession,
    page: PageRequest,
    *,
    name: str | None = None,
    provider: str | None = None,
    region: str | None = None,
    data_class: str | None = None,
) -> Page[Upstream]:
    """Return upstreams, oldest first."""
    return await store.upstreams.list(
        session,
        session.scope,
        page,
        name=name,
        provider=provider,
        region=region,
        data_class=data_class,
    )


async def update_upstream(
    session: WriteSession,
    actor: Actor,
    upstream_id: str,
    changes: UpstreamChanges,
    *,
    expected_version: int | None = None,
) -> Upstream:
    """Change the members of an upstream that are given.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` for it or its credential, `VERSION_CONFLICT`,
            `CATALOG_INVALID`, `CATALOG_IN_USE` when credentials that are used for it are for its
            old provider.
    """
    return await _upstreams.update(session, actor, upstream_id, changes, expected_version)


async def delete_upstream(
    session: WriteSession, actor: Actor, upstream_id: str, *, expected_version: int | None = None
) -> None:
    """Remove an upstream for good.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `CATALOG_IN_USE`.
    """
    await _upstreams.delete(session, actor, upstream_id, expected_version)


async def check_credential(session: ReadSession, credential_id: str | None, provider: str) -> None:
    """Check that a credential is one of the platform's, and for a provider; None is none.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `CATALOG_INVALID`.
    """
    if credential_id is None:
        return
    found = await store.find_platform_provider(session, session.scope, credential_id)
    if found is None:
        message = "`credential_id` names none of the platform's credentials."
        raise PenstockError(OBJECT_UNKNOWN, message)
    if found != provider:
        message = f"`credential_id` names a credential for {found}; the upstream is {provider}."
        raise PenstockError(CATALOG_INVALID, message)


async def _check_references(session: ReadSession, upstream: Upstream) -> None:
    await check_credential(session, upstream.credential_id, upstream.provider)
    others = await store.list_other_providers(
        session, session.scope, upstream.id, upstream.provider
    )
    if others:
        message = f"Credentials for another provider are used for it: {', '.join(others)}."
        raise PenstockError(CATALOG_IN_USE, message)


_upstreams = Collection("upstream", Upstream, "ups", store.upstreams, _check_references)
