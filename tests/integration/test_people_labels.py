"""Labels of members and service accounts: their keys carry them, and who may give them."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import update
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api
from tests.fakes.budget_rig import BudgetRig
from tests.fakes.followers import Follower, asking
from tests.fakes.organizations import ALL

from penstock.access.rules import find_key_id
from penstock.contract.money import HoldUse
from penstock.contract.snapshot import Key
from penstock.storage.database import Database
from penstock.tenancy import service as tenancy
from penstock.tenancy.tables import Members

DENIED = "err:control:access:operation_denied"
INVALID = "err:control:tenancy:labels_invalid"
SEARCH, ADS = {"team": "search"}, {"team": "ads"}
RULES = [
    {"metric": "requests", "limit": 5, "label": label} for label in ("team=search", "team=ads")
]


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API over an empty database of each kind."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        yield rig


def _carried(follower: Follower) -> dict[str, tuple[str, ...]]:
    """Return what the keys carry that a node knows of."""
    keys = (
        msgspec.msgpack.decode(value or b"", type=Key)
        for name, value in follower.records().items()
        if name[:1] == b"k"
    )
    return {key.id: key.labels for key in keys}


async def test_keys_carry_what_their_people_and_machines_do(
    rig: AdminRig, database: Database, tmp_path: Path
) -> None:
    """Besides their own, which hide nothing; nodes that follow hear of each change at once."""
    project = await rig.create_project("mine")
    place = {"organization_id": project["organization_id"], "role": "developer"}
    ada = await rig.create("/members", **place, subject="ada", labels=SEARCH)
    nightly = await rig.create("/service-accounts", **place, name="nightly")
    assert (ada["labels"], nightly["labels"]) == (SEARCH, {})
    new = {"project_id": project["id"], "labels": ADS}
    of_ada = await rig.create("/keys", **new, name="ada", member_id=ada["id"])
    of_nightly = await rig.create("/keys", **new, name="ci", service_account_id=nightly["id"])
    nobodys = await rig.create("/keys", **new, name="free")
    ids = [key["id"] for key in (of_ada, of_nightly, nobodys)]
    async with asking(database) as ask:
        follower = Follower(tmp_path / "node", ask)

        async def told() -> list[tuple[str, ...] | None]:
            await follower.follow()
            carried = _carried(follower)
            return [carried.get(key_id) for key_id in ids]

        both, own = ("team=ads", "team=search"), ("team=ads",)
        assert await told() == [both, own, own]
        for path in (f"/members/{ada['id']}", f"/service-accounts/{nightly['id']}"):
            changed = await rig.call("PATCH", path, {"labels": {"team": "search", "grade": "1"}})
            assert changed.json()["labels"] == {"grade": "1", "team": "search"}
            again = await rig.call("PATCH", path, {"labels": {"team": "search", "grade": "1"}})
            assert again.json()["version"] == changed.json()["version"]
        more = ("grade=1", *both)
        assert await told() == [more, more, own]
        await rig.call("PATCH", f"/members/{ada['id']}", {"labels": {}})
        assert await told() == [own, more, own]
        async with database.write(ALL) as session:
            damaged = update(Members).where(Members.id == ada["id"]).values(labels=["team=ads"])
            await session.change(damaged)
        await rig.call("PATCH", f"/members/{ada['id']}", {"role": "inference_only"})
        assert await told() == [None, more, own], "what is damaged opens nothing"
        assert (await rig.call("GET", f"/members/{ada['id']}")).json()["labels"] == {}
        await rig.call("PATCH", f"/members/{ada['id']}", {"labels": SEARCH})
        assert await told() == [both, more, own]
        assert follower.fulls == 1


async def test_labels_are_given_by_whoever_may_limit_the_organization(rig: AdminRig) -> None:
    """Nobody in a project, no developer; and of their own nobody takes one away."""
    project = await rig.create_project("mine")
    other = await rig.create_project("other")
    place = {"organization_id": project["organization_id"]}
    ada = await rig.create("/members", **place, subject="ada", role="org_admin", labels=SEARCH)
    bob = await rig.create(
        "/members", **place, subject="bob", role="developer", project_id=project["id"]
    )
    account = await rig.create("/service-accounts", **place, name="ci", role="developer")
    paths = [f"/members/{bob['id']}", f"/service-accounts/{account['id']}"]
    denied = {
        "project_admin": await rig.create_token(project["id"], "project_admin"),
        "developer": await rig.create_token(project["id"], "developer"),
        "developer of all": await rig.create_token(
            project["id"], "developer", service_account_id=account["id"]
        ),
        "auditor": await rig.create_token(project["id"], "auditor"),
    }
    key = await rig.create("/keys", project_id=project["id"], name="key", labels=SEARCH)
    for token in denied.values():
        for path in (*paths, f"/keys/{key['id']}"):
            answer = await rig.call("PATCH", path, {"labels": ADS}, token=token)
            assert answer.status_code in {403, 404}
        for path, members in (
            ("/members", {"subject": "eve", "project_id": project["id"]}),
            ("/service-accounts", {"name": "eve", "project_id": project["id"]}),
        ):
            body = {**place, **members, "role": "inference_only", "labels": SEARCH}
            expect_problem(await rig.call("POST", path, body, token=token), 403, DENIED)
    own = await rig.create_token(project["id"], "org_admin", member_id=ada["id"])
    mine = [f"/members/{ada['id']}", f"/keys/{find_key_id(own)}"]
    await rig.call("PATCH", mine[1], {"labels": SEARCH})
    for path in mine:
        for labels in ({}, ADS):
            answer = await rig.call("PATCH", path, {"labels": labels}, token=own)
            expect_problem(answer, 403, DENIED)
        more = await rig.call("PATCH", path, {"labels": SEARCH | {"grade": "1"}}, token=own)
        assert more.status_code == 200
    for path in paths:
        assert (await rig.call("PATCH", path, {"labels": ADS}, token=own)).status_code == 200
    stranger = await rig.create_token(other["id"], "org_owner")
    for path in (*paths, *mine):
        answer = await rig.call("PATCH", path, {"labels": ADS}, token=stranger)
        assert answer.status_code == 404


async def test_bad_labels_are_refused(rig: AdminRig, subtests: pytest.Subtests) -> None:
    """With what is wrong, and nothing is stored."""
    project = await rig.create_project("mine")
    place = {"organization_id": project["organization_id"], "role": "developer"}
    ada = await rig.create("/members", **place, subject="ada")
    for labels in ({"": "x"}, {"-a": "x"}, {"a": "\u0007"}, {"a": "x" * 257}, {"a=b": "c"}):
        with subtests.test(labels=labels):
            answer = await rig.call("PATCH", f"/members/{ada['id']}", {"labels": labels})
            expect_problem(answer, 400, INVALID)
    many = {f"n{number}": "" for number in range(33)}
    new = {**place, "name": "ci", "labels": many}
    expect_problem(await rig.call("POST", "/service-accounts", new), 400, INVALID)
    assert (await rig.call("GET", "/service-accounts")).json()["data"] == []


async def test_limits_and_budgets_of_labels_bear_on_who_carries_them(
    rig: AdminRig, database: Database
) -> None:
    """On a member and on their keys: what they use is counted once, in their organization's."""
    project = await rig.create_project("mine")
    place = {"organization_id": project["organization_id"]}
    ada = await rig.create("/members", **place, subject="ada", role="developer", labels=SEARCH)
    key = await rig.create(
        "/keys", project_id=project["id"], name="ada", member_id=ada["id"], labels=SEARCH
    )
    await rig.create("/limits", **place, rules=RULES)
    for name, owner_id in (("member_id", ada["id"]), ("key_id", key["id"])):
        shown = (await rig.call("GET", f"/limits/use?{name}={owner_id}")).json()["data"]
        assert [rule["label"] for rule in shown] == ["team=search"]
    async with database.read(ALL) as session:
        found = await tenancy.get_project(session, project["id"])
        organization = await tenancy.get_organization(session, found.organization_id)
    money = BudgetRig(database, organization, found)
    await money.add_price("small")
    budgets = [
        await money.add_budget(label=label, per=per)
        for label in ("team=search", "team=ads")
        for per in ("", "member")
    ]
    hold = await money.hold(budgets[0], 100_000)
    events = [
        money.event(1, HoldUse(hold.id, 60_000), key_id=key["id"]),
        money.event(2, key_id=key["id"]),
    ]
    await money.deliver(*events)
    await money.deliver(*events)
    shared, (each,) = await money.window(budgets[0]), await money.windows(budgets[1])
    assert (shared.settled_atto, shared.held) == (each.settled_atto, 40_000)
    assert each.settled_atto > 0
    assert each.key.subject == f"m.{ada['id']}"
    assert await money.windows(budgets[2]) == await money.windows(budgets[3]) == []
    assert await money.differences() == []
