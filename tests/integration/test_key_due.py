"""Last uses, rotations that are due and old secrets that are still used, on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api
from tests.fakes.organizations import (
    ALL,
    NOW_US,
    OPERATOR,
    PEPPERS,
    SECOND_US,
    actor,
    create_key,
    create_place,
)
from tests.unit.metering.usage_events import make_event

from penstock.access import due, feed, rotation, service
from penstock.access.model import CreatedKey, DueReason, KeyChanges, KeySecret, NewKey
from penstock.access.rules import find_key_id
from penstock.access.tables import ApiKeys
from penstock.access.verification import KeyUse, record_uses
from penstock.audit import service as audit
from penstock.contract.snapshot import Key
from penstock.contract.usage import UsageBatch
from penstock.metering import service as metering
from penstock.storage.database import Database

DAY_S = 86_400
POLICY = NewKey(name="k", rotation_interval_s=10 * DAY_S, rotation_grace_s=3_600)
DUE_US = NOW_US + 10 * DAY_S * SECOND_US
GRACE_US = 3_600 * SECOND_US


async def _end_overdue(database: Database, at_us: int) -> int:
    async with database.write(ALL) as session:
        return await due.end_overdue(session, actor(at_us))


async def _list_due(database: Database, at_us: int) -> list[tuple[DueReason, str]]:
    async with database.read(ALL) as session:
        return [(one.reason, one.secret.id) for one in await due.list_due(session, at_us)]


async def _secrets(database: Database, key_id: str) -> list[KeySecret]:
    async with database.read(ALL) as session:
        return await service.list_secrets(session, key_id)


async def _rotate(database: Database, key_id: str, grace_s: int, at_us: int) -> CreatedKey:
    async with database.write(ALL) as session:
        return await rotation.rotate_key(
            session, actor(at_us), OPERATOR, PEPPERS, key_id=key_id, grace_s=grace_s
        )


async def _use(database: Database, created: CreatedKey, at_us: int) -> None:
    async with database.write(ALL) as session:
        await record_uses(session, [KeyUse(created.key.id, at_us, created.secret.id)])


async def _actions(database: Database, organization_id: str) -> list[str]:
    async with database.read(ALL) as session:
        entries = await audit.list_entries(session, organization_id, after=0)
    return [entry.action for entry in entries]


async def test_an_overdue_secret_is_ended_with_notice(database: Database) -> None:
    """A secret older than its key's policy ends a grace period after it was found, said once."""
    acme, project = await create_place(database)
    created = await create_key(database, project, POLICY)
    await create_key(database, project, NewKey(name="without a policy"))
    assert await _list_due(database, DUE_US - 1) == []
    assert await _end_overdue(database, DUE_US - 1) == 0
    reported = [(DueReason.ROTATION_DUE, created.secret.id)]
    assert await _list_due(database, DUE_US) == reported
    found_us = DUE_US + 5 * SECOND_US
    assert await _end_overdue(database, found_us) == 1
    assert await _end_overdue(database, found_us + SECOND_US) == 0
    (secret,) = await _secrets(database, created.key.id)
    assert (secret.state, secret.not_after_us) == ("active", found_us + GRACE_US)
    assert await _list_due(database, found_us) == reported
    assert (await _actions(database, acme.id)).count("key.rotation_due") == 1
    # Who does not rotate is locked out, and it stays reported.
    assert await _list_due(database, found_us + 2 * GRACE_US) == reported


async def test_nodes_are_told_of_the_end(database: Database) -> None:
    """A worker refuses an overdue secret from its end on, without hearing of anybody again."""
    _, project = await create_place(database)
    created = await create_key(database, project, POLICY)
    await _end_overdue(database, DUE_US)
    async with database.read(ALL) as session:
        record = (await service.find_records(session, [created.key.id]))[created.key.id]
    ((name, value),) = feed.key_records(record)[0].items()
    assert name == b"k" + created.secret.mac
    key = msgspec.msgpack.decode(value, type=Key)
    assert key.expires_at == (DUE_US + GRACE_US) // SECOND_US
    assert key.secret == created.secret.id


async def test_a_rotation_in_time_gives_the_usual_life(database: Database) -> None:
    """A secret that takes over is not due before it is as old as the policy lets it become."""
    _, project = await create_place(database)
    created = await create_key(database, project, POLICY)
    await _end_overdue(database, DUE_US)
    rotated = await _rotate(database, created.key.id, 2 * 3_600, DUE_US + SECOND_US)
    old, new = await _secrets(database, created.key.id)
    # However long a grace was asked for, the old one ends when the schedule said.
    assert (old.state, old.not_after_us) == ("retiring", DUE_US + GRACE_US)
    assert (new.id, new.state, new.not_after_us) == (rotated.secret.id, "active", None)
    assert await _list_due(database, DUE_US + SECOND_US) == []
    second_due_us = DUE_US + SECOND_US + 10 * DAY_S * SECOND_US
    assert await _end_overdue(database, second_due_us - 1) == 0
    assert await _end_overdue(database, second_due_us) == 1


@pytest.mark.parametrize(
    "changes", [{"rotation_interval_s": None, "rotation_grace_s": None}, {"rotation_grace_s": 60}]
)
async def test_another_policy_takes_an_end_back(database: Database, changes: KeyChanges) -> None:
    """A schedule that is changed in time does not end the secret; one that has ended stays so."""
    _, project = await create_place(database)
    created = await create_key(database, project, POLICY)
    late = await create_key(
        database,
        project,
        NewKey(name="late", rotation_interval_s=10 * DAY_S, rotation_grace_s=1),
    )
    assert await _end_overdue(database, DUE_US) == 2
    at_us = DUE_US + 2 * SECOND_US
    for one in (created, late):
        async with database.write(ALL) as session:
            await service.update_key(session, actor(at_us), OPERATOR, one.key.id, changes)
    (secret,) = await _secrets(database, created.key.id)
    assert secret.not_after_us is None
    (secret,) = await _secrets(database, late.key.id)
    assert secret.not_after_us == DUE_US + SECOND_US


async def test_a_secret_that_is_used_late_is_reported_once(database: Database) -> None:
    """A retiring secret used in the last quarter of its grace is reported, and audited once."""
    acme, project = await create_place(database)
    created = await create_key(database, project, NewKey(name="k"))
    await _rotate(database, created.key.id, 100, NOW_US)
    for second, is_late in ((74, False), (75, True), (80, True)):
        at_us = NOW_US + second * SECOND_US
        await _use(database, created, at_us)
        async with database.write(ALL) as session:
            await due.note_late_uses(session, actor(at_us))
        expected = [(DueReason.RETIRING_USED, created.secret.id)] if is_late else []
        assert await _list_due(database, at_us) == expected
        assert (await _actions(database, acme.id)).count("key.retiring_used") == is_late
    assert await _list_due(database, NOW_US + 100 * SECOND_US) == []


async def test_a_key_that_is_off_is_not_due(database: Database) -> None:
    """What is disabled, revoked or expired asks for nothing, and gets no end of its own."""
    _, project = await create_place(database)
    for number, step in enumerate((service.disable_key, service.revoke_key)):
        created = await create_key(
            database, project, NewKey(name=f"k{number}", rotation_interval_s=10 * DAY_S)
        )
        async with database.write(ALL) as session:
            await step(session, actor(), created.key.id)
    await create_key(
        database,
        project,
        NewKey(name="k", rotation_interval_s=10 * DAY_S, expires_at_us=NOW_US + 1),
    )
    assert await _list_due(database, DUE_US) == []
    assert await _end_overdue(database, DUE_US) == 0


@pytest.mark.parametrize("interval_s", [2**63 - 1, -(2**63), 0, 1])
async def test_an_impossible_policy_harms_itself_only(database: Database, interval_s: int) -> None:
    """A row with an interval that nobody could have set is not due, and others still are."""
    _, project = await create_place(database)
    sick = await create_key(database, project, NewKey(name="sick", rotation_interval_s=3_600))
    well = await create_key(database, project, POLICY)
    async with database.write(ALL) as session:
        await session.change(
            update(ApiKeys).where(ApiKeys.id == sick.key.id).values(rotation_interval_s=interval_s)
        )
    assert await _list_due(database, DUE_US) == [(DueReason.ROTATION_DUE, well.secret.id)]
    assert await _end_overdue(database, DUE_US) == 1


async def test_usage_says_when_keys_were_used(database: Database) -> None:
    """A batch stores the last use of keys and secrets, and a repeat changes nothing."""
    _, project = await create_place(database)
    created = await create_key(database, project)
    key_id, secret_id = created.key.id, created.secret.id

    async def deliver(*started: int, recorded_us: int = NOW_US + 10**9) -> None:
        events = tuple(
            make_event(
                2 * at_us + number,
                started_at_ns=(NOW_US + at_us) * 1_000,
                finished_at_ns=(NOW_US + at_us) * 1_000,
                first_byte_at_ns=None,
                key_id=name,
                key_secret_id=secret,
            )
            for at_us in started
            for number, (name, secret) in enumerate(((key_id, secret_id), ("of-a-file", "")))
        )
        delivery = metering.prepare_batch(UsageBatch("node-1/0", 1, events), recorded_us)
        async with database.write(ALL) as session:
            await metering.record_events(session, ALL, [delivery])

    async def last_uses() -> tuple[int | None, int | None, int]:
        async with database.read(ALL) as session:
            key = await service.get_key(session, key_id)
            (secret,) = await service.list_secrets(session, key_id)
        return key.last_used_at_us, secret.last_used_at_us, key.version

    assert await last_uses() == (None, None, 1)
    await deliver(5, 9, 7)
    assert await last_uses() == (NOW_US + 9, NOW_US + 9, 1)
    await deliver(5, 9, 7)
    await deliver(3)
    assert await last_uses() == (NOW_US + 9, NOW_US + 9, 1)
    # A node whose clock is a year ahead.
    await deliver(365 * DAY_S * SECOND_US, recorded_us=NOW_US + 20)
    assert await last_uses() == (NOW_US + 20, NOW_US + 20, 1)


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API on any database, with its chores."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        yield rig


async def test_the_report_over_http(rig: AdminRig) -> None:
    """Whoever may list keys sees which of theirs are due, and nothing of others'."""
    project = await rig.create_project("mine")
    other = await rig.create_project("other")
    expect_problem(
        await rig.call("GET", "/keys/due", token=""), 401, "err:control:auth:token_missing"
    )
    members: dict[str, Any] = {"rotation_interval_s": 7_200, "rotation_grace_s": 3_600}
    token = await rig.create_token(project["id"], "org_owner", **members)
    foreign = await rig.create_token(other["id"], "org_owner", **members)
    place = f"?organization_id={other['organization_id']}"
    expect_problem(
        await rig.call("GET", f"/keys/due{place}", token=token),
        404,
        "err:control:storage:object_unknown",
    )
    assert (await rig.call("GET", "/keys/due", token=token)).json() == {"data": []}
    rig.clock.advance(7_200)
    assert rig.chores is not None
    await rig.chores.tick()
    (found,) = (await rig.call("GET", "/keys/due", token=token)).json()["data"]
    assert (found["reason"], found["key_id"]) == ("rotation_due", find_key_id(token))
    assert found["not_after"] is not None
    everything = (await rig.call("GET", "/keys/due")).json()["data"]
    assert {one["key_id"] for one in everything} == {find_key_id(token), find_key_id(foreign)}
    narrowed = (await rig.call("GET", f"/keys/due?project_id={other['id']}")).json()["data"]
    assert [one["key_id"] for one in narrowed] == [find_key_id(foreign)]
    answer = await rig.call("POST", f"/keys/{find_key_id(token)}/rotate", {}, token=token)
    assert (await rig.call("GET", "/keys/due", token=answer.json()["secret"])).json()["data"] == []


async def test_uses_of_the_admin_api_are_written_by_a_chore(
    database: Database, rig: AdminRig
) -> None:
    """A request that reads writes nothing, and the next chore stores when its key was used."""
    project = await rig.create_project("mine")
    token = await rig.create_token(project["id"], "org_owner")
    path = f"/keys/{find_key_id(token)}"
    commits = database.commit_count
    rig.clock.advance(60)
    for _ in range(3):
        assert (await rig.call("GET", path, token=token)).json()["last_used_at"] is None
    assert database.commit_count == commits
    assert rig.chores is not None
    await rig.chores.tick()
    seen = (await rig.call("GET", path)).json()
    assert seen["last_used_at"] is not None
    assert seen["version"] == 1
    (secret,) = (await rig.call("GET", f"{path}/secrets")).json()["data"]
    assert secret["last_used_at"] == seen["last_used_at"]
