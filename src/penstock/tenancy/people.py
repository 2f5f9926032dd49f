"""Use cases of members and service accounts. None commits; each records an audit entry."""

import dataclasses
from collections.abc import Mapping

from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.storage.errors import OBJECT_UNKNOWN, RowConflictError
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy import store
from penstock.tenancy.errors import MEMBER_EXISTS, NAME_TAKEN
from penstock.tenancy.model import AccountChanges, Member, PersonChanges, ServiceAccount
from penstock.tenancy.rules import (
    check_labels,
    check_role,
    normalize_email,
    normalize_name,
    normalize_subject,
    require_active,
)


async def add_member(
    session: WriteSession,
    actor: Actor,
    organization_id: str,
    *,
    subject: str,
    role: str,
    email: str | None = None,
    project_id: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> Member:
    """Make a person a member of an organization, or of one project of it.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` for organization or project, `STATUS_CONFLICT` when one is
            not active, `SUBJECT_INVALID`, `EMAIL_INVALID`, `ROLE_INVALID`, `LABELS_INVALID`,
            `MEMBER_EXISTS`.
    """
    await _require_place(session, organization_id, project_id)
    member = Member(
        id=create_id("mem"),
        organization_id=organization_id,
        project_id=project_id,
        subject=normalize_subject(subject),
        email=normalize_email(email),
        role=check_role(role, project_id),
        labels=check_labels(labels or {}),
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )
    try:
        await store.members.insert(session, session.scope, member)
    except RowConflictError:
        raise PenstockError(MEMBER_EXISTS) from None
    await _tell(session, actor, "member.add", None, member)
    return member


async def get_member(session: ReadSession, member_id: str) -> Member:
    """Return a member.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.members.get(session, session.scope, member_id)


async def list_members(
    session: ReadSession,
    page: PageRequest,
    *,
    organization_id: str | None = None,
    project_id: str | None = None,
    subject: str | None = None,
) -> Page[Member]:
    """Return members that the session may see, oldest first."""
    return await store.members.list(
        session,
        session.scope,
        page,
        organization_id=organization_id,
        project_id=project_id,
        subject=subject,
    )


async def update_member(
    session: WriteSession,
    actor: Actor,
    member_id: str,
    changes: PersonChanges,
    *,
    expected_version: int | None = None,
) -> Member:
    """Give a member another role, or other labels.

    `access.service.update_member` also tells data planes; use that one where keys exist.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `ROLE_INVALID`, `LABELS_INVALID`.
    """
    before = await store.members.lock(session, session.scope, member_id, expected_version)
    values = _differences(before, changes)
    if not values:
        return before
    after = await store.members.update(
        session, session.scope, before, updated_at_us=actor.at_us, **values
    )
    await _tell(session, actor, "member.update", before, after)
    return after


async def remove_member(
    session: WriteSession, actor: Actor, member_id: str, *, expected_version: int | None = None
) -> None:
    """End a membership and forget the person.

    `access.service.remove_member` also revokes their keys; use that one where keys exist.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`.
    """
    before = await store.members.lock(session, session.scope, member_id, expected_version)
    await store.delete_member(session, session.scope, member_id)
    await _tell(session, actor, "member.remove", before, None)


async def create_service_account(
    session: WriteSession,
    actor: Actor,
    organization_id: str,
    *,
    name: str,
    role: str,
    project_id: str | None = None,
    is_disabled: bool = False,
    labels: Mapping[str, str] | None = None,
) -> ServiceAccount:
    """Create a service account in an organization, or in one project of it.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` for organization or project, `STATUS_CONFLICT` when one is
            not active, `NAME_INVALID`, `ROLE_INVALID`, `LABELS_INVALID`, `NAME_TAKEN`.
    """
    await _require_place(session, organization_id, project_id)
    account = ServiceAccount(
        id=create_id("sa"),
        organization_id=organization_id,
        project_id=project_id,
        name=normalize_name(name),
        role=check_role(role, project_id),
        is_disabled=is_disabled,
        is_disabled_by_operator=is_disabled and actor.is_operator,
        labels=check_labels(labels or {}),
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )
    try:
        await store.service_accounts.insert(session, session.scope, account)
    except RowConflictError:
        raise PenstockError(NAME_TAKEN) from None
    await _tell(session, actor, "service_account.create", None, account)
    return account


async def get_service_account(session: ReadSession, account_id: str) -> ServiceAccount:
    """Return a service account.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.service_accounts.get(session, session.scope, account_id)


async def list_service_accounts(
    session: ReadSession,
    page: PageRequest,
    *,
    organization_id: str | None = None,
    project_id: str | None = None,
    name: str | None = None,
) -> Page[ServiceAccount]:
    """Return service accounts that the session may see, oldest first."""
    return await store.service_accounts.list(
        session,
        session.scope,
        page,
        organization_id=organization_id,
        project_id=project_id,
        name=name,
    )


async def update_service_account(
    session: WriteSession,
    actor: Actor,
    account_id: str,
    changes: AccountChanges,
    *,
    expected_version: int | None = None,
) -> ServiceAccount:
    """Change the members of a service account that are given; its keys follow at once.

    `access.service.update_service_account` also tells data planes, and asks who may enable it; use
    that one where keys exist.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `ROLE_INVALID`, `LABELS_INVALID`.
    """
    before = await store.service_accounts.lock(session, session.scope, account_id, expected_version)
    values = _differences(before, changes) | _switches(before, changes, actor)
    if not values:
        return before
    after = await store.service_accounts.update(
        session, session.scope, before, updated_at_us=actor.at_us, **values
    )
    await _tell(session, actor, "service_account.update", before, after)
    return after


def _differences(
    before: Member | ServiceAccount, changes: PersonChanges | AccountChanges
) -> AccountChanges:
    """Return what is not as it is to be, checked."""
    values: AccountChanges = {}
    role, labels = changes.get("role", before.role), changes.get("labels", before.labels)
    if role != before.role:
        values["role"] = check_role(role, before.project_id)
    if labels != before.labels:
        values["labels"] = check_labels(labels)
    return values


def _switches(before: ServiceAccount, changes: AccountChanges, actor: Actor) -> AccountChanges:
    """Return what is not as it is to be of whether it works, and who may let it work again."""
    values: AccountChanges = {}
    is_disabled = changes.get("is_disabled")
    if is_disabled is None:
        return values
    is_by_operator = is_disabled and (before.is_disabled_by_operator or actor.is_operator)
    if is_disabled != before.is_disabled:
        values["is_disabled"] = is_disabled
    if is_by_operator != before.is_disabled_by_operator:
        values["is_disabled_by_operator"] = is_by_operator
    return values


async def _require_place(
    session: WriteSession, organization_id: str, project_id: str | None
) -> None:
    organization = await store.organizations.lock(session, session.scope, organization_id)
    require_active(organization.status, "organization")
    if project_id is None:
        return
    project = await store.projects.lock(session, session.scope, project_id)
    if project.organization_id != organization_id:
        raise PenstockError(OBJECT_UNKNOWN)
    require_active(project.status, "project")


async def _tell(
    session: WriteSession,
    actor: Actor,
    action: str,
    before: Member | ServiceAccount | None,
    after: Member | ServiceAccount | None,
) -> None:
    item = after or before
    if item is None:
        return
    await record(
        session,
        Entry(
            actor=actor,
            action=action,
            resource_kind="member" if isinstance(item, Member) else "service_account",
            resource_id=item.id,
            organization_id=item.organization_id,
            before=None if before is None else dataclasses.asdict(before),
            after=None if after is None else dataclasses.asdict(after),
        ),
    )
