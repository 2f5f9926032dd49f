"""API keys, on both kinds of database."""

import asyncio

from sqlalchemy import text, update
from tests.fakes.organizations import (
    ALL,
    NOW_US,
    OPERATOR,
    PEPPERS,
    SECOND_US,
    actor,
    create_key,
    create_place,
    refused,
    verify,
)

from penstock.access import rotation, service
from penstock.access.errors import (
    KEY_INVALID,
    KEY_REVOKED,
    ROTATION_CONFLICT,
    SECRET_REVOKED,
)
from penstock.access.model import KeyRefusal, NewKey, Principal, VerifiedKey
from penstock.access.peppers import Peppers
from penstock.access.rehash import count_by_pepper, record_macs
from penstock.access.rules import create_key as make_key_text
from penstock.access.rules import replace_secret
from penstock.access.tables import ApiKeys, KeySecrets
from penstock.access.verification import (
    KeyUse,
    principal_of,
    record_uses,
)
from penstock.audit import service as audit
from penstock.storage.changes import list_changes
from penstock.storage.database import Database
from penstock.storage.errors import OBJECT_UNKNOWN, VERSION_CONFLICT
from penstock.storage.paging import PageRequest
from penstock.storage.scope import Scope
from penstock.tenancy import people
from penstock.tenancy import service as tenancy
from penstock.tenancy.errors import NAME_TAKEN, STATUS_CONFLICT


async def _rotate(database: Database, key_id: str, grace_s: int, *, at_us: int = NOW_US) -> str:
    async with database.write(ALL) as session:
        created = await rotation.rotate_key(
            session, actor(at_us), OPERATOR, PEPPERS, key_id=key_id, grace_s=grace_s
        )
    return created.text


async def test_a_key_opens_its_project(database: Database) -> None:
    """The text that was told once is verified as the key of its project, and as nothing else."""
    acme, project = await create_place(database)
    created = await create_key(database, project)
    verified = await verify(database, created.text)
    assert isinstance(verified, VerifiedKey)
    key = verified.record.key
    assert (key.id, key.organization_id, key.project_id) == (created.key.id, acme.id, project.id)
    assert key == created.key
    assert created.text.startswith(f"ps_live_{key.id}_")
    assert not verified.has_old_pepper
    other = await create_key(database, project, NewKey(name="other", is_live=False))
    assert other.text.startswith("ps_test_")
    for wrong in ("", "x", created.text[:-1], created.text + "x", other.text[:21]):
        assert await verify(database, wrong) is KeyRefusal.WRONG


async def test_nothing_in_the_database_is_a_key(database: Database) -> None:
    """Neither keys nor peppers are in any column of any table."""
    _, project = await create_place(database)
    created = await create_key(database, project)
    rotated = await _rotate(database, created.key.id, 60)
    async with database.write(ALL) as session:
        tables = [table for table in ApiKeys.metadata.tables.values() if table.schema is None]
        content = ""
        for table in tables:
            rows = await session._connection.execute(table.select())
            content += str(rows.all())
    assert created.key.id in content
    for secret in (created.text, rotated):
        assert secret not in content
        assert secret[21:] not in content
    assert str(PEPPERS.values[1]) not in content


async def test_a_secret_of_another_key_does_not_fit(database: Database) -> None:
    """An unknown id and a wrong secret get the same answer, whatever state the key is in."""
    _, project = await create_place(database)
    created = await create_key(database, project)
    other_place = await create_key(database, project, NewKey(name="other"))
    forged = make_key_text()
    assert await verify(database, forged) is KeyRefusal.WRONG
    wrong = replace_secret(created.key.id)
    assert await verify(database, wrong) is KeyRefusal.WRONG
    async with database.write(ALL) as session:
        await service.revoke_key(session, actor(), created.key.id)
    assert await verify(database, wrong) is KeyRefusal.WRONG
    assert await verify(database, created.text) is KeyRefusal.REVOKED
    assert isinstance(await verify(database, other_place.text), VerifiedKey)


async def test_whatever_closes_a_key_closes_it_at_once(database: Database) -> None:
    """Disabling, expiry, suspension and archiving refuse a key, and their undoing opens it."""
    acme, project = await create_place(database)
    new = NewKey(name="k", expires_at_us=NOW_US + SECOND_US, allowed_cidrs=["192.0.2.0/24"])
    created = await create_key(database, project, new)
    key_id, inside = created.key.id, "192.0.2.9"

    async def outcome(at_us: int = NOW_US) -> object:
        verified = await verify(database, created.text, at_us=at_us, address=inside)
        return verified if isinstance(verified, KeyRefusal) else None

    assert await outcome() is None
    assert await outcome(NOW_US + SECOND_US) is KeyRefusal.EXPIRED
    assert await verify(database, created.text, address="198.51.100.1") is KeyRefusal.ADDRESS
    async with database.write(ALL) as session:
        await service.disable_key(session, actor(), key_id)
    assert await outcome() is KeyRefusal.DISABLED
    async with database.write(ALL) as session:
        await service.enable_key(session, actor(), OPERATOR, key_id)
        await tenancy.suspend_organization(session, actor(), acme.id)
    assert await outcome() is KeyRefusal.ORGANIZATION_INACTIVE
    async with database.write(ALL) as session:
        await tenancy.resume_organization(session, actor(), acme.id)
    assert await outcome() is None
    async with database.write(ALL) as session:
        await tenancy.archive_project(session, actor(), project.id)
    assert await outcome() is KeyRefusal.PROJECT_INACTIVE


async def test_an_old_secret_lives_through_its_grace(database: Database) -> None:
    """After a rotation both secrets open the same key, until the old one's grace is over."""
    _, project = await create_place(database)
    created = await create_key(database, project)
    new = await _rotate(database, created.key.id, 60)
    for at_us, old_opens in ((NOW_US, True), (NOW_US + 60 * SECOND_US - 1, True)):
        verified = await verify(database, created.text, at_us=at_us)
        assert isinstance(verified, VerifiedKey) is old_opens
        assert isinstance(await verify(database, new, at_us=at_us), VerifiedKey)
    late = NOW_US + 60 * SECOND_US
    assert await verify(database, created.text, at_us=late) is KeyRefusal.EXPIRED
    verified = await verify(database, new, at_us=late)
    assert isinstance(verified, VerifiedKey)
    assert verified.record.key.id == created.key.id
    assert verified.record.key.version == 2


async def test_a_key_has_at_most_two_live_secrets(database: Database) -> None:
    """A third is refused while two live, unless the present one ends for it."""
    _, project = await create_place(database)
    created = await create_key(database, project)
    second = await _rotate(database, created.key.id, 60)
    assert await refused(_rotate(database, created.key.id, 60)) is ROTATION_CONFLICT
    third = await _rotate(database, created.key.id, 0)
    assert await verify(database, second) is KeyRefusal.REVOKED
    for live in (created.text, third):
        assert isinstance(await verify(database, live), VerifiedKey)
    later = NOW_US + 60 * SECOND_US
    fourth = await _rotate(database, created.key.id, 60, at_us=later)
    assert await verify(database, created.text, at_us=later) is KeyRefusal.REVOKED
    for live in (third, fourth):
        assert isinstance(await verify(database, live, at_us=later), VerifiedKey)


async def test_a_grace_never_outlives_the_key(database: Database) -> None:
    """An old secret ends with its key when that comes first."""
    _, project = await create_place(database)
    new = NewKey(name="k", expires_at_us=NOW_US + 10 * SECOND_US)
    created = await create_key(database, project, new)
    await _rotate(database, created.key.id, 60)
    async with database.read(ALL) as session:
        secrets = await service.list_secrets(session, created.key.id)
    (old,) = (secret for secret in secrets if secret.id == created.secret.id)
    assert old.not_after_us == NOW_US + 10 * SECOND_US


async def test_a_revoked_secret_is_gone_and_the_key_is_not(database: Database) -> None:
    """One leaked secret is ended at once, once, and the other goes on."""
    _, project = await create_place(database)
    created = await create_key(database, project)
    new = await _rotate(database, created.key.id, 60)

    async def revoke(key_id: str, secret_id: str) -> None:
        async with database.write(ALL) as session:
            await rotation.revoke_secret(session, actor(), key_id, secret_id, reason="leaked")

    await revoke(created.key.id, created.secret.id)
    assert await verify(database, created.text) is KeyRefusal.REVOKED
    assert isinstance(await verify(database, new), VerifiedKey)
    assert await refused(revoke(created.key.id, created.secret.id)) is SECRET_REVOKED
    assert await refused(revoke(created.key.id, "sec_unknown")) is OBJECT_UNKNOWN
    again = await _rotate(database, created.key.id, 60)
    assert isinstance(await verify(database, again), VerifiedKey)


async def test_revoking_is_final(database: Database) -> None:
    """A revoked key is refused for ever, cannot be changed, and frees its name."""
    _, project = await create_place(database)
    created = await create_key(database, project)
    assert await refused(create_key(database, project)) is NAME_TAKEN
    key_id = created.key.id
    async with database.write(ALL) as session:
        first = await service.revoke_key(session, actor(), key_id, reason="left")
        assert await service.revoke_key(session, actor(), key_id, reason="again") == first

    async def change(verb: str) -> None:
        async with database.write(ALL) as session:
            if verb == "enable":
                await service.enable_key(session, actor(), OPERATOR, key_id)
            elif verb == "update":
                await service.update_key(session, actor(), OPERATOR, key_id, {"name": "x"})
            else:
                await service.disable_key(session, actor(), key_id)

    for verb in ("enable", "update", "disable"):
        assert await refused(change(verb)) is KEY_REVOKED
    assert await refused(_rotate(database, key_id, 0)) is KEY_REVOKED
    assert (await create_key(database, project)).key.id != key_id


async def test_members_of_a_key_change_one_by_one(database: Database) -> None:
    """What is given changes, the rest stays, and a stale or impossible change is refused."""
    _, project = await create_place(database)
    created = await create_key(database, project, NewKey(name="k", labels={"team": "a"}))
    async with database.write(ALL) as session:
        after = await service.update_key(
            session,
            actor(),
            OPERATOR,
            created.key.id,
            {"name": "renamed", "allowed_aliases": ["b", "a"], "rotation_interval_s": 3_600},
        )
    assert after.name == "renamed"
    assert after.allowed_aliases == ["a", "b"]
    assert (after.labels, after.version) == ({"team": "a"}, 2)

    async def change(version: int | None, **members: object) -> None:
        async with database.write(ALL) as session:
            await service.update_key(
                session,
                actor(),
                OPERATOR,
                created.key.id,
                members,  # type: ignore[arg-type]  # wrong ones are the point
                expected_version=version,
            )

    assert await refused(change(1, name="x")) is VERSION_CONFLICT
    assert await refused(change(None, expires_at_us=NOW_US)) is KEY_INVALID
    assert await refused(change(None, rotation_grace_s=3_600)) is KEY_INVALID
    assert await refused(change(None, scopes=[])) is KEY_INVALID
    assert isinstance(await verify(database, created.text), VerifiedKey)


async def test_a_key_of_a_service_account_follows_it(database: Database) -> None:
    """A key can do what both it and its account may, and nothing once the account is disabled."""
    acme, project = await create_place(database)
    async with database.write(ALL) as session:
        account = await people.create_service_account(
            session, actor(), acme.id, name="batch", role="org_admin"
        )
    new = NewKey(name="k", role="org_owner", service_account_id=account.id)
    created = await create_key(database, project, new)
    verified = await verify(database, created.text)
    assert isinstance(verified, VerifiedKey)
    assert principal_of(verified.record).roles == {"org_owner", "org_admin"}
    async with database.read(ALL) as session:
        before = await list_changes(session, 0, 100)
    async with database.write(ALL) as session:
        await service.update_service_account(session, actor(), account.id, {"is_disabled": True})
    assert await verify(database, created.text) is KeyRefusal.OWNER_INACTIVE
    async with database.read(ALL) as session:
        changes = await list_changes(session, before[-1][0], 100)
    assert [(kind, object_id) for _, kind, object_id in changes] == [("key", created.key.id)]
    again = NewKey(name="again", service_account_id=account.id)
    assert await refused(create_key(database, project, again)) is STATUS_CONFLICT
    missing = NewKey(name="again", service_account_id="sa_unknown")
    assert await refused(create_key(database, project, missing)) is OBJECT_UNKNOWN


async def test_keys_of_others_are_not_found(database: Database) -> None:
    """In the scope of one organization another's keys cannot be seen, changed or rotated."""
    _, project = await create_place(database)
    other, theirs = await create_place(database, "other")
    created = await create_key(database, project)
    own = await create_key(database, theirs)
    scope = Scope.of(other.id)
    for key_id in (created.key.id, "0" * 12):
        async with database.write(scope) as session:
            for work in (
                service.get_key(session, key_id),
                service.list_secrets(session, key_id),
                service.disable_key(session, actor(), key_id),
                service.revoke_key(session, actor(), key_id),
                rotation.rotate_key(session, actor(), OPERATOR, PEPPERS, key_id=key_id, grace_s=0),
                rotation.revoke_secret(session, actor(), key_id, created.secret.id),
                service.create_key(
                    session, actor(), OPERATOR, PEPPERS, project_id=project.id, new=NewKey(name="x")
                ),
            ):
                assert await refused(work) is OBJECT_UNKNOWN
    async with database.read(scope) as session:
        page = await service.list_keys(session, PageRequest())
        assert [key.id for key in page.items] == [own.key.id]
        assert set(await service.find_records(session, [created.key.id, own.key.id])) == {
            own.key.id
        }
    assert isinstance(await verify(database, created.text), VerifiedKey)


async def test_uses_are_written_in_batches(database: Database) -> None:
    """The latest use is kept, whatever order batches come in, and a key's version stays."""
    _, project = await create_place(database)
    created = await create_key(database, project)
    key_id, secret_id = created.key.id, created.secret.id

    async def use(*times: int) -> None:
        async with database.write(ALL) as session:
            uses = [KeyUse(key_id, NOW_US + at, secret_id) for at in times]
            await record_uses(session, [*uses, KeyUse("unknown", NOW_US)])

    await use(5, 9, 7)
    await use(3)
    async with database.read(ALL) as session:
        key = await service.get_key(session, key_id)
        (secret,) = await service.list_secrets(session, key_id)
    assert (key.last_used_at_us, key.version) == (NOW_US + 9, 1)
    assert secret.last_used_at_us == NOW_US + 9


async def test_a_pepper_is_replaced_key_by_key(database: Database) -> None:
    """With two peppers all keys work, and each that is shown moves to the new one."""
    _, project = await create_place(database)
    old = await create_key(database, project, NewKey(name="used"))
    idle = await create_key(database, project, NewKey(name="idle"))
    both = Peppers({1: PEPPERS.values[1], 2: b"pepper-of-these-tests-number-two"})
    only_new = Peppers({2: both.values[2]})
    verified = await verify(database, old.text, peppers=both)
    assert isinstance(verified, VerifiedKey)
    assert verified.has_old_pepper
    async with database.write(ALL) as session:
        assert await record_macs(session, both, [verified], NOW_US) == 1
        assert await record_macs(session, both, [verified], NOW_US) == 0
        counts = await count_by_pepper(session, both, NOW_US)
    assert [(one.id, one.is_active, one.secrets, one.key_ids) for one in counts] == [
        (1, False, 1, [idle.key.id]),
        (2, True, 1, []),
    ]
    for peppers in (both, only_new):
        verified = await verify(database, old.text, peppers=peppers)
        assert isinstance(verified, VerifiedKey)
        assert not verified.has_old_pepper
    assert await verify(database, idle.text, peppers=only_new) is KeyRefusal.WRONG
    assert isinstance(await verify(database, idle.text, peppers=both), VerifiedKey)


async def test_every_change_of_a_key_is_recorded(database: Database) -> None:
    """Each change has an audit entry without any secret, and a line in the change feed."""
    acme, project = await create_place(database)
    created = await create_key(database, project)
    key_id = created.key.id
    new = await _rotate(database, key_id, 60)
    async with database.write(ALL) as session:
        await service.update_key(session, actor(), OPERATOR, key_id, {"labels": {"a": "b"}})
        await service.disable_key(session, actor(), key_id)
        await service.enable_key(session, actor(), OPERATOR, key_id)
        await rotation.revoke_secret(session, actor(), key_id, created.secret.id)
        await service.revoke_key(session, actor(), key_id)
    async with database.read(ALL) as session:
        entries = await audit.list_entries(session, acme.id, after=2)
        changes = await list_changes(session, 2, 100)
    assert [entry.action for entry in entries] == [
        "key.create", "key.rotate", "key.update", "key.disable", "key.enable",
        "key.revoke_secret", "key.revoke",
    ]  # fmt: skip
    assert [(kind, object_id) for _, kind, object_id in changes] == [("key", key_id)] * 7
    for secret in (created.text, new, created.secret.mac.hex(), str(created.secret.mac)):
        assert secret not in str(entries)


async def test_a_rotation_at_the_same_time_happens_once(database: Database) -> None:
    """Of rotations at once, as many succeed as there is room for live secrets."""
    _, project = await create_place(database)
    created = await create_key(database, project)
    outcomes = await asyncio.gather(
        *(_rotate(database, created.key.id, 60) for _ in range(6)), return_exceptions=True
    )
    (winner,) = (outcome for outcome in outcomes if isinstance(outcome, str))
    assert isinstance(await verify(database, winner), VerifiedKey)
    assert isinstance(await verify(database, created.text), VerifiedKey)


async def test_a_poisoned_key_harms_nobody_else(database: Database) -> None:
    """A key whose row nobody understands is refused, and all others work and are listed."""
    _, project = await create_place(database)
    sick = await create_key(database, project)
    well = await create_key(database, project, NewKey(name="well"))
    async with database.write(ALL) as session:
        await session.change(
            update(ApiKeys)
            .where(ApiKeys.id == sick.key.id)
            .values(role="\U0001f480", scopes={"not": "a list"}, labels=7)
        )
    assert await verify(database, sick.text) is KeyRefusal.DAMAGED
    assert isinstance(await verify(database, well.text), VerifiedKey)
    async with database.read(ALL) as session:
        assert len((await service.list_keys(session, PageRequest())).items) == 2
        records = await service.list_records(session)
        assert {record.key.id for record in records} == {sick.key.id, well.key.id}
    if isinstance(database.location, str):
        return
    async with database.write(ALL) as session:
        broken = text("UPDATE api_keys SET labels = '{broken', scopes = x'ff' WHERE name = 'key'")
        await session._connection.execute(broken)
        await session.change(
            update(KeySecrets).where(KeySecrets.key_id == sick.key.id).values(state="?")
        )
    assert await verify(database, sick.text) is KeyRefusal.DAMAGED
    assert isinstance(await verify(database, well.text), VerifiedKey)


async def test_records_come_in_pages(database: Database) -> None:
    """A whole snapshot is read page by page, each key that is not revoked once."""
    _, project = await create_place(database)
    created = [await create_key(database, project, NewKey(name=f"k{n}")) for n in range(5)]
    async with database.write(ALL) as session:
        await service.revoke_key(session, actor(), created[0].key.id)
    seen: list[str] = []
    async with database.read(ALL) as session:
        while page := await service.list_records(
            session, after_id=seen[-1] if seen else "", limit=2
        ):
            seen += [record.key.id for record in page]
            assert all(len(record.secrets) == 1 for record in page)
    assert seen == sorted(one.key.id for one in created[1:])


def test_the_operator_is_everywhere() -> None:
    """The admin token acts for no organization."""
    assert Principal.of_admin_token().organization_id is None
