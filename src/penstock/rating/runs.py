"""Use cases of runs, which rate stored usage again. None commits."""

import dataclasses

from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.rating import run_store, store
from penstock.rating.choices import read_choice
from penstock.rating.errors import RUN_INVALID, RUN_WAITS
from penstock.rating.model import Run
from penstock.rating.rerating import Post, of_first_month, rate_again, read_known
from penstock.rating.run_store import Place
from penstock.rating.service import admitted_us
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession

EVENTS = 500
"""How many are rated again in one transaction."""


async def begin_run(
    session: WriteSession,
    actor: Actor,
    *,
    since_us: int,
    until_us: int,
    book_id: str | None,
    organization: str | None,
    reason: str,
) -> Run:
    """Return a run that has rated nothing yet.

    Raises:
        PenstockError: `RUN_INVALID`, `OBJECT_UNKNOWN` for the book.
    """
    if not 0 <= since_us < until_us:
        raise PenstockError(RUN_INVALID, "`until` is not behind `since`.")
    if book_id is not None:
        await store.books.get(session, session.scope, book_id)
    run = Run(
        id=create_id("run"),
        reason=reason,
        book_id=book_id,
        organization=organization,
        since_us=since_us,
        until_us=until_us,
        watermark=await run_store.find_watermark(session),
        place=Place().written(),
        event_count=0,
        changed_count=0,
        actor=actor.id,
        created_at_us=actor.at_us,
        finished_at_us=None,
    )
    await run_store.insert_run(session, session.scope, run)
    entry = Entry(
        actor=actor,
        action="price_run.create",
        resource_kind="price_run",
        resource_id=run.id,
        organization_id=None,
        after=dataclasses.asdict(run),
    )
    await record(session, entry)
    return run


async def get_run(session: ReadSession, run_id: str) -> Run:
    """Return a run.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`.
    """
    run = await run_store.find_run(session, session.scope, run_id)
    if run is None:
        raise PenstockError(OBJECT_UNKNOWN)
    return run


async def list_runs(session: ReadSession, page: PageRequest, organization: str | None) -> Page[Run]:
    """Return a page of runs, oldest first: all, or those that looked at an organization's usage."""
    return await run_store.list_runs(session, session.scope, page, organization)


async def continue_run(session: WriteSession, actor: Actor, run_id: str, post: Post) -> Run:
    """Rate the next events of a run again, and return how far it is then.

    Usage that is stored after a run began, and starts before the place where the run is, is rated
    as any usage that comes in; the next run finds it.

    Args:
        session: Where to.
        actor: Who does it.
        run_id: Which run.
        post: Books the differences.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`; `RUN_WAITS` while a transaction is open that was there
            before the run, whose usage would be left out.
    """
    # One run or correction at a time: each changes what the one before has left.
    await session.lock_configuration()
    run = await get_run(session, run_id)
    if run.finished_at_us is not None:
        return run
    if not await run_store.is_past(session, run.watermark):
        raise PenstockError(RUN_WAITS)
    found = await run_store.list_events(
        session,
        session.scope,
        run.since_us,
        run.until_us,
        organization=run.organization,
        after=Place.of(run.place),
        limit=EVENTS,
    )
    events = of_first_month(found)
    known = await read_known(session, events)
    choice = await read_choice(session, run.book_id, events)
    changes = [change for each in known for change in choice.changes(each)]
    rated = await rate_again(session, changes)
    key = f"{run.id}:{run.place}"
    await post(session, rated, key=key, recorded_at_us=actor.at_us, run_id=run.id)
    run = dataclasses.replace(
        run,
        place=Place(admitted_us(events[-1]), events[-1].event_id).written()
        if events
        else run.place,
        event_count=run.event_count + len(events),
        changed_count=run.changed_count + len({one.event.event_id for one in rated}),
        finished_at_us=actor.at_us if len(found) < EVENTS and len(events) == len(found) else None,
    )
    await run_store.update_run(session, session.scope, run)
    return run
