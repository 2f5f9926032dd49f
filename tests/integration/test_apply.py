"""Applying and exporting documents, over HTTP, on both databases."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.fakes.admin_rig import ADMIN_TOKEN, AdminRig, expect_problem, run_admin_api
from tests.fakes.applied_document import (
    CI_SECRET,
    DOCUMENT,
    INVALID,
    OBJECTS,
    apply,
    changed,
    export,
    refused,
    told,
    trace,
)

from penstock.access.rules import create_key, find_key_id, format_key
from penstock.audit.tables import AuditEntries
from penstock.catalog.tables import AppliedObjects
from penstock.storage.database import Database
from penstock.storage.scope import Scope


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API without any objects."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        yield rig


async def test_only_the_operator_may(rig: AdminRig) -> None:
    """Anonymous callers and keys of organizations, whatever their role, are refused."""
    project = await rig.create_project("mine")
    tokens = {
        role: await rig.create_token(project["id"], role) for role in ("org_owner", "auditor")
    }
    for method, path, body in (
        ("POST", "/platform/apply", {"document": {"version": 1}}),
        ("POST", "/platform/apply", {"document": {"version": 1}, "is_dry_run": True}),
        ("GET", "/platform/export", None),
    ):
        assert (await rig.call(method, path, body, token="")).status_code == 401
        for token in tokens.values():
            answer = await rig.call(method, path, body, token=token)
            expect_problem(answer, 403, "err:control:access:operation_denied")


async def test_everything_is_applied_once(rig: AdminRig, database: Database) -> None:
    """All kinds are made, with one audit entry each; again, nothing changes and nothing is told."""
    applied = await apply(rig, DOCUMENT)
    assert len(applied["changes"]) == OBJECTS
    assert {change["action"] for change in applied["changes"]} == {"create"}
    assert applied["leftovers"] == []
    before = await trace(database)
    assert before[0] == OBJECTS
    assert await apply(rig, DOCUMENT, prune=True) == {
        "is_dry_run": False,
        "changes": [],
        "leftovers": [],
    }
    assert await trace(database) == before


async def test_a_dry_run_changes_nothing(rig: AdminRig, database: Database) -> None:
    """It says what would be done, finds what would be refused, and leaves no trace."""
    rehearsed = await apply(rig, DOCUMENT, is_dry_run=True)
    assert rehearsed["is_dry_run"] is True
    assert await trace(database) == (0, 0)
    assert await export(rig) == {"version": 1}
    applied = await apply(rig, DOCUMENT)
    assert applied["changes"] == rehearsed["changes"]


async def test_what_is_exported_changes_nothing(rig: AdminRig, database: Database) -> None:
    """An export holds no secret, and applied to where it is from, or in parts, changes nothing."""
    await apply(rig, DOCUMENT)
    document = await export(rig)
    text = json.dumps(document)
    assert CI_SECRET not in text
    assert "sk-main" not in text
    assert "a-secret-of-their-own" not in text
    assert document["aliases"][0] == {"name": "big", "route": "big", "is_open": False}
    before = await trace(database)
    assert (await apply(rig, document, set="other"))["changes"] == []
    for section, entries in document.items():
        if section in {"version", "keys"}:
            continue
        assert (await apply(rig, {"version": 1, section: entries}, set="part"))["changes"] == []
    keys = [{**key, "organization": "acme"} for key in document["keys"]]
    assert (await apply(rig, {"version": 1, "keys": keys}, set="part"))["changes"] == []
    assert await trace(database) == before
    assert await export(rig, "?set=default") == document
    assert await export(rig, "?set=nothing") == {"version": 1}


async def test_changes_are_shown_by_member(rig: AdminRig, database: Database) -> None:
    """A change has the members that differ, before and after, and one audit entry."""
    await apply(rig, DOCUMENT)
    entries, _ = await trace(database)
    document = changed()
    document["upstreams"][0]["credential"] = "file:/run/token"
    document["upstreams"][0]["endpoints"].append("http://10.0.0.9:8000")
    document["organizations"][0]["allowed_regions"] = ["eu-de"]
    document["members"][0]["labels"] = {"team": "ads"}
    del document["service_accounts"][0]["labels"]
    document["keys"][1]["expires_at"] = None
    document["routes"][0]["deployments"] = [{"deployment": "big-eu"}]
    document["routes"][0]["fallback"] = None
    del document["aliases"][0]["is_open"]
    applied = await apply(rig, document)
    assert told(applied) == [
        "update organization acme",
        "update member ?",
        "update service_account nightly",
        "update upstream gpu",
        "update route big",
        "update alias big",
        "update key robot",
    ]
    members = {change["object"]["kind"]: change["members"] for change in applied["changes"]}
    assert members["organization"] == {
        "allowed_regions": {"before": ["eu-de", "eu-fr"], "after": ["eu-de"]}
    }
    assert members["member"] == {"labels": {"before": {"team": "search"}, "after": {"team": "ads"}}}
    assert members["service_account"] == {"labels": {"before": {"a": ""}, "after": {}}}
    assert members["upstream"]["credential"] == {"before": "main", "after": "file:/run/token"}
    assert members["alias"] == {"is_open": {"before": False, "after": True}}
    assert members["key"] == {
        "expires_at": {"before": "2030-01-30T23:00:00.000000Z", "after": None}
    }
    assert (await trace(database))[0] == entries + 7
    assert (await apply(rig, document))["changes"] == []


async def test_a_failure_in_the_middle_leaves_nothing(rig: AdminRig, database: Database) -> None:
    """What a room refuses undoes everything, and is told with its path."""
    document = changed()
    # Only the room that keeps credentials knows that the providers differ.
    document["upstreams"][0]["provider"] = "sglang"
    answer = await rig.call("POST", "/platform/apply", {"document": document})
    expect_problem(answer, 400, INVALID)
    (error,) = answer.json()["errors"]
    assert error["path"] == ["upstreams", 0]
    assert error["detail"].startswith("cannot be created: ")
    assert await trace(database) == (0, 0)
    assert await export(rig) == {"version": 1}


async def test_all_faults_are_told_at_once(rig: AdminRig) -> None:
    """Wrong values, dangling references, duplicates and circles come back with their paths."""
    document = changed(
        aliases=[{"name": "a", "route": "gone"}, {"name": "small", "route": "small", "open": True}],
        projects=[*DOCUMENT["projects"], {"name": "x", "organization": "nobody"}],
        organizations=[*DOCUMENT["organizations"], {"name": "acme"}],
        unknown=[],
    )
    document["routes"][1]["fallback"] = "big"
    document["keys"][0]["secret"] = "short"
    document["keys"].append({"name": "new", "project": "chat"})
    document["members"][0]["role"] = "king"
    document["grants"][0]["project"] = "nowhere"
    said = await refused(rig, document)
    assert set(said) == {
        "unknown",
        "organizations[2].name",
        "projects[3].organization",
        "members[0].role",
        "keys[0].secret",
        "routes[0].fallback",
        "aliases[0].route",
        "aliases[1].open",
        "grants[0].project",
        "grants[0].alias",
        "grants[1].alias",
        "plans[0].rules[1].alias",
        "budgets[1].alias",
        "keys[1].aliases[0]",
        "keys[2]",
    }
    assert "leads back to itself" in said["routes[0].fallback"]
    assert "short" not in said["keys[0].secret"]
    assert "has no secret" in said["keys[2]"]


async def test_references_may_lead_to_the_database(rig: AdminRig) -> None:
    """A document refers to what is there already; a project elsewhere needs its organization."""
    await apply(rig, DOCUMENT, set="base")
    more: dict[str, Any] = {
        "version": 1,
        "deployments": [{"name": "big-us", "upstream": "gpu", "model": "m", "credential": "main"}],
        "aliases": [{"name": "huge", "route": "big", "is_open": False}],
        "grants": [{"alias": "huge", "organization": "acme", "project": "web"}],
        "keys": [
            {"name": "n", "project": "web", "organization": "acme", "secret": "x" * 20},
        ],
    }
    assert len((await apply(rig, more, set="more"))["changes"]) == 4
    del more["keys"][0]["organization"]
    said = await refused(rig, more, set="more")
    assert "say with organization: whose it is" in said["keys[0].project"]
    more["keys"][0]["organization"] = "Acme"
    said = await refused(rig, more, set="more")
    assert set(said) == {"keys[0].organization"}
    # A circle that goes through the database is found as well.
    circle = {
        "version": 1,
        "routes": [
            {"name": "small", "upstream": "spare", "model": "s", "fallback": "big"},
        ],
    }
    said = await refused(rig, circle, set="more")
    assert "circle" in said["routes[0]"]


async def test_pruning_removes_what_the_set_made(rig: AdminRig) -> None:
    """Only with prune, only this set's, in an order in which nothing is in use."""
    hand_made = await rig.create("/organizations", name="by hand")
    await rig.create("/projects", organization_id=hand_made["id"], name="by hand")
    await apply(rig, DOCUMENT)
    less = {"version": 1, "organizations": DOCUMENT["organizations"]}
    kept = await apply(rig, less)
    assert kept["changes"] == []
    assert len(kept["leftovers"]) == OBJECTS - 2
    pruned = await apply(rig, less, prune=True)
    assert {change["action"] for change in pruned["changes"]} == {"delete"}
    assert len(pruned["changes"]) == OBJECTS - 2
    document = await export(rig)
    names = [one["name"] for one in document["organizations"]]
    assert sorted(names) == ["acme", "by hand", "Ümlaut & Söhne"]
    assert document["projects"] == [{"name": "by hand", "organization": "by hand"}]
    assert document["service_accounts"][0]["is_disabled"] is True
    assert document.keys() == {"version", "organizations", "projects"} | {"service_accounts"}
    assert (await apply(rig, less, prune=True))["changes"] == []
    # What was removed comes back, and the service account is enabled again and still the set's.
    again = changed()
    again["service_accounts"][1]["name"] = "another, for names of accounts are never free again"
    again["limits"][4]["service_account"] = again["service_accounts"][1]["name"]
    again["budgets"][4]["service_account"] = again["service_accounts"][1]["name"]
    again["keys"][0]["secret"] = create_key()
    again["keys"][1]["secret"] = "another-secret-of-theirs"
    back = await apply(rig, again, prune=True)
    assert "update service_account nightly" in told(back)
    assert len(back["changes"]) == OBJECTS - 2
    assert "delete service_account nightly" in told(await apply(rig, less, prune=True))


async def test_keys_that_others_made_are_never_pruned(rig: AdminRig) -> None:
    """A key that was made by hand stays, also when a file had it for a while."""
    await apply(rig, DOCUMENT)
    projects = (await rig.call("GET", "/projects?name=chat")).json()["data"]
    await rig.create("/keys", project_id=projects[0]["id"], name="by hand")
    with_it = changed()
    with_it["keys"].append({"name": "by hand", "project": "chat", "labels": {"a": "b"}})
    assert told(await apply(rig, with_it, prune=True)) == ["update key by hand"]
    assert told(await apply(rig, DOCUMENT, prune=True)) == []
    assert "by hand" in {key["name"] for key in (await export(rig))["keys"]}


async def test_two_sets_do_not_undo_each_other(rig: AdminRig, database: Database) -> None:
    """What two sets have stays until both of them let it go."""
    shared = {"version": 1, "organizations": [{"name": "acme"}]}
    one = {**shared, "projects": [{"name": "one", "organization": "acme"}]}
    two = {**shared, "projects": [{"name": "two", "organization": "acme"}]}
    await apply(rig, one, set="one", prune=True)
    assert told(await apply(rig, two, set="two", prune=True)) == ["create project two"]
    assert told(await apply(rig, one, set="one", prune=True)) == []
    nothing = {"version": 1}
    assert told(await apply(rig, nothing, set="one", prune=True)) == ["delete project one"]
    assert (await export(rig))["organizations"] == [{"name": "acme"}]
    assert told(await apply(rig, nothing, set="two", prune=True)) == [
        "delete project two",
        "delete organization acme",
    ]
    async with database.read(Scope.all_organizations()) as session:
        assert (await session.rows(select(AppliedObjects.object_id))) == []


async def test_what_is_gone_is_made_again(rig: AdminRig) -> None:
    """Objects that somebody removed by hand are made anew, and not pruned twice."""
    document = {"version": 1, "organizations": [{"name": "acme"}]}
    await apply(rig, document)
    (acme,) = (await rig.call("GET", "/organizations?name=acme")).json()["data"]
    assert (await rig.call("DELETE", f"/organizations/{acme['id']}")).status_code == 204
    assert told(await apply(rig, {"version": 1}, prune=True)) == []
    assert told(await apply(rig, document, prune=True)) == ["create organization acme"]


async def test_secrets_of_keys(rig: AdminRig) -> None:
    """A key has the id inside its secret, works, and is rotated when the secret is another."""
    document = changed()
    await apply(rig, document)
    keys = {key["name"]: key for key in (await rig.call("GET", "/keys")).json()["data"]}
    assert keys["ci"]["id"] == find_key_id(CI_SECRET)
    assert len(keys["robot"]["id"]) == 12
    document["keys"][0]["secret"] = other = create_key()
    document["keys"][1]["secret"] = "another-secret-of-theirs"
    applied = await apply(rig, document)
    assert sorted(told(applied)) == ["rotate key ci", "rotate key robot"]
    assert all(change["members"] == {} for change in applied["changes"])
    assert (await apply(rig, document))["changes"] == []
    secrets = (await rig.call("GET", f"/keys/{keys['ci']['id']}/secrets")).json()["data"]
    assert {secret["state"] for secret in secrets} == {"revoked", "active"}
    secrets = (await rig.call("GET", f"/keys/{keys['robot']['id']}/secrets")).json()["data"]
    assert {secret["state"] for secret in secrets} == {"retiring", "active"}, "it has a grace"
    # The old secret of `ci` is spent for ever; the grace of `robot` lets the old one in.
    document["keys"][1]["secret"] = "a-secret-of-their-own"
    assert (await apply(rig, document))["changes"] == []
    document["keys"][0]["secret"] = CI_SECRET
    said = await refused(rig, document)
    assert "is, or was, that of a key" in said["keys[0]"]
    assert other not in str(said)


async def test_secrets_that_cannot_be(rig: AdminRig) -> None:
    """A secret is one key's, its id is no other key's, and the admin API needs one of our form."""
    await apply(rig, DOCUMENT)
    document = changed()
    known_id = find_key_id(CI_SECRET) or ""
    document["keys"] += [
        {"name": "x", "project": "chat", "secret": format_key(known_id, "S" * 32)},
        {"name": "y", "project": "chat", "secret": "a-secret-of-their-own"},
        {"name": "z", "project": "chat", "secret": "z" * 20, "scopes": ["admin"]},
    ]
    said = await refused(rig, document)
    assert set(said) == {"keys[2].secret", "keys[3].secret", "keys[4].secret"}
    assert "the id of another key" in said["keys[2].secret"]
    assert "the secret of another key" in said["keys[3].secret"]
    assert "opens inference only" in said["keys[4].secret"]
    assert "S" * 32 not in str(said)


async def test_members_that_stay(rig: AdminRig) -> None:
    """What cannot be changed is told as such, instead of being left as it is."""
    await apply(rig, DOCUMENT)
    document = changed()
    document["keys"][1]["service_account"] = None
    document["credentials"][0]["provider"] = "sglang"
    document["credentials"][1]["upstream"] = "spare"
    document["service_accounts"][1]["project"] = "web"
    said = await refused(rig, document)
    assert set(said) == {
        "keys[1].service_account",
        "credentials[0].provider",
        "credentials[1].upstream",
        "service_accounts[1].project",
    }
    assert 'is "nightly" and stays so' in said["keys[1].service_account"]


async def test_credentials_are_kept_until_they_change(rig: AdminRig) -> None:
    """The same secret changes nothing, another one is set, and neither is answered."""
    await apply(rig, DOCUMENT)
    document = changed()
    document["credentials"][0]["secret"] = "sk-new"
    applied = await apply(rig, document)
    assert told(applied) == ["rotate credential main"]
    assert "sk-new" not in json.dumps(applied)
    assert (await apply(rig, document))["changes"] == []


async def test_keys_of_people_are_left_alone(rig: AdminRig) -> None:
    """A key that belongs to a member is not exported, and a file cannot take it over."""
    await apply(rig, DOCUMENT)
    (member,) = (await rig.call("GET", "/members")).json()["data"]
    projects = (await rig.call("GET", "/projects?name=chat")).json()["data"]
    await rig.create("/keys", project_id=projects[0]["id"], name="hers", member_id=member["id"])
    assert {key["name"] for key in (await export(rig))["keys"]} == {"ci", "robot"}
    document = changed()
    document["keys"].append({"name": "hers", "project": "chat"})
    said = await refused(rig, document)
    assert "(a member)" in said["keys[2].service_account"]


async def test_a_repeated_request_is_done_once(rig: AdminRig, database: Database) -> None:
    """The same idempotency key gets the first answer; no secret is kept in clear anywhere."""
    body = {"document": DOCUMENT}
    first = await rig.call("POST", "/platform/apply", body, idempotency_key="one")
    again = await rig.call("POST", "/platform/apply", body, idempotency_key="one")
    assert first.status_code == again.status_code == 200
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == first.json()
    async with database.read(Scope.all_organizations()) as session:
        rows = await session.rows(select(AuditEntries))
    for secret in (CI_SECRET, "a-secret-of-their-own", "sk-main", "sk-own"):
        assert secret not in str(rows)


async def test_bodies_have_a_bound_of_their_own(rig: AdminRig) -> None:
    """2 MB are taken, 10 MB are refused before they are read, and depth is bounded."""
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}", "content-type": "application/json"}
    url = "/api/v1/platform/apply"
    projects = [{"name": f"p{number}", "organization": "a"} for number in range(100)]
    large = {"version": 1, "organizations": [{"name": "a"}], "projects": projects}
    padded = json.dumps({"document": large}) + " " * 2_000_000
    answer = await rig.client.post(url, content=padded, headers=headers)
    assert answer.status_code == 200, answer.text
    answer = await rig.client.post(url, content=b" " * 10_000_000, headers=headers)
    expect_problem(answer, 413, "err:control:request:body_too_large")
    deep: Any = []
    for _ in range(50):
        deep = [deep]
    answer = await rig.call("POST", "/platform/apply", {"document": {"version": 1, "keys": deep}})
    expect_problem(answer, 400, INVALID)
