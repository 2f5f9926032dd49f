"""Keys that belong to members and service accounts, on both kinds of database."""

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import delete
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api
from tests.fakes.organizations import (
    ALL,
    NOW_US,
    OPERATOR,
    PEPPERS,
    actor,
    create_key,
    create_place,
    create_project,
)

from penstock.access import feed, rotation, service
from penstock.access.errors import GRANT_EXCEEDED, KEY_INVALID
from penstock.access.model import CreatedKey, KeyRefusal, NewKey, Principal, VerifiedKey
from penstock.access.verification import principal_of, verify_key
from penstock.audit import service as audit
from penstock.contract.snapshot import Key
from penstock.kit.errors import ErrorCode, PenstockError
from penstock.storage.changes import list_changes
from penstock.storage.database import Database
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.scope import Scope
from penstock.tenancy import people
from penstock.tenancy.model import Member, Organization, Project
from penstock.tenancy.tables import Members


async def _refused(work: Awaitable[object]) -> ErrorCode:
    with pytest.raises(PenstockError) as caught:
        await work
    return caught.value.error


async def _add_member(
    database: Database, organization: Organization, role: str, project: Project | None = None
) -> Member:
    async with database.write(ALL) as session:
        return await people.add_member(
            session,
            actor(),
            organization.id,
            subject="ada",
            role=role,
            project_id=None if project is None else project.id,
        )


async def _verify(database: Database, text: str) -> VerifiedKey | KeyRefusal:
    async with database.read(ALL) as session:
        return await verify_key(session, PEPPERS, text, now_us=NOW_US, address=None)


async def _principal(database: Database, text: str) -> Principal:
    verified = await _verify(database, text)
    assert isinstance(verified, VerifiedKey)
    return principal_of(verified.record)


async def _is_fed(database: Database, key_id: str) -> bool:
    async with database.read(ALL) as session:
        record = (await service.find_records(session, [key_id]))[key_id]
    puts, deletes = feed.key_records(record)
    assert bool(puts) is not bool(deletes)
    return bool(puts)


async def _fed_scopes(database: Database, key_id: str) -> tuple[str, ...]:
    async with database.read(ALL) as session:
        record = (await service.find_records(session, [key_id]))[key_id]
    ((_, value),) = feed.key_records(record)[0].items()
    return msgspec.msgpack.decode(value, type=Key).scopes


async def _create_as(
    database: Database, grantor: Principal, project: Project, new: NewKey
) -> CreatedKey:
    async with database.write(Scope.of(project.organization_id)) as session:
        return await service.create_key(
            session, actor(), grantor, PEPPERS, project_id=project.id, new=new
        )


async def test_a_key_of_a_member_can_do_what_they_may_now(database: Database) -> None:
    """A member's key has the lesser of both roles at every moment, and data planes are told."""
    acme, project = await create_place(database)
    ada = await _add_member(database, acme, "org_admin")
    created = await create_key(
        database, project, NewKey(name="k", role="org_owner", member_id=ada.id)
    )
    assert created.key.member_id == ada.id
    assert (await _principal(database, created.text)).roles == {"org_owner", "org_admin"}
    async with database.write(ALL) as session:
        (*_, (seq, _, _)) = await list_changes(session, 0, 100)
        await service.update_member(session, actor(), ada.id, {"role": "auditor"})
    async with database.read(ALL) as session:
        changes = await list_changes(session, seq, 100)
    assert [(kind, object_id) for _, kind, object_id in changes] == [("key", created.key.id)]
    assert (await _principal(database, created.text)).roles == {"org_owner", "auditor"}


async def test_a_role_that_calls_no_models_reaches_every_worker(database: Database) -> None:
    """When a member, or an account, may not call models any more, nodes are told so by the feed."""
    acme, project = await create_place(database)
    ada = await _add_member(database, acme, "developer")
    async with database.write(ALL) as session:
        account = await people.create_service_account(
            session, actor(), acme.id, name="batch", role="developer"
        )
    of_ada = await create_key(database, project, NewKey(name="a", member_id=ada.id))
    of_batch = await create_key(database, project, NewKey(name="b", service_account_id=account.id))
    own = await create_key(database, project, NewKey(name="c", role="auditor"))
    for role, scopes in (
        ("auditor", ()),
        ("org_admin", ("inference", "models:read")),
        ("billing_admin", ()),
    ):
        async with database.write(ALL) as session:
            (*_, (seq, _, _)) = await list_changes(session, 0, 100)
            await service.update_member(session, actor(), ada.id, {"role": role})
            await service.update_service_account(session, actor(), account.id, {"role": role})
        async with database.read(ALL) as session:
            changes = await list_changes(session, seq, 100)
        changed = [object_id for _, kind, object_id in changes if kind == "key"]
        assert changed == [of_ada.key.id, of_batch.key.id]
        for created in (of_ada, of_batch):
            assert await _fed_scopes(database, created.key.id) == scopes
    assert await _fed_scopes(database, own.key.id) == ()


async def test_removing_a_member_ends_their_keys(database: Database) -> None:
    """With a member all keys of theirs are revoked, in one transaction, and nobody else's."""
    acme, project = await create_place(database)
    ada = await _add_member(database, acme, "org_admin")
    theirs = [
        await create_key(database, project, NewKey(name=name, member_id=ada.id))
        for name in ("one", "two")
    ]
    other = await create_key(database, project, NewKey(name="other"))
    async with database.write(ALL) as session:
        await service.remove_member(session, actor(), ada.id)
    for created in theirs:
        assert await _verify(database, created.text) is KeyRefusal.REVOKED
        assert not await _is_fed(database, created.key.id)
    async with database.read(ALL) as session:
        key = await service.get_key(session, theirs[0].key.id)
        entries = await audit.list_entries(session, acme.id, after=0)
    assert key.revoked_reason == "member removed"
    assert [entry.action for entry in entries][-3:] == ["member.remove", "key.revoke", "key.revoke"]
    assert isinstance(await _verify(database, other.text), VerifiedKey)
    assert await _is_fed(database, other.key.id)


async def test_a_key_whose_member_is_missing_is_refused_everywhere(database: Database) -> None:
    """However a membership went away, its keys open neither plane."""
    acme, project = await create_place(database)
    ada = await _add_member(database, acme, "org_admin")
    created = await create_key(database, project, NewKey(name="k", member_id=ada.id))
    assert await _is_fed(database, created.key.id)
    async with database.write(ALL) as session:
        await session.change(delete(Members).where(Members.id == ada.id))
    assert await _verify(database, created.text) is KeyRefusal.OWNER_INACTIVE
    assert not await _is_fed(database, created.key.id)


async def test_an_owner_is_of_the_keys_own_place(database: Database) -> None:
    """A key's member is of its project, or of the whole of its organization, and the only owner."""
    acme, project = await create_place(database)
    other, elsewhere = await create_place(database, "other")
    second = await create_project(database, acme, "second")
    stranger = await _add_member(database, other, "org_admin")
    neighbour = await _add_member(database, acme, "developer", second)
    for member in (stranger, neighbour):
        work = create_key(database, project, NewKey(name="k", member_id=member.id))
        assert await _refused(work) is OBJECT_UNKNOWN
    assert await _refused(create_key(database, project, NewKey(name="k", member_id="no"))) is (
        OBJECT_UNKNOWN
    )
    async with database.write(ALL) as session:
        account = await people.create_service_account(
            session, actor(), acme.id, name="batch", role="developer"
        )
    both = NewKey(name="k", member_id=stranger.id, service_account_id=account.id)
    assert await _refused(create_key(database, elsewhere, both)) is KEY_INVALID
    await create_key(database, second, NewKey(name="k", member_id=neighbour.id))


async def test_keys_of_keys_have_the_same_owner(database: Database) -> None:
    """What a member's key creates is the member's, too: nothing of theirs outlives them."""
    acme, project = await create_place(database)
    ada = await _add_member(database, acme, "org_admin")
    async with database.write(ALL) as session:
        account = await people.create_service_account(
            session, actor(), acme.id, name="batch", role="inference_only"
        )
    first = await create_key(
        database, project, NewKey(name="first", role="developer", member_id=ada.id)
    )
    grantor = await _principal(database, first.text)
    second = await _create_as(database, grantor, project, NewKey(name="second"))
    assert second.key.member_id == ada.id
    named = await _create_as(database, grantor, project, NewKey(name="third", member_id=ada.id))
    assert named.key.member_id == ada.id
    of_account = NewKey(name="fourth", service_account_id=account.id)
    assert await _refused(_create_as(database, grantor, project, of_account)) is GRANT_EXCEEDED
    async with database.write(ALL) as session:
        await service.remove_member(session, actor(), ada.id)
    for created in (first, second, named):
        assert await _verify(database, created.text) is KeyRefusal.REVOKED


async def test_nobody_is_told_a_secret_that_outlives_them(database: Database) -> None:
    """A member's key rotates keys of the same member only: a secret got so ends with them."""
    acme, project = await create_place(database)
    ada = await _add_member(database, acme, "org_admin")
    own = await create_key(
        database, project, NewKey(name="own", role="developer", member_id=ada.id)
    )
    free = await create_key(database, project, NewKey(name="free"))
    grantor = await _principal(database, own.text)

    async def rotate(key_id: str, principal: Principal) -> None:
        async with database.write(ALL) as session:
            await rotation.rotate_key(
                session, actor(), principal, PEPPERS, key_id=key_id, grace_s=60
            )

    assert await _refused(rotate(free.key.id, grantor)) is GRANT_EXCEEDED
    await rotate(own.key.id, grantor)
    await rotate(free.key.id, OPERATOR)


async def test_an_owner_of_one_project_binds_the_key_to_it(database: Database) -> None:
    """A key of somebody whose role is for one project does nothing beyond it, whatever its role."""
    acme, project = await create_place(database)
    ada = await _add_member(database, acme, "auditor", project)
    created = await create_key(
        database, project, NewKey(name="k", role="org_owner", member_id=ada.id)
    )
    assert (await _principal(database, created.text)).project_id == project.id


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API on any database."""
    async with run_admin_api(database, tmp_path) as rig:
        yield rig


async def test_delegation_over_http(rig: AdminRig) -> None:
    """A member's key creates keys of the same member, and all end with the membership."""
    project = await rig.create_project("chat")
    place = {"organization_id": project["organization_id"]}
    ada = await rig.create("/members", **place, subject="ada", role="org_admin")
    body = {"project_id": project["id"], "name": "laptop", "member_id": ada["id"]}
    expect_problem(
        await rig.call("POST", "/keys", body, token=""), 401, "err:control:auth:token_missing"
    )
    other = await rig.create_token((await rig.create_project("other"))["id"], "org_owner")
    answer = await rig.call("POST", "/keys", body, token=other)
    expect_problem(answer, 404, "err:control:storage:object_unknown")
    token = await rig.create_token(project["id"], "org_admin", member_id=ada["id"])
    answer = await rig.call("POST", "/keys", {**body, "member_id": None}, token=token)
    assert answer.status_code == 201, answer.text
    assert answer.json()["member_id"] == ada["id"]
    listed = (await rig.call("GET", f"/keys?member_id={ada['id']}")).json()["data"]
    assert len(listed) == 2
    assert (await rig.call("DELETE", f"/members/{ada['id']}")).status_code == 204
    expect_problem(
        await rig.call("GET", "/keys", token=token), 401, "err:control:access:key_refused"
    )
    listed = (await rig.call("GET", f"/keys?member_id={ada['id']}")).json()["data"]
    assert {key["revoked_reason"] for key in listed} == {"member removed"}
