"""HTTP endpoints of organizations, projects and members.

Service accounts have theirs in `access.api`: what they may do decides about keys.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.audit.model import Entry
from penstock.audit.service import record
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID
from penstock.storage.paging import Page
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy import people, service
from penstock.tenancy.errors import (
    EMAIL_INVALID,
    MEMBER_EXISTS,
    NAME_INVALID,
    NAME_TAKEN,
    ROLE_INVALID,
    STATUS_CONFLICT,
    SUBJECT_INVALID,
)
from penstock.tenancy.model import Member, Project
from penstock.tenancy.schemas import (
    MemberBody,
    MemberChanges,
    MemberPage,
    MembersQuery,
    NewMember,
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
members = APIRouter(prefix="/api/v1/members", tags=["members"], route_class=AdminRoute)


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
    summary="Rename an organization",
    description="Its id, keys and usage stay.",
    response_model=OrganizationBody,
    **operation(
        "organizations:update",
        NAME_INVALID,
        NAME_TAKEN,
        STATUS_CONFLICT,
        is_change=True,
        is_of_object=True,
    ),
)
async def update_organization(
    call: _Call, organization_id: str, body: OrganizationChanges
) -> Response:
    """Rename an organization."""

    async def work(session: WriteSession) -> OrganizationBody:
        call.check(organization_id=organization_id)
        renamed = await service.rename_organization(
            session,
            call.actor,
            organization_id,
            body.name,
            expected_version=call.expected_version,
        )
        return OrganizationBody.of(renamed)

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
    summary="Rename a project",
    description="Its id, keys and usage stay.",
    response_model=ProjectBody,
    **operation(
        "projects:update",
        NAME_INVALID,
        NAME_TAKEN,
        STATUS_CONFLICT,
        is_change=True,
        is_of_object=True,
    ),
)
async def update_project(call: _Call, project_id: str, body: ProjectChanges) -> Response:
    """Rename a project."""

    async def work(session: WriteSession) -> ProjectBody:
        await _check_project(call, session, project_id)
        renamed = await service.rename_project(
            session, call.actor, project_id, body.name, expected_version=call.expected_version
        )
        return ProjectBody.of(renamed)

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


@members.post(
    "",
    status_code=201,
    summary="Make a person a member of an organization, or of one project of it",
    response_model=MemberBody,
    **operation(
        "members:add",
        SUBJECT_INVALID,
        EMAIL_INVALID,
        ROLE_INVALID,
        MEMBER_EXISTS,
        STATUS_CONFLICT,
        OBJECT_UNKNOWN,
        is_change=True,
    ),
)
async def add_member(call: _Call, body: NewMember) -> Response:
    """Make a person a member of an organization, or of one project of it."""

    async def work(session: WriteSession) -> MemberBody:
        call.check(organization_id=body.organization_id, project_id=body.project_id)
        call.check_grant(body.role)
        member = await people.add_member(
            session,
            call.actor,
            body.organization_id,
            subject=body.subject,
            role=body.role,
            email=body.email,
            project_id=body.project_id,
        )
        return MemberBody.of(member)

    return await call.change(work, status=201)


@members.get(
    "",
    summary="List members, oldest first",
    response_model=MemberPage,
    **operation("members:list", PAGE_CURSOR_INVALID),
)
async def list_members(call: _Call, query: Annotated[MembersQuery, Query()]) -> Response:
    """List members, oldest first."""
    project_id = query.project_id or call.project_id
    call.check(organization_id=query.organization_id, project_id=project_id)
    page = query.to_page()
    async with call.read() as session:
        found = await people.list_members(
            session,
            page,
            organization_id=query.organization_id,
            project_id=project_id,
            subject=query.subject,
        )
    return call.answer(MemberPage.of(found))


@members.get(
    "/{member_id}",
    summary="Show a member",
    response_model=MemberBody,
    **operation("members:get", is_of_object=True),
)
async def get_member(call: _Call, member_id: str) -> Response:
    """Show a member."""
    async with call.read() as session:
        found = await _get_member(call, session, member_id)
    return call.answer(MemberBody.of(found))


@members.patch(
    "/{member_id}",
    summary="Give a member another role",
    response_model=MemberBody,
    **operation("members:update", ROLE_INVALID, is_change=True, is_of_object=True),
)
async def update_member(call: _Call, member_id: str, body: MemberChanges) -> Response:
    """Give a member another role."""

    async def work(session: WriteSession) -> MemberBody:
        member = await _get_member(call, session, member_id)
        call.check_grant(member.role, body.role)
        updated = await people.update_member(
            session,
            call.actor,
            member_id,
            role=body.role,
            expected_version=call.expected_version,
        )
        return MemberBody.of(updated)

    return await call.change(work)


@members.delete(
    "/{member_id}",
    status_code=204,
    response_class=Response,
    summary="End a membership and forget the person",
    **operation("members:remove", is_change=True, is_of_object=True),
)
async def remove_member(call: _Call, member_id: str) -> Response:
    """End a membership and forget the person."""

    async def work(session: WriteSession) -> None:
        member = await _get_member(call, session, member_id)
        call.check_grant(member.role)
        await people.remove_member(
            session, call.actor, member_id, expected_version=call.expected_version
        )

    return await call.change(work)


async def _check_project(call: Call, session: ReadSession, project_id: str) -> None:
    project = await service.get_project(session, project_id)
    call.check(organization_id=project.organization_id, project_id=project.id)


async def _get_member(call: Call, session: ReadSession, member_id: str) -> Member:
    member = await people.get_member(session, member_id)
    call.check(organization_id=member.organization_id, project_id=member.project_id)
    return member


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
