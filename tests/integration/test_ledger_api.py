"""The books over HTTP: whose they are, who writes them, and what the command line says of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api
from tests.fakes.ledger_rig import post_rated, posting, rated_row
from tests.fakes.organizations import ALL

from penstock.rating.tables import RatedUsage
from penstock.storage.database import Database

INVALID = "err:control:ledger:invalid"
USED = "err:control:ledger:reference_used"
UNKNOWN = "err:control:storage:object_unknown"
DENIED = "err:control:access:operation_denied"
CONFLICT = "err:control:storage:version_conflict"
NOBODY = "err:control:auth:token_missing"


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API over an empty database of each kind."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        yield rig


@pytest.fixture
async def project(rig: AdminRig) -> dict[str, Any]:
    """A project in an organization of its own."""
    return await rig.create_project("mine")


def _reads(organization_id: str, grant_id: str) -> list[str]:
    query = f"?organization_id={organization_id}"
    return [
        f"/billing-terms/{organization_id}",
        f"/credit-grants{query}",
        f"/credit-grants/{grant_id}",
        f"/balances{query}",
        f"/statements{query}&month=2026-06",
    ]


def _writes(organization_id: str) -> list[tuple[str, str, dict[str, Any] | None]]:
    owner = {"organization_id": organization_id, "amount": "5", "currency": "EUR"}
    return [
        ("PUT", f"/billing-terms/{organization_id}", {"currency": "EUR", "mode": "prepaid"}),
        ("POST", "/top-ups", owner),
        ("POST", "/credit-grants", owner),
        ("POST", "/ledger/verify", None),
    ]


async def test_anonymous_and_others_see_no_books(rig: AdminRig, project: dict[str, Any]) -> None:
    """Without a token nothing is told, and to another organization it is not there."""
    owner = project["organization_id"]
    grant = await rig.create("/credit-grants", organization_id=owner, amount="5")
    other = await rig.create_project("other")
    token = await rig.create_token(other["id"], "org_owner")
    for path in _reads(owner, grant["id"]):
        expect_problem(await rig.call("GET", path, token=""), 401, NOBODY)
        expect_problem(await rig.call("GET", path, token=token), 404, UNKNOWN)
    for method, path, body in _writes(owner):
        expect_problem(await rig.call(method, path, body, token=""), 401, NOBODY)
    for path in ("/credit-grants", "/balances"):
        assert (await rig.call("GET", path, token=token)).json()["data"] == []


async def test_an_organization_reads_its_books_and_writes_nothing(
    rig: AdminRig, project: dict[str, Any]
) -> None:
    """Who administers an organization, or its bills, reads its books; the platform writes them."""
    owner = project["organization_id"]
    grant = await rig.create("/credit-grants", organization_id=owner, amount="5")
    for role in ("org_owner", "org_admin", "auditor", "billing_admin"):
        token = await rig.create_token(project["id"], role)
        for path in _reads(owner, grant["id"]):
            assert (await rig.call("GET", path, token=token)).status_code == 200, (role, path)
        for method, path, body in _writes(owner):
            expect_problem(await rig.call(method, path, body, token=token), 403, DENIED)
    token = await rig.create_token(project["id"], "developer")
    for path in _reads(owner, grant["id"]):
        expect_problem(await rig.call("GET", path, token=token), 403, DENIED)


async def test_credit_is_sold_used_and_stated(
    rig: AdminRig, project: dict[str, Any], database: Database
) -> None:
    """A wallet is filled, usage empties it and more, and balance and statement say so exactly."""
    owner = project["organization_id"]
    terms = {"currency": "EUR", "mode": "prepaid"}
    shown = (await rig.call("GET", f"/billing-terms/{owner}")).json()
    assert (shown["mode"], shown["version"], shown["unpriced"]) == ("postpaid", 0, "allow")
    answer = await rig.call("PUT", f"/billing-terms/{owner}", terms, if_match='"1"')
    expect_problem(answer, 412, CONFLICT)
    answer = await rig.call("PUT", f"/billing-terms/{owner}", terms, if_match='"0"')
    assert (answer.json()["version"], answer.json()["unpriced"]) == (1, "refuse")
    for unpriced in ({"unpriced": "allow"}, {}):
        answer = await rig.call("PUT", f"/billing-terms/{owner}", terms | unpriced)
        assert answer.json()["unpriced"] == "allow", "it stays as it is"
    await rig.create("/top-ups", organization_id=owner, amount="1.5")
    await rig.create("/credit-grants", organization_id=owner, amount="1", name="welcome")
    at_us = rig.clock.wall_ns() // 1_000
    charge = posting("2.500000000000000007", organization=owner, at_us=at_us)
    await post_rated(database, charge, recorded_at_us=at_us)
    (found,) = (await rig.call("GET", f"/balances?organization_id={owner}")).json()["data"]
    assert found["prepaid"] == found["total"] == "-0.000000000000000007"
    assert found["is_overdrawn"] is True
    (grant,) = (await rig.call("GET", f"/credit-grants?organization_id={owner}")).json()["data"]
    assert (grant["remaining"], grant["name"]) == ("0", "welcome")
    answer = await rig.call("GET", f"/statements?organization_id={owner}")
    (statement,) = answer.json()["data"]
    assert statement["charges"] == {
        "amount": "2.500000000000000007",
        "shown": "2.5",
        "rounding": "-0.000000000000000007",
    }
    lines = {name: line["amount"] for name, line in statement.items() if name in _LINES}
    assert lines == {
        "opening": "0",
        "top_ups": "1.5",
        "grants": "1",
        "closing": "-0.000000000000000007",
    }
    verified = (await rig.call("POST", "/ledger/verify")).json()
    assert (verified["is_right"], verified["violations"]) == (True, [])


_LINES = ("opening", "top_ups", "grants", "closing")


async def test_a_payment_is_booked_once(rig: AdminRig, project: dict[str, Any]) -> None:
    """A reference books one payment for ever, answers the same again, and another amount not."""
    owner = project["organization_id"]
    body = {"organization_id": owner, "amount": "10", "currency": "EUR", "reference": "pay-1"}
    first = await rig.create("/top-ups", **body)
    rig.clock.advance(7 * 86_400)
    assert await rig.create("/top-ups", **body) == first
    for other in ({"amount": "11"}, {"currency": "USD"}):
        expect_problem(await rig.call("POST", "/top-ups", body | other), 409, USED)
    found = (await rig.call("GET", f"/balances?organization_id={owner}")).json()["data"]
    assert [one["total"] for one in found] == ["10"]


async def test_what_is_no_credit_is_refused(rig: AdminRig, project: dict[str, Any]) -> None:
    """Amounts, currencies, times and places that cannot be are refused, and nothing is booked."""
    owner = project["organization_id"]
    for change in (
        {"amount": "0"},
        {"amount": "-1"},
        {"amount": "1e3"},
        {"amount": "1000000001"},
        {"amount": "0.0000000000000000001"},
        {"currency": "euro"},
        {"expires_at": "2001-01-01T00:00:00Z"},
    ):
        body = {"organization_id": owner, "amount": "1", **change}
        expect_problem(await rig.call("POST", "/credit-grants", body), 400, INVALID)
        if "expires_at" not in change:
            expect_problem(await rig.call("POST", "/top-ups", body), 400, INVALID)
    nobody = {"organization_id": "org_000000000000", "amount": "1"}
    for path in ("/credit-grants", "/top-ups"):
        expect_problem(await rig.call("POST", path, nobody), 404, UNKNOWN)
    terms = {"currency": "euro", "mode": "prepaid"}
    expect_problem(await rig.call("PUT", f"/billing-terms/{owner}", terms), 400, INVALID)
    for path in ("/balances", "/statements", f"/statements?organization_id={owner}&month=2026-13"):
        expect_problem(await rig.call("GET", path), 400, INVALID)
    assert (await rig.call("GET", f"/balances?organization_id={owner}")).json()["data"] == []


async def test_what_an_operator_does_is_in_the_audit_log(
    rig: AdminRig, project: dict[str, Any]
) -> None:
    """Terms, top-ups and grants are told with what they were and are."""
    owner = project["organization_id"]
    await rig.call("PUT", f"/billing-terms/{owner}", {"currency": "EUR", "mode": "prepaid"})
    await rig.create("/top-ups", organization_id=owner, amount="10")
    await rig.create("/credit-grants", organization_id=owner, amount="0.5")
    entries = (await rig.call("GET", f"/audit?organization_id={owner}")).json()["data"]
    found = {entry["action"]: entry["after"] for entry in entries}
    assert found["terms.set"]["mode"] == "prepaid"
    assert found["topup.create"]["amount"] == "10"
    assert found["credit.create"]["amount"] == "0.5"


async def test_chores_end_grants_and_verify(
    rig: AdminRig, project: dict[str, Any], database: Database
) -> None:
    """The control plane ends grants by itself, and says how many violations it found."""
    owner = project["organization_id"]
    body = {"organization_id": owner, "amount": "5", "expires_at": "2030-01-01T00:00:00Z"}
    await rig.create("/credit-grants", **body)
    assert rig.chores is not None
    await rig.chores.tick()
    assert rig.chores.ledger.violations == 0
    one = posting(1, organization=owner)
    booked = await post_rated(database, one)
    async with database.write(ALL) as session:
        await session.insert(RatedUsage, rated_row("again", one, "charge", booked))
    rig.clock.advance(5 * 366 * 86_400)
    await rig.chores.tick()
    assert rig.chores.ledger.violations == 1
    (found,) = (await rig.call("GET", f"/balances?organization_id={owner}")).json()["data"]
    assert found["promo"] == "0"
