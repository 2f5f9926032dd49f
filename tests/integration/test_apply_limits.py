"""Applying plans, limits and budgets, over HTTP, on both databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.admin_rig import AdminRig, run_admin_api
from tests.fakes.applied_document import DAILY, DOCUMENT, apply, changed, refused

from penstock.storage.database import Database


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API without any objects."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        yield rig


async def test_faults_of_limits_are_told(rig: AdminRig) -> None:
    """Rules and owners that cannot be come back with their paths; one entry for each owner."""
    rule = {"metric": "requests", "limit": 5}
    rules = [
        {**rule, "limit": 0},
        {**rule, "limit": 1.5},
        {**rule, "metric": "money"},
        {"metric": "concurrency", "limit": 5, "window_s": 60},
        {**rule, "raised_limit": 7},
        {**rule, "per": "tenant"},
        {**rule, "alias": "nothing"},
    ]
    document = changed(
        plans=[{"name": "gold", "rules": rules}],
        limits=[
            {"organization": "acme", "plan": "silver"},
            {"organization": "acme"},
            {"organization": "acme", "key": "ci"},
            {"organization": "acme", "project": "web", "key": "robot"},
            {"organization": "acme", "member": "nobody"},
            {"organization": "acme", "service_account": "nightly", "member": "auth0|42"},
        ],
    )
    said = await refused(rig, document)
    assert {place.removeprefix("plans[0].rules") for place in said} == {
        "[0]",
        "[1].limit",
        "[2].metric",
        "[3]",
        "[4]",
        "[5].per",
        "[6].alias",
        "limits[0].plan",
        "limits[1].organization",
        "limits[2]",
        "limits[3].key",
        "limits[4].member",
        "limits[5]",
    }
    assert "limit is out of range; use a whole number, 1 to" in said["plans[0].rules[0]"]
    assert "concurrency has no window; leave window_s out" in said["plans[0].rules[3]"]
    twice = [rule, {**rule, "limit": 6}]
    document = changed(plans=[{"name": "gold", "rules": twice}], limits=[])
    said = await refused(rig, document)
    assert "another one counts the same" in said["plans[0]"]


async def test_faults_of_budgets_are_told(rig: AdminRig) -> None:
    """Figures and owners that cannot be come back with their paths; one entry for each slot."""
    acme = {"organization": "acme", **DAILY}
    budgets = [
        {**acme, "amount": "0"},
        {**acme, "amount": 5},
        {**acme, "currency": "eur", "period": "month"},
        {**acme, "period": "week"},
        {**acme, "alias": "nothing"},
        {**acme, "key": "ci"},
        {**acme, "per": "key"},
        {**acme, "per": "key"},
    ]
    said = await refused(rig, changed(budgets=budgets))
    assert {place.removeprefix("budgets") for place in said} == {
        "[0].amount",
        "[1].amount",
        "[1].period",
        "[2].currency",
        "[3].period",
        "[4].alias",
        "[5]",
        "[7].per",
    }
    said = await refused(rig, changed(budgets=[{**acme, "time_zone": "Europe/Nowhere"}]))
    assert "`time_zone`: is not known" in said["budgets[0]"]


async def test_budgets_change_with_their_file(rig: AdminRig) -> None:
    """Another figure is one change; another time zone is refused; what is left out may go."""
    await apply(rig, DOCUMENT)
    document = changed()
    document["budgets"][0]["amount"] = "250.5"
    assert (await apply(rig, document))["changes"] == []
    document["budgets"][0]["amount"] = "300"
    document["budgets"][1]["is_hard"] = True
    del document["budgets"][2]
    applied = await apply(rig, document, prune=True)
    assert [(one["action"], one["object"]["kind"]) for one in applied["changes"]] == [
        ("update", "budget"),
        ("update", "budget"),
        ("delete", "budget"),
    ]
    document["budgets"][0]["time_zone"] = "UTC"
    said = await refused(rig, document)
    assert "stays so as long as it is there" in said["budgets[0].time_zone"]


async def test_limits_change_with_their_file(rig: AdminRig) -> None:
    """Another figure, plan or owner is one change each; rules in another order are none."""
    await apply(rig, DOCUMENT)
    document = changed()
    document["plans"][0]["rules"].reverse()
    assert (await apply(rig, document))["changes"] == []
    document["limits"][1]["rules"][1]["limit"] = 6
    document["limits"][2]["plan"] = "gold"
    del document["limits"][4]
    applied = await apply(rig, document, prune=True)
    assert [(one["action"], one["object"]["kind"]) for one in applied["changes"]] == [
        ("update", "limit"),
        ("update", "limit"),
        ("delete", "limit"),
    ]
    # An alias that is gone may stay in a rule that names it.
    document["aliases"] = [one for one in document["aliases"] if one["name"] == "small"]
    document["grants"] = []
    document["plans"][0]["rules"][0]["limit"] = 7
    await apply(rig, {**document, "plans": []}, prune=False)
    aliases = (await rig.call("GET", "/aliases?name=big")).json()["data"]
    for grant in (await rig.call("GET", "/grants")).json()["data"]:
        await rig.call("DELETE", f"/grants/{grant['id']}")
    assert (await rig.call("DELETE", f"/aliases/{aliases[0]['id']}")).status_code == 204
    document["plans"] = [changed()["plans"][0]]
    assert (await apply(rig, document))["changes"] == []
