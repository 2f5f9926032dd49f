"""Invoices over HTTP: whose they are, and who issues them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from tests.fakes.admin_rig import AdminRig, expect_problem, run_admin_api
from tests.fakes.billing_rig import AUGUST_US, DAY_US, BillingRig, use
from tests.fakes.organizations import ALL

from penstock.access.tables import IdempotencyKeys
from penstock.storage.database import Database

DENIED = "err:control:access:operation_denied"
UNKNOWN = "err:control:storage:object_unknown"
CONFLICT = "err:control:storage:version_conflict"
NOBODY = "err:control:auth:token_missing"
NOVEMBER_NS = (AUGUST_US + 92 * 86_400 * 10**6) * 1_000
PARTY = {
    "name": "Acme GmbH",
    "address": ["Hauptstraße 1"],
    "postal_code": "10115",
    "city": "Berlin",
    "country": "DE",
    "vat_id": "DE123456789",
}
RECIPIENT = {"party": PARTY, "vat": {"category": "S", "rate": "19"}}


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[AdminRig]:
    """The admin API over a database of each kind with a price and an issuer, in November."""
    async with run_admin_api(database, tmp_path / "data") as rig:
        rig.clock.now_ns = NOVEMBER_NS
        await BillingRig(database).begin()
        yield rig


@pytest.fixture
async def project(rig: AdminRig, database: Database) -> dict[str, Any]:
    """A project in an organization of its own, which used something in August."""
    project = await rig.create_project("mine")
    await BillingRig(database).deliver(use(project["organization_id"]))
    return project


async def _issue(rig: AdminRig, owner: str) -> dict[str, Any]:
    answer = await rig.call("PUT", f"/billing-recipients/{owner}", RECIPIENT)
    assert answer.status_code == 200, answer.text
    draft = await rig.create("/invoices", organization_id=owner, month="2026-08")
    answer = await rig.call("POST", f"/invoices/{draft['id']}/finalize")
    assert answer.status_code == 200, answer.text
    issued: dict[str, Any] = answer.json()
    return issued


async def test_an_organization_reads_its_own_invoices_only(
    rig: AdminRig, project: dict[str, Any], database: Database
) -> None:
    """Nobody sees another one's; who administers an organization or its bills reads, no more."""
    owner = project["organization_id"]
    invoice = (await _issue(rig, owner))["id"]
    await BillingRig(database).deliver(use(owner, AUGUST_US + 31 * DAY_US))
    draft = (await rig.create("/invoices", organization_id=owner, month="2026-09"))["id"]
    reads = (
        *(f"/invoices/{invoice}", f"/invoices/{invoice}/xml", f"/invoices/{draft}"),
        f"/billing-recipients/{owner}",
    )
    listing = f"/invoices?organization_id={owner}"
    writes = [("POST", f"/invoices/{invoice}/{verb}") for verb in ("finalize", "void")]
    other = await rig.create_project("other")
    stranger = await rig.create_token(other["id"], "org_owner")
    for path in (*reads, listing):
        expect_problem(await rig.call("GET", path, token=""), 401, NOBODY)
        expect_problem(await rig.call("GET", path, token=stranger), 404, UNKNOWN)
    assert (await rig.call("GET", "/invoices", token=stranger)).json()["data"] == []
    for role in ("org_owner", "org_admin", "auditor", "billing_admin"):
        token = await rig.create_token(project["id"], role)
        for path in (*reads, listing):
            assert (await rig.call("GET", path, token=token)).status_code == 200, (role, path)
        shown = (await rig.call("GET", f"/invoices/{draft}", token=token)).json()
        assert (shown["state"], shown["content"]["net"]) == ("draft", "0.04")
        for method, path in writes:
            expect_problem(await rig.call(method, path, token=token), 403, DENIED)
        answer = await rig.call("PUT", f"/billing-recipients/{owner}", RECIPIENT, token=token)
        expect_problem(answer, 403, DENIED)
        expect_problem(await rig.call("GET", "/billing-issuer", token=token), 403, DENIED)
    token = await rig.create_token(project["id"], "developer")
    for path in (*reads, listing):
        expect_problem(await rig.call("GET", path, token=token), 403, DENIED)


async def test_an_invoice_is_issued_paid_and_taken_back(
    rig: AdminRig, project: dict[str, Any]
) -> None:
    """Each step is done once for its key and version, and every answer says what there is then."""
    owner = project["organization_id"]
    await rig.call("PUT", f"/billing-recipients/{owner}", RECIPIENT)
    draft = await rig.create("/invoices", organization_id=owner, month="2026-08")
    assert (draft["state"], draft["number"], draft["gross"]) == ("draft", None, None)
    path = f"/invoices/{draft['id']}"
    said = (await rig.call("GET", path)).json()["content"]
    assert (said["net"], said["gross"], "number" in said) == ("0.04", "0.05", False)
    unavailable = "err:control:billing:einvoice_unavailable"
    expect_problem(await rig.call("GET", f"{path}/xml"), 409, unavailable)
    answer = await rig.call("POST", f"{path}/finalize", if_match='"2"')
    expect_problem(answer, 412, CONFLICT)
    steps = [
        (f"{path}/finalize", None, "final"),
        (f"{path}/void", None, "final"),
    ]
    for step, body, state in steps:
        rig.clock.advance(1)
        first, second = [await rig.call("POST", step, body, idempotency_key=step) for _ in range(2)]
        assert (first.status_code, first.json()["state"]) == (200, state)
        assert first.content == second.content
    rig.clock.advance(1)
    again = await _issue(rig, owner)
    assert (again["number"], again["version"]) == ("INV-3", 2)
    payment = {"reference": "payment-1"}
    paid = [await rig.call("POST", f"/invoices/{again['id']}/pay", payment) for _ in range(2)]
    assert [one.json()["state"] for one in paid] == ["paid", "paid"]
    found = (await rig.call("GET", "/invoices")).json()["data"]
    assert [(one["kind"], one["state"], one["number"]) for one in found] == [
        ("invoice", "void", "INV-1"),
        ("credit_note", "final", "INV-2"),
        ("invoice", "paid", "INV-3"),
    ]
    shown = (await rig.call("GET", f"/invoices/{again['id']}")).json()
    assert shown["content"]["buyer"]["name"] == "Acme GmbH"
    xml = await rig.call("GET", f"/invoices/{again['id']}/xml")
    assert (xml.status_code, xml.headers["content-type"]) == (200, "application/xml")
    assert "INV-3" in xml.text
    assert (await rig.call("POST", "/ledger/verify")).json()["is_right"] is True


async def test_an_invoice_that_takes_long_is_not_begun_anew(
    rig: AdminRig, project: dict[str, Any], database: Database
) -> None:
    """Who asks again within an hour waits for the first: to begin anew would undo its work."""
    owner = project["organization_id"]
    await rig.call("PUT", f"/billing-recipients/{owner}", RECIPIENT)
    draft = await rig.create("/invoices", organization_id=owner, month="2026-08")
    path = f"/invoices/{draft['id']}/finalize"
    assert (await rig.call("POST", path, idempotency_key="k")).status_code == 200
    async with database.write(ALL) as session:  # as it is while the first is worked on
        await session.change(update(IdempotencyKeys).values(answer=None))
    rig.clock.advance(3_599)
    again = await rig.call("POST", path, idempotency_key="k")
    expect_problem(again, 409, "err:control:access:idempotency_in_flight")
    rig.clock.advance(1)
    again = await rig.call("POST", path, idempotency_key="k")
    expect_problem(again, 409, "err:control:billing:state")


async def test_wrong_particulars_are_refused_at_once(rig: AdminRig) -> None:
    """What could not stand on an invoice is named when it is said, not when one is issued."""
    owner = (await rig.create_project("mine"))["organization_id"]
    wrong: dict[str, dict[str, Any]] = {
        "`party.country`": {"party": PARTY | {"country": "XX"}},
        "`party.vat_id`": {"party": PARTY | {"vat_id": "123"}},
        "`party.name`": {"party": PARTY | {"name": " "}},
        "`party.address`": {"party": PARTY | {"address": []}},
        "`party.electronic_address`": {"party": PARTY | {"electronic_scheme": "EM"}},
        "`vat.rate`": {"vat": {"category": "S", "rate": "19,0"}},
        "`vat.reason`": {"vat": {"category": "AE"}},
        "`leitweg_id`": {"leitweg_id": "04011000-1234512345-07"},
    }
    for name, members in wrong.items():
        answer = await rig.call("PUT", f"/billing-recipients/{owner}", RECIPIENT | members)
        expect_problem(answer, 400, "err:control:billing:invalid")
        assert answer.json()["detail"].startswith(name), answer.text
    right = RECIPIENT | {"leitweg_id": "04011000-1234512345-06"}
    answer = await rig.call("PUT", f"/billing-recipients/{owner}", right)
    assert answer.json()["version"] == 1
    answer = await rig.call("PUT", f"/billing-recipients/{owner}", right, if_match='"0"')
    expect_problem(answer, 412, CONFLICT)
    issuer = {"party": PARTY, "number_prefix": "2026"}
    answer = await rig.call("PUT", "/billing-issuer", issuer)
    expect_problem(answer, 400, "err:control:billing:invalid")
    answer = await rig.call("PUT", "/billing-issuer", {"party": PARTY})
    assert json.loads(answer.content)["number_prefix"] == "INV-"
