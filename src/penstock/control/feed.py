"""The configuration feed, as nodes ask for it."""

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from penstock.audit.door import problem_responses
from penstock.contract.feed import MAX_RECORDS, MAX_WAIT_S, Position, make_page
from penstock.contract.snapshot_store import RECORD_NAME_BYTES
from penstock.control.feed_sources import SOURCES
from penstock.control.messages import MESSAGE_CONTENT, MESSAGE_TYPE
from penstock.storage.changes import find_change_time, get_last_change, list_changes
from penstock.storage.database import Database
from penstock.storage.errors import UNAVAILABLE
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession

Authenticate = Callable[..., Scope]

POLL_S = 0.05
"""How often an open question looks whether this process has committed anything."""
FOREIGN_POLL_S = 0.4
"""How often it asks the database: bounds how late a node learns of what others committed."""
_MAX_CHANGES = 1_000
_PAGE_ROWS = 1_000
"""How many objects of a kind are read at once for a full answer."""
_MAX_BYTES = 8 * 1024 * 1024
"""A page takes no further objects when its records have this size."""


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
            200: {"content": MESSAGE_CONTENT},
            204: {"description": "Nothing changed."},
            **problem_responses(UNAVAILABLE),
        },
    )
    async def follow_snapshot(
        request: Request,
        scope: Annotated[Scope, Depends(authenticate)],
        *,
        seq: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
        stamp: Annotated[str, Query(max_length=64)] = "",
        wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0,
        after: Annotated[str, Query(max_length=256)] = "",
    ) -> Response:
        position = Position(seq, stamp)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        while True:
            commits, asked_s = database.commit_count, loop.time()
            async with database.read(scope) as session:
                content = await answer(session, position, after)
            if content is not None:
                return Response(content, media_type=MESSAGE_TYPE)
            while commits == database.commit_count and loop.time() < asked_s + FOREIGN_POLL_S:
                # An end of ours must not wait for questions that nobody or nothing will answer.
                if loop.time() >= deadline_s or await is_over(request):
                    return Response(status_code=204)
                await asyncio.sleep(POLL_S)

    return router


async def is_over(request: Request) -> bool:
    """Return whether nobody waits for an answer any more, or nobody may."""
    return request.app.state.is_stopping() or await request.is_disconnected()


async def answer(session: ReadSession, position: Position, after: str) -> bytes | None:
    """Return the page that a node needs; None when it has everything.

    Args:
        session: One state of the database, all organizations'.
        position: How far the node is.
        after: Of a full answer that was begun: where it goes on.
    """
    if after or not await _is_known(session, position):
        return await _full_page(session, position, after)
    changes = await list_changes(session, position.seq, _MAX_CHANGES)
    if not changes:
        return None
    puts: dict[bytes, bytes] = {}
    deletes: set[bytes] = set()
    for kind, source in SOURCES.items():
        names = sorted({name for _, changed, name in changes if changed == kind})
        if names:
            found, gone = await source.find(session, names)
            puts |= found
            deletes |= gone
    return make_page(
        await _position(session, changes[-1][0]), _fitting(puts), deletes - puts.keys()
    )


async def _full_page(session: ReadSession, position: Position, after: str) -> bytes:
    """Return a part of everything; what changes meanwhile comes again behind the position."""
    kinds = list(SOURCES)
    kind, _, place = after.partition(":")
    if kind not in SOURCES:
        kind = kinds[0]
        position = await _position(session, await get_last_change(session))
    puts: dict[bytes, bytes] = {}
    for current in kinds[kinds.index(kind) :]:
        is_done = False
        while not is_done:
            if len(puts) >= MAX_RECORDS or sum(map(len, puts.values())) >= _MAX_BYTES:
                next_after = f"{current}:{place}"
                return make_page(position, puts, set(), is_full=True, next_after=next_after)
            found, place = await SOURCES[current].list_page(session, place, _PAGE_ROWS)
            puts |= _fitting(found)
            is_done = not place
    return make_page(position, puts, set(), is_full=True)


def _fitting(puts: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Leave out what no node could store: a name that somebody wrote by hand."""
    return {name: value for name, value in puts.items() if len(name) <= RECORD_NAME_BYTES}


async def _is_known(session: ReadSession, position: Position) -> bool:
    """Return whether this database made the change that the position names."""
    if position.seq == 0:
        return await get_last_change(session) == 0 and position.stamp == "empty"
    return (await _position(session, position.seq)).stamp == position.stamp


async def _position(session: ReadSession, seq: int) -> Position:
    if seq == 0:
        return Position(0, "empty")
    recorded_at_us = await find_change_time(session, seq)
    return Position(seq, "unknown" if recorded_at_us is None else str(recorded_at_us))
