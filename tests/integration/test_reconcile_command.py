"""`penstock reconcile` between a node's disk and a real control plane."""

import re
import shlex
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.fakes.control_api import run, run_json
from tests.fakes.control_server import ControlServer, serving_control
from tests.fakes.fake_worker import FakeJournal, make_event, make_open

from penstock.contract.journal import Close
from penstock.contract.usage import UsageBatch, UsageEvent, encode_batch
from penstock.node.checkpoints import Checkpoints
from penstock.node.layout import Layout
from penstock.node.recovery import list_journals
from penstock.node.shipment import Shipment

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "reconcile-usage.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
NODE = "node-1"
DAY_NS = 86_400 * 10**9
STARTED_NS = 20_000 * DAY_NS + 5
"""2024-10-04."""
USED = ("requests", "input_tokens", "output_tokens")
SINCE = ("--since", "2024-10-04", "--until", "2024-10-04")


def _make_event(number: int) -> UsageEvent:
    time = f"{STARTED_NS // 10**6:012x}"
    return make_event(make_open(f"{time[:8]}-{time[8:]}-7000-8000-{number:012x}", STARTED_NS))


@dataclass
class Node:
    """A node's disk, and the control plane that it ships to by hand."""

    control: ControlServer
    layout: Layout
    token: str
    journal: FakeJournal

    def write(self, *events: UsageEvent) -> None:
        """Write events as a worker does."""
        for event in events:
            self.journal.write(Close(event))

    def acknowledge(self) -> None:
        """Take note that all that is written is stored, whether it is or not."""
        (journal,) = list_journals(self.layout.journal)
        shipment = Shipment(journal, Checkpoints(self.layout.shipper))
        shipment.fill()
        shipment.acknowledge()

    def ship(self, events: Sequence[UsageEvent]) -> None:
        """Have events stored."""
        answer = httpx.post(
            f"{self.control.url}/node/v1/usage",
            content=encode_batch(UsageBatch(f"{NODE}/0", 1, tuple(events))),
            headers={"authorization": f"Bearer {self.token}"},
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text

    def reconcile(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Run the command and return its exit status and what it says."""
        words = ("reconcile", "--node", str(self.layout.data), "--wait", "0", *SINCE, *words)
        result = run(self.control, *words, "--json")
        return result.exit_code, msgspec.json.decode(result.stdout)


@pytest.fixture
def node(sqlite_template: Path, tmp_path: Path) -> Iterator[Node]:
    """A node whose worker has written nothing yet."""
    with serving_control(sqlite_template, tmp_path / "control") as control:
        layout = Layout(tmp_path / "node")
        layout.create()
        layout.node_id.write_text(NODE)
        token = (tmp_path / "control" / "secrets" / "node_token").read_text()
        yield Node(control, layout, token, FakeJournal(layout.journal))


def test_all_that_was_shipped_agrees(node: Node) -> None:
    """Events that are stored, rated and booked agree; what is not shipped is pending."""
    events = [_make_event(number) for number in range(6)]
    node.write(*events[:4])
    node.ship(events[:4])
    node.acknowledge()
    node.write(*events[4:])
    status, report = node.reconcile()
    assert (status, report["is_whole"], report["pending"]) == (0, True, 2)
    (row,) = report["data"]
    figures = [row[name] for name in ("on_disk", "pending", "stored", "rated", "unbooked")]
    assert figures == [4, 2, 4, 4, 0]
    words = ("reconcile", "--node", str(node.layout.data), "--wait", "0", *SINCE)
    assert "Everything agrees." in run(node.control, *words).stdout


def test_what_is_lost_or_changed_is_named(node: Node) -> None:
    """An acknowledged event that is not stored, or is another one, makes the exit status 1."""
    events = [_make_event(number) for number in range(4)]
    other = msgspec.structs.replace(events[1], output_tokens=1)
    node.write(*events)
    node.ship([events[0], other, events[2]])
    node.acknowledge()
    status, report = node.reconcile()
    assert (status, report["is_whole"]) == (1, False)
    assert report["missing"] == [events[3].event_id]
    assert report["different"] == [events[1].event_id]
    (row,) = report["data"]
    assert (row["on_disk"], row["stored"], row["is_whole"]) == (4, 3, False)
    words = ("reconcile", "--node", str(node.layout.data), "--wait", "0", *SINCE)
    shown = run(node.control, *words)
    assert shown.exit_code == 1
    assert events[3].event_id in shown.stdout


def test_each_damage_is_named(node: Node, tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Whatever somebody does to stored usage behind the rules is found, by its name alone."""
    events = [_make_event(number) for number in range(4)]
    node.write(*events)
    node.ship(events)
    node.acknowledge()
    database, saved = (
        sqlite3.connect(tmp_path / "control" / "usage.db"),
        sqlite3.connect(":memory:"),
    )
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        database.execute(f"DROP TRIGGER {name}")
    database.commit()
    database.backup(saved)
    assert _name_damages(node) == set()
    for statement, names in (
        ("DELETE FROM rated_usage WHERE kind = 'charge'", {"rated"}),
        (
            "UPDATE rated_usage SET amount = 1 WHERE kind = 'charge'",
            {"unbooked", "charge_days.amount_atto"},
        ),
        (
            "UPDATE usage_days SET requests = requests + 1",
            {"usage_days.requests", "usage_months.requests"},
        ),
        ("UPDATE usage_quarters SET output = output - 1", {"usage_quarters.output_tokens"}),
        ("UPDATE usage_months SET output = output + 1", {"usage_months.output_tokens"}),
        ("UPDATE usage_model_quarters SET input = 0", {"usage_model_quarters.input_tokens"}),
        ("UPDATE usage_eighths SET output = output - 1", {"usage_eighths.output_tokens"}),
        ("UPDATE usage_model_eighths SET input = 0", {"usage_model_eighths.input_tokens"}),
        (
            "INSERT INTO usage_embedding_hours SELECT * FROM usage_quarters",
            {f"usage_embedding_hours.{name}" for name in USED},
        ),
        ("UPDATE usage_events SET content_hash = zeroblob(32)", {"different"}),
        ("UPDATE usage_events SET event_id = event_id || 'x'", {"missing", "rated"}),
    ):
        with subtests.test(statement=statement):
            assert database.execute(statement).rowcount > 0
            database.commit()
            assert _name_damages(node) == names
        saved.backup(database)
    assert _name_damages(node) == set()
    database.close()
    saved.close()


def _name_damages(node: Node) -> set[str]:
    status, report = node.reconcile()
    (row,) = report["data"]
    names = {one["figure"] for one in report["differences"]}
    names |= {name for name in ("missing", "different") if report[name]}
    if row["rated"] != row["stored"]:
        names.add("rated")
    if row["unbooked"]:
        names.add("unbooked")
    assert (status == 1) == bool(names)
    return names


def test_journals_are_optional_and_options_are_checked(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without journals all that is stored is looked at; what cannot be is told what is wrong."""
    node.ship([_make_event(1)])
    shutil.rmtree(node.layout.journal)
    monkeypatch.chdir(tmp_path)
    (report,) = run_json(node.control, "reconcile", *SINCE)
    assert report["is_whole"]
    assert run(node.control, "reconcile", "--node", str(node.layout.data)).exit_code == 2
    assert run(node.control, "reconcile", "--since", "1d", "--until", "2d").exit_code == 2


def test_the_how_to_page_works(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of the page succeeds where everything agrees."""
    monkeypatch.chdir(tmp_path)
    lines = [
        shlex.split(line) for part in BLOCK.findall(PAGE.read_text()) for line in part.split("\n")
    ]
    commands = [words for words in lines if words]
    assert len(commands) == 4
    for program, *words in commands:
        assert program == "penstock"
        result = run(node.control, *words)
        assert result.exit_code == 0, (words, result.output)


def test_only_the_operator_may_look(node: Node) -> None:
    """Neither anybody nor an organization's administrator is shown others' usage."""
    (organization,) = run_json(node.control, "orgs", "create", "acme")
    (project,) = run_json(node.control, "projects", "create", "chat", "--org", "acme")
    words = ("--project", project["id"], "--name", "boss", "--role", "org_owner")
    (key,) = run_json(node.control, "keys", "create", *words, "--scope", "admin")
    assert key["organization_id"] == organization["id"]
    url = f"{node.control.url}/api/v1/reconciliation"
    for token, status in (("nobody", 401), (key["secret"], 403)):
        headers = {"authorization": f"Bearer {token}"}
        looked = httpx.get(f"{url}?on=2024-10-04", headers=headers, trust_env=False)
        compared = httpx.post(
            f"{url}/events", json={"hashes": {}}, headers=headers, trust_env=False
        )
        assert (looked.status_code, compared.status_code) == (status, status)
