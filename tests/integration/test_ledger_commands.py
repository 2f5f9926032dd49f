"""`penstock ledger` against the real control plane: its how-to page, and what scripts rely on."""

import re
import shlex
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.control_api import run, run_json
from tests.fakes.control_server import ControlServer, serving_control

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
PAGE = PAGES / "sell-prepaid-credit.md"
FILE = re.compile(r"^`(\w+\.json)`:\n\n```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
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
    # The month of the page is over when somebody reads it, not for every clock of a test.
    lines = [line.replace("2026-10", "2025-10") for block in BLOCK.findall(text)
             for line in block.splitlines()]  # fmt: skip
    assert len(lines) > 6
    for line in lines:
        _, *words = shlex.split(line)
        result = run(control, *words)
        assert result.exit_code == 0, (words, result.output)
    (draft,) = run_json(control, "invoices", "list")
    assert (draft["state"], draft["month"]) == ("draft", "2025-10")
    shown = run(control, "invoices", "show", draft["id"])
    assert "VAT S 19 %" in shown.output
    refused = run(control, "invoices", "finalize", draft["id"])
    assert refused.exit_code == 1
    assert "nothing to ask for" in refused.output


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
