"""Price files over HTTP: all of one, or nothing; again, nothing."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.admin_rig import ADMIN_TOKEN, AdminRig, expect_problem, run_admin_api
from tests.fakes.catalogs import create_path

from penstock.storage.database import Database

INVALID = "err:control:catalog:document_invalid"
LARGE = {"model": "large", "currency": "EUR", "input": "1", "output": "2"}
FLEX = {**LARGE, "service_tier": "flex"}
LATER = {**LARGE, "output": "3", "valid_from": "2099-01-01T00:00:00Z"}
SOON = {**LATER, "valid_from": "2026-01-01T00:00:00Z"}
COST = {**LARGE, "model": "org/m", "book": "cost-EUR", "upstream": "gpu"}
CONTRACT = {**LARGE, "book": "mine-1", "rates": {"requests": {"price": "0.1", "per": 1}}}
GOOD = [LARGE, SOON, COST, CONTRACT]


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API over a database of each kind, with an open alias and a contract."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        project = await rig.create_project("mine")
        owner = project["organization_id"]
        await rig.create(
            "/price_books", name="mine-1", kind="contract", currency="EUR", organization_id=owner
        )
        await create_path(database, "large", is_open=True)
        yield rig


async def _import(rig: AdminRig, prices: list[Any], **members: Any) -> list[dict[str, Any]]:
    answer = await rig.call("POST", "/prices/import", {"prices": prices, **members})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    assert [one["index"] for one in found] == list(range(len(prices)))
    return found


async def _stored(rig: AdminRig) -> list[Any]:
    paths = ("/prices", "/price_books", "/audit")
    found = [(await rig.call("GET", path)).json()["data"] for path in paths]
    assert all(isinstance(one, list) for one in found)
    return found


async def test_a_file_is_imported_once(rig: AdminRig) -> None:
    """A dry run says what would be, and stores nothing; the second time nothing is to be done."""
    before = await _stored(rig)
    said = await _import(rig, GOOD, is_dry_run=True)
    assert [one["action"] for one in said] == ["create"] * 4
    assert await _stored(rig) == before
    done = await _import(rig, GOOD)
    assert [one["price"]["output"] for one in done] == ["2", "3", "2", "2"]
    assert done[1]["before"]["id"] == done[0]["price"]["id"], "what it takes the place of"
    assert [one["before"] for one in (done[0], *done[2:])] == [None] * 3
    again = await _import(rig, GOOD)
    assert [one["action"] for one in again] == ["none"] * 4
    assert [one["price"]["id"] for one in again] == [one["price"]["id"] for one in done]


async def test_what_has_not_begun_gives_way(rig: AdminRig) -> None:
    """Another price of the same start takes its place; one that has begun stays."""
    (first, second, *_) = await _import(rig, GOOD)
    (changed,) = await _import(rig, [{**SOON, "output": "4"}])
    assert (changed["action"], changed["before"]["id"]) == ("replace", second["price"]["id"])
    listed = (await rig.call("GET", "/prices?alias=large&book_id=pbk_list_EUR")).json()["data"]
    assert {one["output"] for one in listed} == {"2", "4"}
    begun = {**LARGE, "output": "9", "valid_from": first["price"]["valid_from"]}
    answer = await rig.call("POST", "/prices/import", {"prices": [begun]})
    expect_problem(answer, 400, INVALID)
    problem = answer.json()
    assert problem["errors"][0]["path"] == ["prices", 0]
    assert "so it stays; set a new price" in problem["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("bad", "path", "said"),
    [
        ("text", [], "WrittenPrice"),
        ({**FLEX, "inputt": "1"}, ["inputt"], "Extra"),
        ({**FLEX, "input": 0.5}, ["input"], "string"),
        ({**FLEX, "input": "-1"}, ["input"], "write it like"),
        ({**FLEX, "currency": "EURO"}, ["currency"], ";"),
        ({**FLEX, "output": None}, ["output"], "write 0"),
        ({**FLEX, "model": "no-such"}, ["model"], "create it"),
        ({**FLEX, "book": "no-such"}, ["book"], "create it"),
        ({**FLEX, "book": "mine-1", "currency": "USD"}, ["currency"], "EUR"),
        ({**FLEX, "rates": {"input": {"price": "1"}}}, ["input"], "rates"),
        ({**FLEX, "rates": {"nothing": {"price": "1"}}}, None, "meter"),
        ({**FLEX, "valid_from": "2020-01-01T00:00:00Z"}, [], "can begin"),
        ({**FLEX, "valid_from": "2026-01-01"}, ["valid_from"], "timezone"),
        (LATER, [], "ten years"),
        (COST, [], "remove one of the two"),
    ],
)
async def test_a_bad_price_leaves_everything_as_it_was(
    rig: AdminRig, bad: Any, path: list[str] | None, said: str
) -> None:
    """With the entry and the member that are wrong, and what to do; the good ones wait."""
    before = await _stored(rig)
    answer = await rig.call("POST", "/prices/import", {"prices": [*GOOD, bad]})
    expect_problem(answer, 400, INVALID)
    problem = answer.json()
    (fault,) = problem["errors"]
    assert fault["path"][:2] == ["prices", 4]
    assert path is None or fault["path"][2:] == path
    assert said in fault["detail"]
    assert await _stored(rig) == before


async def test_all_faults_are_told_at_once(rig: AdminRig) -> None:
    """Whoever corrects a file sees them all."""
    prices = [{**FLEX, "input": "x"}, LARGE, {**LARGE, "model": "no-such"}, {}]
    answer = await rig.call("POST", "/prices/import", {"prices": prices})
    expect_problem(answer, 400, INVALID)
    problem = answer.json()
    assert {one["path"][1] for one in problem["errors"]} == {0, 2, 3}


async def test_halves_of_characters_are_refused(rig: AdminRig) -> None:
    """In names of members, whatever they are: what cannot be written is not answered."""
    for bad, path in (({"\ud800": 1}, []), ({"rates": {"\ud800": 1}}, ["rates"])):
        answer = await rig.client.post(
            "/api/v1/prices/import",
            content=json.dumps({"prices": [{**LARGE, **bad}]}),
            headers={"authorization": f"Bearer {ADMIN_TOKEN}", "content-type": "application/json"},
        )
        expect_problem(answer, 400, INVALID)
        assert answer.json()["errors"][0]["path"] == ["prices", 0, *path]
