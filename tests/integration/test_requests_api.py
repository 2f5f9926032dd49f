"""What became of a request, over HTTP: the whole of it, and to whom it is told."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.admin_rig import ADMIN_TOKEN, AdminRig, expect_problem, run_admin_api
from tests.fakes.billing_rig import AUGUST_US, DAY_US, BillingRig, exact, price_of, use
from tests.fakes.rating_rig import RatingRig

from penstock.contract.usage import Attempt, UsageEvent
from penstock.storage.database import Database

PARTY = {
    "name": "Acme GmbH",
    "address": ["Hauptstraße 1"],
    "postal_code": "10115",
    "city": "Berlin",
    "country": "DE",
    "vat_id": "DE123456789",
}
READER = ["usage:read", "costs:read"]
NOTHING: dict[str, Any] = {"data": []}


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API over a database of each kind with prices and an issuer, in November."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        rig.clock.now_ns = (AUGUST_US + 92 * DAY_US) * 1_000
        await BillingRig(database).begin()
        rating = RatingRig(database)
        await rating.add_price(await rating.add_book("cost"), "prc_cost", "served-fast")
        yield rig


async def _tell(rig: AdminRig, name: str, token: str = ADMIN_TOKEN) -> dict[str, Any]:
    answer = await rig.call("GET", f"/requests?id={name}", token=token)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def _deliver(database: Database, project: dict[str, Any], **members: Any) -> UsageEvent:
    event = use(project["organization_id"], project=project["id"], **members)
    await BillingRig(database).deliver(event)
    return event


async def test_the_whole_story_is_told(rig: AdminRig, database: Database) -> None:
    """From the attempts to the invoice, by either id; what it cost is exact."""
    project = await rig.create_project("mine")
    owner = project["organization_id"]
    budget = await rig.create(
        "/budgets", organization_id=owner, currency="EUR", amount="100", period="once"
    )
    begun_ns = AUGUST_US * 1_000
    attempt = Attempt("backup", "connect_failed", begun_ns, begun_ns + 5_000)
    event = await _deliver(
        database, project, request_id="ours-1", earlier_attempts=(attempt,), attempt_count=2
    )
    await _deliver(database, project, request_id="ours-2")
    body = {"event_id": event.event_id, "quantities": {"output": 1}, "reference": "ticket-1"}
    assert (await rig.call("POST", "/usage/corrections", body)).status_code == 200
    await rig.call("PUT", f"/billing-recipients/{owner}", _recipient())
    draft = await rig.create("/invoices", organization_id=owner, month="2026-08")
    issued = (await rig.call("POST", f"/invoices/{draft['id']}/finalize")).json()

    told = await _tell(rig, "ours-1")
    assert told == await _tell(rig, event.event_id)
    (story,) = told["data"]
    assert story["usage"]["event_id"] == event.event_id
    assert story["usage"]["earlier_attempts"][0]["upstream"] == "backup"
    assert story["arrival"]["producer"].startswith("node-")
    first, cost, corrected, *_ = sorted(
        story["ratings"], key=lambda one: (one["run_id"], one["kind"])
    )
    assert exact(first["amount"]) == price_of(event)
    assert (first["kind"], cost["kind"], corrected["kind"]) == ("charge", "cost", "charge")
    assert exact(corrected["amount"]) < 0
    assert {price["id"] for price in story["prices"]} == {"prc_small", "prc_cost"}
    assert {price["book_name"] for price in story["prices"]} == {"list-EUR", "cost-EUR"}
    assert story["corrections"][0]["reference"] == "ticket-1"
    assert [(use["budget_id"], exact(use["amount"])) for use in story["budgets"]] == [
        (budget["id"], price_of(event))
    ]
    for booking in story["bookings"]:
        assert sum(exact(entry["amount"]) for entry in booking["entries"]) == 0
    assert {one["id"] for one in story["bookings"]} == {
        one["transfer_id"] for one in story["ratings"] if one["transfer_id"]
    }
    assert story["bills"][0]["label"] == issued["number"]


async def test_nobody_else_is_told(rig: AdminRig, database: Database) -> None:
    """Nobody without a token; and what is another's is like what is missing, in bytes."""
    mine, other = await rig.create_project("mine"), await rig.create_project("other")
    sibling = await rig.create("/projects", organization_id=mine["organization_id"], name="sibling")
    own = await _deliver(database, mine, request_id="same")
    foreign = await _deliver(database, other, request_id="same")
    beside = await _deliver(database, sibling, request_id="same")
    answer = await rig.call("GET", "/requests?id=same", token="")
    expect_problem(answer, 401, "err:control:auth:token_missing")

    assert len((await _tell(rig, "same"))["data"]) == 3
    owner = await rig.create_token(mine["id"], "org_owner")
    told = await _tell(rig, "same", owner)
    assert {one["usage"]["event_id"] for one in told["data"]} == {own.event_id, beside.event_id}
    developer = await rig.create_token(mine["id"], "developer", READER)
    (story,) = (await _tell(rig, "same", developer))["data"]
    assert story["usage"]["event_id"] == own.event_id
    for token, hidden in ((owner, foreign), (developer, foreign), (developer, beside)):
        assert await _tell(rig, hidden.event_id, token) == NOTHING
        assert await _tell(rig, "missing", token) == NOTHING


async def test_a_tenant_sees_what_it_may(rig: AdminRig, database: Database) -> None:
    """Costs and prices are the operator's; books are for who reads those, charges for costs."""
    project = await rig.create_project("mine")
    event = await _deliver(database, project)
    seen = {}
    for role, scopes in (
        ("org_owner", ["admin"]),
        ("billing_admin", READER),
        ("developer", READER),
        ("auditor", ["usage:read"]),
    ):
        token = await rig.create_token(project["id"], role, scopes)
        (story,) = (await _tell(rig, event.event_id, token))["data"]
        kinds = {one["kind"] for one in story["ratings"]}
        seen[role] = kinds, bool(story["bookings"]), bool(story["prices"])
    assert seen == {
        "org_owner": ({"charge"}, True, False),
        "billing_admin": ({"charge"}, False, False),
        "developer": ({"charge"}, False, False),
        "auditor": (set(), False, False),
    }
    caller = await rig.create_token(project["id"], "inference_only", READER)
    answer = await rig.call("GET", f"/requests?id={event.event_id}", token=caller)
    expect_problem(answer, 403, "err:control:access:operation_denied")


async def test_strange_ids_find_nothing(rig: AdminRig) -> None:
    """An id that is none of ours is not found, and one that cannot be is refused."""
    for name in ("%27%20OR%201=1--", "0" * 1_024, "%F0%9F%92%A9", "zzzz-"):
        assert await _tell(rig, name) == NOTHING
    for query in ("", "?id=", "?id=%00", f"?id={'x' * 1_025}", "?id=a&id=b", "?request=a"):
        assert (await rig.call("GET", f"/requests{query}")).status_code == 400


def _recipient() -> dict[str, Any]:
    return {"party": PARTY, "vat": {"category": "S", "rate": "19"}}
