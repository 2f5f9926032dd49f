"""`penstock usage` against a control plane that a test stands in for."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from typer.testing import CliRunner

from penstock.cli.main import app

TOKEN = "the-admin-token"
PAGE = 2


def make_row(number: int) -> dict[str, Any]:
    """Return a row as the usage API gives it."""
    return {
        "event_id": f"event-{number}",
        "request_id": f"request-{number}",
        "organization": "org_000000000001" if number > 3 else "dev",
        "organization_name": "acme" if number > 3 else None,
        "project": "playground",
        "project_name": None,
        "key_id": "dev-key",
        "key_name": None,
        "model": "emulated-70b" if number % 2 else "smollm2",
        "input_tokens": 1000 + number,
        "output_tokens": number,
        "outcome": "ok",
        "usage_source": "engine",
        "started_at": f"2026-01-01T00:00:{number:02}.000000Z",
    }


class FakeControl(ThreadingHTTPServer):
    """Answers the usage API in pages of two, and remembers what it was asked."""

    def __init__(self) -> None:
        """Listen on a free port."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.rows = [make_row(number) for number in range(1, 6)]
        self.objects: dict[str, list[dict[str, Any]]] = {}
        self.is_usage_only = False
        self.asked: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request to the fake control plane."""

    server: FakeControl

    def do_GET(self) -> None:
        """Answer rows or totals."""
        target = urlsplit(self.path)
        query = dict(parse_qsl(target.query))
        kind = target.path.removeprefix("/api/v1/")
        if not kind.startswith("usage"):
            self.answer(*self.objects(kind, query))
            return
        self.server.asked.append({"path": target.path, **query})
        if self.headers["authorization"] != f"Bearer {TOKEN}":
            self.answer(401, {"detail": "no such token"})
        elif query.get("model") == "broken":
            self.answer(422, {"detail": "model is not well"})
        elif target.path.endswith("/totals"):
            self.answer(200, {"data": self.totals(query["by"])})
        else:
            start = int(query.get("cursor", 0))
            rows = self.server.rows[start : start + PAGE]
            has_more = start + PAGE < len(self.server.rows)
            self.answer(200, {"data": rows, "next_cursor": str(start + PAGE) if has_more else None})

    def objects(self, kind: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Look for an object by its id or name."""
        place, _, object_id = kind.partition("/")
        found = [
            row
            for row in self.server.objects.get(place, [])
            if object_id in {"", row["id"]} and query.get("name") in {None, row["name"]}
        ]
        if self.server.is_usage_only:
            return 403, {"code": "err:control:access:operation_denied", "detail": "no"}
        if not object_id:
            return 200, {"data": found, "next_cursor": None}
        return (200, found[0]) if found else (404, {"code": "err:control:storage:object_unknown"})

    def totals(self, by: str) -> list[dict[str, Any]]:
        """Add the rows up by a member."""
        name = f"{by.removesuffix('_id')}_name"
        names = {row[by]: row.get(name) for row in self.server.rows}
        return [
            {
                by: group,
                name: called,
                "requests": len([r for r in self.server.rows if r[by] == group]),
                "input_tokens": sum(r["input_tokens"] for r in self.server.rows if r[by] == group),
                "output_tokens": sum(
                    r["output_tokens"] for r in self.server.rows if r[by] == group
                ),
            }
            for group, called in sorted(names.items())
        ]

    def answer(self, status: int, body: object) -> None:
        """Send a JSON body."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def control() -> Iterator[FakeControl]:
    """A control plane with five rows."""
    with FakeControl() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def environment(control: FakeControl, token: str = TOKEN) -> dict[str, str]:
    """Return what points the commands at the fake."""
    return {"PENSTOCK_URL": control.url, "PENSTOCK_TOKEN": token, "NO_COLOR": "1"}


def test_json_prints_every_row_of_every_page(control: FakeControl) -> None:
    """With --json every row is one object a line, with the members that scripts rely on."""
    result = CliRunner().invoke(app, ["usage", "--json"], env=environment(control))

    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert rows == control.rows
    assert {
        *("request_id", "organization", "project", "key_id", "model", "input_tokens"),
        *("output_tokens", "outcome", "usage_source", "started_at"),
    } <= rows[0].keys()


def test_limit_keeps_the_latest_rows(control: FakeControl) -> None:
    """With --limit the rows that started last are shown, oldest first."""
    result = CliRunner().invoke(app, ["usage", "--json", "--limit", "2"], env=environment(control))
    assert [json.loads(line)["event_id"] for line in result.stdout.splitlines()] == [
        "event-4",
        "event-5",
    ]


def test_table_has_rows_and_totals(control: FakeControl) -> None:
    """Without --json rows are a table with nothing cut, and totals of all rows stand below."""
    result = CliRunner().invoke(app, ["usage", "--limit", "2"], env=environment(control))

    assert result.exit_code == 0
    assert "request-5" in result.stdout
    assert "request-1" not in result.stdout
    assert "2026-01-01 00:00:05" in result.stdout
    assert (
        "Total: 5 requests (the latest 2 are shown), 5,015 input tokens, 15 output tokens"
        in result.stdout
    )
    assert "\x1b" not in result.stdout


def test_totals_by_a_member(control: FakeControl) -> None:
    """With --by there are totals of each group, and of all, and no rows."""
    result = CliRunner().invoke(app, ["usage", "--by", "key"], env=environment(control))
    assert "dev-key" in result.stdout
    assert "5,015" in result.stdout
    assert control.asked == [{"path": "/api/v1/usage/totals", "by": "key_id"}]

    result = CliRunner().invoke(app, ["usage", "--by", "model", "--json"], env=environment(control))
    assert [json.loads(line)["model"] for line in result.stdout.splitlines()] == [
        "emulated-70b",
        "smollm2",
    ]


def test_filters_are_asked_of_control(control: FakeControl) -> None:
    """Every filter goes to the API under its own name, times in UTC."""
    arguments = [
        *("--organization", "dev", "--project", "playground", "--key", "dev-key"),
        *("--model", "smollm2", "--request-id", "r1"),
        *("--since", "2026-01-01T02:00+02:00", "--until", "2026-02-01"),
    ]
    CliRunner().invoke(app, ["usage", "--json", *arguments], env=environment(control))

    asked = control.asked[0]
    del asked["limit"]
    assert asked == {
        "path": "/api/v1/usage",
        "organization": "dev",
        "project": "playground",
        "key_id": "dev-key",
        "model": "smollm2",
        "request_id": "r1",
        "since": "2026-01-01T00:00:00.000000Z",
        "until": "2026-02-01T00:00:00.000000Z",
    }


def _ask(control: FakeControl, *arguments: str) -> dict[str, str]:
    """Run the command and return the filters that it asked control with."""
    control.asked.clear()
    result = CliRunner().invoke(
        app, ["usage", "--json", "--limit", "1", *arguments], env=environment(control)
    )
    assert result.exit_code == 0, result.stderr
    return {
        name: value for name, value in control.asked[0].items() if name not in {"path", "limit"}
    }


ACME = {"id": "org_000000000001", "name": "acme"}
SEARCH = {"id": "prj_000000000001", "organization_id": ACME["id"], "name": "search"}
SHOP = {
    "id": "000000000001",
    "organization_id": ACME["id"],
    "project_id": SEARCH["id"],
    "name": "shop",
}


def test_names_of_objects_become_ids(control: FakeControl) -> None:
    """Organization, project and key are asked for by id, whether they are named or given by id."""
    control.objects = {"organizations": [ACME], "projects": [SEARCH], "keys": [SHOP]}
    ids = {"organization": ACME["id"], "project": SEARCH["id"], "key_id": SHOP["id"]}
    named = ("--organization", "acme", "--project", "search", "--key", "shop")
    assert _ask(control, *named) == ids
    given = ("--organization", ACME["id"], "--project", SEARCH["id"], "--key", SHOP["id"])
    assert _ask(control, *given) == ids
    assert _ask(control, "--key", "shop") == {"key_id": SHOP["id"]}


def test_what_is_no_object_is_asked_for_as_it_is(control: FakeControl) -> None:
    """Below a name that is only in a node's file, no object of another place is meant."""
    control.objects = {"organizations": [ACME], "projects": [SEARCH], "keys": [SHOP]}
    named = ("--organization", "dev", "--project", "search", "--key", "shop")
    assert _ask(control, *named) == {"organization": "dev", "project": "search", "key_id": "shop"}
    control.is_usage_only = True
    assert _ask(control, "--project", SEARCH["id"]) == {"project": SEARCH["id"]}


def test_a_name_of_nothing_is_said(control: FakeControl) -> None:
    """A project that is not there is asked for, with a note beside the answer; JSON stays JSON."""
    control.objects = {"organizations": [ACME], "projects": [SEARCH]}
    arguments = ["usage", "--json", "--project", "saerch"]
    result = CliRunner().invoke(app, arguments, env=environment(control))
    assert result.exit_code == 0
    assert "Note: There is no project 'saerch'." in result.stderr
    assert "Note" not in result.stdout
    arguments = ["usage", "--json", "--project", "search"]
    assert CliRunner().invoke(app, arguments, env=environment(control)).stderr == ""


def test_an_ambiguous_name_is_refused(control: FakeControl) -> None:
    """A name that two projects have asks for no usage, and the choices are told."""
    other = {"id": "prj_000000000002", "organization_id": "org_000000000002", "name": "search"}
    control.objects = {"organizations": [ACME], "projects": [SEARCH, other]}
    arguments = ["usage", "--project", "search"]
    result = CliRunner().invoke(app, arguments, env=environment(control))
    assert result.exit_code != 0
    assert f"{SEARCH['id']} in acme" in result.stderr
    assert control.asked == []


def test_people_see_names(control: FakeControl) -> None:
    """The tables show the names of objects, and ids only where there is none."""
    table = CliRunner().invoke(app, ["usage"], env=environment(control)).stdout
    assert "acme" in table
    assert "org_000000000001" not in table
    assert "dev" in table
    arguments = ["usage", "--by", "organization"]
    totals = CliRunner().invoke(app, arguments, env=environment(control)).stdout
    assert "acme" in totals
    assert "org_000000000001" not in totals


def test_nothing_yet(control: FakeControl) -> None:
    """An empty usage store gives a sentence, and no line at all with --json."""
    control.rows = []
    assert (
        "No request matches." in CliRunner().invoke(app, ["usage"], env=environment(control)).stdout
    )
    result = CliRunner().invoke(app, ["usage", "--json"], env=environment(control))
    assert (result.exit_code, result.stdout) == (0, "")


def test_a_wrong_token_is_told(control: FakeControl) -> None:
    """A token that control refuses is a failure with a remedy, and no traceback."""
    result = CliRunner().invoke(app, ["usage"], env=environment(control, "wrong"))

    assert result.exit_code == 1
    assert "answered 401" in result.stderr
    assert "PENSTOCK_TOKEN" in result.stderr
    assert "Traceback" not in result.output


def test_a_refused_question_says_why(control: FakeControl) -> None:
    """What control says about a question that it refuses is passed on; with --json as JSON."""
    arguments = ["usage", "--json", "--model", "broken"]
    result = CliRunner().invoke(app, arguments, env=environment(control))

    error = json.loads(result.stderr)["error"]
    assert result.exit_code == 1
    assert error["code"] == "err:cli:connect:control_failed"
    assert "model is not well" in error["message"]
    assert error["remedy"]


def test_nobody_there() -> None:
    """When nothing listens at PENSTOCK_URL, the error names the URL and what to do."""
    with FakeControl() as server:
        url = server.url
    result = CliRunner().invoke(
        app, ["usage"], env={"PENSTOCK_URL": url, "PENSTOCK_TOKEN": "token"}
    )
    assert result.exit_code == 1
    assert url in result.stderr
    assert "penstock dev" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "yesterday"],
        ["--since", "999999w"],
        ["--limit", "0"],
        ["--by", "colour"],
        ["--by", "model", "--follow"],
        ["surprise"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    """An option that cannot be meant is exit code 2 and asks nobody."""
    result = CliRunner().invoke(app, ["usage", *arguments], env={"PENSTOCK_URL": "http://x"})
    assert result.exit_code == 2
    assert result.stderr
    assert result.stdout == ""
