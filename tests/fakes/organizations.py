"""Organizations, projects and principals to test with, made by the services themselves."""

from collections.abc import Awaitable

import pytest

from penstock.access import service as access
from penstock.access.model import CreatedKey, KeyRefusal, NewKey, Principal, VerifiedKey
from penstock.access.peppers import Peppers
from penstock.access.verification import verify_key
from penstock.audit.model import Actor
from penstock.kit.errors import ErrorCode, PenstockError
from penstock.storage.database import Database
from penstock.storage.scope import Scope
from penstock.tenancy import service as tenancy
from penstock.tenancy.model import Organization, Project

ALL = Scope.all_organizations()
NOW_US = 1_790_000_000_000_000
SECOND_US = 1_000_000
OPERATOR = Principal.of_admin_token()
PEPPERS = Peppers({1: b"pepper-of-these-tests-number-one"})


def actor(at_us: int = NOW_US, principal: Principal = OPERATOR) -> Actor:
    """Return who acts, at a time."""
    return principal.actor(at_us, address="192.0.2.7", request_id="request-1")


async def create_organization(database: Database, name: str = "acme") -> Organization:
    """Return a new organization."""
    async with database.write(ALL) as session:
        return await tenancy.create_organization(session, actor(), name)


async def create_project(
    database: Database, organization: Organization, name: str = "playground"
) -> Project:
    """Return a new project."""
    async with database.write(ALL) as session:
        return await tenancy.create_project(session, actor(), organization.id, name)


async def create_place(database: Database, name: str = "acme") -> tuple[Organization, Project]:
    """Return a new organization and a project of it."""
    organization = await create_organization(database, name)
    return organization, await create_project(database, organization)


async def create_key(
    database: Database,
    project: Project,
    new: NewKey | None = None,
    *,
    at_us: int = NOW_US,
    peppers: Peppers = PEPPERS,
) -> CreatedKey:
    """Return a new key."""
    async with database.write(ALL) as session:
        return await access.create_key(
            session,
            actor(at_us),
            OPERATOR,
            peppers,
            project_id=project.id,
            new=new or NewKey(name="key"),
        )


async def refused(work: Awaitable[object]) -> ErrorCode:
    """Return for which reason something is refused, as it has to be."""
    with pytest.raises(PenstockError) as caught:
        await work
    return caught.value.error


async def verify(
    database: Database,
    key: str,
    *,
    at_us: int = NOW_US,
    address: str | None = None,
    peppers: Peppers = PEPPERS,
) -> VerifiedKey | KeyRefusal:
    """Show a key to the control plane."""
    async with database.read(ALL) as session:
        return await verify_key(session, peppers, key, now_us=at_us, address=address)
