"""`penstock trace`: what journals and the control plane know of a request, in order."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from tests.fakes.fake_worker import FakeJournal, make_event, make_open
from tests.fakes.pages import running_pages
from typer.testing import CliRunner, Result

from penstock.billing.story_schemas import StoriesBody
from penstock.cli.main import app
from penstock.contract.finished import Course, RefusedBy, Trace
from penstock.contract.journal import Close
from penstock.contract.money import HoldUse
from penstock.contract.usage import Attempt
from penstock.node.trail import find_trails

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
STARTED_NS = 1_750_000_000_000_000_000
FIRST, SECOND = "01977f5e-3c00-7000-8000-000000000001", "01977f5e-3c00-7000-8000-000000000002"


class Control:
    """A control plane that knows stories by the ids that are asked for."""

    def __init__(self) -> None:
        """Know nothing."""
        self.stories: dict[str, list[dict[str, Any]]] = {}
        self.url = ""

    def ask(self, node: Path, *words: str) -> Result:
        """Run the command."""
        environment = {"PENSTOCK_URL": self.url, "PENSTOCK_TOKEN": "t" * 32}
        return CliRunner().invoke(app, ["trace", "--node", str(node), *words], env=environment)

    def ask_json(self, node: Path, *words: str) -> list[dict[str, Any]]:
        """Run it, and return what it prints for programs."""
        result = self.ask(node, *words, "--json")
        assert result.exit_code == 0, result.output
        return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def control() -> Iterator[Control]:
    """Return one that listens."""
    control = Control()

    def answer(path: str) -> str:
        (name,) = parse_qs(urlsplit(path).query)["id"]
        return json.dumps({"data": control.stories.get(name, [])})

    with running_pages(answer) as control.url:
        yield control


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[FakeJournal]:
    """Return the journal of the node in the test's folder."""
    journal = FakeJournal(tmp_path / "journal")
    yield journal
    journal.die()


def _write(journal: FakeJournal, event_id: str, course: Course, **members: Any) -> None:
    opened = msgspec.structs.replace(make_open(event_id, STARTED_NS), trace=course.trace)
    event = msgspec.structs.replace(make_event(opened), **members)
    journal.write(opened, Close(event, course))


def test_what_is_not_shipped_is_told_by_the_journal(
    control: Control, journal: FakeJournal, tmp_path: Path
) -> None:
    """A trace's request is told in order, with the limit that refused it, without a story."""
    course = Course(
        trace=Trace(TRACE_ID, "00f067aa0ba902b0"),
        received_at_ns=STARTED_NS - 2_000_000,
        dispatched_at_ns=STARTED_NS + 500_000,
        endpoints=("10.0.0.1:8000", "10.0.0.2:8000"),
        refused_by=RefusedBy("lim_1", "tokens", 100, 7),
    )
    attempt = Attempt("emulator", "connect_failed", STARTED_NS, STARTED_NS + 600_000)
    holds = (HoldUse("hld_1", 5),)
    _write(journal, FIRST, course, earlier_attempts=(attempt,), holds=holds)
    _write(journal, SECOND, Course(trace=Trace("0" * 31 + "1")))
    (found,) = control.ask_json(tmp_path, TRACE_ID)
    assert found["event_id"] == FIRST
    assert found["story"] is None
    assert [(step["ms"], step["what"]) for step in found["timeline"]] == [
        (-2.0, "received whole, 0 bytes"),
        (0.0, "admitted: chat with emulated-70b"),
        (0.5, "dispatched, what limits ask for is taken: 10.0.0.1:8000, 10.0.0.2:8000"),
        (0.6, "given up at emulator: connect_failed"),
        (1.0, "first byte from emulator"),
        (2.0, "refused by lim_1, which limits tokens, again in 7 s"),
        (2.0, "ended ok, status 200: 7 tokens in, 11 out"),
        (2.0, "5 nano-units of hold hld_1"),
    ]
    text = control.ask(tmp_path, FIRST).stdout
    assert "has not arrived" in text
    assert "+600" not in text
    assert "+0.600 ms" in text


def test_a_request_under_way_has_no_end(
    control: Control, journal: FakeJournal, tmp_path: Path
) -> None:
    """An OPEN without a CLOSE is told as far as it is known."""
    journal.write(make_open(FIRST, STARTED_NS))
    (found,) = control.ask_json(tmp_path, f"request-{FIRST}")
    assert not found["node"]["is_closed"]
    assert [step["what"] for step in found["timeline"]] == ["admitted: chat with emulated-70b"]


def test_the_books_are_told_with_the_journal(
    control: Control, journal: FakeJournal, tmp_path: Path
) -> None:
    """What the control plane tells is joined with the journal by the event's id."""
    _write(journal, FIRST, Course(trace=Trace(TRACE_ID)))
    (example,) = StoriesBody.model_json_schema()["examples"]
    (story,) = example["data"]
    story["usage"]["event_id"] = FIRST
    control.stories[FIRST] = [story]
    (found,) = control.ask_json(tmp_path, TRACE_ID)
    assert found["usage"] == story["usage"]
    assert found["node"]["trace_id"] == TRACE_ID
    whats = [step["what"] for step in found["timeline"]]
    assert whats[-2:] == [
        "stored, from node-1/0 epoch 7",
        "charge 0.00136 EUR by prc_2Yb7Qm4fKd1s",
    ]
    assert "acme / search / web shop" in control.ask(tmp_path, TRACE_ID).stdout


def test_names_cannot_steer_the_terminal(
    control: Control, journal: FakeJournal, tmp_path: Path
) -> None:
    """What a name or a model holds is shown, and obeyed by no terminal."""
    _write(journal, FIRST, Course(), model="\x1b[2J\x9b1A[red]", organization="a\rb\u202e")
    text = control.ask(tmp_path, FIRST).stdout
    assert "\\x1b[2J\\x9b1A[red]" in text
    assert not {"\x1b", "\x9b", "\r", "\u202e"} & set(text)


def test_a_node_tells_what_it_knows_without_the_control_plane(
    control: Control, journal: FakeJournal, tmp_path: Path
) -> None:
    """When it does not answer, the journal is told all the same, and that it is not the whole."""
    _write(journal, FIRST, Course(trace=Trace(TRACE_ID)))
    control.url = "http://127.0.0.1:1"
    (found,) = control.ask_json(tmp_path, TRACE_ID)
    assert (found["event_id"], found["story"]) == (FIRST, None)
    shown = control.ask(tmp_path, FIRST)
    assert shown.exit_code == 0
    assert "does not answer" in shown.stderr
    assert "has not arrived" not in shown.stdout
    assert control.ask(tmp_path, SECOND).exit_code == 1


def test_what_is_nowhere_is_said(control: Control, tmp_path: Path) -> None:
    """An id that nobody knows ends with 1 and says where else to look."""
    (tmp_path / "journal").mkdir()
    result = control.ask(tmp_path, "unknown")
    assert result.exit_code == 1
    assert "--log" in result.stderr
    assert "is no file" in control.ask(tmp_path, "unknown", "--log", str(tmp_path)).stderr
    result = control.ask(tmp_path / "elsewhere", "unknown")
    assert "has no journals" in result.stderr


def test_what_was_refused_is_in_the_access_log(
    control: Control, journal: FakeJournal, tmp_path: Path
) -> None:
    """Lines that name the request as a whole word are shown, of one that nobody else knows too."""
    _write(journal, FIRST, Course())
    log = tmp_path / "logs" / "access.log"
    log.parent.mkdir()
    refused = '{"request_id":"r-1","status":429,"rule":"lim_1"}'
    other = '{"request_id":"r-12","status":200}'
    served = f"request served request_id=request-{FIRST} event_id={FIRST} note=\x1b[2J"
    log.write_text(f"{refused}\n{other}\n{served}\n")
    (found,) = control.ask_json(tmp_path, "r-1")
    assert (found["log"], found["timeline"]) == ([refused], [])
    assert control.ask(tmp_path, "r-1").stdout.strip() == refused
    (found,) = control.ask_json(tmp_path, FIRST)
    assert found["log"] == [served]
    assert "\x1b" not in control.ask(tmp_path, FIRST).stdout
    elsewhere = tmp_path / "moved.log"
    log.rename(elsewhere)
    assert control.ask(tmp_path, "r-1").exit_code == 1
    assert control.ask(tmp_path, "r-1", "--log", str(elsewhere)).exit_code == 0


def test_no_more_than_a_few_are_told(journal: FakeJournal, tmp_path: Path) -> None:
    """Of many requests with one id the first ones are found, and other records are passed over."""
    for number in range(30):
        opened = make_open(f"01977f5e-3c00-7000-8000-{number:012x}")
        journal.write(msgspec.structs.replace(opened, request_id="again"))
    trails = find_trails(tmp_path / "journal", "again")
    assert [trail.event_id[-2:] for trail in trails] == [f"{number:02x}" for number in range(20)]
    assert find_trails(tmp_path / "journal", "1/0") == []
