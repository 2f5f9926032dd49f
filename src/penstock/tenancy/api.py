"""HTTP endpoints of organizations and projects.

Members and service accounts have theirs in `access.people_api`: their roles decide about keys.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.audit.model import Entry
from penstock.audit.service import record
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID
from penstock.storage.paging import Page
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy import service
from penstock.tenancy.errors import (
    NAME_INVALID,
    NAME_TAKEN,
    POLICY_INVALID,
    STATUS_CONFLICT,
)
from penstock.tenancy.model import Project
from penstock.tenancy.schemas import (
    NewOrganization,
    NewProject,
    OrganizationBody,
    OrganizationChanges,
    OrganizationPage,
    OrganizationsQuery,
    ProjectBody,
    ProjectChanges,
    ProjectPage,
    ProjectsQuery,
    SuspensionBody,
)

_Call = Annotated[Call, Depends(get_call)]

organizations = APIRouter(
    prefix="/api/v1/organizations", tags=["organizations"], route_class=AdminRoute
)
projects = APIRouter(prefix="/api/v1/projects", tags=["projects"], route_class=AdminRoute)


@organizations.post(
    "",
    status_code=201,
    summary="Create an organization",
    response_model=OrganizationBody,
    **operation("organizations:create", NAME_INVALID, NAME_TAKEN, is_change=True),
)
async def create_organization(call: _Call, body: NewOrganization) -> Response:
    """Create an organization."""

    async def work(session: WriteSession) -> OrganizationBody:
        return OrganizationBody.of(
            await service.create_organization(session, call.actor, body.name)
        )

    return await call.change(work, status=201)


@organizations.get(
    "",
    summary="List organizations, oldest first",
    response_model=OrganizationPage,
    **operation("organizations:list", PAGE_CURSOR_INVALID),
)
async def list_organizations(
    call: _Call, query: Annotated[OrganizationsQuery, Query()]
) -> Response:
    """List organizations, oldest first."""
    page = query.to_page()
    async with call.read() as session:
        found = await service.list_organizations(
            session, page, name=query.name, status=query.status
        )
    return call.answer(OrganizationPage.of(found))


@organizations.get(
    "/{organization_id}",
    summary="Show an organization",
    response_model=OrganizationBody,
    **operation("organizations:get", is_of_object=True),
)
async def get_organization(call: _Call, organization_id: str) -> Response:
    """Show an organization."""
    call.check(organization_id=organization_id)
    async with call.read() as session:
        found = await service.get_organization(session, organization_id)
    return call.answer(OrganizationBody.of(found))


@organizations.patch(
    "/{organization_id}",
    summary="Rename an organization, or say where its data may go",
    description="Its id, keys and usage stay.",
    response_model=OrganizationBody,
    **operation(
        "organizations:update",
        NAME_INVALID,
        NAME_TAKEN,
        POLICY_INVALID,
        STATUS_CONFLICT,
        is_change=True,
        is_of_object=True,
    ),
)
async def update_organization(
    call: _Call, organization_id: str, body: OrganizationChanges
) -> Response:
    """Change members of an organization."""

    async def work(session: WriteSession) -> OrganizationBody:
        call.check(organization_id=organization_id)
        updated = await service.update_organization(
            session,
            call.actor,
            organization_id,
            body.to_changes(),
            expected_version=call.expected_version,
        )
        return OrganizationBody.of(updated)

    return await call.change(work)


@organizations.post(
    "/{organization_id}/suspend",
    summary="Have all keys of an organization refused until it is resumed",
    response_model=OrganizationBody,
    **operation("organizations:suspend", STATUS_CONFLICT, is_change=True, is_of_object=True),
)
async def suspend_organization(
    call: _Call, organization_id: str, body: SuspensionBody | None = None
) -> Response:
    """Have all keys of an organization refused until it is resumed."""

    async def work(session: WriteSession) -> OrganizationBody:
        call.check(organization_id=organization_id)
        suspended = await service.suspend_organization(
            session, call.actor, organization_id, expected_version=call.expected_version
        )
        if body is not None and body.reason:
            await _record_reason(session, call, organization_id, body.reason)
        return OrganizationBody.of(suspended)

    return await call.change(work)


@organizations.post(
    "/{organization_id}/resume",
    summary="Let the keys of a suspended organization work again",
    response_model=OrganizationBody,
    **operation("organizations:resume", STATUS_CONFLICT, is_change=True, is_of_object=True),
)
async def resume_organization(call: _Call, organization_id: str) -> Response:
    """Let the keys of a suspended organization work again."""

    async def work(session: WriteSession) -> OrganizationBody:
        call.check(organization_id=organization_id)
        resumed = await service.resume_organization(
            session, call.actor, organization_id, expected_version=call.expected_version
        )
        return OrganizationBody.of(resumed)

    return await call.change(work)


@organizations.delete(
    "/{organization_id}",
    status_code=204,
    response_class=Response,
    summary="Archive an organization for ever",
    description="All its keys are refused and its name is free again; usage still names it.",
    **operation("organizations:archive", is_change=True, is_of_object=True),
)
async def archive_organization(call: _Call, organization_id: str) -> Response:
    """Archive an organization for ever."""

    async def work(session: WriteSession) -> None:
        call.check(organization_id=organization_id)
        await service.archive_organization(
            session, call.actor, organization_id, expected_version=call.expected_version
        )

    return await call.change(work)


@projects.post(
    "",
    status_code=201,
    summary="Create a project in an organization",
    response_model=ProjectBody,
    **operation(
        "projects:create",
        NAME_INVALID,
        NAME_TAKEN,
        STATUS_CONFLICT,
        OBJECT_UNKNOWN,
        is_change=True,
    ),
)
async def create_project(call: _Call, body: NewProject) -> Response:
    """Create a project in an organization."""

    async def work(session: WriteSession) -> ProjectBody:
        call.check(organization_id=body.organization_id)
        return ProjectBody.of(
            await service.create_project(session, call.actor, body.organization_id, body.name)
        )

    return await call.change(work, status=201)


@projects.get(
    "",
    summary="List projects, oldest first",
    response_model=ProjectPage,
    **operation("projects:list", PAGE_CURSOR_INVALID),
)
async def list_projects(call: _Call, query: Annotated[ProjectsQuery, Query()]) -> Response:
    """List projects, oldest first."""
    call.check(organization_id=query.organization_id, project_id=call.project_id)
    page = query.to_page()
    async with call.read() as session:
        if call.project_id is not None:
            found = await _list_own_project(session, call.project_id, query)
        else:
            found = await service.list_projects(
                session,
                page,
                organization_id=query.organization_id,
                name=query.name,
                status=query.status,
            )
    return call.answer(ProjectPage.of(found))


@projects.get(
    "/{project_id}",
    summary="Show a project",
    response_model=ProjectBody,
    **operation("projects:get", is_of_object=True),
)
async def get_project(call: _Call, project_id: str) -> Response:
    """Show a project."""
    async with call.read() as session:
        found = await service.get_project(session, project_id)
    call.check(organization_id=found.organization_id, project_id=found.id)
    return call.answer(ProjectBody.of(found))


@projects.patch(
    "/{project_id}",
    summary="Rename a project, or say where its data may go",
    description="Its id, keys and usage stay.",
    response_model=ProjectBody,
    **operation(
        "projects:update",
        NAME_INVALID,
        NAME_TAKEN,
        POLICY_INVALID,
        STATUS_CONFLICT,
        is_change=True,
        is_of_object=True,
    ),
)
async def update_project(call: _Call, project_id: str, body: ProjectChanges) -> Response:
    """Change members of a project."""

    async def work(session: WriteSession) -> ProjectBody:
        await _check_project(call, session, project_id)
        updated = await service.update_project(
            session,
            call.actor,
            project_id,
            body.to_changes(),
            expected_version=call.expected_version,
        )
        return ProjectBody.of(updated)

    return await call.change(work)


@projects.delete(
    "/{project_id}",
    status_code=204,
    response_class=Response,
    summary="Archive a project for ever",
    description="All its keys are refused and its name is free again; usage still names it.",
    **operation("projects:archive", is_change=True, is_of_object=True),
)
async def archive_project(call: _Call, project_id: str) -> Response:
    """Archive a project for ever."""

    async def work(session: WriteSession) -> None:
        await _check_project(call, session, project_id)
        await service.archive_project(
            session, call.actor, project_id, expected_version=call.expected_version
        )

    return await call.change(work)


async def _check_project(call: Call, session: ReadSession, project_id: str) -> None:
    project = await service.get_project(session, project_id)
    call.check(organization_id=project.organization_id, project_id=project.id)


async def _list_own_project(
    session: ReadSession, project_id: str, query: ProjectsQuery
) -> Page[Project]:
    own = await service.get_project(session, project_id)
    is_meant = query.name in {None, own.name} and query.status in {None, own.status}
    return Page([own] if is_meant else [], None)


async def _record_reason(
    session: WriteSession, call: Call, organization_id: str, reason: str
) -> None:
    await record(
        session,
        Entry(
            actor=call.actor,
            action="organization.explain_suspension",
            resource_kind="organization",
            resource_id=organization_id,
            organization_id=organization_id,
            detail=reason,
        ),
    )
