"""Use cases of routes. See `collection` for what all kinds of objects have in common."""

from penstock.audit.model import Actor
from penstock.catalog import store
from penstock.catalog.collection import Collection
from penstock.catalog.object_rules import check_fallbacks
from penstock.catalog.objects import NewRoute, Route, RouteChanges
from penstock.kit.errors import PenstockError
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession


async def create_route(session: WriteSession, actor: Actor, new: NewRoute) -> Route:
    """Create a route.

    Raises:
        PenstockError: `CATALOG_INVALID`, `NAME_TAKEN`, `OBJECT_UNKNOWN` for a deployment or its
            fallback.
    """
    return await _routes.create(session, actor, new)


async def get_route(session: ReadSession, route_id: str) -> Route:
    """Return a route.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.routes.get(session, session.scope, route_id)


async def find_route_by_name(session: ReadSession, name: str) -> Route | None:
    """Return the route of that name; None when there is none."""
    return await _routes.find_by_name(session, name)


async def list_routes(
    session: ReadSession, page: PageRequest, *, name: str | None = None
) -> Page[Route]:
    """Return routes, oldest first."""
    return await store.routes.list(session, session.scope, page, name=name)


async def update_route(
    session: WriteSession,
    actor: Actor,
    route_id: str,
    changes: RouteChanges,
    *,
    expected_version: int | None = None,
) -> Route:
    """Change the members of a route that are given; choices are replaced as a whole.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` for it, a deployment or its fallback, `VERSION_CONFLICT`,
            `CATALOG_INVALID`, `FALLBACK_CYCLE`.
    """
    return await _routes.update(session, actor, route_id, changes, expected_version)


async def delete_route(
    session: WriteSession, actor: Actor, route_id: str, *, expected_version: int | None = None
) -> None:
    """Remove a route for good.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `CATALOG_IN_USE`.
    """
    await _routes.delete(session, actor, route_id, expected_version)


async def _check_references(session: ReadSession, route: Route) -> None:
    ids = [choice.deployment_id for choice in route.choices]
    known = await store.list_deployment_ids(session, session.scope, ids)
    for index, deployment_id in enumerate(ids):
        if deployment_id not in known:
            message = f"`choices[{index}].deployment_id` names no deployment."
            raise PenstockError(OBJECT_UNKNOWN, message)
    await _check_fallbacks(session, route)


async def _check_fallbacks(session: ReadSession, route: Route) -> None:
    """Follow the fallbacks; nobody else changes them meanwhile, for writers queue."""
    names = [route.name]
    fallback_id = route.fallback_id
    while fallback_id is not None:
        found = await store.routes.find(session, session.scope, fallback_id)
        if found is None:
            raise PenstockError(OBJECT_UNKNOWN, "`fallback_id` names no route.")
        names.append(found.name)
        check_fallbacks(names)
        fallback_id = found.fallback_id


_routes = Collection("route", Route, "rte", store.routes, _check_references)
