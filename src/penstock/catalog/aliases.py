"""Use cases of aliases and grants. See `collection` for what kinds of objects have in common.

A session of an organization sees the aliases that it may use, and its own grants.
"""

from penstock.audit.model import Actor
from penstock.audit.service import record
from penstock.catalog import store
from penstock.catalog.collection import ONE, Collection, entry_of
from penstock.catalog.errors import GRANT_EXISTS
from penstock.catalog.feed import format_grant
from penstock.catalog.object_rules import check
from penstock.catalog.objects import Alias, AliasChanges, Grant, NewAlias, NewGrant
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.storage.changes import record_change
from penstock.storage.errors import OBJECT_UNKNOWN, RowConflictError
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy import store as tenancy_store
from penstock.tenancy.rules import require_not_archived


async def create_alias(session: WriteSession, actor: Actor, new: NewAlias) -> Alias:
    """Create an alias.

    Raises:
        PenstockError: `CATALOG_INVALID`, `NAME_TAKEN`, `OBJECT_UNKNOWN` for its route.
    """
    return await _aliases.create(session, actor, new)


async def get_alias(session: ReadSession, alias_id: str, *, project_id: str | None = None) -> Alias:
    """Return an alias.

    Args:
        session: Whose organization may use it.
        alias_id: Which.
        project_id: The only project of the organization that counts; any one when None.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await _get_usable(session, alias_id, project_id)


async def find_alias_by_name(session: ReadSession, name: str) -> Alias | None:
    """Return the alias of that name; None when there is none that the session may see."""
    found = await store.list_usable_aliases(session, session.scope, ONE, name=name)
    return next(iter(found.items), None)


async def list_aliases(
    session: ReadSession,
    page: PageRequest,
    *,
    project_id: str | None = None,
    name: str | None = None,
    route_id: str | None = None,
) -> Page[Alias]:
    """Return aliases that the session's organization may use, oldest first; see `get_alias`."""
    return await store.list_usable_aliases(
        session, session.scope, page, project_id=project_id, name=name, route_id=route_id
    )


async def update_alias(
    session: WriteSession,
    actor: Actor,
    alias_id: str,
    changes: AliasChanges,
    *,
    expected_version: int | None = None,
) -> Alias:
    """Change the members of an alias that are given.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` for it or its route, `VERSION_CONFLICT`,
            `CATALOG_INVALID`.
    """
    return await _aliases.update(session, actor, alias_id, changes, expected_version)


async def delete_alias(
    session: WriteSession, actor: Actor, alias_id: str, *, expected_version: int | None = None
) -> None:
    """Remove an alias for good.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `CATALOG_IN_USE`.
    """
    await _aliases.delete(session, actor, alias_id, expected_version)


async def create_grant(session: WriteSession, actor: Actor, new: NewGrant) -> Grant:
    """Let an organization, or one project of it, use an alias that is not open.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` for the alias, the organization or the project,
            `STATUS_CONFLICT` when one of them is archived, `CATALOG_INVALID`, `GRANT_EXISTS`.
    """
    await session.lock_configuration()
    grant = check(
        Grant(
            id=create_id("grt"),
            alias_id=new.alias_id,
            organization_id=new.organization_id,
            project_id=new.project_id,
            version=1,
            created_at_us=actor.at_us,
            updated_at_us=actor.at_us,
        )
    )
    alias = await store.aliases.find(session, session.scope, grant.alias_id)
    if alias is None:
        raise PenstockError(OBJECT_UNKNOWN, "`alias_id` names no alias.")
    await _check_owner(session, grant)
    try:
        await store.grants.insert(session, session.scope, grant)
    except RowConflictError:
        raise PenstockError(GRANT_EXISTS) from None
    await _tell(session, actor, "grant.create", alias, grant, after=grant)
    return grant


async def get_grant(session: ReadSession, grant_id: str) -> Grant:
    """Return a grant.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.grants.get(session, session.scope, grant_id)


async def list_grants(
    session: ReadSession,
    page: PageRequest,
    *,
    alias_id: str | None = None,
    organization_id: str | None = None,
    project_id: str | None = None,
) -> Page[Grant]:
    """Return grants that the session may see, oldest first."""
    return await store.grants.list(
        session,
        session.scope,
        page,
        alias_id=alias_id,
        organization_id=organization_id,
        project_id=project_id,
    )


async def delete_grant(
    session: WriteSession, actor: Actor, grant_id: str, *, expected_version: int | None = None
) -> None:
    """Take a grant back: whoever has no other one may not use the alias any more.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`.
    """
    grant = await store.grants.lock(session, session.scope, grant_id, expected_version)
    alias = await store.aliases.get(session, session.scope, grant.alias_id)
    await store.grants.delete(session, session.scope, grant)
    await _tell(session, actor, "grant.delete", alias, grant, before=grant)


async def _get_usable(session: ReadSession, alias_id: str, project_id: str | None) -> Alias:
    found = await store.list_usable_aliases(
        session, session.scope, ONE, project_id=project_id, id=alias_id
    )
    if not found.items:
        raise PenstockError(OBJECT_UNKNOWN)
    return found.items[0]


async def _check_route(session: ReadSession, alias: Alias) -> None:
    if await store.routes.find(session, session.scope, alias.route_id) is None:
        raise PenstockError(OBJECT_UNKNOWN, "`route_id` names no route.")


async def _check_owner(session: ReadSession, grant: Grant) -> None:
    scope = session.scope
    organization = await tenancy_store.organizations.find(session, scope, grant.organization_id)
    if organization is None:
        raise PenstockError(OBJECT_UNKNOWN, "`organization_id` names no organization.")
    require_not_archived(organization.status)
    if grant.project_id is None:
        return
    project = await tenancy_store.projects.find(session, scope, grant.project_id)
    if project is None or project.organization_id != organization.id:
        message = "`project_id` names no project of the organization."
        raise PenstockError(OBJECT_UNKNOWN, message)
    require_not_archived(project.status)


async def _tell(
    session: WriteSession, actor: Actor, action: str, alias: Alias, grant: Grant, **states: Grant
) -> None:
    name = format_grant(alias.name, grant.organization_id, grant.project_id)
    await record_change(session, "grant", name, actor.at_us)
    await record(session, entry_of(actor, action, grant, **states))


_aliases = Collection("alias", Alias, "als", store.aliases, _check_route)
