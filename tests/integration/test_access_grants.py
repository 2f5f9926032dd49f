"""Who may give a key what, and enable one again, on both kinds of database."""

import dataclasses

import pytest
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
    GRANT_EXCEEDED,
)
from penstock.access.leaks import Leak, end_leaked
from penstock.access.model import KeyChanges, KeyRefusal, NewKey, Principal, VerifiedKey
from penstock.access.verification import (
    principal_of,
)
from penstock.audit.model import Actor
from penstock.storage.database import Database
from penstock.storage.scope import Scope
from penstock.tenancy import people
from penstock.tenancy.model import AccountChanges


def _owner_of(organization_id: str) -> Principal:
    """Return a key of an organization's owner."""
    return Principal(
        kind="api_key",
        id="k",
        roles=frozenset({"org_owner"}),
        scopes=frozenset({"admin"}),
        organization_id=organization_id,
    )


async def test_nobody_makes_a_key_that_can_do_more(database: Database) -> None:
    """A key's creator, changer, rotator and service account each bound what it can do."""
    acme, project = await create_place(database)
    weak = await create_key(database, project, NewKey(name="dev", role="developer"))
    verified = await verify(database, weak.text)
    assert isinstance(verified, VerifiedKey)
    developer = principal_of(verified.record)
    assert (developer.organization_id, developer.project_id) == (acme.id, project.id)
    strong = await create_key(database, project, NewKey(name="owner", role="org_owner"))
    scope = Scope.of(acme.id)

    async def create(role: str, *scopes: str) -> None:
        async with database.write(scope) as session:
            await service.create_key(
                session, actor(), developer, PEPPERS, project_id=project.id,
                new=NewKey(name="new", role=role, scopes=list(scopes) or ["inference"]),
            )  # fmt: skip

    async def promote() -> None:
        async with database.write(scope) as session:
            await service.update_key(
                session, actor(), developer, weak.key.id, {"role": "org_admin"}
            )

    async def steer() -> None:
        async with database.write(scope) as session:
            scopes = ["inference", "inference:steer"]
            await service.update_key(session, actor(), developer, weak.key.id, {"scopes": scopes})

    async def steal() -> None:
        async with database.write(scope) as session:
            await rotation.rotate_key(
                session, actor(), developer, PEPPERS, key_id=strong.key.id, grace_s=60
            )

    steered = create("inference_only", "inference", "inference:steer")
    urgent = create("inference_only", "inference", "inference:priority")
    made = (create("org_admin"), create("platform_admin"), steered, urgent)
    greater = (*made, promote(), steal(), steer())
    for work in greater:
        assert await refused(work) is GRANT_EXCEEDED
    await create_key(database, project, NewKey(name="s", scopes=["inference:steer"]))
    await create("inference_only")


@pytest.mark.parametrize("scope", ["inference:steer", "inference:priority"])
async def test_only_the_operator_widens_what_the_operator_gave(
    database: Database, scope: str
) -> None:
    """An organization's owner cannot have a key with an operator's scope do more than it does."""
    acme, project = await create_place(database)
    new = NewKey(name="fast", scopes=["inference", scope], allowed_cidrs=["10.0.0.0/8"])
    key_id = (await create_key(database, project, new)).key.id
    owner = _owner_of(acme.id)
    holder = dataclasses.replace(owner, scopes=frozenset({"admin", scope}))

    async def change(grantor: Principal, **members: object) -> None:
        async with database.write(Scope.of(acme.id)) as session:
            changes: KeyChanges = members  # type: ignore[assignment]  # one of them at a time
            await service.update_key(session, actor(), grantor, key_id, changes)

    async def rotate(grantor: Principal) -> None:
        async with database.write(Scope.of(acme.id)) as session:
            await rotation.rotate_key(session, actor(), grantor, PEPPERS, key_id=key_id, grace_s=0)

    async def enable(grantor: Principal) -> None:
        async with database.write(Scope.of(acme.id)) as session:
            await service.enable_key(session, actor(), grantor, key_id)

    await change(owner, name="renamed", labels={"team": "a"}, scopes=new.scopes)
    async with database.write(Scope.of(acme.id)) as session:
        await service.disable_key(session, actor(), key_id)
    wider: list[dict[str, object]] = [
        {"role": "developer"},
        {"scopes": ["admin", "inference", scope]},
        {"allowed_aliases": ["a"]},
        {"allowed_cidrs": None},
        {"expires_at_us": NOW_US + SECOND_US},
        {"rotation_interval_s": 7_200},
    ]
    for members in wider:
        assert await refused(change(owner, **members)) is GRANT_EXCEEDED
        assert await refused(change(holder, **members)) is GRANT_EXCEEDED
    for work in (rotate(owner), enable(owner), enable(holder)):
        assert await refused(work) is GRANT_EXCEEDED
    await rotate(holder)
    await enable(OPERATOR)
    for members in wider:
        await change(OPERATOR, **members)


async def test_only_the_operator_enables_what_the_operator_disabled(database: Database) -> None:
    """Nor does it help an organization to have disabled it before, or to disable it again."""
    acme, project = await create_place(database)
    owner = _owner_of(acme.id)
    async with database.write(ALL) as session:
        account = await people.create_service_account(
            session, actor(), acme.id, name="batch", role="developer"
        )
    new = NewKey(name="k", service_account_id=account.id)
    key_id = (await create_key(database, project, new)).key.id

    async def switch_account(who: Principal, *, is_disabled: bool) -> None:
        async with database.write(Scope.of(acme.id)) as session:
            changes: AccountChanges = {"is_disabled": is_disabled}
            await service.update_service_account(session, actor(principal=who), account.id, changes)

    async def switch_key(who: Principal, *, is_disabled: bool) -> None:
        async with database.write(Scope.of(acme.id)) as session:
            if is_disabled:
                await service.disable_key(session, actor(principal=who), key_id)
            else:
                await service.enable_key(session, actor(principal=who), who, key_id)

    for switch in (switch_account, switch_key):
        await switch(owner, is_disabled=True)
        await switch(owner, is_disabled=False)
        await switch(owner, is_disabled=True)
        await switch(OPERATOR, is_disabled=True)
        await switch(owner, is_disabled=True)
        assert await refused(switch(owner, is_disabled=False)) is GRANT_EXCEEDED
        await switch(OPERATOR, is_disabled=False)
        await switch(owner, is_disabled=True)
        await switch(owner, is_disabled=False)


async def test_what_a_report_of_a_leak_disabled_its_organization_enables(
    database: Database,
) -> None:
    """A chore is nobody's word: whoever has the key looks after it."""
    acme, project = await create_place(database)
    created = await create_key(database, project)
    chore = Actor(kind="system", id="github_secret_scanning", at_us=NOW_US)
    owner = dataclasses.replace(
        OPERATOR, kind="api_key", roles=frozenset({"org_owner"}), organization_id=acme.id
    )
    async with database.write(ALL) as session:
        leaks = [Leak(created.text, "https://example.com/a")]
        await end_leaked(session, chore, PEPPERS, leaks, "disable")
    assert await verify(database, created.text) is KeyRefusal.DISABLED
    async with database.write(Scope.of(acme.id)) as session:
        await service.enable_key(session, actor(principal=owner), owner, created.key.id)
    assert isinstance(await verify(database, created.text), VerifiedKey)
