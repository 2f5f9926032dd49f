"""HTTP endpoints of the catalog: what they have in common is in `endpoints`."""

from typing import Annotated

from fastapi import Query, Response

from penstock.audit.door import Call, operation
from penstock.catalog import aliases as alias_service
from penstock.catalog import deployments as deployment_service
from penstock.catalog import routes as route_service
from penstock.catalog import upstreams as upstream_service
from penstock.catalog.endpoints import CallParameter, Noun, create_router
from penstock.catalog.errors import CATALOG_IN_USE, FALLBACK_CYCLE, GRANT_EXISTS
from penstock.catalog.objects import Alias
from penstock.catalog.route_schemas import (
    AliasBody,
    AliasChangesBody,
    AliasesQuery,
    AliasPage,
    GrantBody,
    GrantPage,
    GrantsQuery,
    NewAliasBody,
    NewGrantBody,
    NewRouteBody,
    RouteBody,
    RouteChangesBody,
    RoutePage,
    RoutesQuery,
)
from penstock.catalog.rules import PROVIDERS
from penstock.catalog.upstream_schemas import (
    DeploymentBody,
    DeploymentChangesBody,
    DeploymentPage,
    DeploymentsQuery,
    NewDeploymentBody,
    NewUpstreamBody,
    ProviderBody,
    ProvidersBody,
    UpstreamBody,
    UpstreamChangesBody,
    UpstreamPage,
    UpstreamsQuery,
)
from penstock.storage.errors import PAGE_CURSOR_INVALID
from penstock.tenancy.errors import NAME_TAKEN, STATUS_CONFLICT

providers = create_router("providers")
upstreams = create_router("upstreams")
deployments = create_router("deployments")
routes = create_router("routes")
aliases = create_router("aliases")
grants = create_router("grants")

ROUTERS = (providers, upstreams, deployments, routes, aliases, grants)


@providers.get(
    "",
    summary="List the kinds of engines and companies that serve upstreams",
    response_model=ProvidersBody,
    **operation("providers:list"),
)
async def list_providers(call: CallParameter) -> Response:
    """List the kinds of engines and companies that serve upstreams."""
    items = [
        ProviderBody(name=name, description=description) for name, description in PROVIDERS.items()
    ]
    return call.answer(ProvidersBody(data=items))


_upstream = Noun(router=upstreams, name="upstream", plural="upstreams", body=UpstreamBody)
_upstream.add_reads(
    UpstreamPage,
    UpstreamsQuery,
    get=upstream_service.get_upstream,
    find=upstream_service.list_upstreams,
)
_upstream.add_create(NewUpstreamBody, upstream_service.create_upstream, NAME_TAKEN)
_upstream.add_update(UpstreamChangesBody, upstream_service.update_upstream, CATALOG_IN_USE)
_upstream.add_delete(upstream_service.delete_upstream, CATALOG_IN_USE)

_deployment = Noun(router=deployments, name="deployment", plural="deployments", body=DeploymentBody)
_deployment.add_reads(
    DeploymentPage,
    DeploymentsQuery,
    get=deployment_service.get_deployment,
    find=deployment_service.list_deployments,
)
_deployment.add_create(NewDeploymentBody, deployment_service.create_deployment, NAME_TAKEN)
_deployment.add_update(DeploymentChangesBody, deployment_service.update_deployment)
_deployment.add_delete(deployment_service.delete_deployment, CATALOG_IN_USE)

_route = Noun(router=routes, name="route", plural="routes", body=RouteBody)
_route.add_reads(
    RoutePage, RoutesQuery, get=route_service.get_route, find=route_service.list_routes
)
_route.add_create(NewRouteBody, route_service.create_route, NAME_TAKEN)
_route.add_update(RouteChangesBody, route_service.update_route, FALLBACK_CYCLE)
_route.add_delete(route_service.delete_route, CATALOG_IN_USE)

_alias = Noun(router=aliases, name="alias", plural="aliases", body=AliasBody)
_alias.add_create(NewAliasBody, alias_service.create_alias, NAME_TAKEN)
_alias.add_update(AliasChangesBody, alias_service.update_alias)
_alias.add_delete(alias_service.delete_alias, CATALOG_IN_USE)

_grant = Noun(router=grants, name="grant", plural="grants", body=GrantBody)
_grant.add_create(NewGrantBody, alias_service.create_grant, GRANT_EXISTS, STATUS_CONFLICT)
_grant.add_delete(alias_service.delete_grant)


@aliases.get(
    "",
    summary="List the aliases that the caller may use, oldest first",
    response_model=AliasPage,
    **operation("aliases:list", PAGE_CURSOR_INVALID),
)
async def list_aliases(call: CallParameter, query: Annotated[AliasesQuery, Query()]) -> Response:
    """List the aliases that the caller may use, oldest first."""
    page = query.to_page()
    async with call.read() as session:
        found = await alias_service.list_aliases(
            session,
            page,
            project_id=call.project_id,
            name=query.name,
            route_id=query.route_id,
        )
    shown = [_show_alias(call, alias) for alias in found.items]
    return call.answer(AliasPage(data=shown, next_cursor=found.next_cursor))


@aliases.get(
    "/{alias_id}",
    summary="Show an alias that the caller may use",
    response_model=AliasBody,
    **operation("aliases:get", is_of_object=True),
)
async def get_alias(call: CallParameter, alias_id: str) -> Response:
    """Show an alias that the caller may use."""
    async with call.read() as session:
        found = await alias_service.get_alias(session, alias_id, project_id=call.project_id)
    return call.answer(_show_alias(call, found))


@grants.get(
    "",
    summary="List grants, oldest first",
    response_model=GrantPage,
    **operation("grants:list", PAGE_CURSOR_INVALID),
)
async def list_grants(call: CallParameter, query: Annotated[GrantsQuery, Query()]) -> Response:
    """List grants, oldest first."""
    project_id = call.narrow(query.organization_id, query.project_id)
    page = query.to_page()
    async with call.read() as session:
        found = await alias_service.list_grants(
            session,
            page,
            alias_id=query.alias_id,
            organization_id=query.organization_id,
            project_id=project_id,
        )
    return call.answer(GrantPage.of(found))


@grants.get(
    "/{grant_id}",
    summary="Show a grant",
    response_model=GrantBody,
    **operation("grants:get", is_of_object=True),
)
async def get_grant(call: CallParameter, grant_id: str) -> Response:
    """Show a grant."""
    async with call.read() as session:
        found = await alias_service.get_grant(session, grant_id)
    call.check(organization_id=found.organization_id, project_id=found.project_id)
    return call.answer(GrantBody.of(found))


def _show_alias(call: Call, alias: Alias) -> AliasBody:
    """Return an alias as it is answered; organizations learn nothing of what is behind it."""
    hidden = {} if call.organization_id is None else {"route_id": None}
    return AliasBody.of(alias, **hidden)
