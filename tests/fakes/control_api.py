"""A control plane in memory, as far as its HTTP contract goes: for the command line's tests."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from typer.testing import CliRunner, Result

from penstock.cli.main import app

TOKEN = "the-admin-token"
PAGE_ROWS = 2
SECRET = "ps_live_{}_" + "s" * 38

Row = dict[str, Any]
Answer = tuple[int, Row | None]

_PREFIXES = {
    "organizations": "org_",
    "projects": "prj_",
    "members": "mem_",
    "service-accounts": "sa_",
    "keys": "",
    "upstreams": "ups_",
    "deployments": "dep_",
    "routes": "rte_",
    "aliases": "als_",
    "grants": "grt_",
    "credentials": "crd_",
    "providers": "",
    "plans": "pln_",
    "limits": "lim_",
    "budgets": "bud_",
    "prices": "prc_",
    "holds": "hld_",
}
_OWNERS = ("organization_id", "project_id", "key_id", "member_id", "service_account_id")
_FILTERS = {
    "organizations": {"name", "status"},
    "projects": {"organization_id", "name", "status"},
    "members": {"organization_id", "project_id", "subject"},
    "service-accounts": {"organization_id", "project_id", "name"},
    "keys": {"organization_id", "project_id", "service_account_id", "member_id", "name"},
    "upstreams": {"name", "provider", "region", "data_class"},
    "deployments": {"name", "upstream_id", "model"},
    "routes": {"name"},
    "aliases": {"name", "route_id"},
    "grants": {"alias_id", "organization_id", "project_id"},
    "credentials": {"organization_id", "name", "provider"},
    "providers": set(),
    "plans": {"name"},
    "limits": {*_OWNERS, "owner_kind", "plan_id"},
    "budgets": {*_OWNERS, "owner_kind", "currency", "period", "alias"},
    "prices": {"alias", "currency"},
    "holds": {"organization_id", "project_id", "budget_id"},
    "audit": {"organization_id", "resource", "actor", "action", "outcome"},
}
_DEFAULTS: dict[str, Row] = {
    "organizations": {
        "status": "active",
        "allowed_data_classes": None,
        "allowed_regions": None,
    },
    "projects": {"status": "active", "allowed_data_classes": None, "allowed_regions": None},
    "members": {"project_id": None, "email": None, "labels": {}},
    "service-accounts": {
        "project_id": None,
        "is_disabled": False,
        "is_disabled_by_operator": False,
        "labels": {},
    },
    "keys": {
        "service_account_id": None,
        "member_id": None,
        "is_live": True,
        "role": "inference_only",
        "scopes": ["inference", "models:read"],
        "allowed_aliases": None,
        "allowed_cidrs": None,
        "labels": {},
        "expires_at": None,
        "is_disabled": False,
        "is_disabled_by_operator": False,
        "revoked_at": None,
        "rotation_interval_s": None,
        "rotation_grace_s": None,
        "created_by": "admin_token",
        "last_used_at": None,
    },
    "upstreams": {
        "provider": "openai_compatible",
        "endpoints": [],
        "discover": None,
        "region": None,
        "data_class": None,
        "credential_id": None,
        "credential_reference": None,
        "forward_headers": [],
        "timeouts": {},
        "max_connections": 16_384,
        "tls_ca_file": None,
        "kv_events": None,
        "is_disabled": False,
    },
    "deployments": {
        "credential_id": None,
        "continuous_usage": False,
        "max_output_tokens": 1_000_000,
        "adapter_of": None,
        "adapter_path": None,
        "tokenizer": None,
        "is_disabled": False,
    },
    "routes": {"fallback_id": None},
    "aliases": {"is_open": False},
    "grants": {"project_id": None},
    "credentials": {
        "organization_id": None,
        "upstream_id": None,
        "state": "active",
        "created_by": "admin_token",
    },
    "providers": {},
    "plans": {},
    "limits": {
        **dict.fromkeys(_OWNERS),
        "organization_id": "org_000000000000",
        "plan_id": None,
        "rules": [],
    },
    "budgets": {
        **dict.fromkeys(_OWNERS),
        "organization_id": "org_000000000000",
        "period": "month",
        "time_zone": "UTC",
        "is_hard": False,
        "is_wallet": False,
        "per": None,
        "alias": None,
        "label": None,
        "alert_percentages": [],
        "lowers_cap": True,
        "exhausted_status": 429,
        "when_away": "spend_held",
        "windows": [],
        "unpriced_aliases": [],
    },
    "prices": {"valid_from": "2026-01-01T00:00:00.000000Z"},
    "holds": {},
}
_RULE: Row = {
    "alias": None,
    "model": None,
    "per": None,
    "enforcement": "hard",
    "raised_limit": None,
    "raised_until": None,
    "label": None,
}
_ARCHIVED = {"organizations", "projects"}
"""What is kept when it is deleted."""
_ACTIONS: dict[str, Row] = {
    "suspend": {"status": "suspended"},
    "resume": {"status": "active"},
    "disable": {"is_disabled": True, "is_disabled_by_operator": True},
    "enable": {"is_disabled": False, "is_disabled_by_operator": False},
    "revoke": {"revoked_at": "2026-01-02T00:00:00.000000Z"},
}


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Row | None


@dataclass
class FakeState:
    """What it holds, and how it misbehaves."""

    rows: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in _FILTERS})
    asked: list[Asked] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    """By idempotency key."""
    breaks: int = 0
    """So many of the next changes are done, but their connections break instead of an answer."""
    refusals: list[Answer] = field(default_factory=list)
    """What the next requests are answered with, instead of being done."""
    refused_changes: list[Answer] = field(default_factory=list)
    """The same for the next requests that are no questions."""
    verification: Row = field(
        default_factory=lambda: {
            "is_intact": True,
            "entries": 12,
            "checkpoints": 3,
            "broken": None,
        }
    )
    report: Row = field(
        default_factory=lambda: {
            "renewed": 7,
            "unreadable": 0,
            "outdated": 0,
            "is_complete": True,
        }
    )
    """How re-encryption ends."""

    def add(self, kind: str, **members: Any) -> Row:
        """Put an object there and return it."""
        number = sum(len(rows) for rows in self.rows.values()) + 1
        row = {
            "id": f"{_PREFIXES[kind]}{number:012}",
            **_DEFAULTS[kind],
            **members,
            "version": 1,
            "created_at": "2026-01-01T00:00:00.123456Z",
            "updated_at": "2026-01-01T00:00:00.123456Z",
        }
        self.rows[kind].append(row)
        return row

    def find(self, kind: str, identifier: str) -> Row | None:
        """Return the object of this id, if there is one."""
        return next((row for row in self.rows[kind] if row["id"] == identifier), None)

    def changes(self) -> list[Asked]:
        """Return the requests that were no questions."""
        return [asked for asked in self.asked if asked.method != "GET"]


def problem(status: int, code: str, detail: str, **members: Any) -> Answer:
    """Return problem details as control answers them."""
    return status, {
        "type": code,
        "title": detail,
        "status": status,
        "detail": detail,
        "code": code,
        "is_retryable": False,
        **members,
    }


UNKNOWN = problem(404, "err:control:storage:object_unknown", "There is no such object.")


class FakeControl(ThreadingHTTPServer):
    """Listens on a free port of this machine."""

    def __init__(self) -> None:
        """Start empty."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = FakeState()
        self.url = f"http://127.0.0.1:{self.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What points the commands here."""
        return {"PENSTOCK_URL": self.url, "PENSTOCK_TOKEN": TOKEN, "NO_COLOR": "1"}


@contextmanager
def running_control() -> Iterator[FakeControl]:
    """Serve until the block ends."""
    with FakeControl() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Reachable(Protocol):
    """A control plane that commands can be pointed at, this one or a real one."""

    @property
    def environment(self) -> dict[str, str]:
        """What points the commands there."""
        ...


def run(control: Reachable, *arguments: str) -> Result:
    """Run a command against a control plane."""
    return CliRunner().invoke(app, list(arguments), env=control.environment)


def run_json(control: Reachable, *arguments: str) -> list[Row]:
    """Run a command that succeeds and return the objects that it prints with --json."""
    result = run(control, *arguments, "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return [json.loads(line) for line in result.stdout.splitlines()]


class _Handler(BaseHTTPRequestHandler):
    server: FakeControl

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        state = self.server.state
        target = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        content = self.rfile.read(int(headers.get("content-length", 0)))
        body = json.loads(content) if content else None
        query = dict(parse_qsl(target.query, keep_blank_values=True))
        asked = Asked(self.command, target.path, query, headers, body)
        state.asked.append(asked)
        if headers.get("authorization") != f"Bearer {TOKEN}":
            self._answer(problem(401, "err:control:auth:token_wrong", "The token is wrong."))
        elif state.refusals:
            self._answer(state.refusals.pop(0))
        elif self.command == "GET":
            self._answer(_look(state, asked))
        elif state.refused_changes:
            self._answer(state.refused_changes.pop(0))
        else:
            key = headers["idempotency-key"]
            if key not in state.answers:
                state.answers[key] = _change(state, asked)
            if state.breaks:
                state.breaks -= 1
                self.close_connection = True
            else:
                self._answer(state.answers[key])

    def _answer(self, answer: Answer) -> None:
        status, body = answer
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        if status == 503:
            self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _look(state: FakeState, asked: Asked) -> Answer:
    kind, *rest = asked.path.removeprefix("/api/v1/").split("/")
    if kind == "peppers":
        pepper = {"id": 1, "is_active": True, "is_loaded": True, "secrets": 7, "key_ids": []}
        return 200, {"data": [pepper]}
    if not rest:
        return _list(state, kind, dict(asked.query))
    if (kind, rest) == ("keys", ["due"]):
        return 200, {"data": [_due(row) for row in state.rows["keys"] if row["labels"].get("due")]}
    if (kind, rest) == ("limits", ["use"]):
        return 200, {"data": _use(state, asked.query)}
    row = state.find(kind, rest[0])
    if row is None:
        return UNKNOWN
    if rest[1:] == ["secrets"]:
        return 200, {"data": [{"id": "sec_000000000001", "state": "active", "not_after": None}]}
    return 200, row


def _use(state: FakeState, query: dict[str, str]) -> list[Row]:
    owners = [row for row in state.rows["limits"] if row.items() >= query.items()]
    used = {"plan": None, "used": 7, "used_at": "2026-01-01T00:00:00.123456Z"}
    return [
        {**rule, **{name: row[name] for name in _OWNERS}, **used, "limit_now": rule["limit"]}
        for row in owners
        for rule in row["rules"]
    ]


def _with_rules(body: Row) -> Row:
    """Return a body whose rules are as control answers them."""
    if "rules" not in body:
        return body
    return {
        **body,
        "rules": [
            {
                "id": f"lim.{rule['metric']}",
                "window_s": 0 if rule["metric"] == "concurrency" else 60,
                **_RULE,
                **rule,
            }
            for rule in body["rules"]
        ],
    }


def _due(row: Row) -> Row:
    return {
        "reason": row["labels"]["due"],
        "key_id": row["id"],
        "key_name": row["name"],
        "organization_id": row["organization_id"],
        "project_id": row["project_id"],
        "secret_id": "sec_000000000001",
        "created_at": row["created_at"],
        "not_after": "2026-01-03T00:00:00.000000Z",
        "last_used_at": None,
    }


def _list(state: FakeState, kind: str, query: dict[str, str]) -> Answer:
    start = int(query.pop("cursor", 0))
    query.pop("limit", None)
    unknown = query.keys() - _FILTERS[kind]
    if unknown:
        return problem(400, "err:control:request:invalid", f"Wrong parameters: {unknown}.")
    ids = {"resource": "resource_id", "actor": "actor_id"}
    found = [
        row
        for row in state.rows[kind]
        if all(row.get(ids.get(name, name)) == value for name, value in query.items())
    ]
    end = start + PAGE_ROWS
    return 200, {"data": found[start:end], "next_cursor": str(end) if end < len(found) else None}


def _change(state: FakeState, asked: Asked) -> Answer:
    kind, *rest = asked.path.removeprefix("/api/v1/").split("/")
    # A credential's secret is never answered.
    body = {name: value for name, value in (asked.body or {}).items() if name != "secret"}
    body = _with_rules(body)
    answers = {
        "apply": {"is_dry_run": body.get("is_dry_run"), "changes": [], "leftovers": []},
        "verify": state.verification,
        "rewrap": state.report,
        "rotate": state.report,
    }
    if len(rest) == 1 and rest[0] in answers:
        return 200, answers[rest[0]]
    if not rest:
        return _create(state, kind, body)
    row = state.find(kind, rest[0])
    if row is None:
        return UNKNOWN
    expected = asked.headers.get("if-match")
    if expected is not None and expected != f'"{row["version"]}"':
        return problem(412, "err:control:storage:version_conflict", "It was changed meanwhile.")
    row["version"] += 1
    if asked.method == "DELETE":
        if rest[1:2] != ["secrets"]:
            _delete(state, kind, row)
        return 204, None
    match rest[1:]:
        case []:
            row.update(body)
        case ["rotate"]:
            until = "2026-01-01T00:01:00.000000Z" if body["grace_s"] else None
            return 200, {**row, "secret": SECRET.format(row["id"]), "retiring_until": until}
        case [action]:
            row.update(_ACTIONS[action])
    return 200, dict(row)


def _delete(state: FakeState, kind: str, row: Row) -> None:
    if kind in _ARCHIVED:
        row["status"] = "archived"
    else:
        state.rows[kind].remove(row)


def _create(state: FakeState, kind: str, body: Row) -> Answer:
    name = body.get("name")
    places = ("organization_id", "project_id")
    for row in state.rows[kind]:
        is_same_place = all(row.get(place) == body.get(place) for place in places)
        if name is not None and row["name"] == name and (kind == "keys" or is_same_place):
            detail = "There is one of this name already."
            return problem(409, "err:control:tenancy:name_taken", detail)
    if kind in {"limits", "budgets"}:
        (owner,) = body.keys() & set(_OWNERS)
        is_above = owner in {"organization_id", "project_id", "key_id"}
        kind_of_owner = owner.removesuffix("_id") if is_above else "member"
        return 201, state.add(kind, **body, owner_kind=kind_of_owner)
    if kind == "prices":
        alias = state.find("aliases", body.pop("alias_id")) or {}
        body = {"cached_input": body["input"], **body, "alias": alias["name"]}
    if kind != "keys":
        return 201, state.add(kind, **body)
    project = next(row for row in state.rows["projects"] if row["id"] == body["project_id"])
    row = state.add(kind, organization_id=project["organization_id"], **body)
    return 201, {**row, "secret": SECRET.format(row["id"])}
