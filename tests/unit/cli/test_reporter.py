"""What `penstock dev` says, to people and to programs."""

import io
import json
import shlex
from contextlib import redirect_stdout
from pathlib import Path

from penstock.cli.instance import Facts
from penstock.cli.launch.reporter import JsonReporter, TextReporter, curl_line, ready_lines

FACTS = Facts(
    base_url="http://127.0.0.1:8080",
    control_url="http://127.0.0.1:8081",
    metrics_url="http://127.0.0.1:9464",
    api_key="a-$key'with\"signs",
    admin_token="the-admin-token",
    data_dir=str(Path("data folder").absolute()),
    models=("smollm2", "emulated-70b"),
    config="penstock.yaml",
)


class Closed(io.StringIO):
    """A terminal that is gone."""

    def write(self, _: str) -> int:
        """Fail as a closed pipe does."""
        raise BrokenPipeError

    def flush(self) -> None:
        """As `write`."""
        raise BrokenPipeError


def test_the_curl_line_survives_the_shell() -> None:
    """The line is one that a shell takes apart into the key and the body that are meant."""
    line = curl_line(FACTS, "smollm2")
    words = shlex.split(line)
    assert "\n" not in line
    assert f"Authorization: Bearer {FACTS.api_key}" in words
    body = json.loads(words[-1])
    assert (body["model"], body["stream"]) == ("smollm2", True)


def test_a_newcomer_is_told_where_to_look() -> None:
    """Key, models, a line to try, and every place to look next are told; the admin token is not."""
    text = "\n".join(ready_lines(FACTS))
    for said in (
        FACTS.api_key,
        "smollm2, emulated-70b",
        "curl ",
        f"usage --data {shlex.quote(FACTS.data_dir)}",
        FACTS.control_url,
        f"{FACTS.metrics_url}/metrics",
        "dev.json",
    ):
        assert said in text
    assert FACTS.admin_token not in text


def test_programs_get_one_object_a_line() -> None:
    """Every report is a JSON object with an `event`; the last one has the members of dev.json."""
    out = io.StringIO()
    with redirect_stdout(out):
        reporter = JsonReporter()
        reporter.progress("one")
        reporter.warn("two")
        reporter.ready(FACTS)
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["progress", "warning", "ready"]
    assert events[2]["api_key"] == FACTS.api_key


def test_people_read_text_as_it_is() -> None:
    """Brackets in a message are shown, not taken for markup, and lines are not broken."""
    out = io.StringIO()
    with redirect_stdout(out):
        reporter = TextReporter()
        reporter.warn("[bold]" + "x" * 300)
        reporter.ready(FACTS)
    assert "Note: [bold]" + "x" * 300 + "\n" in out.getvalue()
    assert "Penstock is ready." in out.getvalue()


def test_a_closed_terminal_stops_nothing() -> None:
    """A reporter whose reader is gone stays silent instead of failing."""
    with redirect_stdout(Closed()):
        for reporter in (TextReporter(), JsonReporter()):
            reporter.progress("one")
            reporter.warn("two")
            reporter.ready(FACTS)
