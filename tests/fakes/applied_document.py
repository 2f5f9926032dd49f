"""A document with everything in it that can be applied, and how it is."""

import copy
from typing import Any

from sqlalchemy import func, select
from tests.fakes.admin_rig import AdminRig, expect_problem

from penstock.access.rules import create_key
from penstock.audit.tables import AuditEntries
from penstock.storage.changes import SnapshotChanges
from penstock.storage.database import Database
from penstock.storage.scope import Scope

INVALID = "err:control:catalog:document_invalid"
CI_SECRET = create_key()
DAILY = {"currency": "EUR", "amount": "9", "period": "day"}
DOCUMENT: dict[str, Any] = {
    "version": 1,
    "organizations": [
        {"name": "acme", "allowed_regions": ["eu-fr", "eu-de"]},
        {"name": "Ümlaut & Söhne"},
    ],
    "projects": [
        {"name": "web", "organization": "acme"},
        {"name": "web", "organization": "Ümlaut & Söhne", "allowed_data_classes": ["eu_only"]},
        {"name": "chat", "organization": "acme"},
    ],
    "members": [
        {
            "subject": "auth0|42",
            "organization": "acme",
            "role": "org_admin",
            "email": "a@b.example",
            "labels": {"team": "search"},
        }
    ],
    "service_accounts": [
        {"name": "nightly", "organization": "acme", "role": "developer", "labels": {"a": ""}},
        {"name": "weekly", "organization": "acme", "project": "chat", "role": "developer"},
    ],
    "keys": [
        {"name": "ci", "project": "web", "organization": "acme", "secret": CI_SECRET},
        {
            "name": "robot",
            "project": "chat",
            "secret": "a-secret-of-their-own",
            "service_account": "nightly",
            "aliases": ["big"],
            "networks": ["10.0.0.0/8"],
            "labels": {"team": "search"},
            "expires_at": "2030-01-31T00:00:00+01:00",
            "rotation": {"interval_s": 7_776_000, "grace_s": 3_600},
        },
    ],
    "credentials": [
        {"name": "main", "provider": "vllm", "secret": "sk-main"},
        {
            "name": "own",
            "provider": "vllm",
            "secret": "sk-own",
            "organization": "acme",
            "upstream": "gpu",
        },
    ],
    "upstreams": [
        {
            "name": "gpu",
            "provider": "vllm",
            "endpoints": ["http://10.0.0.1:8000"],
            "credential": "main",
            "region": "eu-de",
            "timeouts": {"connect_ms": 1_000},
            "kv_events": "5557/5558",
        },
        {"name": "spare", "endpoints": ["http://10.0.0.2:8000"], "credential": "env:SPARE"},
    ],
    "deployments": [
        {"name": "big-eu", "upstream": "gpu", "model": "m", "credential": "main", "tokenizer": "/m"}
    ],
    "routes": [
        {
            "name": "big",
            "deployments": [{"deployment": "big-eu", "weight": 3}, {"deployment": "small"}],
            "fallback": "small",
        },
        {"name": "small", "upstream": "spare", "model": "s", "max_output_tokens": 100},
        {
            "name": "legal",
            "upstream": "gpu",
            "model": "legal",
            "adapter_of": "m",
            "adapter_path": "/adapters/legal",
        },
    ],
    "aliases": [
        {"name": "big", "route": "big", "is_open": False},
        {"name": "small", "route": "small"},
    ],
    "grants": [
        {"alias": "big", "organization": "acme"},
        {"alias": "big", "organization": "Ümlaut & Söhne", "project": "web"},
    ],
    "plans": [
        {
            "name": "gold",
            "rules": [
                {"metric": "requests", "limit": 600, "window_s": 60},
                {"metric": "tokens", "limit": 1_000_000, "window_s": 86_400, "alias": "big"},
                {"metric": "concurrency", "limit": 20, "per": "key", "enforcement": "shadow"},
            ],
        },
        {"name": "empty"},
    ],
    "limits": [
        {
            "organization": "acme",
            "plan": "gold",
            "rules": [{"metric": "requests", "limit": 100, "label": "team=search"}],
        },
        {
            "organization": "acme",
            "project": "chat",
            "key": "robot",
            "rules": [
                {"metric": "requests", "limit": 5, "model": "m"},
                {
                    "metric": "requests",
                    "limit": 5,
                    "raised_limit": 50,
                    "raised_until": "2030-01-31T00:00:00+01:00",
                },
            ],
        },
        {"organization": "acme", "project": "web", "rules": [{"metric": "tokens", "limit": 9}]},
        {"organization": "acme", "member": "auth0|42", "plan": "empty"},
        {"organization": "acme", "service_account": "weekly", "plan": "empty"},
    ],
    "budgets": [
        {
            "organization": "acme",
            "currency": "EUR",
            "amount": "250.50",
            "period": "month",
            "time_zone": "Europe/Berlin",
            "is_hard": True,
            "alert_percentages": [80, 100],
        },
        {
            "organization": "acme",
            "project": "chat",
            "key": "robot",
            "currency": "EUR",
            "amount": "0.05",
            "period": "day",
            "alias": "big",
        },
        {
            "organization": "acme",
            "project": "web",
            "currency": "USD",
            "amount": "1",
            "period": "once",
            "per": "key",
            "lowers_cap": False,
            "exhausted_status": 402,
            "when_away": "refuse",
        },
        {"organization": "acme", "member": "auth0|42", **DAILY},
        {"organization": "acme", "service_account": "weekly", **DAILY},
        {"organization": "acme", "label": "team=search", **DAILY},
        {"organization": "acme", "label": "team=ads", **DAILY},
    ],
}


OBJECTS = 38
"""How many there are in it, with the deployments of the short routes."""


def changed(**sections: Any) -> dict[str, Any]:
    """Return a copy of the document with other sections."""
    return {**copy.deepcopy(DOCUMENT), **sections}


async def apply(rig: AdminRig, document: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Apply a document and return what was done."""
    answer = await rig.call("POST", "/platform/apply", {"document": document, **members})
    assert answer.status_code == 200, answer.text
    applied: dict[str, Any] = answer.json()
    return applied


async def export(rig: AdminRig, query: str = "") -> dict[str, Any]:
    """Return the exported document."""
    answer = await rig.call("GET", f"/platform/export{query}")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()["document"]
    return document


def told(applied: dict[str, Any]) -> list[str]:
    """Return the changes as `action kind name`."""
    return [
        f"{change['action']} {change['object']['kind']} "
        + (change["object"]["names"].get("name") or change["object"]["names"].get("alias", "?"))
        for change in applied["changes"]
    ]


async def refused(rig: AdminRig, document: dict[str, Any], **members: Any) -> dict[str, str]:
    """Apply a document that is refused; return what is said by place."""
    answer = await rig.call("POST", "/platform/apply", {"document": document, **members})
    expect_problem(answer, 400, INVALID)
    errors = answer.json()["errors"]
    assert all(error["path"] is None or error["parameter"] for error in errors)
    return {error["parameter"]: error["detail"] for error in errors}


async def trace(database: Database) -> tuple[int, int]:
    """Return how many audit entries and feed rows there are."""
    async with database.read(Scope.all_organizations()) as session:
        entries = (await session.rows(select(func.count()).select_from(AuditEntries)))[0][0]
        changes = (await session.rows(select(func.count()).select_from(SnapshotChanges)))[0][0]
    return entries, changes
