"""Keys that move from an old pepper to a new one, and nodes that must not keep the old record."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api
from tests.fakes.followers import Ask, Follower, asking
from tests.fakes.organizations import ALL, NOW_US, PEPPERS, actor, create_key, create_place

from penstock.access import service
from penstock.access.model import CreatedKey, NewKey, VerifiedKey
from penstock.access.peppers import Peppers
from penstock.access.rehash import record_macs, record_reported
from penstock.access.rules import find_key_id
from penstock.access.verification import verify_key
from penstock.contract.key_hashes import MAX_PAIRS, KeyHashes, encode_key_hashes
from penstock.control.authentication import create_bearer
from penstock.control.key_hashes import create_key_hashes_router
from penstock.control.problems import install_problems
from penstock.kit.clock import ManualClock
from penstock.storage.database import Database
from penstock.tenancy.model import Project

NEW = b"pepper-of-these-tests-number-two"
BOTH = Peppers({1: PEPPERS.values[1], 2: NEW})
NODE_TOKEN = "node-token-of-these-tests"
Move = Callable[[Database, CreatedKey], Awaitable[int]]


def _pair(created: CreatedKey) -> tuple[bytes, bytes]:
    macs = BOTH.macs(created.text)
    return macs[1], macs[2]


async def _report(
    database: Database, pairs: Sequence[tuple[bytes, bytes]], peppers: Peppers = BOTH
) -> int:
    async with database.write(ALL) as session:
        return await record_reported(session, peppers, pairs, NOW_US)


async def _move_by_report(database: Database, created: CreatedKey) -> int:
    return await _report(database, [_pair(created)])


async def _move_by_showing(database: Database, created: CreatedKey) -> int:
    async with database.write(ALL) as session:
        verified = await verify_key(session, BOTH, created.text, now_us=NOW_US, address=None)
        assert isinstance(verified, VerifiedKey)
        return await record_macs(session, BOTH, [verified], NOW_US)


async def _has_moved(database: Database, created: CreatedKey) -> bool:
    async with database.read(ALL) as session:
        (secret,) = await service.list_secrets(session, created.key.id)
    old, new = _pair(created)
    assert (secret.mac, secret.pepper_id) in {(old, 1), (new, 2)}
    return secret.pepper_id == 2


async def _create(database: Database, project: Project, name: str, *scopes: str) -> CreatedKey:
    scopes = scopes or ("inference", "models:read")
    return await create_key(database, project, NewKey(name=name, scopes=list(scopes)))


@pytest.fixture
async def ask(database: Database) -> AsyncIterator[Ask]:
    """Return what asks the feed of a database."""
    async with asking(database) as ask:
        yield ask


@pytest.mark.parametrize("move", [_move_by_report, _move_by_showing])
async def test_a_moved_key_that_is_revoked_is_refused_on_every_node(
    database: Database, ask: Ask, tmp_path: Path, move: Move
) -> None:
    """Whenever a node followed, no record of a key is left once it moved and was revoked."""
    _, project = await create_place(database)
    moved = await _create(database, project, "moved")
    kept = await _create(database, project, "kept")
    # One node follows each step; one is cut off while the key moves; one also while it is revoked;
    # one is new.
    names = ("every", "cut off", "long away", "new")
    every, cut_off, long_away, new = (Follower(tmp_path / name, ask) for name in names)
    old, fresh = (b"k" + mac for mac in _pair(moved))
    for node in (every, cut_off, long_away):
        await node.follow()
        assert old in node.records()
    assert await move(database, moved) == 1
    assert await move(database, moved) == 0
    await every.follow()
    assert old not in every.records()
    assert fresh in every.records()
    async with database.write(ALL) as session:
        await service.revoke_key(session, actor(), moved.key.id)
    for node in (every, cut_off, long_away, new):
        await node.follow()
        assert set(node.records()) == {b"k" + kept.secret.mac}


async def test_reports_move_keys_of_the_data_plane_only(database: Database) -> None:
    """A node is not believed about a key that opens the control plane, nor about what is not so."""
    acme, project = await create_place(database)
    plain = await _create(database, project, "plain")
    admin = await _create(database, project, "admin", "admin", "inference")
    reader = await _create(database, project, "reader", "usage:read", "inference")
    revoked = await _create(database, project, "revoked")
    async with database.write(ALL) as session:
        await service.revoke_key(session, actor(), revoked.key.id)
    pairs = [_pair(one) for one in (admin, reader, revoked)]
    assert await _report(database, [*pairs, (b"o" * 32, b"n" * 32)]) == 0
    assert not await _has_moved(database, admin)
    assert not await _has_moved(database, reader)
    # A pepper that is not here, or not old: nobody could find the key any more.
    assert await _report(database, [_pair(plain)], PEPPERS) == 0
    assert await _report(database, [_pair(plain)], Peppers({2: NEW, 3: NEW[::-1]})) == 0
    # Another key's hash, or one hash for two: one of them would be lost.
    other = await _create(database, project, "other")
    assert await _report(database, [(_pair(plain)[0], other.secret.mac)]) == 0
    two = [(_pair(one)[0], _pair(plain)[1]) for one in (plain, other)]
    assert await _report(database, two) == 1
    assert acme.id == plain.key.organization_id


@pytest.fixture
async def node(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """What calls the endpoint that nodes report to."""
    app = FastAPI()
    install_problems(app)
    authenticate = create_bearer(NODE_TOKEN.encode(), "nodeToken", "")
    app.include_router(create_key_hashes_router(database, BOTH, ManualClock(), authenticate))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as client:
        yield client


async def _post(
    node: httpx.AsyncClient, content: bytes, token: str | None = NODE_TOKEN
) -> httpx.Response:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return await node.post("/node/v1/key-hashes", content=content, headers=headers)


async def test_nodes_report_with_their_token(database: Database, node: httpx.AsyncClient) -> None:
    """Only a node with the same newest pepper moves keys: nobody else, and no malformed report."""
    _, project = await create_place(database)
    created = await _create(database, project, "k")
    good = encode_key_hashes(KeyHashes(BOTH.check, (_pair(created),)))
    expect_problem(await _post(node, good, None), 401, "err:control:auth:token_missing")
    expect_problem(await _post(node, good, created.text), 401, "err:control:auth:token_wrong")
    for check in (PEPPERS.check, b""):
        report = encode_key_hashes(KeyHashes(check, (_pair(created),)))
        expect_problem(await _post(node, report), 409, "err:control:node:peppers_differ")
    many = ((b"o" * 32, b"n" * 32),) * (MAX_PAIRS + 1)
    for wrong in (
        b"",
        b"{}",
        good[:-1],
        encode_key_hashes(KeyHashes(BOTH.check, many)),
        encode_key_hashes(KeyHashes(BOTH.check, ((b"short", b"n" * 32),))),
    ):
        expect_problem(await _post(node, wrong), 400, "err:control:node:key_hashes_invalid")
    large = await _post(node, b"x" * 2_000_000)
    expect_problem(large, 413, "err:control:request:body_too_large")
    assert not await _has_moved(database, created)
    answer = await _post(node, good)
    assert (answer.status_code, answer.json()) == (200, {"stored": 1})
    assert (await _post(node, good)).json() == {"stored": 0}
    assert await _has_moved(database, created)


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API while a pepper is replaced."""
    secrets = tmp_path / "data" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "pepper").write_bytes(PEPPERS.values[1])
    (secrets / "pepper.2").write_bytes(NEW)
    async with run_admin_api(database, tmp_path / "data") as rig:
        yield rig


async def test_the_operator_sees_when_an_old_pepper_can_go(
    database: Database, rig: AdminRig
) -> None:
    """The report counts what is under each pepper; admin keys move when they are shown."""
    _, project = await create_place(database)
    created = await create_key(
        database, project, NewKey(name="admin", role="org_owner", scopes=["admin"])
    )
    missing = await rig.call("GET", "/peppers", token="")
    expect_problem(missing, 401, "err:control:auth:token_missing")
    denied = await rig.call("GET", "/peppers", token=created.text)
    expect_problem(denied, 403, "err:control:access:operation_denied")
    assert find_key_id(created.text) == created.key.id

    async def counts() -> list[tuple[int, bool, bool, int, list[str]]]:
        data = (await rig.call("GET", "/peppers")).json()["data"]
        names = ("id", "is_active", "is_loaded", "secrets", "key_ids")
        return [tuple(one[name] for name in names) for one in data]

    assert await counts() == [(1, False, True, 1, [created.key.id]), (2, True, True, 0, [])]
    assert not await _has_moved(database, created)
    assert rig.chores is not None
    await rig.chores.tick()
    assert await counts() == [(1, False, True, 0, []), (2, True, True, 1, [])]
    assert await _has_moved(database, created)
