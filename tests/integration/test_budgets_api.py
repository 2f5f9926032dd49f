"""Budgets, prices and holds over HTTP: they live, are refused with a reason, and reach nodes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api
from tests.fakes.catalogs import create_path
from tests.fakes.followers import Follower, asking
from tests.fakes.organizations import ALL

from penstock.contract import money
from penstock.contract.exposition import Family
from penstock.contract.money import NANO, PRICE_SCALE, HoldAsk, HoldRequest
from penstock.contract.snapshot_store import owner_name
from penstock.control.metrics import BUDGET_DIFFERENCES, create_metrics_router
from penstock.ledger.prepaying import find_lapses
from penstock.limits.budget_holds import hold
from penstock.limits.budget_tables import Budgets, BudgetWindows
from penstock.rating.price_rules import NOTICE_S
from penstock.storage.database import Database
from penstock.storage.scope import Scope

INVALID = "err:control:limits:budget_invalid"
PRICE_INVALID = "err:control:prices:invalid"
REQUEST_INVALID = "err:control:request:invalid"
UNKNOWN = "err:control:storage:object_unknown"
DENIED = "err:control:access:operation_denied"
MONEY = {"currency": "EUR", "amount": "10.5"}
FIGURES = {"currency": "EUR", "input": "0.15", "output": "0.6"}


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API over an empty database of each kind."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        yield rig


@pytest.fixture
async def alias(rig: AdminRig, database: Database) -> dict[str, Any]:
    """An open alias."""
    await create_path(database, "small", is_open=True)
    (found,) = (await rig.call("GET", "/aliases?name=small")).json()["data"]
    assert isinstance(found, dict)
    return found


async def _records(database: Database, folder: Path) -> dict[bytes, bytes]:
    async with asking(database) as ask:
        follower = Follower(folder, ask)
        await follower.follow()
        return {name: value or b"" for name, value in follower.records().items()}


async def test_anonymous_and_others_see_no_budget(rig: AdminRig) -> None:
    """Without a token nothing is told, and to another organization it is not there."""
    project = await rig.create_project("mine")
    other = await rig.create_project("other")
    made = await rig.create("/budgets", project_id=project["id"], **MONEY)
    stranger = await rig.create_token(other["id"], "org_owner")
    for method in ("GET", "PATCH", "DELETE"):
        answer = await rig.call(method, f"/budgets/{made['id']}", token="")
        assert answer.status_code == 401
        body = {"amount": "1"} if method == "PATCH" else None
        answer = await rig.call(method, f"/budgets/{made['id']}", body, token=stranger)
        expect_problem(answer, 404, UNKNOWN)
    foreign = await rig.call(
        "POST", "/budgets", {"project_id": project["id"], **MONEY}, token=stranger
    )
    expect_problem(foreign, 404, UNKNOWN)
    assert (await rig.call("GET", "/budgets", token=stranger)).json()["data"] == []


async def test_budgets_live_and_reach_nodes(
    rig: AdminRig, database: Database, tmp_path: Path
) -> None:
    """A hard budget is told to nodes, by its owner, until it is soft or gone."""
    project = await rig.create_project("mine")
    owner = owner_name("project", project["organization_id"], project["id"])
    made = await rig.create(
        "/budgets", project_id=project["id"], **MONEY, is_hard=True, when_away="refuse"
    )
    assert (made["amount"], made["owner_kind"], made["windows"]) == ("10.5", "project", [])
    found = await _records(database, tmp_path / "1")
    told = msgspec.msgpack.decode(found[b"b" + owner], type=tuple[money.Budget, ...])
    assert told == (money.Budget(made["id"], "EUR", when_away="refuse"),)
    path = f"/budgets/{made['id']}"
    changed = await rig.call("PATCH", path, {"amount": "0.000000001"}, if_match='"1"')
    assert (changed.json()["amount"], changed.json()["version"]) == ("0.000000001", 2)
    expect_problem(
        await rig.call("PATCH", path, {"amount": "3"}, if_match='"1"'),
        412,
        "err:control:storage:version_conflict",
    )
    await rig.call("PATCH", path, {"is_hard": False})
    assert b"b" + owner not in await _records(database, tmp_path / "2")
    assert (await rig.call("DELETE", path)).status_code == 204
    expect_problem(await rig.call("GET", path), 404, UNKNOWN)


async def test_deltas_take_away_what_is_no_more(
    rig: AdminRig, database: Database, tmp_path: Path
) -> None:
    """A node that follows hears of a new budget and of its end."""
    project = await rig.create_project("mine")
    name = b"b" + owner_name("project", project["organization_id"], project["id"])
    async with asking(database) as ask:
        follower = Follower(tmp_path / "node", ask)
        await follower.follow()
        made = await rig.create("/budgets", project_id=project["id"], **MONEY, is_hard=True)
        await follower.follow()
        assert name in follower.records()
        await rig.call("DELETE", f"/budgets/{made['id']}")
        await follower.follow()
        assert name not in follower.records()
        assert follower.fulls == 1


async def test_one_budget_of_a_slot(rig: AdminRig) -> None:
    """An owner has one of a currency, period, alias, label and `per`; others stand beside it."""
    project = await rig.create_project("mine")
    body = {"project_id": project["id"], **MONEY}
    await rig.create("/budgets", **body)
    again = await rig.call("POST", "/budgets", body | {"amount": "7"})
    expect_problem(again, 409, "err:control:limits:budget_exists")
    for other in ({"period": "day"}, {"currency": "USD"}, {"per": "key"}, {"label": "team=ads"}):
        await rig.create("/budgets", **(body | other))
    listed = await rig.call("GET", f"/budgets?project_id={project['id']}&period=month")
    assert len(listed.json()["data"]) == 4


BAD_BUDGETS = (
    {"amount": "0"},
    {"amount": "-1"},
    {"amount": "1e3"},
    {"amount": "0.0000000001"},
    {"amount": "9000000001"},
    {"amount": ""},
    {"amount": "\u0661"},
    {"currency": "eur"},
    {"currency": "EURO"},
    {"time_zone": "Europe/Nowhere"},
    {"time_zone": "../../etc/passwd"},
    {"time_zone": "/etc/localtime"},
    {"alert_percentages": [0]},
    {"alert_percentages": [80, 80]},
    {"exhausted_status": 500},
    {"alias": "not a name"},
    {"label": "team"},
    {"label": "=search"},
    {"label": "team=\u0007"},
)


async def test_bad_budgets_are_refused(rig: AdminRig, subtests: pytest.Subtests) -> None:
    """With the member that is wrong, and nothing is stored."""
    project = await rig.create_project("mine")
    for members in BAD_BUDGETS:
        with subtests.test(members=members):
            answer = await rig.call(
                "POST", "/budgets", {"project_id": project["id"], **MONEY, **members}
            )
            expect_problem(answer, 400, INVALID)
            assert next(iter(members)) in answer.json()["detail"]
            assert (await rig.call("GET", "/budgets")).json()["data"] == []


BAD_FORMS = (
    {"amount": 10},
    {"amount": 0.5},
    {"period": "week"},
    {"is_hard": "yes"},
    {"when_away": "die"},
    {"x": 1},
)


async def test_bad_forms_are_refused(rig: AdminRig, subtests: pytest.Subtests) -> None:
    """Numbers that JSON readers round, unknown members and words are no budget."""
    project = await rig.create_project("mine")
    for members in BAD_FORMS:
        with subtests.test(members=members):
            answer = await rig.call(
                "POST", "/budgets", {"project_id": project["id"], **MONEY, **members}
            )
            expect_problem(answer, 400, REQUEST_INVALID)


async def test_a_budget_names_an_owner_and_an_alias_that_are_there(rig: AdminRig) -> None:
    """Unknown ones are 404, none or several owners 400; `per` must make sense."""
    project = await rig.create_project("mine")
    key = await rig.create("/keys", project_id=project["id"], name="key")
    ids = {"project_id": project["id"], "key_id": key["id"]}
    for body, status in (
        ({"project_id": "prj_000000000000"}, 404),
        ({"project_id": project["id"], "alias": "nowhere"}, 404),
        ({}, 400),
        (ids, 400),
        ({"key_id": key["id"], "per": "key"}, 400),
        ({"key_id": key["id"], "per": "member"}, 400),
    ):
        answer = await rig.call("POST", "/budgets", {**MONEY, **body})
        assert answer.status_code == status, (body, answer.text)


async def test_organizations_divide_and_do_not_give_themselves(rig: AdminRig) -> None:
    """An owner sets budgets of what is in the organization; the platform that of the whole."""
    project = await rig.create_project("mine")
    owner = await rig.create_token(project["id"], "org_owner")
    whole = {"organization_id": project["organization_id"], **MONEY}
    expect_problem(await rig.call("POST", "/budgets", whole, token=owner), 403, DENIED)
    part = {"project_id": project["id"], **MONEY}
    assert (await rig.call("POST", "/budgets", part, token=owner)).status_code == 201
    made = await rig.create("/budgets", **whole)
    path = f"/budgets/{made['id']}"
    expect_problem(await rig.call("PATCH", path, {"amount": "99"}, token=owner), 403, DENIED)
    expect_problem(await rig.call("DELETE", path, token=owner), 403, DENIED)
    assert (await rig.call("GET", path, token=owner)).status_code == 200
    admin = await rig.create_token(project["id"], "project_admin")
    expect_problem(await rig.call("POST", "/budgets", part, token=admin), 403, DENIED)


async def test_prices_live_and_reach_nodes(
    rig: AdminRig, alias: dict[str, Any], database: Database, tmp_path: Path
) -> None:
    """The first price holds at once, a lower one, too, a higher one in ten minutes."""
    first = await rig.create("/prices", alias_id=alias["id"], **FIGURES)
    assert (first["alias"], first["input"], first["cached_input"]) == ("small", "0.15", "0.15")
    rig.clock.advance(5)
    lower = await rig.create("/prices", alias_id=alias["id"], **(FIGURES | {"output": "0.5"}))
    higher = await rig.create("/prices", alias_id=alias["id"], **FIGURES)
    found = await _records(database, tmp_path / "node")
    told = msgspec.msgpack.decode(found[b"csmall"], type=tuple[money.Price, ...])
    starts = [one.valid_from_s for one in told]
    assert starts[1:] == [starts[0] + 5, starts[0] + 5 + NOTICE_S]
    assert [one.output * 10 // PRICE_SCALE for one in told] == [6, 5, 6]
    for price in (first, lower, higher):
        answer = await rig.call("DELETE", f"/prices/{price['id']}")
        expect_problem(answer, 409, "err:control:prices:used")
    listed = (await rig.call("GET", "/prices?alias=small&currency=EUR")).json()["data"]
    assert {one["id"] for one in listed} == {first["id"], lower["id"], higher["id"]}


async def test_prices_do_not_surprise(rig: AdminRig, alias: dict[str, Any]) -> None:
    """None begins in the past, or soon when it is higher, or twice; one of later can be deleted."""
    body = {"alias_id": alias["id"], **FIGURES}
    await rig.create("/prices", **body)
    too_soon = "err:control:prices:too_soon"
    for moment in ("2025-06-15T12:00:00Z", "2099-01-01T00:00:00Z"):
        answer = await rig.call("POST", "/prices", body | {"valid_from": moment})
        expect_problem(answer, 400, too_soon)
    expect_problem(await rig.call("POST", "/prices", body), 409, "err:control:prices:exists")
    soon = body | {"input": "1", "valid_from": "2025-06-15T15:10:00Z"}
    expect_problem(await rig.call("POST", "/prices", soon), 400, too_soon)
    later = await rig.create("/prices", **(soon | {"valid_from": "2025-07-01T00:00:00Z"}))
    assert (await rig.call("DELETE", f"/prices/{later['id']}")).status_code == 204


BAD_PRICES = (
    {"input": "-0.1"},
    {"output": "0.0000000000001"},
    {"output": "1000001"},
    {"cached_input": "x"},
    {"currency": "e"},
    {"valid_from": "2030-01-01T00:00:00.5Z"},
)


async def test_bad_prices_are_refused(
    rig: AdminRig, alias: dict[str, Any], subtests: pytest.Subtests
) -> None:
    """With the member that is wrong."""
    for members in BAD_PRICES:
        with subtests.test(members=members):
            body = {"alias_id": alias["id"], **FIGURES, **members}
            answer = await rig.call("POST", "/prices", body)
            expect_problem(answer, 400, PRICE_INVALID)
            assert next(iter(members)) in answer.json()["detail"]


async def test_a_budget_tells_of_aliases_without_a_price(
    rig: AdminRig, alias: dict[str, Any]
) -> None:
    """Those that the owner may use and that would be refused, or not be counted."""
    project = await rig.create_project("mine")
    made = await rig.create("/budgets", project_id=project["id"], **MONEY)
    assert made["unpriced_aliases"] == ["small"]
    await rig.create("/prices", alias_id=alias["id"], **FIGURES)
    owner = await rig.create_token(project["id"], "org_owner")
    shown = await rig.call("GET", f"/budgets/{made['id']}", token=owner)
    assert shown.json()["unpriced_aliases"] == []
    dollars = await rig.create(
        "/budgets", project_id=project["id"], currency="USD", amount="1", alias="small"
    )
    assert dollars["unpriced_aliases"] == ["small"]


async def _hold(database: Database, budget: dict[str, Any], amount: int, now_us: int) -> None:
    asks = (HoldAsk(budget["id"], "", amount, amount),)
    request = HoldRequest("node-1/0", 3, budget["id"], budget["organization_id"], asks)
    async with database.write(ALL) as session:
        assert (await hold(session, request, now_us, find_lapses)).holds


async def test_holds_are_shown(rig: AdminRig, database: Database) -> None:
    """Open ones, to those whose budgets they are on."""
    project = await rig.create_project("mine")
    other = await rig.create_project("other")
    budget = await rig.create("/budgets", project_id=project["id"], **MONEY, is_hard=True)
    now_us = rig.clock.now_ns // 1_000
    await _hold(database, budget, 3 * NANO // 2, now_us)
    for query in ("", f"?budget_id={budget['id']}", f"?project_id={project['id']}"):
        (shown,) = (await rig.call("GET", f"/holds{query}")).json()["data"]
        assert (shown["held"], shown["currency"], shown["epoch"]) == ("1.5", "EUR", 3)
    stranger = await rig.create_token(other["id"], "org_owner")
    assert (await rig.call("GET", "/holds", token=stranger)).json()["data"] == []
    (window,) = (await rig.call("GET", f"/budgets/{budget['id']}")).json()["windows"]
    assert (window["held"], window["left"], window["overrun"]) == ("1.5", "9", "0")
    assert rig.chores is not None
    await rig.chores.tick()
    assert rig.chores.books.differences == 0
    rig.clock.advance(25 * 3_600)
    await rig.chores.tick()
    assert rig.chores.books.expired == 1
    assert (await rig.call("GET", "/holds")).json()["data"] == []


async def test_differences_are_a_metric(rig: AdminRig, database: Database) -> None:
    """A window that does not say what its holds say is counted where Prometheus reads."""
    project = await rig.create_project("mine")
    budget = await rig.create("/budgets", project_id=project["id"], **MONEY, is_hard=True)
    await _hold(database, budget, NANO, rig.clock.now_ns // 1_000)
    async with database.write(ALL) as session:
        await session.change(update(BudgetWindows).values(held=5))
    assert rig.chores is not None
    books = rig.chores.books
    await rig.chores.tick()
    assert books.differences == 1
    router = create_metrics_router(
        lambda: [Family(BUDGET_DIFFERENCES, {(): books.differences})], Scope.all_organizations
    )
    rig.app.include_router(router)
    page = await rig.client.get("/metrics")
    assert "\npenstock_budget_differences 1.0\n" in page.text


async def test_a_damaged_budget_lets_nothing_through(
    rig: AdminRig, database: Database, tmp_path: Path
) -> None:
    """Nodes are told of a currency that nothing has a price in, and nothing can be held of it."""
    project = await rig.create_project("mine")
    budget = await rig.create("/budgets", project_id=project["id"], **MONEY, is_hard=True)
    async with database.write(ALL) as session:
        await session.change(update(Budgets).values(time_zone="Europe/Nowhere"))
    name = b"b" + owner_name("project", project["organization_id"], project["id"])
    found = await _records(database, tmp_path / "node")
    told = msgspec.msgpack.decode(found[name], type=tuple[money.Budget, ...])
    assert told == (money.Budget(budget["id"], ""),)
    asks = (HoldAsk(budget["id"], "", 1, 1),)
    request = HoldRequest("node-1/0", 3, "take", budget["organization_id"], asks)
    async with database.write(ALL) as session:
        assert (await hold(session, request, 0, find_lapses)).holds is None
    assert (await rig.call("GET", f"/budgets/{budget['id']}")).status_code == 200
