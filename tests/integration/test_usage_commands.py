"""`penstock usage` against the real control plane: its how-to page, and what scripts rely on."""

import csv
import json
import re
import shlex
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fakes.control_api import run, run_json
from tests.fakes.control_server import ControlServer, serving_control
from tests.fakes.focus_specification import find_column_faults, find_faults
from tests.unit.metering.usage_events import make_body, make_event

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "read-usage-and-costs.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def control(sqlite_template: Path, tmp_path: Path) -> Iterator[ControlServer]:
    """A control plane with a price, two projects and keys, and three requests of each project."""
    data = tmp_path / "data"
    with serving_control(sqlite_template, data) as server:
        for words in (
            "upstreams create gpu --endpoint http://10.0.0.5:8000",
            "deployments create llama --upstream gpu --model served-llama",
            "routes create llama-70b --choice llama",
            "aliases create llama-70b --route llama-70b --open",
            "prices set --alias llama-70b --currency EUR --input 1.00 --output 2.00",
            "orgs create acme",
        ):
            assert run(server, *words.split()).exit_code == 0, words
        token = (data / "secrets" / "node_token").read_text()
        now_ns = time.time_ns() + 10**9
        for number, name in enumerate(("search", "shop")):
            (project,) = run_json(server, "projects", "create", name, "--org", "acme")
            (key,) = run_json(
                server, "keys", "create", "--project", name, "--name", f"web-{number + 1}"
            )
            events = [
                make_event(
                    10 * number + place,
                    organization=project["organization_id"],
                    project=project["id"],
                    key_id=key["id"],
                    model="llama-70b",
                    started_at_ns=now_ns,
                    labels=(("cost_center", f"{4_711 + place}"),),
                )
                for place in range(3)
            ]
            answer = httpx.post(
                f"{server.url}/node/v1/usage",
                content=make_body(*events),
                headers={"authorization": f"Bearer {token}"},
                timeout=30,
            )
            assert answer.json()["stored"] == 3
        yield server


def test_the_how_to_page_works(
    control: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of the page succeeds behind those above it."""
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    assert len(lines) > 10
    for program, *words in lines:
        assert program == "penstock"
        result = run(control, *words)
        assert result.exit_code == 0, (words, result.output)


def test_scripts_read_the_amount(control: ControlServer) -> None:
    """The amount of a project is a decimal in a text, alone on its line, and 0 before any usage."""
    for name in ("search", "shop"):
        (found,) = run_json(control, "usage", "costs", "--project", name)
        # 3 times 12 input tokens at 1.00 and 7 output tokens at 2.00 for a million.
        assert (found["currency"], found["amount"]) == ("EUR", "0.000078")
    run_json(control, "projects", "create", "idle", "--org", "acme")
    (found,) = run_json(control, "usage", "costs", "--project", "idle")
    assert (found["currency"], found["amount"]) == (None, "0")
    assert "Nothing is charged." in run(control, "usage", "costs", "--project", "idle").output


def test_days_of_a_time_zone_add_up(control: ControlServer) -> None:
    """Days of a zone have all that there is, wherever they begin; what is no zone is refused."""
    zone = ("--bucket", "day", "--tz", "Asia/Tokyo")
    assert sum(_micro(row["amount"]) for row in run_json(control, "usage", "costs", *zone)) == 156
    usage = run_json(control, "usage", "buckets", *zone)
    assert sum(row["requests"] for row in usage) == 6
    assert {row["start_time"] % 86_400 for row in usage} == {15 * 3_600}
    assert "Begins (Asia/Tokyo)" in run(control, "usage", "buckets", *zone).output
    usage = run_json(control, "usage", "buckets", "--bucket", "day", "--tz", "Asia/Kathmandu")
    assert sum(row["requests"] for row in usage) == 6
    assert {row["start_time"] % 86_400 for row in usage} == {18 * 3_600 + 15 * 60}
    refused = run(control, "usage", "costs", "--tz", "Nowhere")
    assert refused.exit_code != 0
    assert "no time zone" in " ".join(refused.output.split())


def test_times_are_shown(control: ControlServer) -> None:
    """Who asks how long requests took sees all of them, with a table for people."""
    day = run_json(control, "usage", "buckets", "--bucket", "day")[0]["start_time"]
    since = datetime.fromtimestamp(day, UTC).isoformat()
    until = (datetime.fromtimestamp(day, UTC) + timedelta(days=30)).isoformat()
    words = ("usage", "latency", "--since", since, "--until", until, "--group-by", "model")
    rows = run_json(control, *words)
    assert sum(row["requests"] for row in rows) == 6
    for row in rows:
        assert row["outcomes"]["ok"] + row["failed_requests"] == row["requests"]
    table = run(control, *words).output
    assert "Each token" in table
    assert str(rows[0]["model"]) in table
    assert "No request matches." in run(control, "usage", "latency", "--until", "2020-01-01").output


def test_groups_add_up(control: ControlServer) -> None:
    """Costs and usage by group are those of all together, whatever the group and the bucket."""
    for groups in ("project", "key,model", "label:cost_center", "organization,data_class"):
        rows = run_json(control, "usage", "costs", "--group-by", groups)
        by_day = run_json(control, "usage", "costs", "--group-by", groups, "--bucket", "day")
        for found in (rows, by_day):
            assert sum(_micro(row["amount"]) for row in found) == 156, groups
        usage = run_json(control, "usage", "buckets", "--group-by", groups, "--bucket", "month")
        assert sum(row["input_tokens"] for row in usage) == 72
        assert sum(row["requests"] for row in usage) == 6
    table = run(control, "usage", "costs", "--group-by", "project").output
    # In order of ids, which are random.
    assert sorted(line.split() for line in table.splitlines() if "EUR" in line) == [
        ["search", "EUR", "0.000078"],
        ["shop", "EUR", "0.000078"],
    ]
    assert "\x1b" not in table


def _micro(amount: str) -> int:
    whole, _, part = amount.partition(".")
    return int(whole + part.ljust(6, "0"))


def test_exports_are_whole_files(control: ControlServer, tmp_path: Path) -> None:
    """A file has all rows, in each format, and one that cannot be had leaves nothing behind."""
    path = tmp_path / "out" / "usage.csv"
    path.parent.mkdir()

    def export(*words: str) -> str:
        result = run(control, "usage", "export", "-o", str(path), "--project", "shop", *words)
        assert result.exit_code == 0, result.output
        return path.read_text("utf-8")

    assert len(export().splitlines()) == 4
    events: list[dict[str, Any]] = [
        json.loads(line) for line in export("--format", "cloudevents").splitlines()
    ]
    assert [event["specversion"] for event in events] == ["1.0"] * 3
    assert {event["data"]["quantities"]["input"] for event in events} == {12}
    assert events[0]["dataschema"].startswith(control.url)
    month = time.strftime("%Y-%m", time.gmtime(time.time() + 1))
    rows = list(csv.DictReader(export("--format", "focus", "--month", month).splitlines()))
    assert find_column_faults(list(rows[0])) == []
    nulled = [{name: value or None for name, value in row.items()} for row in rows]
    assert [fault for row in nulled for fault in find_faults(row)] == []
    assert sum(_micro(row["BilledCost"]) for row in rows) == 78
    path.unlink()
    refused = run(control, "usage", "export", "-o", str(path), "--format", "focus")
    assert refused.exit_code == 1
    assert "err:control:exports:span_missing" in refused.output
    assert list(path.parent.iterdir()) == []


def test_wrong_words_are_wrong_usage(control: ControlServer) -> None:
    """A month that is none, and a month beside other times, are exit code 2."""
    for words in ("--month 2026-13", "--month 2026-11 --since 7d"):
        assert run(control, "usage", "costs", *words.split()).exit_code == 2


def test_corrections_are_booked_once(control: ControlServer) -> None:
    """Rehearsed, booked, said again, listed; what is no correction says so and books nothing."""

    def charged() -> int:
        (found,) = run_json(control, "usage", "costs", "--project", "search")
        return _micro(found["amount"])

    event = run_json(control, "usage", "--project", "search")[0]["event_id"]
    words = ("usage", "correct", event, "--quantity", "output=1", "--reference", "ticket-1")
    rehearsed = run(control, *words, "--dry-run").output
    assert "output -3; charged -0.000006 EUR. Nothing was booked." in rehearsed
    assert charged() == 78
    (booked,) = run_json(control, *words)
    assert (booked["charge"]["amount"], booked["is_dry_run"]) == ("-0.000006", False)
    assert run_json(control, *words) == [booked]
    assert charged() == 72
    void = ("usage", "void", event, "--reference", "ticket-2")
    assert "Not confirmed" in run(control, *void).output
    assert "void; charged -0.00002 EUR. Booked as cor_" in run(control, *void, "--yes").output
    assert charged() == 52
    listed = run_json(control, "usage", "corrections", "--org", "acme")
    assert [one["reference"] for one in listed] == ["ticket-1", "ticket-2"]
    assert "ticket-2" in run(control, "usage", "corrections", "--event", event).output
    for quantity, said in (
        ("output=-1", "Write it like"),
        ("output=1.5", "Write it like"),
        ("tokens=1", "Something else was corrected"),
        ("output=9999999999999", "quantities"),
    ):
        refused = run(control, *words[:4], quantity, *words[5:])
        assert refused.exit_code != 0
        assert said in " ".join(refused.output.split()), quantity
    assert run(control, "prices", "rerate", "--since", "1d", "--yes").exit_code == 0
    (listed_run,) = run_json(control, "prices", "runs", "--org", "acme")
    assert (listed_run["changed_count"], listed_run["finished_at"] is None) == (0, False)
    assert charged() == 52
