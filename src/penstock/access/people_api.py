"""HTTP endpoints of members and service accounts: people and machines that keys belong to."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from penstock.access import service
from penstock.access.errors import GRANT_EXCEEDED, OPERATION_DENIED
from penstock.access.labelling import PrincipalCall, require_labeller
from penstock.audit.door import AdminRoute, Call, get_call, operation
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy import people
from penstock.tenancy.errors import (
    EMAIL_INVALID,
    LABELS_INVALID,
    MEMBER_EXISTS,
    NAME_INVALID,
    NAME_TAKEN,
    ROLE_INVALID,
    STATUS_CONFLICT,
    SUBJECT_INVALID,
)
from penstock.tenancy.model import Member, ServiceAccount
from penstock.tenancy.schemas import (
    MemberBody,
    MemberChanges,
    MemberPage,
    MembersQuery,
    NewMember,
    NewServiceAccount,
    ServiceAccountBody,
    ServiceAccountChanges,
    ServiceAccountPage,
    ServiceAccountsQuery,
)

_Call = Annotated[PrincipalCall, Depends(get_call)]

members = APIRouter(prefix="/api/v1/members", tags=["members"], route_class=AdminRoute)
service_accounts = APIRouter(
    prefix="/api/v1/service-accounts", tags=["service accounts"], route_class=AdminRoute
)


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
        LABELS_INVALID,
        MEMBER_EXISTS,
        STATUS_CONFLICT,
        OPERATION_DENIED,
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
            labels=body.labels,
        )
        require_labeller(call, {}, member.labels)
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
    project_id = call.narrow(query.organization_id, query.project_id)
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
    summary="Give a member another role, or other labels",
    description="Their keys follow at once: they can do no more than the member may, and carry the "
    "member's labels besides their own.",
    response_model=MemberBody,
    **operation(
        "members:update",
        ROLE_INVALID,
        LABELS_INVALID,
        OPERATION_DENIED,
        is_change=True,
        is_of_object=True,
    ),
)
async def update_member(call: _Call, member_id: str, body: MemberChanges) -> Response:
    """Give a member another role, or other labels."""

    async def work(session: WriteSession) -> MemberBody:
        member = await _get_member(call, session, member_id)
        changes = body.to_changes()
        call.check_grant(member.role, changes.get("role", member.role))
        require_labeller(call, member.labels, changes.get("labels", member.labels), member.id)
        updated = await service.update_member(
            session,
            call.actor,
            member_id,
            changes,
            expected_version=call.expected_version,
        )
        return MemberBody.of(updated)

    return await call.change(work)


@members.delete(
    "/{member_id}",
    status_code=204,
    response_class=Response,
    summary="End a membership, forget the person, and revoke their keys",
    **operation("members:remove", is_change=True, is_of_object=True),
)
async def remove_member(call: _Call, member_id: str) -> Response:
    """End a membership, forget the person, and revoke their keys."""

    async def work(session: WriteSession) -> None:
        member = await _get_member(call, session, member_id)
        call.check_grant(member.role)
        await service.remove_member(
            session, call.actor, member_id, expected_version=call.expected_version
        )

    return await call.change(work)


@service_accounts.post(
    "",
    status_code=201,
    summary="Create a service account in an organization, or in one project of it",
    response_model=ServiceAccountBody,
    **operation(
        "service_accounts:create",
        NAME_INVALID,
        NAME_TAKEN,
        ROLE_INVALID,
        LABELS_INVALID,
        STATUS_CONFLICT,
        GRANT_EXCEEDED,
        OPERATION_DENIED,
        OBJECT_UNKNOWN,
        is_change=True,
    ),
)
async def create_service_account(call: _Call, body: NewServiceAccount) -> Response:
    """Create a service account in an organization, or in one project of it."""

    async def work(session: WriteSession) -> ServiceAccountBody:
        call.check(organization_id=body.organization_id, project_id=body.project_id)
        call.check_grant(body.role)
        account = await people.create_service_account(
            session,
            call.actor,
            body.organization_id,
            name=body.name,
            role=body.role,
            project_id=body.project_id,
            labels=body.labels,
        )
        require_labeller(call, {}, account.labels)
        return ServiceAccountBody.of(account)

    return await call.change(work, status=201)


@service_accounts.get(
    "",
    summary="List service accounts, oldest first",
    response_model=ServiceAccountPage,
    **operation("service_accounts:list", PAGE_CURSOR_INVALID),
)
async def list_service_accounts(
    call: _Call, query: Annotated[ServiceAccountsQuery, Query()]
) -> Response:
    """List service accounts, oldest first."""
    project_id = call.narrow(query.organization_id, query.project_id)
    page = query.to_page()
    async with call.read() as session:
        found = await people.list_service_accounts(
            session,
            page,
            organization_id=query.organization_id,
            project_id=project_id,
            name=query.name,
        )
    return call.answer(ServiceAccountPage.of(found))


@service_accounts.get(
    "/{account_id}",
    summary="Show a service account",
    response_model=ServiceAccountBody,
    **operation("service_accounts:get", is_of_object=True),
)
async def get_service_account(call: _Call, account_id: str) -> Response:
    """Show a service account."""
    async with call.read() as session:
        found = await _get_account(call, session, account_id)
    return call.answer(ServiceAccountBody.of(found))


@service_accounts.patch(
    "/{account_id}",
    summary="Change role, labels or state of a service account",
    description="Its keys follow at once: they can do no more than it can, and carry its labels "
    "besides their own. One that the platform's operator disabled, the operator alone enables.",
    response_model=ServiceAccountBody,
    **operation(
        "service_accounts:update",
        ROLE_INVALID,
        LABELS_INVALID,
        GRANT_EXCEEDED,
        OPERATION_DENIED,
        is_change=True,
        is_of_object=True,
    ),
)
async def update_service_account(
    call: _Call, account_id: str, body: ServiceAccountChanges
) -> Response:
    """Change role, labels or state of a service account."""

    async def work(session: WriteSession) -> ServiceAccountBody:
        account = await _get_account(call, session, account_id)
        changes = body.to_changes()
        call.check_grant(account.role, changes.get("role", account.role))
        require_labeller(call, account.labels, changes.get("labels", account.labels), account.id)
        updated = await service.update_service_account(
            session,
            call.actor,
            account_id,
            changes,
            expected_version=call.expected_version,
        )
        return ServiceAccountBody.of(updated)

    return await call.change(work)


@service_accounts.delete(
    "/{account_id}",
    status_code=204,
    response_class=Response,
    summary="Disable a service account and all its keys",
    description="The account stays visible, because usage and the audit log name it.",
    **operation("service_accounts:update", GRANT_EXCEEDED, is_change=True, is_of_object=True),
)
async def disable_service_account(call: _Call, account_id: str) -> Response:
    """Disable a service account and all its keys."""

    async def work(session: WriteSession) -> None:
        account = await _get_account(call, session, account_id)
        call.check_grant(account.role)
        await service.update_service_account(
            session,
            call.actor,
            account_id,
            {"is_disabled": True},
            expected_version=call.expected_version,
        )

    return await call.change(work)


async def _get_member(call: Call, session: ReadSession, member_id: str) -> Member:
    member = await people.get_member(session, member_id)
    call.check(organization_id=member.organization_id, project_id=member.project_id)
    return member


async def _get_account(call: Call, session: ReadSession, account_id: str) -> ServiceAccount:
    account = await people.get_service_account(session, account_id)
    call.check(organization_id=account.organization_id, project_id=account.project_id)
    return account
