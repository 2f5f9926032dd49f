"""`penstock ledger` and `invoices` against the real control plane: how-to pages, and scripts."""

import asyncio
import re
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.billing_rig import BillingRig, use
from tests.fakes.control_api import run, run_json
from tests.fakes.control_server import ControlServer, serving_control
from tests.fakes.ledger_rig import add_grant

from penstock.ledger.months import find_month
from penstock.storage.database import Database

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
PAGE = PAGES / "sell-prepaid-credit.md"
FILE = re.compile(r"^`(\w+\.json)`:\n\n```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
MONTH = "2025-10"
"""Over for every clock of a test, as is the time of grace."""
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def control(sqlite_template: Path, tmp_path: Path) -> Iterator[ControlServer]:
    """A control plane without any objects."""
    with serving_control(sqlite_template, tmp_path / "data") as server:
        yield server


def test_the_page_about_invoices_works(
    control: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command succeeds behind those above it, with the files that the page shows."""
    text = (PAGES / "send-invoices.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    for name, content in FILE.findall(text):
        Path(name).write_text(content, "utf-8")
    lines = [line.replace("2026-10", MONTH) for block in BLOCK.findall(text)
             for line in block.splitlines()]  # fmt: skip
    assert len(lines) > 6
    for line in lines:
        _, *words = shlex.split(line)
        result = run(control, *words)
        assert result.exit_code == 0, (words, result.output)
    (draft,) = run_json(control, "invoices", "list")
    assert (draft["state"], draft["month"]) == ("draft", MONTH)
    shown = run(control, "invoices", "show", draft["id"])
    assert "VAT S 19 %" in shown.output
    assert re.search(r"Paid by credit +0\.00\b", shown.output), shown.output
    refused = run(control, "invoices", "finalize", draft["id"])
    assert refused.exit_code == 1
    assert "nothing to ask for" in refused.output


def test_an_invoice_is_issued_taken_back_and_paid(control: ControlServer, tmp_path: Path) -> None:
    """Each command says what there is then, by its exit code, too; a credit note is shown whole."""
    (owner,) = run_json(control, "orgs", "create", "acme")
    asyncio.run(_use(tmp_path / "data" / "usage.db", owner["id"]))
    drafting = ("invoices", "draft", "--organization", "acme", "--month", MONTH)
    (draft,) = run_json(control, *drafting)
    strange = run(control, "invoices", "void", f"{draft['id']}/finalize?", "--yes")
    (kept,) = run_json(control, "invoices", "list")
    assert (strange.exit_code, kept["state"]) == (1, "draft")
    asked = run(control, "invoices", "void", draft["id"])
    assert (asked.exit_code, "--yes" in asked.output) == (2, True)
    for verb, sentence in (
        (("finalize",), "Issued INV-1 over 0.04 EUR."),
        (("void", "--yes"), "Credit note INV-2 takes it back."),
    ):
        done = run(control, "invoices", verb[0], draft["id"], *verb[1:])
        assert (done.exit_code, sentence in done.output) == (0, True), done.output
    (_, note) = run_json(control, "invoices", "list")
    shown = run(control, "invoices", "show", note["id"]).output
    assert "Credit note INV-2, final, over 2025-10" in shown
    assert re.search(r"Paid by credit +-0\.01\b", shown), shown
    (again,) = run_json(control, *drafting)
    (issued,) = run_json(control, "invoices", "finalize", again["id"])
    assert (issued["number"], issued["state"]) == ("INV-3", "final")
    xml = run(control, "invoices", "xml", again["id"])
    assert xml.exit_code == 0
    assert "<ram:LineOne>Hauptstraße 1</ram:LineOne>" in xml.stdout
    paid = run(control, "invoices", "pay", again["id"], "--reference", "payment-1")
    assert "INV-3 is paid." in paid.output
    refused = run(control, "invoices", "void", again["id"], "--yes")
    assert (refused.exit_code, "in another state" in refused.output) == (1, True)


async def _use(path: Path, organization: str) -> None:
    """Have something be used, a cent of it on credit."""
    since_us, _ = find_month(MONTH) or (0, 0)
    database = Database(path)
    await database.open()
    try:
        rig = BillingRig(database)
        await rig.begin()
        await rig.set_recipient(organization)
        await add_grant(
            database, "crd_1", "0.01", organization=organization, created_at_us=since_us
        )
        await rig.deliver(use(organization, since_us))
    finally:
        await database.close()


def test_the_how_to_page_works(control: ControlServer) -> None:
    """Every command of the page succeeds behind those above it, and sells what the page says."""
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(lines) > 10
    for program, *words in lines:
        assert program == "penstock"
        result = run(control, *words)
        assert result.exit_code == 0, (words, result.output)
    (found,) = run_json(control, "ledger", "balance", "--organization", "acme")
    (row,) = found["data"]
    assert (row["total"], row["prepaid"], row["promo"]) == ("625", "600", "25")


def test_verify_tells_by_its_exit_code(control: ControlServer, tmp_path: Path) -> None:
    """Exit code 0 while the books are right; 1, with the rows, when somebody damaged them."""
    run_json(control, "orgs", "create", "acme")
    (grant,) = run_json(
        control, "ledger", "grants", "create", "--organization", "acme", "--amount", "5",
        "--currency", "EUR",
    )  # fmt: skip
    (found,) = run_json(control, "ledger", "verify")
    assert found["is_right"] is True
    database = sqlite3.connect(tmp_path / "data" / "usage.db")
    with database:
        database.execute("UPDATE credit_grants SET remaining = 1")
    database.close()
    result = run(control, "ledger", "verify", "--json")
    assert result.exit_code == 1
    assert f'"subject":"{grant["id"]}"' in result.stdout.replace(" ", "")
    shown = run(control, "ledger", "verify")
    assert shown.exit_code == 1
    assert "grant_remaining" in shown.stdout
    (row,) = run_json(control, "ledger", "grants", "list", "--organization", "acme")
    assert row["remaining"] == "0.000000001"
