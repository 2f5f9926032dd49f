"""Organizations, projects, members and service accounts."""

from typing import Any

from penstock.access import service as access
from penstock.catalog.apply.kind import Hands, Kind, Names
from penstock.catalog.apply.model import Change, Members, Wanted
from penstock.catalog.references import Identity
from penstock.tenancy import people, service, store
from penstock.tenancy.model import (
    AccountChanges,
    Member,
    Organization,
    Project,
    ServiceAccount,
    Status,
)
from penstock.tenancy.tables import Members as MemberRows
from penstock.tenancy.tables import Organizations, Projects, ServiceAccounts

_POLICY = ("allowed_data_classes", "allowed_regions")


def _policy(_: Names, owner: Organization | Project) -> Members:
    return {name: getattr(owner, name) for name in _POLICY}


def _after(change: Change) -> Any:
    """Return the members that differ, as they are to be."""
    return {name: after for name, (_, after) in change.differences.items()}


async def _create_organization(hands: Hands, _: Names, identity: Identity, wanted: Wanted) -> str:
    created = await service.create_organization(
        hands.session, hands.actor, str(identity[0]), **wanted.members
    )
    return created.id


async def _update_organization(hands: Hands, _: Names, object_id: str, change: Change) -> None:
    await service.update_organization(hands.session, hands.actor, object_id, _after(change))


async def _archive_organization(hands: Hands, object_id: str) -> None:
    await service.archive_organization(hands.session, hands.actor, object_id)


async def _create_project(hands: Hands, names: Names, identity: Identity, wanted: Wanted) -> str:
    owner, name = identity
    created = await service.create_project(
        hands.session, hands.actor, names.id("organizations", owner), str(name), **wanted.members
    )
    return created.id


async def _update_project(hands: Hands, _: Names, object_id: str, change: Change) -> None:
    await service.update_project(hands.session, hands.actor, object_id, _after(change))


async def _archive_project(hands: Hands, object_id: str) -> None:
    await service.archive_project(hands.session, hands.actor, object_id)


def _place_of_project(names: Names, identity: Identity) -> dict[str, str] | None:
    owner, name = identity
    owner_id = names.find_id("organizations", owner)
    return None if owner_id is None else {"organization_id": owner_id, "name": str(name)}


def _owners_of(item: Member | ServiceAccount) -> list[tuple[str, str]]:
    owners = [("organizations", item.organization_id)]
    return owners if item.project_id is None else [*owners, ("projects", item.project_id)]


def _place_of_member(names: Names, identity: Identity) -> dict[str, str] | None:
    owner, project, subject = identity
    owner_id = names.find_id("organizations", owner)
    is_there = project is None or names.find_id("projects", owner, project) is not None
    if owner_id is None or not is_there:
        return None
    return {"organization_id": owner_id, "subject": str(subject)}


def _identify_member(names: Names, member: Member) -> Identity:
    (owner,) = names.identity("organizations", member.organization_id)
    return owner, names.name("projects", member.project_id), member.subject


def _members_of_member(_: Names, member: Member) -> Members:
    return {name: getattr(member, name) for name in ("role", "email", "labels")}


async def _add_member(hands: Hands, names: Names, identity: Identity, wanted: Wanted) -> str:
    owner, project, subject = identity
    added = await people.add_member(
        hands.session,
        hands.actor,
        names.id("organizations", owner),
        subject=str(subject),
        role=wanted.members["role"],
        email=wanted.members["email"],
        labels=wanted.members["labels"],
        project_id=None if project is None else names.id("projects", owner, project),
    )
    return added.id


async def _update_member(hands: Hands, _: Names, object_id: str, change: Change) -> None:
    await access.update_member(hands.session, hands.actor, object_id, _after(change))


async def _remove_member(hands: Hands, object_id: str) -> None:
    await access.remove_member(hands.session, hands.actor, object_id)


def _identify_account(names: Names, account: ServiceAccount) -> Identity:
    (owner,) = names.identity("organizations", account.organization_id)
    return owner, account.name


def _members_of_account(names: Names, account: ServiceAccount) -> Members:
    return {
        "project": names.name("projects", account.project_id),
        "role": account.role,
        "is_disabled": account.is_disabled,
        "labels": account.labels,
    }


async def _create_account(hands: Hands, names: Names, identity: Identity, wanted: Wanted) -> str:
    owner, name = identity
    project = wanted.members["project"]
    created = await people.create_service_account(
        hands.session,
        hands.actor,
        names.id("organizations", owner),
        name=str(name),
        role=wanted.members["role"],
        project_id=None if project is None else names.id("projects", owner, project),
        is_disabled=wanted.members["is_disabled"],
        labels=wanted.members["labels"],
    )
    return created.id


async def _update_account(hands: Hands, _: Names, object_id: str, change: Change) -> None:
    await access.update_service_account(hands.session, hands.actor, object_id, _after(change))


async def _disable_account(hands: Hands, object_id: str) -> None:
    # Its keys stay on record and name it, so it is not removed.
    changes: AccountChanges = {"is_disabled": True}
    await access.update_service_account(hands.session, hands.actor, object_id, changes)


ORGANIZATIONS = Kind(
    section="organizations",
    objects=store.organizations,
    table=Organizations,
    in_use=(Organizations.status != Status.ARCHIVED,),
    place=lambda _, identity: {"name": str(identity[0])},
    owners=lambda _: [],
    identify=lambda _, organization: (organization.name,),
    members=_policy,
    create=_create_organization,
    update=_update_organization,
    delete=_archive_organization,
)
PROJECTS = Kind(
    section="projects",
    objects=store.projects,
    table=Projects,
    in_use=(Projects.status != Status.ARCHIVED,),
    place=_place_of_project,
    owners=lambda project: [("organizations", project.organization_id)],
    identify=lambda names, project: (
        *names.identity("organizations", project.organization_id),
        project.name,
    ),
    members=_policy,
    create=_create_project,
    update=_update_project,
    delete=_archive_project,
)
MEMBERS = Kind(
    section="members",
    objects=store.members,
    table=MemberRows,
    place=_place_of_member,
    owners=_owners_of,
    identify=_identify_member,
    members=_members_of_member,
    create=_add_member,
    update=_update_member,
    delete=_remove_member,
    immutable=frozenset({"email"}),
)
SERVICE_ACCOUNTS = Kind(
    section="service_accounts",
    objects=store.service_accounts,
    table=ServiceAccounts,
    place=_place_of_project,
    owners=_owners_of,
    identify=_identify_account,
    members=_members_of_account,
    create=_create_account,
    update=_update_account,
    delete=_disable_account,
    immutable=frozenset({"project"}),
)
