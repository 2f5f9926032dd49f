"""Organizations, projects, members and service accounts, on both kinds of database."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import update
from tests.fakes.organizations import (
    ALL,
    NOW_US,
    actor,
    create_organization,
    create_place,
    create_project,
)

from penstock.audit import service as audit
from penstock.audit.model import Actor
from penstock.kit.errors import ErrorCode, PenstockError
from penstock.storage.changes import list_changes
from penstock.storage.database import Database
from penstock.storage.errors import OBJECT_UNKNOWN, PAGE_CURSOR_INVALID, VERSION_CONFLICT
from penstock.storage.paging import PageRequest
from penstock.storage.scope import Scope
from penstock.storage.sessions import WriteSession
from penstock.tenancy import errors, people, service
from penstock.tenancy.model import Organization, OwnerChanges
from penstock.tenancy.tables import Organizations

Step = Callable[[WriteSession, Actor], Awaitable[Organization]]


async def _refused(work: Awaitable[object]) -> ErrorCode:
    with pytest.raises(PenstockError) as caught:
        await work
    return caught.value.error


async def test_an_organization_lives(database: Database) -> None:
    """It is created, renamed, suspended, resumed and archived, one version after the other."""
    created = await create_organization(database)
    assert created.id.startswith("org_")
    assert (created.status, created.version, created.created_at_us) == ("active", 1, NOW_US)
    steps: list[Step] = [
        lambda session, actor: service.update_organization(
            session, actor, created.id, {"name": "Acme 2"}
        ),
        lambda session, actor: service.suspend_organization(session, actor, created.id),
        lambda session, actor: service.resume_organization(session, actor, created.id),
        lambda session, actor: service.archive_organization(session, actor, created.id),
    ]
    versions = []
    for number, step in enumerate(steps):
        async with database.write(ALL) as session:
            after = await step(session, actor(NOW_US + number + 1))
        versions.append((after.version, after.name, after.status, after.updated_at_us - NOW_US))
    assert versions == [
        (2, "Acme 2", "active", 1),
        (3, "Acme 2", "suspended", 2),
        (4, "Acme 2", "active", 3),
        (5, "Acme 2", "archived", 4),
    ]
    async with database.read(ALL) as reader:
        assert await service.get_organization(reader, created.id) == after


async def test_what_changes_nothing_leaves_no_trace(database: Database) -> None:
    """To ask for the state that there is gives it back, without version, entry or change."""
    created = await create_organization(database)
    async with database.write(ALL) as session:
        assert await service.resume_organization(session, actor(), created.id) == created
        changes: OwnerChanges = {"name": "acme", "allowed_regions": None}
        assert await service.update_organization(session, actor(), created.id, changes) == created
    async with database.read(ALL) as session:
        assert len(await audit.list_entries(session, created.id)) == 1
        assert len(await list_changes(session, 0, 10)) == 1


async def test_names_are_unique_among_siblings(database: Database) -> None:
    """A name is taken once, in its exact spelling, in each place, until its holder is archived."""
    acme, _ = await create_place(database)
    other = await create_organization(database, "Acme")
    await create_project(database, other)
    assert await _refused(create_organization(database, "acme")) is errors.NAME_TAKEN
    assert await _refused(create_project(database, acme)) is errors.NAME_TAKEN
    async with database.write(ALL) as session:
        await service.archive_organization(session, actor(), acme.id)
    again = await create_organization(database, "acme")
    assert again.id != acme.id

    async def rename() -> None:
        async with database.write(ALL) as session:
            await service.update_organization(session, actor(), other.id, {"name": "acme"})

    assert await _refused(rename()) is errors.NAME_TAKEN


async def test_one_of_many_gets_the_name(database: Database) -> None:
    """Of many that ask for one name at once, exactly one gets it, and the others are told."""
    outcomes = await asyncio.gather(
        *(create_organization(database) for _ in range(8)), return_exceptions=True
    )
    failures = [one for one in outcomes if isinstance(one, BaseException)]
    assert len(failures) == 7
    assert {one.error for one in failures if isinstance(one, PenstockError)} == {errors.NAME_TAKEN}


async def test_a_stale_change_is_refused(database: Database) -> None:
    """Who changes what they read before somebody else changed it is told so."""
    created = await create_organization(database)

    async def rename(name: str, version: int) -> None:
        async with database.write(ALL) as session:
            await service.update_organization(
                session, actor(), created.id, {"name": name}, expected_version=version
            )

    await rename("first", 1)
    assert await _refused(rename("second", 1)) is VERSION_CONFLICT
    outcomes = await asyncio.gather(
        *(rename(f"name {n}", 2) for n in range(6)), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 1


async def test_others_are_not_found(database: Database) -> None:
    """In the scope of one organization another's objects look like those that never were."""
    acme, project = await create_place(database)
    other, _ = await create_place(database, "other")
    async with database.write(ALL) as session:
        member = await people.add_member(
            session, actor(), acme.id, subject="sub-1", role="developer"
        )
        account = await people.create_service_account(
            session, actor(), acme.id, name="batch", role="developer"
        )
    scope = Scope.of(other.id)
    real = [acme.id, project.id, member.id, account.id]
    for ids in (real, ["org_x", "prj_x", "mem_x", "sa_x"]):
        organization_id, project_id, member_id, account_id = ids
        async with database.write(scope) as session:
            for work in (
                service.get_organization(session, organization_id),
                service.archive_organization(session, actor(), organization_id),
                service.create_project(session, actor(), organization_id, "new"),
                service.get_project(session, project_id),
                service.archive_project(session, actor(), project_id),
                people.get_member(session, member_id),
                people.remove_member(session, actor(), member_id),
                people.get_service_account(session, account_id),
                people.update_service_account(session, actor(), account_id, {"role": "auditor"}),
            ):
                assert await _refused(work) is OBJECT_UNKNOWN
    page = PageRequest()
    async with database.read(scope) as reader:
        assert (await service.list_organizations(reader, page)).items == [other]
        assert (await service.list_projects(reader, page, organization_id=acme.id)).items == []
        assert (await people.list_members(reader, page)).items == []
        assert (await people.list_service_accounts(reader, page)).items == []


async def test_nothing_crosses_over(database: Database) -> None:
    """A project of another organization is no place for a member, even for the operator."""
    acme, _ = await create_place(database)
    _, theirs = await create_place(database, "other")

    async def add() -> None:
        async with database.write(ALL) as session:
            await people.add_member(
                session, actor(), acme.id, subject="s", role="developer", project_id=theirs.id
            )

    assert await _refused(add()) is OBJECT_UNKNOWN


async def test_nothing_new_in_what_is_closed(database: Database) -> None:
    """A suspended organization and an archived project take nothing new."""
    acme, project = await create_place(database)

    async def add(project_id: str | None) -> None:
        async with database.write(ALL) as session:
            await people.add_member(
                session, actor(), acme.id, subject="s", role="developer", project_id=project_id
            )

    async with database.write(ALL) as session:
        await service.archive_project(session, actor(), project.id)
    assert await _refused(add(project.id)) is errors.STATUS_CONFLICT
    async with database.write(ALL) as session:
        await service.suspend_organization(session, actor(), acme.id)
    assert await _refused(add(None)) is errors.STATUS_CONFLICT
    assert await _refused(create_project(database, acme, "new")) is errors.STATUS_CONFLICT


async def test_a_member_comes_and_goes(database: Database) -> None:
    """A subject has one role in the organization and one in each project, until it is removed."""
    acme, project = await create_place(database)

    async def add(project_id: str | None) -> str:
        async with database.write(ALL) as session:
            member = await people.add_member(
                session,
                actor(),
                acme.id,
                subject="sub-1",
                email="ada@example.org",
                role="developer",
                project_id=project_id,
            )
        return member.id

    member_id, project_member_id = await add(None), await add(project.id)
    assert await _refused(add(None)) is errors.MEMBER_EXISTS
    assert await _refused(add(project.id)) is errors.MEMBER_EXISTS
    async with database.write(ALL) as session:
        after = await people.update_member(session, actor(), member_id, {"role": "auditor"})
        assert (after.role, after.version) == ("auditor", 2)
        await people.remove_member(session, actor(), member_id)
    async with database.read(ALL) as reader:
        page = await people.list_members(reader, PageRequest(), organization_id=acme.id)
        assert [member.id for member in page.items] == [project_member_id]
        entries = await audit.list_entries(reader, acme.id)
    assert "ada@example.org" not in str(entries)
    assert "sub-1" not in str(entries)
    await add(None)


async def test_a_walk_sees_each_object_once(database: Database) -> None:
    """Pages in a row hold every object once, in order of creation, and the last says so."""
    acme = await create_organization(database)
    created = [await create_project(database, acme, f"project {n}") for n in range(11)]
    seen: list[str] = []
    cursor = None
    for _ in range(4):
        async with database.read(ALL) as session:
            page = await service.list_projects(session, PageRequest.of(cursor, 3))
        seen += [project.id for project in page.items]
        cursor = page.next_cursor
    assert cursor is None
    assert sorted(seen) == sorted(project.id for project in created)
    async with database.read(ALL) as session:
        found = await service.list_projects(session, PageRequest(), name="project 7")
    assert [project.id for project in found.items] == [created[7].id]
    with pytest.raises(PenstockError) as caught:
        PageRequest.of("made-up")
    assert caught.value.error is PAGE_CURSOR_INVALID


async def test_every_change_is_recorded_and_told(database: Database) -> None:
    """Each change has its entry in the organization's chain and its line in the feed."""
    acme, project = await create_place(database)
    async with database.write(ALL) as session:
        await service.update_project(session, actor(), project.id, {"name": "renamed"})
        await service.suspend_organization(session, actor(), acme.id)
    async with database.read(ALL) as session:
        entries = await audit.list_entries(session, acme.id)
        changes = await list_changes(session, 0, 10)
    assert [entry.action for entry in entries] == [
        "organization.create",
        "project.create",
        "project.update",
        "organization.suspend",
    ]
    assert entries[2].before is not None
    assert entries[2].after is not None
    assert (entries[2].before["name"], entries[2].after["name"]) == ("playground", "renamed")
    assert [(kind, object_id) for _, kind, object_id in changes] == [
        ("organization", acme.id),
        ("project", project.id),
        ("project", project.id),
        ("organization", acme.id),
    ]


async def test_a_poisoned_row_harms_nobody_else(database: Database) -> None:
    """A status that nobody knows can be listed and archived, and everything else goes on."""
    acme, _ = await create_place(database)
    other = await create_organization(database, "other")
    async with database.write(ALL) as session:
        await session.change(
            update(Organizations).where(Organizations.id == acme.id).values(status="\U0001f480")
        )
    async with database.read(ALL) as session:
        page = await service.list_organizations(session, PageRequest())
    assert {one.id for one in page.items} == {acme.id, other.id}
    assert await _refused(create_project(database, acme, "new")) is errors.STATUS_CONFLICT
    async with database.write(ALL) as session:
        after = await service.archive_organization(session, actor(), acme.id)
    assert after.status == "archived"
