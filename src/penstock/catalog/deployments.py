"""Use cases of deployments. See `collection` for what all kinds of objects have in common."""

from penstock.audit.model import Actor
from penstock.catalog import store
from penstock.catalog.collection import Collection
from penstock.catalog.errors import CATALOG_INVALID
from penstock.catalog.objects import Deployment, DeploymentChanges, NewDeployment
from penstock.catalog.upstreams import check_credential
from penstock.engines.operating import loads_adapters
from penstock.engines.registry import engine_of
from penstock.kit.errors import PenstockError
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession


async def create_deployment(session: WriteSession, actor: Actor, new: NewDeployment) -> Deployment:
    """Create a deployment.

    Raises:
        PenstockError: `CATALOG_INVALID`, `NAME_TAKEN`, `OBJECT_UNKNOWN` for its upstream or
            credential.
    """
    return await _deployments.create(session, actor, new)


async def get_deployment(session: ReadSession, deployment_id: str) -> Deployment:
    """Return a deployment.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.deployments.get(session, session.scope, deployment_id)


async def find_deployment_by_name(session: ReadSession, name: str) -> Deployment | None:
    """Return the deployment of that name; None when there is none."""
    return await _deployments.find_by_name(session, name)


async def list_deployments(
    session: ReadSession,
    page: PageRequest,
    *,
    name: str | None = None,
    upstream_id: str | None = None,
    model: str | None = None,
) -> Page[Deployment]:
    """Return deployments, oldest first."""
    return await store.deployments.list(
        session, session.scope, page, name=name, upstream_id=upstream_id, model=model
    )


async def update_deployment(
    session: WriteSession,
    actor: Actor,
    deployment_id: str,
    changes: DeploymentChanges,
    *,
    expected_version: int | None = None,
) -> Deployment:
    """Change the members of a deployment that are given.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` for it, its upstream or its credential,
            `VERSION_CONFLICT`, `CATALOG_INVALID`.
    """
    return await _deployments.update(session, actor, deployment_id, changes, expected_version)


async def delete_deployment(
    session: WriteSession, actor: Actor, deployment_id: str, *, expected_version: int | None = None
) -> None:
    """Remove a deployment for good.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `CATALOG_IN_USE`.
    """
    await _deployments.delete(session, actor, deployment_id, expected_version)


async def _check_references(session: ReadSession, deployment: Deployment) -> None:
    upstream = await store.upstreams.find(session, session.scope, deployment.upstream_id)
    if upstream is None:
        raise PenstockError(OBJECT_UNKNOWN, "`upstream_id` names no upstream.")
    await check_credential(session, deployment.credential_id, upstream.provider)
    if deployment.adapter_path and not loads_adapters(engine_of(upstream.provider)):
        fault = f"`adapter_path`: servers of {upstream.provider} are not told to load adapters."
        raise PenstockError(CATALOG_INVALID, fault)


_deployments = Collection("deployment", Deployment, "dep", store.deployments, _check_references)
