"""Objects of the catalog to test with, made by the services themselves."""

from dataclasses import dataclass

from tests.fakes.organizations import ALL, actor

from penstock.catalog import aliases, deployments, routes, upstreams
from penstock.catalog.objects import (
    Alias,
    Choice,
    Deployment,
    Grant,
    NewAlias,
    NewDeployment,
    NewGrant,
    NewRoute,
    NewUpstream,
    Route,
    Upstream,
)
from penstock.storage.database import Database
from penstock.tenancy.model import Organization, Project


@dataclass(frozen=True, slots=True)
class Path:
    """All that the requests of one alias pass."""

    upstream: Upstream
    deployment: Deployment
    route: Route
    alias: Alias


async def create_path(database: Database, name: str = "fast", *, is_open: bool = False) -> Path:
    """Return a new alias with all that it leads to, all of one name."""
    async with database.write(ALL) as session:
        new_upstream = NewUpstream(name=name, endpoints=["http://127.0.0.1:8000"])
        upstream = await upstreams.create_upstream(session, actor(), new_upstream)
        deployment = await deployments.create_deployment(
            session, actor(), NewDeployment(name=name, upstream_id=upstream.id, model="served")
        )
        new_route = NewRoute(name=name, choices=[Choice(deployment_id=deployment.id)])
        route = await routes.create_route(session, actor(), new_route)
        alias = await aliases.create_alias(
            session, actor(), NewAlias(name=name, route_id=route.id, is_open=is_open)
        )
    return Path(upstream, deployment, route, alias)


async def create_grant(database: Database, alias: Alias, owner: Organization | Project) -> Grant:
    """Return a new grant for an organization or a project."""
    new = (
        NewGrant(alias_id=alias.id, organization_id=owner.organization_id, project_id=owner.id)
        if isinstance(owner, Project)
        else NewGrant(alias_id=alias.id, organization_id=owner.id)
    )
    async with database.write(ALL) as session:
        return await aliases.create_grant(session, actor(), new)
