"""Fills a control plane's database with so many keys and routes, quickly: by COPY."""

import datetime as dt
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg

from penstock.access.rules import find_key_id

ORGANIZATIONS = 5_000
PROJECTS = 20_000
_NOW = dt.datetime.now(dt.UTC)
_VERSIONED = {"version": 1, "created_at": _NOW, "updated_at": _NOW}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filling:
    """What is to be there."""

    keys: int
    aliases: int
    """As many deployments and routes, too, on one upstream."""
    sample: list[tuple[str, bytes]]
    """Text and hash of the first keys; of the others only a hash is there."""
    engine_url: str


async def fill(dsn: str, filling: Filling) -> None:
    """Write everything into an empty, migrated database.

    Args:
        dsn: Its address, for a superuser: walls and checks of foreign keys would cost minutes.
        filling: What.
    """
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET session_replication_role = replica")
        for table, rows in _tables(filling):
            iterator = iter(rows)
            first = next(iterator)
            records = (tuple(row.values()) for row in _chain(first, iterator))
            await connection.copy_records_to_table(table, records=records, columns=list(first))
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


def _chain(first: Row, others: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from others


def _tables(filling: Filling) -> Iterator[tuple[str, Iterable[Row]]]:
    names = [f"{number:012d}" for number in range(max(PROJECTS, filling.aliases))]
    yield (
        "organizations",
        (
            {"id": f"org_{name}", "name": name, "status": "active", **_VERSIONED}
            for name in names[:ORGANIZATIONS]
        ),
    )
    yield "projects", map(_project, range(PROJECTS))
    yield "api_keys", (_key(filling, number) for number in range(filling.keys))
    yield "key_secrets", (_secret(filling, number) for number in range(filling.keys))
    yield from _catalog(filling, names[: filling.aliases])
    yield "snapshot_changes", [{"kind": "upstream", "object_id": "engine", "recorded_at": _NOW}]


def _project(number: int) -> Row:
    name = f"{number:012d}"
    return {
        "id": f"prj_{name}",
        "organization_id": _organization(number),
        "name": name,
        "status": "active",
        **_VERSIONED,
    }


def _organization(number: int) -> str:
    """Return whose a project or a key is; a key's number is that of its project, and more."""
    return f"org_{number % PROJECTS % ORGANIZATIONS:012d}"


def _key_id(filling: Filling, number: int) -> str:
    if number < len(filling.sample):
        return find_key_id(filling.sample[number][0]) or ""
    return f"{number:012d}"


def _key(filling: Filling, number: int) -> Row:
    return {
        "id": _key_id(filling, number),
        "organization_id": _organization(number),
        "project_id": f"prj_{number % PROJECTS:012d}",
        "name": f"key {number}",
        "is_live": True,
        "role": "inference_only",
        "scopes": '["inference","models:read"]',
        "labels": "{}",
        "is_disabled": False,
        "created_by": "bench",
        **_VERSIONED,
    }


def _secret(filling: Filling, number: int) -> Row:
    is_sample = number < len(filling.sample)
    return {
        "id": f"sec_{number:012d}",
        "organization_id": _organization(number),
        "key_id": _key_id(filling, number),
        "mac": filling.sample[number][1] if is_sample else secrets.token_bytes(32),
        "pepper_id": 1,
        "state": "active",
        "created_by": "bench",
        "created_at": _NOW,
    }


def _catalog(filling: Filling, names: list[str]) -> Iterator[tuple[str, Iterable[Row]]]:
    upstream = {
        "id": "ups_engine",
        "name": "bench",
        "provider": "emulator",
        "endpoints": f'["{filling.engine_url}"]',
        "forward_headers": "[]",
        "timeouts": "{}",
        "max_connections": 16_384,
        "is_disabled": False,
        **_VERSIONED,
    }
    yield "upstreams", [upstream]
    deployment = {
        "upstream_id": "ups_engine",
        "model": "emulated-70b",
        "continuous_usage": False,
        "max_output_tokens": 1_000_000,
        "is_disabled": False,
        **_VERSIONED,
    }
    yield (
        "deployments",
        (
            {"id": f"dep_{name}", "name": f"deployment-{number}", **deployment}
            for number, name in enumerate(names)
        ),
    )
    yield (
        "routes",
        (
            {"id": f"rte_{name}", "name": f"route-{number}", **_VERSIONED}
            for number, name in enumerate(names)
        ),
    )
    yield (
        "route_choices",
        (
            {"route_id": f"rte_{name}", "deployment_id": f"dep_{name}", "position": 0, "weight": 1}
            for name in names
        ),
    )
    alias = {"is_open": True, **_VERSIONED}
    yield (
        "aliases",
        (
            {"id": f"als_{name}", "name": f"model-{number}", "route_id": f"rte_{name}", **alias}
            for number, name in enumerate(names)
        ),
    )
