"""Rows that something else wrote: each is out of use by itself, and everything else goes on.

They are written as SQL, as far as a database takes them: PostgreSQL refuses a text where a number
belongs, SQLite does not.
"""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.fakes.admin_rig import AdminRig, run_admin_api
from tests.fakes.catalogs import create_grant, create_path
from tests.fakes.organizations import (
    ALL,
    NOW_US,
    PEPPERS,
    create_key,
    create_organization,
    create_place,
)

from penstock.access.model import KeyRefusal, NewKey
from penstock.access.verification import verify_key
from penstock.contract.feed import MAX_RECORDS, Position, read_page
from penstock.contract.snapshot import Policy
from penstock.contract.snapshot_store import (
    grant_name,
    policy_record,
    suspension_name,
)
from penstock.control.feed import answer
from penstock.control.feed_sources import SOURCES
from penstock.storage.changes import ChangeKind
from penstock.storage.database import Database
from penstock.tenancy.model import Owner, OwnerKind

NO_LISTS = ("'{'", "'null'", "'\"eu\"'", "'[1]'", "'{}'")
"""JSON, or none at all, that is no list of texts."""


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API over an empty database of each kind."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        yield rig


async def _poison(database: Database, *statements: str, **values: str) -> bool:
    """Run SQL with these parameters; False when the database knows better."""
    try:
        async with database.write(ALL) as session:
            for statement in statements:
                await session._connection.execute(text(statement), values)
    except DBAPIError:
        return False
    return True


async def _list_all(database: Database, kind: ChangeKind) -> dict[bytes, bytes]:
    """Return what a full answer of the feed has of a kind."""
    async with database.read(ALL) as session:
        records, _ = await SOURCES[kind].list_page(session, "", MAX_RECORDS)
    return records


async def _list_changed(
    database: Database, kind: ChangeKind, names: Iterable[str]
) -> tuple[dict[bytes, bytes], set[bytes]]:
    async with database.read(ALL) as session:
        return await SOURCES[kind].find(session, list(names))


async def _shown(rig: AdminRig, path: str) -> list[str]:
    answer = await rig.call("GET", path)
    assert answer.status_code == 200, answer.text
    for item in answer.json()["data"]:
        assert (await rig.call("GET", f"{path}/{item['id']}")).json() == item
    return sorted(item.get("name") for item in answer.json()["data"])


CATALOG: dict[ChangeKind, tuple[str, list[tuple[str, str]]]] = {
    "upstream": (
        "upstreams",
        [
            *(("endpoints", value) for value in (*NO_LISTS, "'[]'", "'[\"ftp://x\"]'")),
            *(("forward_headers", value) for value in (*NO_LISTS, "'[\"cookie\"]'")),
            *(
                ("timeouts", value)
                for value in ("'{'", "'null'", "'[]'", '\'{"idle_ms": "x"}\'', "'{\"x\": 1}'")
            ),
            ("provider", "'nobody'"),
            ("provider", "''"),
            ("region", "'E U'"),
            ("data_class", "''"),
            ("credential_reference", "'plain-secret'"),
            ("tls_ca_file", "'relative'"),
            ("max_connections", "0"),
            ("max_connections", "'many'"),
            ("is_disabled", "'perhaps'"),
            ("is_disabled", "7"),
            ("version", "'first'"),
        ],
    ),
    "deployment": (
        "deployments",
        [
            ("model", "''"),
            ("max_output_tokens", "-1"),
            ("max_output_tokens", "'many'"),
            ("continuous_usage", "'perhaps'"),
            ("is_disabled", "'perhaps'"),
        ],
    ),
    "alias": ("aliases", [("is_open", "'perhaps'"), ("is_open", "2")]),
}
"""For each kind of object its table, and columns with what is written there."""


@pytest.mark.parametrize("kind", CATALOG)
async def test_a_damaged_object_of_the_catalog_is_not_fed(
    database: Database, rig: AdminRig, kind: ChangeKind
) -> None:
    """An upstream, deployment or alias with nonsense in a column has no record; others have."""
    table, poisons = CATALOG[kind]
    taken = []
    for number, (column, value) in enumerate(poisons):
        name = f"{number}-{column.replace('_', '-')}"
        await create_path(database, name)
        statement = f"UPDATE {table} SET {column} = {value} WHERE name = :name"  # noqa: S608 - of this test
        if await _poison(database, statement, name=name):
            taken.append(name)
    await create_path(database, "whole")
    names = [*taken, "whole"]
    letter = kind[0].encode()
    fed = await _list_all(database, kind)
    assert len(fed) == len(poisons) + 1 - len(taken)
    assert [name for name in names if letter + name.encode() in fed] == ["whole"]
    whole = letter + b"whole"
    found, gone = await _list_changed(database, kind, names)
    assert found == {whole: fed[whole]}
    assert gone == {letter + name.encode() for name in taken}
    assert set(await _shown(rig, f"/{table}")) >= set(names)
    for other in CATALOG.keys() - {kind}:
        assert len(await _list_all(database, other)) == len(poisons) + 1


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM route_choices WHERE route_id = :route",
        "UPDATE route_choices SET weight = 5000 WHERE route_id = :route",
        "UPDATE route_choices SET weight = 'much' WHERE route_id = :route",
    ],
)
async def test_a_damaged_route_is_not_fed(
    database: Database, rig: AdminRig, statement: str
) -> None:
    """A route whose choices are none, or have nonsense for a weight, has no record; others have."""
    path, _ = [await create_path(database, name) for name in ("broken", "whole")]
    before = await _list_all(database, "route")
    if not await _poison(database, statement, route=path.route.id):
        assert await _list_all(database, "route") == before
        return
    assert await _list_all(database, "route") == {b"rwhole": before[b"rwhole"]}
    found, gone = await _list_changed(database, "route", ["broken", "whole"])
    assert found.keys() == {b"rwhole"}
    assert gone == {b"rbroken"}
    assert await _shown(rig, "/routes") == ["broken", "whole"]


async def test_a_name_that_no_node_can_store_is_not_fed(database: Database, rig: AdminRig) -> None:
    """Names and ids of any length that were written by hand keep no other record from nodes."""
    for name in ("broken", "whole"):
        await create_path(database, name)
    await create_organization(database)
    assert await _poison(
        database,
        "UPDATE aliases SET name = :long WHERE name = 'broken'",
        "UPDATE organizations SET id = :long, status = 'suspended'",
        long="x" * 600,
    )
    async with database.read(ALL) as session:
        page = await answer(session, Position(), "")
    assert page is not None
    names = {name for name, _ in read_page(page).puts}
    assert names == {
        *(kind + b"whole" for kind in (b"a", b"d", b"r", b"u")),
        b"dbroken",
        b"rbroken",
        b"ubroken",
    }
    assert len(await _shown(rig, "/aliases")) == 2


@pytest.mark.parametrize("column", ["allowed_data_classes", "allowed_regions"])
async def test_a_damaged_policy_leads_nowhere(
    database: Database, rig: AdminRig, column: str
) -> None:
    """An organization or project whose policy cannot be read may send its data nowhere."""
    for number, value in enumerate(NO_LISTS):
        await _check_policy(database, f"acme {number}", column, value)
    assert len(await _shown(rig, "/organizations")) == len(NO_LISTS)
    assert len(await _shown(rig, "/projects")) == len(NO_LISTS)


async def _check_policy(database: Database, name: str, column: str, value: str) -> None:
    organization, project = await create_place(database, name)
    owners: list[tuple[OwnerKind, Owner, tuple[str, str | None]]] = [
        ("organization", organization, (organization.id, None)),
        ("project", project, (organization.id, project.id)),
    ]
    for kind, owner, ids in owners:
        statement = f"UPDATE {kind}s SET {column} = {value} WHERE id = :owner"  # noqa: S608 - of this test
        if not await _poison(database, statement, owner=owner.id):
            continue
        record, _ = policy_record(Policy(), *ids)
        value_of = (await _list_all(database, kind))[record]
        policy = msgspec.msgpack.decode(value_of, type=Policy)
        assert getattr(policy, column.removeprefix("allowed_")) == (), value
        changed = await _list_changed(database, kind, [owner.id])
        assert changed == ({record: value_of}, {suspension_name(*ids)})


@pytest.mark.parametrize("status", ["gone", "", "ACTIVE"])
async def test_a_status_that_nobody_knows_suspends(
    database: Database, rig: AdminRig, status: str
) -> None:
    """An organization or project of no known status is suspended on nodes, and no other one is."""
    organization, project = await create_place(database)
    other, of_other = await create_place(database, "other")
    assert await _poison(
        database,
        "UPDATE organizations SET status = :status WHERE id = :organization",
        "UPDATE projects SET status = :status WHERE id = :project",
        status=status,
        organization=organization.id,
        project=project.id,
    )
    assert await _list_all(database, "organization") == {suspension_name(organization.id): b""}
    suspended = suspension_name(organization.id, project.id)
    assert await _list_all(database, "project") == {suspended: b""}
    assert len(await _shown(rig, "/organizations")) == 2
    assert len(await _shown(rig, "/projects")) == 2
    key = await create_key(database, of_other)
    assert key.key.organization_id == other.id
    assert len(await _list_all(database, "key")) == 1


KEYS = [
    *(("scopes", value) for value in NO_LISTS),
    *(("allowed_aliases", value) for value in NO_LISTS),
    *(("allowed_cidrs", value) for value in NO_LISTS),
    ("role", "'king'"),
    ("is_disabled", "'perhaps'"),
]


async def test_a_damaged_key_opens_nothing(database: Database, rig: AdminRig) -> None:
    """A key with nonsense in what limits it is refused everywhere, rather than without limits."""
    _, project = await create_place(database)
    whole = await create_key(database, project, NewKey(name="whole"))
    fed = {b"k" + PEPPERS.mac(whole.text)}
    for number, (column, value) in enumerate(KEYS):
        created = await create_key(database, project, NewKey(name=f"{number} {column} {value}"))
        statement = f"UPDATE api_keys SET {column} = {value} WHERE id = :key"  # noqa: S608 - of this test
        is_taken = await _poison(database, statement, key=created.key.id)
        if not is_taken:
            fed.add(b"k" + PEPPERS.mac(created.text))
        async with database.read(ALL) as session:
            verified = await verify_key(
                session, PEPPERS, created.text, now_us=NOW_US, address="::1"
            )
        assert isinstance(verified, KeyRefusal) == is_taken, created.key.name
    assert (await _list_all(database, "key")).keys() == fed
    assert len(await _shown(rig, "/keys")) == len(KEYS) + 1


async def test_a_grant_of_nothing_lets_nobody_in(database: Database) -> None:
    """A grant is told with its alias only: the name of one that is gone opens nothing."""
    path = await create_path(database, "fast")
    organization = await create_organization(database)
    await create_grant(database, path.alias, organization)
    name = grant_name("fast", organization.id)
    assert await _list_all(database, "grant") == {name: b""}
    wrong: list[Any] = [f"slow\n{organization.id}\n", f"fast\n{organization.id}\nprj_none"]
    found, gone = await _list_changed(database, "grant", [f"fast\n{organization.id}\n", *wrong])
    assert found == {name: b""}
    assert gone == {
        grant_name("slow", organization.id),
        grant_name("fast", organization.id, "prj_none"),
    }
