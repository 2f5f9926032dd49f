"""Use cases of operations of engines: an operator wants one, a node takes it and says what came."""

import dataclasses

import msgspec

from penstock.audit.model import Actor
from penstock.audit.service import record
from penstock.catalog import store as catalog_store
from penstock.catalog.collection import entry_of
from penstock.catalog.errors import ENGINE_OPERATION_INVALID
from penstock.catalog.operations import store
from penstock.catalog.operations.model import (
    CLAIM_WITHIN_S,
    EngineOperation,
    NewEngineOperation,
)
from penstock.contract.operations import MAX_TEXT_CHARS, Claim, OutcomeReport
from penstock.contract.snapshot import MAX_FOUND
from penstock.engines.operating import find_fault, find_operation
from penstock.engines.registry import engine_of
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession

KEEP_S = 30 * 86_400
"""How long it can be asked what came of one; the audit log has it for ever."""


async def create_operation(
    session: WriteSession, actor: Actor, new: NewEngineOperation
) -> EngineOperation:
    """Have a node do an operation.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `ENGINE_OPERATION_INVALID`.
    """
    await session.lock_configuration()
    upstream = await catalog_store.upstreams.get(session, session.scope, new.upstream_id)
    known = find_operation(engine_of(upstream.provider), new.operation)
    if known is None:
        message = f"`{upstream.provider}` has no operation `{new.operation[:64]}`."
        raise PenstockError(ENGINE_OPERATION_INVALID, message)
    fault = find_fault(known, new.arguments)
    if fault is not None:
        raise PenstockError(ENGINE_OPERATION_INVALID, fault)
    operation = EngineOperation(
        **dataclasses.asdict(new),
        id=create_id("eop"),
        upstream=upstream.name,
        version=1,
        created_at_us=actor.at_us,
        updated_at_us=actor.at_us,
    )
    await store.operations.insert(session, session.scope, operation)
    await record(session, entry_of(actor, "engine_operation.create", operation, after=operation))
    return operation


async def get_operation(session: ReadSession, operation_id: str) -> EngineOperation:
    """Return an operation.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    return await store.operations.get(session, session.scope, operation_id)


async def list_operations(
    session: ReadSession, page: PageRequest, *, upstream_id: str | None = None
) -> Page[EngineOperation]:
    """Return operations, oldest first."""
    return await store.operations.list(session, session.scope, page, upstream_id=upstream_id)


async def has_waiting(session: ReadSession, now_us: int) -> bool:
    """Return whether anything is there for a node to do."""
    return await store.find_waiting(session, session.scope, _since_us(now_us)) is not None


async def claim(session: WriteSession, node_id: str, now_us: int) -> Claim | None:
    """Give a node the oldest operation that nobody has; None when there is none.

    No other node gets it, whatever becomes of this one: what it does may not bear to be done twice.
    """
    await session.lock_configuration()
    operation_id = await store.find_waiting(session, session.scope, _since_us(now_us))
    if operation_id is None:
        return None
    found = await store.operations.lock(session, session.scope, operation_id)
    await store.operations.update(
        session, session.scope, found, node_id=node_id, claimed_at_us=now_us, updated_at_us=now_us
    )
    return Claim(found.id, found.upstream, found.operation, found.arguments, found.endpoint)


async def finish(session: WriteSession, report: OutcomeReport, now_us: int) -> None:
    """Keep what a node says of its operation; said again, it changes nothing.

    Raises:
        PenstockError: `OBJECT_UNKNOWN` when it has no such operation.
    """
    found = await store.operations.lock(session, session.scope, report.id)
    if found.node_id != report.node_id:
        raise PenstockError(OBJECT_UNKNOWN)
    if found.finished_at_us is not None:
        return
    outcomes = [
        msgspec.to_builtins(msgspec.structs.replace(each, text=_storable(each.text)))
        for each in report.outcomes[:MAX_FOUND]
    ]
    await store.operations.update(
        session,
        session.scope,
        found,
        outcomes=outcomes,
        fault=_storable(report.fault) or None,
        finished_at_us=now_us,
        updated_at_us=now_us,
    )


async def forget_old_operations(session: WriteSession, now_us: int) -> None:
    """Remove what nobody asks about any more."""
    await store.forget_operations(session, session.scope, now_us - KEEP_S * 1_000_000)


def _storable(text: str) -> str:
    """Return the beginning of an engine's words as every database takes them."""
    return text[:MAX_TEXT_CHARS].replace("\0", "")


def _since_us(now_us: int) -> int:
    return now_us - CLAIM_WITHIN_S * 1_000_000
