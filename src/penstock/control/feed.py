"""The configuration feed, as nodes ask for it."""

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy import select

from penstock.access import feed as access_feed
from penstock.access import service as access
from penstock.audit.door import problem_responses
from penstock.catalog.credentials import feed as credentials_feed
from penstock.contract.feed import MAX_RECORDS, MAX_WAIT_S, Position, make_page
from penstock.storage.changes import SnapshotChanges, get_last_change, list_changes
from penstock.storage.database import Database
from penstock.storage.errors import UNAVAILABLE
from penstock.storage.paging import MAX_PAGE_ROWS, PageRequest
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession
from penstock.tenancy import service as tenancy
from penstock.tenancy.model import Status

Authenticate = Callable[..., Scope]

POLL_S = 0.05
"""How often an open question looks whether this process has committed anything."""
FOREIGN_POLL_S = 0.4
"""How often it asks the database: bounds how late a node learns of what others committed."""
_MAX_CHANGES = 1_000
_TYPE = "application/msgpack"


def create_feed_router(database: Database, authenticate: Authenticate) -> APIRouter:
    """Return the endpoint that nodes follow.

    Args:
        database: Where the configuration is.
        authenticate: Checks a node's token.
    """
    router = APIRouter(prefix="/node/v1", tags=["node"])

    @router.get(
        "/snapshot",
        summary="Follow the configuration",
        description=(
            "Answers with what changed behind the position, at once or as soon as there is "
            "something; 204 when nothing did. Everything, in pages, for a position that is not "
            "known here."
        ),
        response_class=Response,
        responses={
            200: {"content": {_TYPE: {"schema": {"type": "string", "format": "binary"}}}},
            204: {"description": "Nothing changed."},
            **problem_responses(UNAVAILABLE),
        },
    )
    async def follow_snapshot(
        scope: Annotated[Scope, Depends(authenticate)],
        seq: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
        stamp: Annotated[str, Query(max_length=64)] = "",
        wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0,
        after: Annotated[str, Query(max_length=64)] = "",
    ) -> Response:
        position = Position(seq, stamp)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        while True:
            commits, asked_s = database.commit_count, loop.time()
            async with database.read(scope) as session:
                content = await _answer(session, position, after)
            if content is not None:
                return Response(content, media_type=_TYPE)
            while commits == database.commit_count and loop.time() < asked_s + FOREIGN_POLL_S:
                if loop.time() >= deadline_s:
                    return Response(status_code=204)
                await asyncio.sleep(POLL_S)

    return router


async def _answer(session: ReadSession, position: Position, after: str) -> bytes | None:
    """Return the page that a node at this position needs; None when it has everything."""
    if after or not await _is_known(session, position):
        return await _full_page(session, position, after)
    changes = await list_changes(session, position.seq, _MAX_CHANGES)
    if not changes:
        return None
    puts: dict[bytes, bytes] = {}
    deletes: set[bytes] = set()
    key_ids = {object_id for _, kind, object_id in changes if kind == "key"}
    for record in (await access.find_records(session, sorted(key_ids))).values():
        found, gone = access_feed.key_records(record)
        puts |= found
        deletes |= gone
    credential_ids = sorted({object_id for _, kind, object_id in changes if kind == "credential"})
    found, gone = await credentials_feed.list_changed(session, credential_ids)
    puts |= found
    deletes |= gone
    for _, kind, object_id in changes:
        if kind == "key_hash":
            deletes.add(access_feed.hash_record_name(object_id))
        elif kind == "organization":
            organization = await tenancy.get_organization(session, object_id)
            _note(access_feed.organization_record(organization), puts, deletes)
        elif kind == "project":
            project = await tenancy.get_project(session, object_id)
            _note(access_feed.project_record(project), puts, deletes)
    return make_page(await _position(session, changes[-1][0]), puts, deletes - puts.keys())


def _note(record: tuple[bytes, bool], puts: dict[bytes, bytes], deletes: set[bytes]) -> None:
    name, is_there = record
    if is_there:
        puts[name] = b""
    else:
        deletes.add(name)


async def _full_page(session: ReadSession, position: Position, after: str) -> bytes:
    """Return a part of everything; what changes meanwhile comes again behind the position."""
    puts: dict[bytes, bytes] = {}
    if not after:
        position = await _position(session, await get_last_change(session))
        puts = await _suspensions(session) | await credentials_feed.list_all(session)
    records = await access.list_records(session, after_id=after, limit=MAX_RECORDS)
    for record in records:
        puts |= access_feed.key_records(record)[0]
    next_after = records[-1].key.id if len(records) == MAX_RECORDS else ""
    return make_page(position, puts, set(), is_full=True, next_after=next_after)


async def _suspensions(session: ReadSession) -> dict[bytes, bytes]:
    puts: dict[bytes, bytes] = {}
    for status in (Status.SUSPENDED, Status.ARCHIVED):
        cursor: str | None = ""
        while cursor is not None:
            request = PageRequest.of(cursor or None, MAX_PAGE_ROWS)
            organizations = await tenancy.list_organizations(session, request, status=status)
            puts |= {
                access_feed.organization_record(organization)[0]: b""
                for organization in organizations.items
            }
            cursor = organizations.next_cursor
        cursor = ""
        while cursor is not None:
            request = PageRequest.of(cursor or None, MAX_PAGE_ROWS)
            projects = await tenancy.list_projects(session, request, status=status)
            puts |= {access_feed.project_record(project)[0]: b"" for project in projects.items}
            cursor = projects.next_cursor
    return puts


async def _is_known(session: ReadSession, position: Position) -> bool:
    """Return whether this database made the change that the position names."""
    if position.seq == 0:
        return await get_last_change(session) == 0 and position.stamp == "empty"
    return (await _position(session, position.seq)).stamp == position.stamp


async def _position(session: ReadSession, seq: int) -> Position:
    if seq == 0:
        return Position(0, "empty")
    statement = select(SnapshotChanges.recorded_at).where(SnapshotChanges.seq == seq)
    rows = await session.rows(statement)
    return Position(seq, str(rows[0][0]) if rows else "unknown")
