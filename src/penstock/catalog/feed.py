"""What nodes are told of the catalog. Pure.

Records name other objects by their names, which never change: a change of an object is a change of
its own record only. Objects that are disabled, or damaged, have none: nodes pass them over.
"""

from collections.abc import Mapping

from penstock.catalog.object_rules import find_fault
from penstock.catalog.objects import Alias, Deployment, Route, Upstream
from penstock.catalog.rules import list_endpoints
from penstock.contract import snapshot
from penstock.contract.snapshot import CREDENTIAL_SCHEME
from penstock.contract.snapshot_store import (
    alias_record,
    deployment_record,
    route_record,
    upstream_record,
)

Names = Mapping[str, str]
"""Of the objects that some objects name, by id."""
Record = tuple[bytes, bytes]


def tell_upstream(item: Upstream, _: Names) -> Record | None:
    """Return the record of an upstream."""
    if find_fault(item) is not None or item.is_disabled:
        return None
    return upstream_record(
        snapshot.Upstream(
            name=item.name,
            provider=item.provider,
            endpoints=list_endpoints(item.endpoints),
            credential=_reference(item.credential_id) or item.credential_reference,
            forward_headers=tuple(item.forward_headers),
            timeouts=snapshot.Timeouts(**item.timeouts),
            max_connections=item.max_connections,
            tls_ca_file=item.tls_ca_file,
            region=item.region,
            data_class=item.data_class,
            takes_priority=item.takes_priority,
            kv_events=item.kv_events,
            discover=item.discover,
        )
    )


def tell_deployment(item: Deployment, names: Names) -> Record | None:
    """Return the record of a deployment; `names` are of upstreams."""
    if find_fault(item) is not None or item.is_disabled or item.upstream_id not in names:
        return None
    return deployment_record(
        snapshot.Deployment(
            name=item.name,
            upstream=names[item.upstream_id],
            model=item.model,
            continuous_usage=item.continuous_usage,
            max_output_tokens=item.max_output_tokens,
            credential=_reference(item.credential_id),
            adapter_of=item.adapter_of,
            adapter_path=item.adapter_path,
            tokenizer=item.tokenizer,
        )
    )


def tell_route(item: Route, names: Names) -> Record | None:
    """Return the record of a route; `names` are of deployments and routes."""
    if find_fault(item) is not None:
        return None
    choices = tuple(
        snapshot.Choice(names[choice.deployment_id], choice.weight)
        for choice in item.choices
        if choice.deployment_id in names
    )
    return route_record(snapshot.Route(item.name, choices, names.get(item.fallback_id or "")))


def tell_alias(item: Alias, names: Names) -> Record | None:
    """Return the record of an alias; `names` are of routes."""
    if find_fault(item) is not None or item.route_id not in names:
        return None
    return alias_record(snapshot.Alias(item.name, names[item.route_id], item.is_open))


def format_grant(alias: str, organization_id: str, project_id: str | None) -> str:
    """Return the name of a grant in the change feed: it is told by whom it lets use what."""
    return "\n".join((alias, organization_id, project_id or ""))


def parse_grant(name: str) -> tuple[str, str, str | None]:
    """Return alias, organization and project of a name that `format_grant` made."""
    alias, organization_id, project_id = name.split("\n")
    return alias, organization_id, project_id or None


def _reference(credential_id: str | None) -> str | None:
    return None if credential_id is None else f"{CREDENTIAL_SCHEME}{credential_id}"
