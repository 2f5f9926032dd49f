"""Upstreams, deployments, routes, aliases and grants."""

from typing import Any

from penstock.catalog import aliases, deployments, routes, store, upstreams
from penstock.catalog.apply.desired import shorten_timeouts
from penstock.catalog.apply.kind import Hands, Kind, Mention, Names
from penstock.catalog.apply.model import Change, Members, Wanted
from penstock.catalog.compile import is_reference
from penstock.catalog.objects import (
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
from penstock.catalog.references import Identity
from penstock.catalog.tables import Aliases, Deployments, Grants, Routes, Upstreams

_UPSTREAM = (
    "provider",
    "endpoints",
    "discover",
    "region",
    "data_class",
    "forward_headers",
    "max_connections",
    "tls_ca_file",
    "takes_priority",
    "kv_events",
    "is_disabled",
)
_DEPLOYMENT = (
    "model",
    "continuous_usage",
    "max_output_tokens",
    "adapter_of",
    "adapter_path",
    "tokenizer",
    "is_disabled",
)


def _credential(object_id: str | None) -> list[Mention]:
    return [] if object_id is None else [("credentials", object_id)]


def _members_of_upstream(names: Names, upstream: Upstream) -> Members:
    credential = names.name("credentials", upstream.credential_id)
    return {
        **{name: getattr(upstream, name) for name in _UPSTREAM},
        "credential": credential or upstream.credential_reference,
        "timeouts": shorten_timeouts(upstream.timeouts),
    }


def _upstream_values(names: Names, members: Members) -> Any:
    """Return members of an upstream as they are stored; only those that are given."""
    values = dict(members)
    if "credential" in values:
        credential = values.pop("credential")
        is_name = credential is not None and not is_reference(credential)
        values["credential_id"] = names.id("credentials", None, credential) if is_name else None
        values["credential_reference"] = None if is_name else credential
    return values


async def _create_upstream(hands: Hands, names: Names, identity: Identity, wanted: Wanted) -> str:
    values = _upstream_values(names, wanted.members)
    new = NewUpstream(name=str(identity[0]), **values)
    return (await upstreams.create_upstream(hands.session, hands.actor, new)).id


async def _update_upstream(hands: Hands, names: Names, object_id: str, change: Change) -> None:
    values = _upstream_values(names, _after(change))
    await upstreams.update_upstream(hands.session, hands.actor, object_id, values)


async def _delete_upstream(hands: Hands, object_id: str) -> None:
    await upstreams.delete_upstream(hands.session, hands.actor, object_id)


def _members_of_deployment(names: Names, deployment: Deployment) -> Members:
    return {
        **{name: getattr(deployment, name) for name in _DEPLOYMENT},
        "upstream": names.name("upstreams", deployment.upstream_id),
        "credential": names.name("credentials", deployment.credential_id),
    }


def _deployment_values(names: Names, members: Members) -> Any:
    values = dict(members)
    if "upstream" in values:
        values["upstream_id"] = names.id("upstreams", values.pop("upstream"))
    if "credential" in values:
        name = values.pop("credential")
        values["credential_id"] = None if name is None else names.id("credentials", None, name)
    return values


async def _create_deployment(hands: Hands, names: Names, identity: Identity, wanted: Wanted) -> str:
    values = _deployment_values(names, wanted.members)
    new = NewDeployment(name=str(identity[0]), **values)
    return (await deployments.create_deployment(hands.session, hands.actor, new)).id


async def _update_deployment(hands: Hands, names: Names, object_id: str, change: Change) -> None:
    values = _deployment_values(names, _after(change))
    await deployments.update_deployment(hands.session, hands.actor, object_id, values)


async def _delete_deployment(hands: Hands, object_id: str) -> None:
    await deployments.delete_deployment(hands.session, hands.actor, object_id)


def _mentions_of_route(route: Route) -> list[Mention]:
    mentions = [("deployments", choice.deployment_id) for choice in route.choices]
    return mentions if route.fallback_id is None else [*mentions, ("routes", route.fallback_id)]


def _members_of_route(names: Names, route: Route) -> Members:
    return {
        "deployments": [
            {
                "deployment": names.name("deployments", choice.deployment_id),
                "weight": choice.weight,
            }
            for choice in route.choices
        ],
        "fallback": names.name("routes", route.fallback_id),
    }


def _route_values(names: Names, members: Members) -> Any:
    values: dict[str, Any] = {}
    if "deployments" in members:
        values["choices"] = [
            Choice(
                deployment_id=names.id("deployments", choice["deployment"]),
                weight=choice["weight"],
            )
            for choice in members["deployments"]
        ]
    if "fallback" in members:
        name = members["fallback"]
        values["fallback_id"] = None if name is None else names.id("routes", name)
    return values


async def _create_route(hands: Hands, names: Names, identity: Identity, wanted: Wanted) -> str:
    new = NewRoute(name=str(identity[0]), **_route_values(names, wanted.members))
    return (await routes.create_route(hands.session, hands.actor, new)).id


async def _update_route(hands: Hands, names: Names, object_id: str, change: Change) -> None:
    values = _route_values(names, _after(change))
    await routes.update_route(hands.session, hands.actor, object_id, values)


async def _delete_route(hands: Hands, object_id: str) -> None:
    await routes.delete_route(hands.session, hands.actor, object_id)


def _alias_values(names: Names, members: Members) -> Any:
    values = dict(members)
    if "route" in values:
        values["route_id"] = names.id("routes", values.pop("route"))
    return values


async def _create_alias(hands: Hands, names: Names, identity: Identity, wanted: Wanted) -> str:
    new = NewAlias(name=str(identity[0]), **_alias_values(names, wanted.members))
    return (await aliases.create_alias(hands.session, hands.actor, new)).id


async def _update_alias(hands: Hands, names: Names, object_id: str, change: Change) -> None:
    values = _alias_values(names, _after(change))
    await aliases.update_alias(hands.session, hands.actor, object_id, values)


async def _delete_alias(hands: Hands, object_id: str) -> None:
    await aliases.delete_alias(hands.session, hands.actor, object_id)


def _place_of_grant(names: Names, identity: Identity) -> dict[str, str] | None:
    alias, owner, project = identity
    alias_id, owner_id = names.find_id("aliases", alias), names.find_id("organizations", owner)
    is_there = project is None or names.find_id("projects", owner, project) is not None
    if alias_id is None or owner_id is None or not is_there:
        return None
    return {"alias_id": alias_id, "organization_id": owner_id}


def _owners_of_grant(grant: Grant) -> list[Mention]:
    owners = [("aliases", grant.alias_id), ("organizations", grant.organization_id)]
    return owners if grant.project_id is None else [*owners, ("projects", grant.project_id)]


def _identify_grant(names: Names, grant: Grant) -> Identity:
    (alias,) = names.identity("aliases", grant.alias_id)
    (owner,) = names.identity("organizations", grant.organization_id)
    return alias, owner, names.name("projects", grant.project_id)


async def _create_grant(hands: Hands, names: Names, identity: Identity, _: Wanted) -> str:
    alias, owner, project = identity
    new = NewGrant(
        alias_id=names.id("aliases", alias),
        organization_id=names.id("organizations", owner),
        project_id=None if project is None else names.id("projects", owner, project),
    )
    return (await aliases.create_grant(hands.session, hands.actor, new)).id


async def _delete_grant(hands: Hands, object_id: str) -> None:
    await aliases.delete_grant(hands.session, hands.actor, object_id)


def _after(change: Change) -> Members:
    """Return the members that differ, as they are to be."""
    return {name: after for name, (_, after) in change.differences.items()}


def _place_of_name(_: Names, identity: Identity) -> dict[str, str]:
    return {"name": str(identity[0])}


def _identify_by_name(_: Names, item: Any) -> Identity:
    return (item.name,)


UPSTREAMS = Kind(
    section="upstreams",
    objects=store.upstreams,
    table=Upstreams,
    place=_place_of_name,
    owners=lambda _: [],
    identify=_identify_by_name,
    mentions=lambda upstream: _credential(upstream.credential_id),
    members=_members_of_upstream,
    create=_create_upstream,
    update=_update_upstream,
    delete=_delete_upstream,
)
DEPLOYMENTS = Kind(
    section="deployments",
    objects=store.deployments,
    table=Deployments,
    place=_place_of_name,
    owners=lambda _: [],
    identify=_identify_by_name,
    mentions=lambda deployment: [
        ("upstreams", deployment.upstream_id),
        *_credential(deployment.credential_id),
    ],
    members=_members_of_deployment,
    create=_create_deployment,
    update=_update_deployment,
    delete=_delete_deployment,
)
ROUTES = Kind(
    section="routes",
    objects=store.routes,
    table=Routes,
    place=_place_of_name,
    owners=lambda _: [],
    identify=_identify_by_name,
    mentions=_mentions_of_route,
    members=_members_of_route,
    create=_create_route,
    update=_update_route,
    delete=_delete_route,
)
ALIASES = Kind(
    section="aliases",
    objects=store.aliases,
    table=Aliases,
    place=_place_of_name,
    owners=lambda _: [],
    identify=_identify_by_name,
    mentions=lambda alias: [("routes", alias.route_id)],
    members=lambda names, alias: {
        "route": names.name("routes", alias.route_id),
        "is_open": alias.is_open,
    },
    create=_create_alias,
    update=_update_alias,
    delete=_delete_alias,
)
GRANTS = Kind(
    section="grants",
    objects=store.grants,
    table=Grants,
    place=_place_of_grant,
    owners=_owners_of_grant,
    identify=_identify_grant,
    members=lambda _, __: {},
    create=_create_grant,
    delete=_delete_grant,
)
