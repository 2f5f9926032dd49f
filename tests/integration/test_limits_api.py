"""Plans and limits over HTTP: they live, are refused with a reason, reach nodes and hide."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api
from tests.fakes.catalogs import create_path
from tests.fakes.followers import Follower, asking
from tests.fakes.organizations import ALL

from penstock.access.rules import find_key_id
from penstock.contract.limits import BucketUse, Limit, OwnerLimits, UseReport
from penstock.contract.snapshot import Key
from penstock.contract.snapshot_store import owner_name
from penstock.control.authentication import create_bearer
from penstock.control.limit_uses import create_limit_uses_router
from penstock.control.problems import install_problems
from penstock.limits.rule_use import KEEP_USES_S, MAX_USES, forget_old_uses
from penstock.limits.tables import Limits
from penstock.storage.database import Database

INVALID = "err:control:limits:invalid"
REQUEST_INVALID = "err:control:request:invalid"
UNKNOWN = "err:control:storage:object_unknown"
DENIED = "err:control:access:operation_denied"
RULE = {"metric": "requests", "limit": 600}
NODE_TOKEN = "node-token-of-these-tests"


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API over an empty database of each kind."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        yield rig


async def _create_key(rig: AdminRig, project: dict[str, Any], **members: Any) -> str:
    made = await rig.create("/keys", project_id=project["id"], name="key", **members)
    return str(made["id"])


async def _records(database: Database, tmp_path: Path, name: str = "node") -> dict[bytes, Any]:
    """Return what a node that begins is told of limits and plans."""
    async with asking(database) as ask:
        follower = Follower(tmp_path / name, ask)
        await follower.follow()
    return {name: value for name, value in follower.records().items() if name[:1] in {b"l", b"n"}}


def _told(value: bytes) -> OwnerLimits:
    return msgspec.msgpack.decode(value, type=OwnerLimits)


async def test_limits_of_each_owner_reach_nodes(
    rig: AdminRig, database: Database, tmp_path: Path
) -> None:
    """An organization, a project, a key, a member and an account have a record each."""
    project = await rig.create_project("mine")
    organization_id = project["organization_id"]
    member = await rig.create(
        "/members", organization_id=organization_id, subject="ann", role="developer"
    )
    account = await rig.create(
        "/service-accounts", organization_id=organization_id, name="bot", role="developer"
    )
    key_id = await _create_key(rig, project)
    plan = await rig.create("/plans", name="gold", rules=[RULE, RULE | {"metric": "tokens"}])
    owners: dict[str, tuple[str, bytes]] = {
        "organization_id": (organization_id, owner_name("organization", organization_id)),
        "project_id": (project["id"], owner_name("project", organization_id, project["id"])),
        "key_id": (key_id, owner_name("key", organization_id, key_id)),
        "member_id": (member["id"], owner_name("member", organization_id, member["id"])),
        "service_account_id": (
            account["id"],
            owner_name("member", organization_id, account["id"]),
        ),
    }
    for name, (owner_id, record) in owners.items():
        made = await rig.create("/limits", **{name: owner_id}, plan_id=plan["id"], rules=[RULE])
        assert made[name] == owner_id
        (rule,) = made["rules"]
        told = _told((await _records(database, tmp_path, name))[b"l" + record])
        assert told.plan == "gold"
        assert [(one.id, one.limit, one.window_s) for one in told.limits] == [(rule["id"], 600, 60)]
        again = await rig.call("POST", "/limits", {name: owner_id})
        expect_problem(again, 409, "err:control:limits:exist")
    plans = (await _records(database, tmp_path, "plans"))[b"ngold"]
    told_rules = msgspec.msgpack.decode(plans, type=tuple[Limit, ...])
    assert [rule.metric for rule in told_rules] == ["requests", "tokens"]


async def test_changes_reach_nodes_and_keep_ids(
    rig: AdminRig, database: Database, tmp_path: Path
) -> None:
    """A changed figure is the same rule; what is removed is gone from nodes as well."""
    project = await rig.create_project("mine")
    made = await rig.create("/limits", project_id=project["id"], rules=[RULE])
    path = f"/limits/{made['id']}"
    async with asking(database) as ask:
        follower = Follower(tmp_path / "node", ask)
        await follower.follow()
        name = b"l" + owner_name("project", project["organization_id"], project["id"])
        before = _told(follower.records()[name] or b"")
        body = {"rules": [RULE | {"limit": 50, "enforcement": "soft"}]}
        changed = await rig.call("PATCH", path, body, if_match='"1"')
        assert changed.json()["version"] == 2
        assert (await rig.call("PATCH", path, body)).json()["version"] == 2
        await follower.follow()
        after = _told(follower.records()[name] or b"")
        assert [rule.id for rule in before.limits] == [rule.id for rule in after.limits]
        assert (after.limits[0].limit, after.limits[0].enforcement) == (50, "soft")
        conflict = await rig.call("PATCH", path, {"rules": []}, if_match='"1"')
        expect_problem(conflict, 412, "err:control:storage:version_conflict")
        assert (await rig.call("DELETE", path)).status_code == 204
        await follower.follow()
        assert name not in follower.records()
        assert follower.fulls == 1
    expect_problem(await rig.call("GET", path), 404, UNKNOWN)


async def test_limits_go_with_a_member(rig: AdminRig, database: Database, tmp_path: Path) -> None:
    """Who is no member any more has no limits either, and nodes that begin are told of none."""
    project = await rig.create_project("mine")
    member = await rig.create(
        "/members",
        organization_id=project["organization_id"],
        project_id=project["id"],
        subject="ann",
        role="developer",
    )
    made = await rig.create("/limits", member_id=member["id"], rules=[RULE])
    assert made["project_id"] == project["id"]
    assert (await rig.call("DELETE", f"/members/{member['id']}")).status_code == 204
    assert (await rig.call("GET", "/limits")).json()["data"] == []
    assert await _records(database, tmp_path) == {}


async def test_nodes_know_whose_a_key_is(rig: AdminRig, database: Database, tmp_path: Path) -> None:
    """A key's record names the member or service account whose limits hold for it."""
    project = await rig.create_project("mine")
    account = await rig.create(
        "/service-accounts",
        organization_id=project["organization_id"],
        name="bot",
        role="developer",
    )
    own = await _create_key(rig, project, service_account_id=account["id"])
    keys = await _told_keys(database, tmp_path)
    assert [(key.id, key.member) for key in keys] == [(own, account["id"])]


async def _told_keys(database: Database, folder: Path) -> list[Key]:
    """Return the keys that a node is told."""
    async with asking(database) as ask:
        follower = Follower(folder / "node", ask)
        await follower.follow()
    return [
        msgspec.msgpack.decode(value or b"", type=Key)
        for name, value in follower.records().items()
        if name[:1] == b"k"
    ]


async def test_a_plan_that_somebody_has_stays(rig: AdminRig) -> None:
    """A plan is deleted when nobody has it any more; its name is taken until then."""
    project = await rig.create_project("mine")
    plan = await rig.create("/plans", name="gold", rules=[RULE])
    made = await rig.create("/limits", project_id=project["id"], plan_id=plan["id"])
    path = f"/plans/{plan['id']}"
    expect_problem(await rig.call("DELETE", path), 409, "err:control:catalog:in_use")
    taken = await rig.call("POST", "/plans", {"name": "gold"})
    expect_problem(taken, 409, "err:control:tenancy:name_taken")
    listed = (await rig.call("GET", f"/limits?plan_id={plan['id']}")).json()["data"]
    assert [one["id"] for one in listed] == [made["id"]]
    unset = await rig.call("PATCH", f"/limits/{made['id']}", {"plan_id": None})
    assert unset.json()["plan_id"] is None
    assert (await rig.call("DELETE", path)).status_code == 204


BAD_RULES = (
    ({"limit": 0}, INVALID, "limit is out of range; use a whole number, 1 to"),
    ({"limit": -5}, INVALID, "limit is out of range"),
    ({"limit": 10**15 + 1}, INVALID, "1 to 1,000,000,000,000,000"),
    ({"limit": 10**40}, INVALID, "limit is out of range"),
    ({"limit": 1.5}, REQUEST_INVALID, "limit"),
    ({"limit": "600"}, REQUEST_INVALID, "limit"),
    ({"limit": True}, REQUEST_INVALID, "limit"),
    ({"metric": "money"}, REQUEST_INVALID, "metric"),
    ({"window_s": 0}, INVALID, "window_s is out of range; use 1 to 2,678,400"),
    ({"window_s": 31 * 86_400 + 1}, INVALID, "window_s is out of range"),
    ({"metric": "concurrency", "window_s": 60}, INVALID, "concurrency has no window"),
    ({"alias": "nobody"}, INVALID, "there is no alias 'nobody'"),
    ({"model": "nothing"}, INVALID, "no deployment has a model 'nothing'"),
    ({"raised_limit": 900}, INVALID, "raised_limit and raised_until go together"),
    ({"raised_until": "2030-01-01T00:00:00Z"}, INVALID, "go together"),
    ({"enforcement": "mild"}, REQUEST_INVALID, "enforcement"),
    ({"per": "tenant"}, REQUEST_INVALID, "per"),
    ({"burst": 5}, REQUEST_INVALID, "burst"),
    ({"label": "team"}, INVALID, "NAME=VALUE"),
    ({"label": "=x"}, INVALID, "A label's name is"),
)


async def test_what_no_rule_can_be_is_refused_with_the_reason(
    rig: AdminRig, subtests: pytest.Subtests
) -> None:
    """Plans and limits refuse a rule with a fault, and say which; nothing is stored."""
    project = await rig.create_project("mine")
    made = await rig.create("/limits", project_id=project["id"], rules=[RULE])
    for rule, code, reason in BAD_RULES:
        with subtests.test(rule=rule, code=code, reason=reason):
            for method, path, body in (
                ("POST", "/plans", {"name": "gold"}),
                ("POST", "/limits", {"organization_id": project["organization_id"]}),
                ("PATCH", f"/limits/{made['id']}", {}),
            ):
                answer = await rig.call(method, path, body | {"rules": [RULE | rule]})
                expect_problem(answer, 400, code)
                assert reason in answer.text
            assert (await rig.call("GET", "/plans")).json()["data"] == []
            assert (await rig.call("GET", "/limits")).json()["data"] == [made]


async def test_whom_to_limit_must_be_said(rig: AdminRig) -> None:
    """Nobody, two at once, and who is not there are refused; so is who is archived."""
    project = await rig.create_project("mine")
    both = {"project_id": project["id"], "organization_id": project["organization_id"]}
    for body in ({}, both):
        answer = await rig.call("POST", "/limits", body | {"rules": [RULE]})
        expect_problem(answer, 400, INVALID)
        assert "exactly one of `organization_id`" in answer.text
    missing = {
        "organization_id": "org_000000000000",
        "project_id": "prj_000000000000",
        "key_id": "000000000000",
        "member_id": "mem_000000000000",
        "service_account_id": "sa_000000000000",
    }
    for name, value in missing.items():
        expect_problem(await rig.call("POST", "/limits", {name: value}), 404, UNKNOWN)
    plan = {"project_id": project["id"], "plan_id": "pln_000000000000"}
    expect_problem(await rig.call("POST", "/limits", plan), 400, INVALID)
    assert (await rig.call("DELETE", f"/projects/{project['id']}")).status_code in {200, 204}
    answer = await rig.call("POST", "/limits", {"project_id": project["id"]})
    expect_problem(answer, 409, "err:control:tenancy:status_conflict")


async def test_rules_name_aliases_and_models(rig: AdminRig, database: Database) -> None:
    """What is there can be named; an organization names the aliases that it may use, no models."""
    await create_path(database, "open", is_open=True)
    await create_path(database, "closed")
    project = await rig.create_project("mine")
    rules = [RULE | {"alias": "closed"}, RULE | {"model": "served"}, RULE | {"alias": "open"}]
    made = await rig.create("/limits", project_id=project["id"], rules=rules)
    token = await rig.create_token(project["id"], "org_admin")
    path = f"/limits/{made['id']}"
    # What the platform has set may stay, and is no way to find out what else there is.
    fewer = made["rules"][:2]
    kept = [
        {name: value for name, value in rule.items() if name != "id"} | {"limit": 5}
        for rule in fewer
    ]
    assert (await rig.call("PATCH", path, {"rules": kept}, token=token)).status_code == 200
    key_id = await _create_key(rig, project)
    for rule in ({"alias": "closed"}, {"alias": "nobody"}, {"model": "served"}):
        answer = await rig.call(
            "POST", "/limits", {"key_id": key_id, "rules": [RULE | rule]}, token=token
        )
        expect_problem(answer, 400, INVALID)
    body = {"key_id": key_id, "rules": [RULE | {"alias": "open"}]}
    assert (await rig.call("POST", "/limits", body, token=token)).status_code == 201


async def test_nobody_limits_where_they_are(rig: AdminRig) -> None:
    """An organization limits what is in it, a project's administrator what is in the project."""
    project = await rig.create_project("mine")
    organization_id = project["organization_id"]
    plan = await rig.create("/plans", name="gold")
    owner = await rig.create_token(project["id"], "org_owner")
    admin = await rig.create_token(project["id"], "project_admin")
    of_organization = await rig.create("/limits", organization_id=organization_id)
    with_plan = await rig.create(
        "/limits", key_id=find_key_id(owner), plan_id=plan["id"], rules=[RULE]
    )
    for made in (of_organization, with_plan):
        path = f"/limits/{made['id']}"
        expect_problem(await rig.call("DELETE", path, token=owner), 403, DENIED)
        expect_problem(await rig.call("PATCH", path, {"rules": []}, token=owner), 403, DENIED)
        assert (await rig.call("GET", path, token=owner)).json() == made
    body = {"project_id": project["id"], "rules": [RULE]}
    expect_problem(await rig.call("POST", "/limits", body, token=admin), 403, DENIED)
    gift = body | {"plan_id": plan["id"]}
    expect_problem(await rig.call("POST", "/limits", gift, token=owner), 403, DENIED)
    assert (await rig.call("POST", "/limits", body, token=owner)).status_code == 201
    key = {"key_id": find_key_id(admin), "rules": [RULE]}
    made = (await rig.call("POST", "/limits", key, token=admin)).json()
    assert (await rig.call("DELETE", f"/limits/{made['id']}", token=admin)).status_code == 204
    listed = (await rig.call("GET", "/limits", token=admin)).json()["data"]
    assert {one["project_id"] for one in listed} == {project["id"]}


async def test_labels_choose_rules_and_are_the_organizations(
    rig: AdminRig, database: Database, tmp_path: Path
) -> None:
    """Nodes know a key's labels; a rule for one bears on it; nobody in the project changes them."""
    project = await rig.create_project("mine")
    owner = await rig.create_token(project["id"], "org_owner")
    admin = await rig.create_token(project["id"], "project_admin")
    rules = [RULE | {"label": "team=search"}, RULE | {"label": "team=ads"}, RULE]
    await rig.create("/limits", organization_id=project["organization_id"], rules=rules)
    key = await _create_key(rig, project)
    path, labels = f"/keys/{key}", {"labels": {"team": "search"}}
    expect_problem(await rig.call("PATCH", path, labels, token=admin), 403, DENIED)
    new = {"project_id": project["id"], "name": "other"}
    expect_problem(await rig.call("POST", "/keys", new | labels, token=admin), 403, DENIED)
    listed = (await rig.call("GET", f"/keys?project_id={project['id']}")).json()["data"]
    assert "other" not in {one["name"] for one in listed}
    assert (await rig.call("PATCH", path, labels, token=owner)).status_code == 200
    expect_problem(await rig.call("PATCH", path, {"labels": {}}, token=admin), 403, DENIED)
    same = labels | {"name": "renamed"}
    assert (await rig.call("PATCH", path, same, token=admin)).status_code == 200
    used = (await rig.call("GET", f"/limits/use?key_id={key}")).json()["data"]
    assert {one["label"] for one in used} == {None, "team=search"}
    keys = await _told_keys(database, tmp_path)
    assert {each.labels for each in keys if each.id == key} == {("team=search",)}


async def test_what_limits_a_key_is_shown_with_its_use(rig: AdminRig, database: Database) -> None:
    """Rules of key and organization, of its plan where it has none of its own, and their use."""
    project = await rig.create_project("mine")
    organization_id = project["organization_id"]
    key_id = await _create_key(rig, project)
    plan = await rig.create(
        "/plans", name="gold", rules=[RULE, RULE | {"metric": "tokens", "per": "key"}]
    )
    await rig.create(
        "/limits",
        organization_id=organization_id,
        plan_id=plan["id"],
        rules=[RULE | {"limit": 700}],
    )
    raised = RULE | {"raised_limit": 900, "raised_until": "2030-01-01T00:00:00Z"}
    await rig.create(
        "/limits", key_id=key_id, rules=[raised, {"metric": "concurrency", "limit": 2}]
    )
    shown = (await rig.call("GET", f"/limits/use?key_id={key_id}")).json()["data"]
    assert [
        (one["owner_kind"], one["metric"], one["plan"], one["limit"], one["limit_now"])
        for one in shown
    ] == [
        ("organization", "requests", None, 700, 700),
        ("organization", "tokens", "gold", 600, 600),
        ("key", "concurrency", None, 2, 2),
        ("key", "requests", None, 600, 900),
    ]
    assert {one["used"] for one in shown} == {None}
    now_ms = rig.clock.wall_ns() // 1_000_000
    subjects = ("o", f"k.{key_id}", f"k.{key_id}", f"k.{key_id}")
    buckets = [
        f"{organization_id}/{one['id']}:{who}" for one, who in zip(shown, subjects, strict=True)
    ]
    ages_s = (1, 5, 100, 61)
    uses = tuple(
        BucketUse(bucket, 600, number + 1, now_ms - age * 1_000)
        for number, (bucket, age) in enumerate(zip(buckets, ages_s, strict=True))
    )
    async with _Reporting(database) as report:
        assert (await report(UseReport("node", uses))).status_code == 204
        late = BucketUse(buckets[0], 600, 99, now_ms - 2_000)
        assert (await report(UseReport("node", (late,)))).status_code == 204
    shown = (await rig.call("GET", f"/limits/use?key_id={key_id}")).json()["data"]
    # Older than its window is nothing used; what is in flight has no window.
    assert [one["used"] for one in shown] == [1, 2, 3, 0]
    for_project = (await rig.call("GET", f"/limits/use?project_id={project['id']}")).json()["data"]
    assert [one["used"] for one in for_project] == [1, None]
    admin = await rig.create_token(project["id"], "project_admin")
    seen = (await rig.call("GET", f"/limits/use?key_id={key_id}", token=admin)).json()["data"]
    assert [one["used"] for one in seen] == [None, None, 3, 0]
    async with database.write(ALL) as session:
        await forget_old_uses(session, (now_ms + KEEP_USES_S * 1_000) * 1_000)
    shown = (await rig.call("GET", f"/limits/use?key_id={key_id}")).json()["data"]
    assert {one["used"] for one in shown} == {None}


async def test_use_of_others_is_not_shown(rig: AdminRig, database: Database) -> None:
    """Nobody and another organization see no use; a report is taken with the node's token only."""
    project, other = [await rig.create_project(name) for name in ("mine", "other")]
    await rig.create("/limits", project_id=project["id"], rules=[RULE])
    path = f"/limits/use?project_id={project['id']}"
    expect_problem(await rig.call("GET", path, token=""), 401, "err:control:auth:token_missing")
    foreign = await rig.create_token(other["id"], "org_owner")
    expect_problem(await rig.call("GET", path, token=foreign), 404, UNKNOWN)
    async with _Reporting(database) as report:
        empty = UseReport("node", ())
        assert (await report(empty, token="")).status_code == 401
        assert (await report(empty, token="wrong")).status_code == 401


@pytest.mark.parametrize(
    "use",
    [
        BucketUse("no-slash", 1, 1, 1),
        BucketUse("/rule:o", 1, 1, 1),
        BucketUse("org/rule:\0", 1, 1, 1),
        BucketUse("org/" + "x" * 300, 1, 1, 1),
        BucketUse("org/rule:o", 1, -1, 1),
        BucketUse("org/rule:o", 1, 2**63, 1),
        BucketUse("org/rule:o", 1, 1, 10**15),
    ],
)
async def test_impossible_reports_are_refused(database: Database, use: BucketUse) -> None:
    """A bucket with an impossible name or figure is refused, with all that came with it."""
    good = BucketUse("org/rule:o", 1, 1, 1)
    async with _Reporting(database) as report:
        answer = await report(UseReport("node", (good, use)))
        expect_problem(answer, 400, "err:control:limits:use_report_invalid")
        answer = await report(UseReport("node", (good,) * (MAX_USES + 1)))
        expect_problem(answer, 400, "err:control:limits:use_report_invalid")
        answer = await report(b"\xc1")
        expect_problem(answer, 400, "err:control:limits:use_report_invalid")


class _Reporting:
    """A node that reports to the endpoint alone."""

    def __init__(self, database: Database) -> None:
        app = FastAPI()
        install_problems(app)
        authenticate = create_bearer(NODE_TOKEN.encode(), "nodeToken", "the token")
        app.include_router(create_limit_uses_router(database, authenticate))
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://control"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def __call__(
        self, report: UseReport | bytes, *, token: str = NODE_TOKEN
    ) -> httpx.Response:
        content = report if isinstance(report, bytes) else msgspec.msgpack.encode(report)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return await self._client.post("/internal/v1/limits/use", content=content, headers=headers)


async def test_rules_that_cannot_be_read_let_nothing_through(
    rig: AdminRig, database: Database, tmp_path: Path
) -> None:
    """What somebody wrote by hand is told as a rule of nothing, and shown as no rules."""
    project = await rig.create_project("mine")
    made = await rig.create("/limits", project_id=project["id"], rules=[RULE])
    key_id = await _create_key(rig, project)
    whole = await rig.create("/limits", key_id=key_id, rules=[RULE])
    organization_id = project["organization_id"]
    poisons: list[Any] = ["x", {}, [1], [RULE | {"limit": -1}], [{"metric": "requests"}]]
    for number, poison in enumerate(poisons):
        async with database.write(ALL) as session:
            statement = update(Limits).where(Limits.id == made["id"]).values(rules=poison)
            await session.change(statement)
        records = await _records(database, tmp_path, f"node-{number}")
        told = _told(records[b"l" + owner_name("project", organization_id, project["id"])])
        assert [rule.limit for rule in told.limits] == [0]
        other = _told(records[b"l" + owner_name("key", organization_id, key_id)])
        assert [rule.limit for rule in other.limits] == [600]
        assert (await rig.call("GET", f"/limits/{made['id']}")).json()["rules"] == []
    listed = (await rig.call("GET", "/limits")).json()["data"]
    assert whole in listed
    mended = await rig.call("PATCH", f"/limits/{made['id']}", {"rules": [RULE]})
    assert mended.status_code == 200
