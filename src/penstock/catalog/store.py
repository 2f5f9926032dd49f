"""Every SQL statement about the catalog's objects, each within a scope.

Upstreams, deployments, routes and aliases are the platform's: no organization's scope reaches
them, but for the aliases that it may use.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, delete, exists, or_, select, true

from penstock.catalog.objects import Alias, Choice, Deployment, Grant, Route, Upstream
from penstock.catalog.tables import (
    Aliases,
    Credentials,
    Deployments,
    Grants,
    RouteChoices,
    Routes,
    Upstreams,
)
from penstock.storage.objects import ObjectStore
from penstock.storage.paging import Page, PageRequest
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

SHOWN_USERS = 5
"""Most users of one kind that are told of."""

_PLATFORM = Scope.all_organizations()

upstreams = ObjectStore(Upstreams, Upstream, None)
deployments = ObjectStore(Deployments, Deployment, None)
aliases = ObjectStore(Aliases, Alias, None)
grants = ObjectStore(Grants, Grant, "organization_id")


class RouteStore(ObjectStore[Route]):
    """Routes with their choices, which are rows of a table of their own."""

    def __init__(self) -> None:
        """See the class."""
        super().__init__(Routes, Route, None, parts=("choices",))

    async def find(
        self, session: ReadSession, scope: Scope, object_id: str, *, for_update: bool = False
    ) -> Route | None:
        """Return a route, or None; see the base class."""
        found = await super().find(session, scope, object_id, for_update=for_update)
        return None if found is None else (await _add_choices(session, [found]))[0]

    async def list(
        self,
        session: ReadSession,
        scope: Scope,
        page: PageRequest,
        *conditions: ColumnElement[bool],
        **equal: Any,
    ) -> Page[Route]:
        """Return a page of routes, oldest first; see the base class."""
        found = await super().list(session, scope, page, *conditions, **equal)
        return Page(await _add_choices(session, found.items), found.next_cursor)

    async def list_by_id(
        self,
        session: ReadSession,
        scope: Scope,
        *conditions: ColumnElement[bool],
        after: str = "",
        limit: int | None = None,
    ) -> Sequence[Route]:
        """Return routes in order of their ids; see the base class."""
        found = await super().list_by_id(session, scope, *conditions, after=after, limit=limit)
        return await _add_choices(session, found)

    async def insert(self, session: WriteSession, scope: Scope, item: Route) -> None:
        """Store a new route; see the base class."""
        await super().insert(session, scope, item)
        await _insert_choices(session, item)

    async def update(
        self, session: WriteSession, scope: Scope, before: Route, **values: Any
    ) -> Route:
        """Store the next version of a route; see the base class."""
        after = await super().update(session, scope, before, **values)
        if after.choices != before.choices:
            await _delete_choices(session, before)
            await _insert_choices(session, after)
        return after

    async def delete(self, session: WriteSession, scope: Scope, before: Route) -> None:
        """Remove a route; see the base class."""
        await _delete_choices(session, before)
        await super().delete(session, scope, before)


routes = RouteStore()


async def list_usable_aliases(
    session: ReadSession,
    scope: Scope,
    page: PageRequest,
    *,
    project_id: str | None = None,
    **equal: Any,
) -> Page[Alias]:
    """Return a page of the aliases that an organization may use, or one project of it.

    Args:
        session: Where from.
        scope: Whose; of all organizations, it is all aliases.
        page: Which part.
        project_id: Leave out what only other projects may use.
        **equal: See `ObjectStore.list`.
    """
    condition: ColumnElement[bool] = true()
    if scope.organization is not None:
        is_granted = exists().where(
            Grants.alias_id == Aliases.id, scope.where(Grants.organization_id)
        )
        if project_id is not None:
            of_project = or_(Grants.project_id.is_(None), Grants.project_id == project_id)
            is_granted = is_granted.where(of_project)
        condition = or_(Aliases.is_open, is_granted)
    return await aliases.list(session, _PLATFORM, page, condition, **equal)


async def list_deployment_ids(session: ReadSession, scope: Scope, ids: Sequence[str]) -> set[str]:
    """Return those of some ids that deployments have."""
    _require_platform(scope)
    statement = select(Deployments.id).where(Deployments.id.in_(ids))
    return {found for (found,) in await session.rows(statement)}


async def find_platform_provider(
    session: ReadSession, scope: Scope, credential_id: str
) -> str | None:
    """Return which provider one of the platform's credentials is for; None when it is none."""
    _require_platform(scope)
    statement = select(Credentials.provider).where(
        Credentials.id == credential_id, Credentials.organization_id.is_(None)
    )
    row = await session.first(statement)
    return None if row is None else row[0]


async def list_other_providers(
    session: ReadSession, scope: Scope, upstream_id: str, provider: str
) -> list[str]:
    """Return names of credentials that are used for an upstream and are for another provider."""
    _require_platform(scope)
    of_deployments = select(Deployments.credential_id).where(Deployments.upstream_id == upstream_id)
    statement = select(Credentials.name).where(
        Credentials.provider != provider,
        or_(Credentials.upstream_id == upstream_id, Credentials.id.in_(of_deployments)),
    )
    return [name for (name,) in await session.rows(statement.limit(SHOWN_USERS))]


_Use: TypeAlias = tuple[str, Any, Any, ColumnElement[bool]]

_USES: dict[str, tuple[_Use, ...]] = {
    "upstream": (
        ("deployment", Deployments.name, Deployments.upstream_id, true()),
        ("credential", Credentials.name, Credentials.upstream_id, true()),
    ),
    "deployment": (
        ("route", Routes.name, RouteChoices.deployment_id, RouteChoices.route_id == Routes.id),
    ),
    "route": (
        ("alias", Aliases.name, Aliases.route_id, true()),
        ("route", Routes.name, Routes.fallback_id, true()),
    ),
    "alias": (("grant", Grants.id, Grants.alias_id, true()),),
    "credential": (
        ("upstream", Upstreams.name, Upstreams.credential_id, true()),
        ("deployment", Deployments.name, Deployments.credential_id, true()),
    ),
}
"""What may name an object of a kind: its own kind, what it is called, and where it names it."""


async def list_users(session: ReadSession, scope: Scope, kind: str, object_id: str) -> list[str]:
    """Return what names an object, e.g. `deployment llama-70b`; some of each kind."""
    _require_platform(scope)
    users = []
    for user_kind, name, reference, condition in _USES[kind]:
        statement = select(name).where(reference == object_id, condition).order_by(name)
        rows = await session.rows(statement.limit(SHOWN_USERS))
        users += [f"{user_kind} {row[0]}" for row in rows]
    return users


# For the configuration feed


_OBJECTS: dict[str, tuple[ObjectStore[Any], Any]] = {
    "upstream": (upstreams, Upstreams.name),
    "deployment": (deployments, Deployments.name),
    "route": (routes, Routes.name),
    "alias": (aliases, Aliases.name),
}

_NAMED: dict[str, tuple[tuple[Any, Any, Any], ...]] = {
    "upstream": (),
    "deployment": ((Upstreams, Deployments.upstream_id, Deployments.id),),
    "route": (
        (Deployments, RouteChoices.deployment_id, RouteChoices.route_id),
        (Routes, Routes.fallback_id, Routes.id),
    ),
    "alias": ((Routes, Aliases.route_id, Aliases.id),),
}
"""What objects of a kind name: the table, the column with its ids, and whose row that is."""

Granted: TypeAlias = tuple[str, tuple[str, str, str | None]]
"""Id of a grant; name of its alias, its organization and project."""


async def list_by_name(
    session: ReadSession, scope: Scope, kind: str, names: Collection[str]
) -> Sequence[Upstream | Deployment | Route | Alias]:
    """Return the objects of a kind that have one of these names."""
    objects, name = _OBJECTS[kind]
    return await objects.list_by_id(session, scope, name.in_(names))


async def list_behind(
    session: ReadSession, scope: Scope, kind: str, after_id: str, limit: int
) -> Sequence[Upstream | Deployment | Route | Alias]:
    """Return objects of a kind behind an id, in order of id."""
    objects, _ = _OBJECTS[kind]
    return await objects.list_by_id(session, scope, after=after_id, limit=limit)


async def find_named(
    session: ReadSession, scope: Scope, kind: str, ids: Sequence[str]
) -> dict[str, str]:
    """Return the names of what objects of a kind name, by id."""
    _require_platform(scope)
    names: dict[str, str] = {}
    for table, reference, owner in _NAMED[kind]:
        wanted = select(reference).where(owner.in_(ids)).correlate(None)
        for row in await session.rows(select(table.id, table.name).where(table.id.in_(wanted))):
            names[row[0]] = row[1]
    return names


async def find_granted(session: ReadSession, scope: Scope, names: Collection[str]) -> list[Granted]:
    """Return the grants of aliases of these names."""
    return await _list_granted(session, scope, Aliases.name.in_(names), None)


async def list_granted(
    session: ReadSession, scope: Scope, after_id: str, limit: int
) -> list[Granted]:
    """Return grants behind an id, in order of id."""
    return await _list_granted(session, scope, Grants.id > after_id, limit)


async def _list_granted(
    session: ReadSession, scope: Scope, condition: ColumnElement[bool], limit: int | None
) -> list[Granted]:
    statement = (
        select(Grants.id, Aliases.name, Grants.organization_id, Grants.project_id)
        .join(Aliases, Aliases.id == Grants.alias_id)
        .where(scope.where(Grants.organization_id), condition)
        .order_by(Grants.id)
        .limit(limit)
    )
    rows = await session.rows(statement)
    return [(grant_id, (alias, owner, project)) for grant_id, alias, owner, project in rows]


async def _add_choices(session: ReadSession, found: Sequence[Route]) -> list[Route]:
    ids = [route.id for route in found]
    choices: dict[str, list[Choice]] = {route_id: [] for route_id in ids}
    statement = (
        select(RouteChoices.route_id, RouteChoices.deployment_id, RouteChoices.weight)
        .where(RouteChoices.route_id.in_(ids))
        .order_by(RouteChoices.route_id, RouteChoices.position)
    )
    for route_id, deployment_id, weight in await session.rows(statement) if ids else ():
        choices[route_id].append(Choice(deployment_id=deployment_id, weight=weight))
    return [dataclasses.replace(route, choices=choices[route.id]) for route in found]


async def _insert_choices(session: WriteSession, route: Route) -> None:
    rows = (
        {
            "route_id": route.id,
            "deployment_id": choice.deployment_id,
            "position": position,
            "weight": choice.weight,
        }
        for position, choice in enumerate(route.choices)
    )
    await session.insert(RouteChoices, *rows)


async def _delete_choices(session: WriteSession, route: Route) -> None:
    await session.change(delete(RouteChoices).where(RouteChoices.route_id == route.id))


def _require_platform(scope: Scope) -> None:
    if scope.organization is not None:
        message = "the catalog was asked for in the scope of an organization"
        raise PermissionError(message)
