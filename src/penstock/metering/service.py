"""Use cases of the metering room."""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from penstock.access.verification import KeyUse, record_uses
from penstock.contract.usage import Meter, UsageBatch, UsageEvent, UsageReceipt
from penstock.kit.errors import PenstockError
from penstock.metering import figure_store, latency_store, log_events, producer_store, store
from penstock.metering.errors import (
    BATCH_INVALID,
    BATCH_TOO_LARGE,
    CURSOR_INVALID,
    PLACES_INVALID,
)
from penstock.metering.figure_rules import add_up
from penstock.metering.latency_rules import count_times
from penstock.metering.model import (
    BEGINNING,
    MAX_EVENTS,
    Arrival,
    Comparison,
    Delivery,
    Place,
    Position,
    Producer,
    TotalsBy,
    UsageFilter,
    UsagePage,
    UsageRow,
    UsageTotal,
)
from penstock.metering.rules import (
    MAX_NUMBER,
    MAX_TEXT_CHARS,
    find_conflicts,
    find_fault,
    find_position,
    follow,
    format_cursor,
    hash_event,
    split_repeats,
)
from penstock.notices.model import Notice
from penstock.notices.service import record_notices
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

MAX_TOLD_EVENTS = 20
"""How many events in quarantine are named, of those of one organization in one transaction."""

Settle: TypeAlias = Callable[[WriteSession, Sequence[Arrival]], Awaitable[None]]
"""Counts what new events cost. It must not refuse one: it would never be acknowledged."""


def prepare_batch(batch: UsageBatch, recorded_at_us: int) -> Delivery:
    """Check a batch and take the fingerprint of each event, before a transaction is begun.

    Args:
        batch: What a node sent.
        recorded_at_us: When it came.

    Raises:
        PenstockError: `BATCH_TOO_LARGE`, or `BATCH_INVALID` with what is wrong.
    """
    if len(batch.events) > MAX_EVENTS:
        raise PenstockError(BATCH_TOO_LARGE)
    if batch.format != 1:
        raise PenstockError(BATCH_INVALID, "the batch has another format than 1")
    if not batch.events:
        raise PenstockError(BATCH_INVALID, "the batch has no events")
    is_producer_sane = 0 < len(batch.producer) <= MAX_TEXT_CHARS and "\0" not in batch.producer
    if not is_producer_sane or not 0 <= batch.epoch <= MAX_NUMBER:
        raise PenstockError(BATCH_INVALID, "producer or epoch of the batch is out of range")
    places = (batch.segment, batch.offset, batch.from_segment, batch.from_offset)
    if not all(0 <= number <= MAX_NUMBER for number in places):
        raise PenstockError(BATCH_INVALID, "a place of the batch is out of range")
    for event in batch.events:
        fault = find_fault(event)
        if fault is not None:
            raise PenstockError(BATCH_INVALID, fault)
    return Delivery(
        producer=batch.producer,
        epoch=batch.epoch,
        events=[hash_event(event) for event in batch.events],
        recorded_at_us=recorded_at_us,
        begin=Place(batch.from_segment, batch.from_offset),
        end=Place(batch.segment, batch.offset),
    )


async def record_events(
    session: WriteSession,
    scope: Scope,
    deliveries: Sequence[Delivery],
    settle: Settle | None = None,
) -> list[UsageReceipt]:
    """Store events, each id once, however often and in whatever deliveries it comes.

    A receipt counts every event of its delivery, in one of its three figures, and says how far the
    journal was stored before. It holds once the session has committed.

    Rows are locked in this order, and those of one kind in order of their keys: producers,
    events, figures, times, keys, then what `settle` locks. So nobody waits for one that waits for
    it.

    When their keys were used last is stored with them; keys of a node's own file are not here.

    Args:
        session: Where to; the caller's context commits it.
        scope: Whose events these may be.
        deliveries: `MAX_JOINED_EVENTS` at most, or a single one. Of an id that is in several, the
            first one counts.
        settle: What else happens once for each event that is new, in the same transaction.

    Returns:
        The receipt of each delivery.
    """
    arrivals = [Arrival(hashed, one) for one in deliveries for hashed in one.events]
    first, repeats = split_repeats(arrivals)
    producers = await producer_store.lock_producers(session, deliveries)
    new = await store.record_events(session, scope, list(first.values()))
    fresh = [arrival for event_id, arrival in first.items() if event_id in new]
    known = [arrival for event_id, arrival in first.items() if event_id not in new] + repeats
    places = await _follow(session, producers, deliveries, fresh)
    await figure_store.add_figures(session, scope, add_up(one.event for one in fresh))
    await latency_store.add_counts(session, scope, count_times(one.event for one in fresh))
    await record_uses(session, map(_use, first.values()))
    if settle is not None and fresh:
        await settle(session, fresh)
    conflicts = await _find_conflicts(session, scope, known)
    counts = [Counter(id(one.delivery) for one in part) for part in (fresh, known, conflicts)]
    return [
        UsageReceipt(
            stored=stored,
            duplicates=repeated - conflicting,
            conflicts=conflicting,
            segment=place.segment,
            offset=place.offset,
        )
        for place, (stored, repeated, conflicting) in zip(
            places, ([count[id(one)] for count in counts] for one in deliveries), strict=True
        )
    ]


async def _follow(
    session: WriteSession,
    producers: dict[tuple[str, int], Producer],
    deliveries: Sequence[Delivery],
    fresh: Iterable[Arrival],
) -> list[Place]:
    """Store how far journals are stored now, and return how far they were at each delivery."""
    new_ids: defaultdict[int, list[str]] = defaultdict(list)
    for arrival in fresh:
        new_ids[id(arrival.delivery)].append(arrival.event.event_id)
    places = []
    for one in deliveries:
        producer = producers[one.life]
        places.append(producer.place)
        producers[one.life] = follow(producer, one, new_ids[id(one)])
    await producer_store.write_producers(session, producers.values())
    return places


async def _find_conflicts(
    session: WriteSession, scope: Scope, known: Sequence[Arrival]
) -> list[Arrival]:
    """Return, and put into quarantine, events whose id is stored with another content."""
    stored_hashes = await store.list_hashes(
        session, scope, list({arrival.event.event_id: None for arrival in known})
    )
    conflicts = find_conflicts(known, stored_hashes)
    if conflicts:
        new = await store.record_conflicts(session, scope, conflicts)
        await _tell(session, [one for one in conflicts if one.event.event_id in new])
        event, delivery = conflicts[0].event, conflicts[0].delivery
        log_events.USAGE_CONFLICTS.log(
            count=len(conflicts),
            event_id=event.event_id,
            producer=delivery.producer,
            epoch=delivery.epoch,
        )
    return conflicts


async def _tell(session: WriteSession, conflicts: Iterable[Arrival]) -> None:
    """Have each organization told which of its usage was put into quarantine."""
    ids: defaultdict[str, list[str]] = defaultdict(list)
    now_us = 0
    for one in conflicts:
        ids[one.event.organization].append(one.event.event_id)
        now_us = max(now_us, one.delivery.recorded_at_us)
    notices = [
        Notice(
            "usage.quarantined",
            organization,
            own[0],
            {"count": len(own), "event_ids": own[:MAX_TOLD_EVENTS]},
        )
        for organization, own in sorted(ids.items())
    ]
    await record_notices(session, notices, now_us)


def _use(arrival: Arrival) -> KeyUse:
    event = arrival.event
    return KeyUse(event.key_id, arrival.used_at_us, event.key_secret_id or None)


async def list_places(session: ReadSession, lives: Sequence[tuple[str, int]]) -> list[Place]:
    """Return how far the journal of each of these lives is stored, in their order.

    Args:
        session: Where from.
        lives: Producers and epochs, 500 at most.

    Raises:
        PenstockError: `PLACES_INVALID`.
    """
    is_sane = all(
        0 < len(producer) <= MAX_TEXT_CHARS and "\0" not in producer and 0 <= epoch <= MAX_NUMBER
        for producer, epoch in lives
    )
    if not is_sane or not 0 < len(lives) <= MAX_EVENTS:
        raise PenstockError(PLACES_INVALID)
    known = await producer_store.list_producers(session, lives)
    return [known[life].place if life in known else BEGINNING for life in lives]


async def list_usage(
    session: ReadSession,
    scope: Scope,
    usage_filter: UsageFilter,
    *,
    cursor: str | None,
    limit: int,
) -> UsagePage:
    """Return a page of usage, oldest first.

    A walk along the cursors sees each event once that was there when it began. One that is
    stored meanwhile is seen if it started after the walk's position.

    Args:
        session: Where from.
        scope: Whose.
        usage_filter: Which.
        cursor: `next_cursor` of the page before; the first page when None.
        limit: Most rows, 1..1000.

    Raises:
        PenstockError: `CURSOR_INVALID`.
    """
    after = None
    if cursor is not None:
        after = find_position(cursor)
        if after is None:
            raise PenstockError(CURSOR_INVALID)
    rows = await store.list_events(session, scope, usage_filter, after=after, limit=limit + 1)
    has_more = len(rows) > limit
    rows = rows[:limit]
    next_cursor = None
    if has_more:
        next_cursor = format_cursor(Position(rows[-1].started_at_us, rows[-1].event_id))
    return UsagePage(rows, next_cursor)


async def list_latest_usage(session: ReadSession, scope: Scope, limit: int) -> list[UsageRow]:
    """Return the usage that started last, newest first."""
    return await store.list_latest_events(session, scope, limit)


async def compare_events(
    session: ReadSession, scope: Scope, hashes: dict[str, bytes]
) -> Comparison:
    """Look up events, by id and fingerprint of their content.

    Args:
        session: One state of the database.
        scope: Whose.
        hashes: Fingerprints by event id, `MAX_COMPARED` at most.
    """
    stored = await store.list_hashes(session, scope, list(hashes))
    return Comparison(
        missing=[event_id for event_id in hashes if event_id not in stored],
        different=[
            event_id
            for event_id, content_hash in hashes.items()
            if stored.get(event_id, content_hash) != content_hash
        ],
    )


async def count_conflicts(session: ReadSession, scope: Scope) -> int:
    """Return how many events are in quarantine: 0 unless a node or its journal is broken."""
    return await store.count_conflicts(session, scope)


async def total_usage(
    session: ReadSession, scope: Scope, usage_filter: UsageFilter, by: TotalsBy
) -> list[UsageTotal]:
    """Return requests and tokens by group, in order of the group's name; exact at any size."""
    return await store.total_events(session, scope, usage_filter, by)


async def correct_figures(
    session: WriteSession, event: UsageEvent, deltas: Mapping[Meter, int]
) -> None:
    """Add what an event counts more, or below 0 less, to the figures of its hour and day."""
    await figure_store.add_figures(session, session.scope, add_up([event], lambda _: deltas))
