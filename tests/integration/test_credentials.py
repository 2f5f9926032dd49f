"""Credentials in the database: made, opened, exchanged, rotated, on both kinds of database."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from tests.fakes.organizations import ALL, actor, create_organization
from tests.fakes.sealed_credentials import (
    SECRET,
    create_credential,
    create_data_keys,
    create_upstream,
    find_state,
    read_secret,
)

from penstock.audit.tables import AuditEntries
from penstock.catalog.credentials import feed, jobs, service
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.catalog.credentials.deks import CACHE_S
from penstock.catalog.credentials.errors import (
    UPSTREAM_TAKEN,
    CredentialInvalidError,
    CredentialUnreadableError,
    KeysUnavailableError,
)
from penstock.catalog.credentials.model import CredentialState, NewCredential
from penstock.catalog.errors import CATALOG_IN_USE
from penstock.catalog.tables import Credentials, Deks, KeyRotations, Upstreams
from penstock.kit.clock import ManualClock
from penstock.kit.envelope import SecretBytes
from penstock.kit.errors import PenstockError
from penstock.kit.kek.file import (
    FileKek,
    add_key_version,
    create_key_file,
    remove_key_version,
)
from penstock.kit.kek.model import Context, KekRing, KekUnavailableError, WrappedKey
from penstock.storage.changes import get_last_change, list_changes
from penstock.storage.database import Database
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.scope import Scope
from penstock.tenancy import service as tenancy
from penstock.tenancy.errors import NAME_TAKEN, STATUS_CONFLICT

ACTIVE = CredentialState.ACTIVE
BROKEN = CredentialState.NEEDS_RECONFIGURATION


class FaultyKek(FileKek):
    """A KEK that goes away behind a number of calls, so slow that no data key is kept."""

    is_failing_after: int | None = None
    unwrapped = 0

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.clock = ManualClock()

    def unwrap(self, wrapped: WrappedKey, context: Context) -> SecretBytes:
        """See `Kek`."""
        self.unwrapped += 1
        self.clock.advance(CACHE_S)
        if self.is_failing_after is not None and self.unwrapped > self.is_failing_after:
            message = "the keeper is away"
            raise KekUnavailableError(message)
        return super().unwrap(wrapped, context)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a key file."""
    create_key_file(tmp_path / "kek.json")
    return tmp_path / "kek.json"


@pytest.fixture
def keys(path: Path) -> DataKeys:
    """Return data keys under a key file."""
    return create_data_keys(path)


def _move(path: Path, target: Path) -> None:
    path.rename(target)


async def _rows(database: Database, *columns: Any) -> Sequence[Any]:
    async with database.read(ALL) as session:
        return await session.rows(select(*columns))


async def _refusal(database: Database, keys: DataKeys, **members: Any) -> Any:
    with pytest.raises(PenstockError) as caught:
        await create_credential(database, keys, **members)
    return caught.value.error


async def test_an_owner_has_one_data_key(database: Database, keys: DataKeys) -> None:
    """Each owner's first credential makes its data key, and the others share it."""
    acme = await create_organization(database)
    for number in range(3):
        await create_credential(database, keys, f"ours {number}")
        await create_credential(database, keys, f"theirs {number}", organization_id=acme.id)
    owners = await _rows(database, Deks.organization_id, Deks.is_active)
    assert sorted(map(tuple, owners), key=str) == [(acme.id, True), (None, True)]


async def test_a_secret_comes_back_and_is_nowhere(
    database: Database, keys: DataKeys, caplog: pytest.LogCaptureFixture
) -> None:
    """What was set opens; row, audit log, feed and log hold nothing of it."""
    made = await create_credential(database, keys)
    assert (await read_secret(database, keys, made.id)).reveal() == SECRET.encode()
    async with database.read(ALL) as session:
        records = (await feed.list_page(session, "", 100))[0]
    seen = [await _rows(database, *Credentials.__table__.columns)]
    seen += [await _rows(database, *AuditEntries.__table__.columns)]
    assert SECRET not in repr((seen, records, made)) + caplog.text
    assert list(records) == [b"e" + made.id.encode()]


async def test_two_at_once_make_one_data_key(database: Database, keys: DataKeys) -> None:
    """Credentials that are created at the same moment are under one data key, and all open."""
    made = await asyncio.gather(
        *(create_credential(database, keys, f"credential {number}") for number in range(8))
    )
    for credential in made:
        await read_secret(database, keys, credential.id)
    assert len(await _rows(database, Deks.id)) == 1


async def test_names_are_unique_for_each_owner(database: Database, keys: DataKeys) -> None:
    """Two owners may use one name, one owner only once; also by renaming."""
    acme, other = [await create_organization(database, name) for name in ("acme", "other")]
    for owner in (None, acme.id, other.id):
        await create_credential(database, keys, "same", organization_id=owner)
        refusal = await _refusal(database, keys, name="same", organization_id=owner)
        assert refusal is NAME_TAKEN
    another = await create_credential(database, keys, "another", organization_id=acme.id)
    with pytest.raises(PenstockError) as caught:
        async with database.write(ALL) as session:
            await service.update_credential(session, actor(), keys, another.id, {"name": "same"})
    assert caught.value.error is NAME_TAKEN


async def test_one_of_its_own_for_each_upstream(database: Database, keys: DataKeys) -> None:
    """An organization brings one credential to an upstream, of the upstream's provider."""
    acme = await create_organization(database)
    upstream = await create_upstream(database)
    place = {"organization_id": acme.id, "upstream_id": upstream}
    made = await create_credential(database, keys, "first", **place)
    assert await _refusal(database, keys, name="second", **place) is UPSTREAM_TAKEN
    unknown = place | {"upstream_id": "ups_unknown"}
    assert await _refusal(database, keys, name="second", **unknown) is OBJECT_UNKNOWN
    for wrong in (
        NewCredential(name="x", provider="sglang", secret="s", **place),
        NewCredential(name="x", provider="vllm", secret="s", upstream_id=upstream),
        NewCredential(name="x", provider="nobody", secret="s"),
    ):
        with pytest.raises(CredentialInvalidError):
            async with database.write(ALL) as session:
                await service.create_credential(session, actor(), keys, wrong)
    async with database.write(ALL) as session:
        await service.delete_credential(session, actor(), made.id)
    await create_credential(database, keys, "second", **place)


async def test_only_active_organizations_get_any(database: Database, keys: DataKeys) -> None:
    """An archived organization gets no credential, and an unknown one is unknown."""
    acme = await create_organization(database)
    async with database.write(ALL) as session:
        await tenancy.archive_organization(session, actor(), acme.id)
    assert await _refusal(database, keys, organization_id=acme.id) is STATUS_CONFLICT
    assert await _refusal(database, keys, organization_id="org_unknown") is OBJECT_UNKNOWN
    assert not await _rows(database, Deks.id)


@pytest.mark.parametrize("secret", ["", "two words", "zeile\n", "schlüssel", "x" * 16_385, "\x7f"])
async def test_what_no_header_carries_is_refused(
    database: Database, keys: DataKeys, secret: str
) -> None:
    """A secret that cannot be sent is refused without being repeated, and nothing is stored."""
    with pytest.raises(CredentialInvalidError) as caught:
        await create_credential(database, keys, secret=secret)
    assert not secret or secret not in str(caught.value)
    assert not await _rows(database, Deks.id)


async def test_what_is_used_stays(database: Database, keys: DataKeys) -> None:
    """A credential that an upstream names is not deleted, and the refusal says who names it."""
    made = await create_credential(database, keys)
    upstream = await create_upstream(database)
    async with database.write(ALL) as session:
        await session.change(
            update(Upstreams).where(Upstreams.id == upstream).values(credential_id=made.id)
        )
    with pytest.raises(PenstockError, match="upstream engines") as caught:
        async with database.write(ALL) as session:
            await service.delete_credential(session, actor(), made.id)
    assert caught.value.error is CATALOG_IN_USE
    async with database.write(ALL) as session:
        await session.change(update(Upstreams).values(credential_id=None))
        await service.delete_credential(session, actor(), made.id)
    assert not await _rows(database, Credentials.id)


async def test_organizations_see_their_own(database: Database, keys: DataKeys) -> None:
    """In an organization's scope neither the platform's nor another's credential is there."""
    acme, other = [await create_organization(database, name) for name in ("acme", "other")]
    owners = (None, acme.id, other.id)
    made = [await create_credential(database, keys, organization_id=owner) for owner in owners]
    scope = Scope.of(acme.id)
    for credential in made:
        async with database.read(scope) as session:
            found = service.get_credential(session, credential.id)
            if credential.organization_id == acme.id:
                assert await found == credential
                continue
            with pytest.raises(PenstockError) as caught:
                await found
            assert caught.value.error is OBJECT_UNKNOWN
        with pytest.raises(PenstockError) as caught:
            async with database.write(scope) as session:
                await service.delete_credential(session, actor(), credential.id)
        assert caught.value.error is OBJECT_UNKNOWN


async def test_a_moved_row_does_not_open(database: Database, keys: DataKeys) -> None:
    """The ciphertext of one credential in the row of another, or under another owner, is lost."""
    acme = await create_organization(database)
    first = await create_credential(database, keys, "first")
    second = await create_credential(database, keys, "second", organization_id=acme.id)
    third = await create_credential(database, keys, "third")
    (row,) = [
        row
        for row in await _rows(
            database,
            Credentials.id,
            Credentials.nonce,
            Credentials.ciphertext,
            Credentials.dek_id,
        )
        if row[0] == first.id
    ]
    async with database.write(ALL) as session:
        await session.change(
            update(Credentials)
            .where(Credentials.id != first.id)
            .values(nonce=row[1], ciphertext=row[2], dek_id=row[3])
        )
    for stolen in (second, third):
        with pytest.raises(CredentialUnreadableError):
            await read_secret(database, keys, stolen.id)
    await read_secret(database, keys, first.id)


async def test_a_keeper_that_is_away_changes_nothing(database: Database, path: Path) -> None:
    """Without the KEK nothing is created or set; it is 503, and no row is blamed."""
    made = await create_credential(database, create_data_keys(path))
    _move(path, path.with_name("away"))
    keys = DataKeys(FileKek(path), ManualClock())
    acme = await create_organization(database)
    for owner in (None, acme.id):
        with pytest.raises(KeysUnavailableError):
            await create_credential(database, keys, "new", organization_id=owner)
    with pytest.raises(KeysUnavailableError):
        async with database.write(ALL) as session:
            await service.update_credential(session, actor(), keys, made.id, {"secret": "x"})
    _move(path.with_name("away"), path)
    assert (await read_secret(database, keys, made.id)).reveal() == SECRET.encode()
    assert await find_state(database, made.id) == ACTIVE


async def test_setting_the_secret_heals(database: Database, path: Path) -> None:
    """What lost its KEK is marked by a rotation, fed no more, and works when it is set again."""
    lost = await create_credential(database, create_data_keys(path))
    add_key_version(path)
    remove_key_version(path, 1)
    keys = create_data_keys(path)
    report = await jobs.rotate_data_key(database, keys, actor(), None)
    assert (report.unreadable, report.is_complete) == (1, False)
    assert await find_state(database, lost.id) == BROKEN
    async with database.read(ALL) as session:
        assert await feed.list_changed(session, [lost.id]) == ({}, {b"e" + lost.id.encode()})
        assert (await feed.list_page(session, "", 100))[0] == {}
    async with database.write(ALL) as session:
        await service.update_credential(session, actor(), keys, lost.id, {"secret": "sk-new"})
    assert await find_state(database, lost.id) == ACTIVE
    assert (await read_secret(database, keys, lost.id)).reveal() == b"sk-new"
    assert (await jobs.rotate_data_key(database, keys, actor(), None)).is_complete
    assert len(await _rows(database, Deks.id)) == 1


async def test_a_lost_data_key_is_replaced(database: Database, path: Path) -> None:
    """Where the owner's data key never opens again a new secret gets a new one, and works."""
    lost = await create_credential(database, create_data_keys(path))
    add_key_version(path)
    remove_key_version(path, 1)
    keys = create_data_keys(path)
    made = await create_credential(database, keys, "new", secret="sk-new")
    assert (await read_secret(database, keys, made.id)).reveal() == b"sk-new"
    with pytest.raises(CredentialUnreadableError):
        await read_secret(database, keys, lost.id)


async def test_rewrapping_leaves_ciphertexts(database: Database, path: Path) -> None:
    """After a KEK rotation every data key is under the new version, and nodes are told of all."""
    keys = create_data_keys(path)
    acme = await create_organization(database)
    made = [
        await create_credential(database, keys, f"{number}", organization_id=owner)
        for number, owner in enumerate((None, None, acme.id))
    ]
    before = await _rows(database, Credentials.id, Credentials.ciphertext)
    async with database.read(ALL) as session:
        seq = await get_last_change(session)
    add_key_version(path)
    report = await jobs.rewrap_data_keys(database, keys, actor(), batch_size=1)
    assert (report.renewed, report.unreadable, report.outdated) == (2, 0, 0)
    remove_key_version(path, 1)
    fresh = create_data_keys(path)
    for credential in made:
        assert (await read_secret(database, fresh, credential.id)).reveal() == SECRET.encode()
    assert sorted(await _rows(database, Credentials.id, Credentials.ciphertext)) == sorted(before)
    async with database.read(ALL) as session:
        changes = await list_changes(session, seq, 100)
    assert {(kind, name) for _, kind, name in changes} == {
        ("credential", credential.id) for credential in made
    }
    assert (await jobs.rewrap_data_keys(database, fresh, actor())).renewed == 0


async def test_data_keys_move_between_keepers(database: Database, path: Path) -> None:
    """With both keepers in the ring everything moves; then the old one is needed no more."""
    made = await create_credential(database, create_data_keys(path))
    other = path.with_name("other.json")
    create_key_file(other)
    ring = DataKeys(KekRing(FileKek(other), FileKek(path)), ManualClock())
    assert (await jobs.rewrap_data_keys(database, ring, actor())).is_complete
    _move(path, path.with_name("away"))
    keys = create_data_keys(other)
    assert (await read_secret(database, keys, made.id)).reveal() == SECRET.encode()


async def test_a_keeper_that_is_not_configured_blames_nobody(
    database: Database, path: Path
) -> None:
    """When the old keeper was forgotten in the ring, nothing is marked, and it can be mended."""
    made = await create_credential(database, create_data_keys(path))
    other = create_data_keys(path.with_name("other.json"))
    report = await jobs.rewrap_data_keys(database, other, actor())
    assert (report.renewed, report.unreadable, report.is_complete) == (0, 1, False)
    report = await jobs.rotate_data_key(database, other, actor(), None)
    assert (report.unreadable, report.is_complete) == (1, False)
    assert await find_state(database, made.id) == ACTIVE


async def test_a_data_key_rotation_encrypts_anew(database: Database, keys: DataKeys) -> None:
    """One owner's credentials are under a new data key, the old one is gone, others are left."""
    acme = await create_organization(database)
    mine = [
        await create_credential(database, keys, f"{number}", organization_id=acme.id)
        for number in range(5)
    ]
    ours = await create_credential(database, keys)
    before = {row[0]: row[1] for row in await _rows(database, Credentials.id, Credentials.dek_id)}
    report = await jobs.rotate_data_key(database, keys, actor(), acme.id, batch_size=2)
    assert (report.renewed, report.unreadable, report.outdated) == (5, 0, 0)
    after = {row[0]: row[1] for row in await _rows(database, Credentials.id, Credentials.dek_id)}
    assert after[ours.id] == before[ours.id]
    assert {after[one.id] for one in mine}.isdisjoint(before.values())
    assert {row[0] for row in await _rows(database, Deks.id)} == set(after.values())
    for credential in mine:
        assert (await read_secret(database, keys, credential.id)).reveal() == SECRET.encode()
    empty = await create_organization(database, "empty")
    assert (await jobs.rotate_data_key(database, keys, actor(), empty.id)).is_complete


async def test_a_rotation_goes_on_where_it_died(database: Database, path: Path) -> None:
    """Killed between batches, a rotation ends as if it had not been, though rows changed."""
    kek = FaultyKek(path)
    keys = DataKeys(kek, kek.clock)
    made = [await create_credential(database, keys, f"{number}") for number in range(6)]
    for allowed in (1, 2, 3):
        kek.unwrapped, kek.is_failing_after = 0, allowed
        with pytest.raises(KeysUnavailableError):
            await jobs.rotate_data_key(database, keys, actor(), None, batch_size=1)
        kek.is_failing_after = None
        for credential in made:
            assert (await read_secret(database, keys, credential.id)).reveal() == SECRET.encode()
    ((is_finished, renewed),) = await _rows(
        database, KeyRotations.is_finished, KeyRotations.renewed
    )
    assert (is_finished, renewed) == (False, 3)
    assert len(await _rows(database, Deks.id)) == 2
    for changed in (made[0], made[5]):
        async with database.write(ALL) as session:
            await service.update_credential(
                session, actor(), keys, changed.id, {"secret": "sk-new"}
            )
    late = await create_credential(database, keys, "late")
    report = await jobs.rotate_data_key(database, keys, actor(), None, batch_size=2)
    assert report.is_complete
    assert len(await _rows(database, Deks.id)) == 1
    for credential in [*made, late]:
        expected = b"sk-new" if credential in {made[0], made[5]} else SECRET.encode()
        assert (await read_secret(database, keys, credential.id)).reveal() == expected


async def test_changes_and_rotations_do_not_meet(database: Database, keys: DataKeys) -> None:
    """While secrets are set and data keys rotated at once, the last secret that was set opens."""
    made = [await create_credential(database, keys, f"{number}") for number in range(4)]

    async def change(number: int) -> None:
        credential = made[number % len(made)]
        async with database.write(ALL) as session:
            await service.update_credential(
                session, actor(), keys, credential.id, {"secret": f"sk-{number}"}
            )

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(
                jobs.rotate_data_key(database, keys, actor(), None, batch_size=1 + number)
            )
        for number in range(4):
            group.create_task(change(number))
    report = await jobs.rotate_data_key(database, keys, actor(), None)
    assert report.is_complete
    assert len(await _rows(database, Deks.id)) == 1
    for number, credential in enumerate(made):
        secret = await read_secret(database, keys, credential.id)
        assert secret.reveal() == f"sk-{number}".encode()
        assert await find_state(database, credential.id) == ACTIVE


async def test_an_own_credential_stays_told_of(database: Database, keys: DataKeys) -> None:
    """Nodes know an organization's own credential while it is there, whatever state it is in."""
    acme = await create_organization(database)
    upstream = await create_upstream(database)
    made = await create_credential(database, keys, organization_id=acme.id, upstream_id=upstream)
    own = b"o" + acme.id.encode() + b"\0engines"
    sealed = b"e" + made.id.encode()
    async with database.read(ALL) as session:
        records, gone = await feed.list_changed(session, [made.id])
    assert (set(records), gone) == ({own, sealed}, set())
    assert records[own] == made.id.encode()
    async with database.write(ALL) as session:
        await session.change(update(Credentials).values(state="of a newer version"))
    async with database.read(ALL) as session:
        assert set((await feed.list_page(session, "", 100))[0]) == {own}
        assert await feed.list_changed(session, [made.id]) == (
            {own: made.id.encode()},
            {sealed},
        )
        seq = await get_last_change(session)
    async with database.write(ALL) as session:
        await service.delete_credential(session, actor(), made.id)
    async with database.read(ALL) as session:
        ((_, kind, object_id),) = await list_changes(session, seq, 10)
        assert kind == "credential"
        assert await feed.list_changed(session, [object_id]) == ({}, {own, sealed})
