"""Every SQL statement about usage that is rated again, each within a scope."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, String, cast, func, or_, select, tuple_, update

from penstock.contract.usage import UsageEvent
from penstock.limits.prices import join_amount
from penstock.metering.rules import day_of
from penstock.metering.tables import UsageEvents
from penstock.rating.model import Correction, Run
from penstock.rating.tables import RatedUsage, RatingRuns, UsageCorrections
from penstock.storage.paging import Page, PageRequest
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

_TIMES = ("started_at", "first_byte_at", "finished_at")
_PLAIN = (
    *("event_id", "request_id", "organization", "project", "key_id", "model", "served_model"),
    *("upstream", "operation", "is_stream", "outcome", "status", "error_code", "usage_source"),
    *("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_output_tokens"),
    *("attempt_count", "data_class", "region", "service_tier", "cache_write_input_tokens"),
    *("audio_input_tokens", "audio_output_tokens", "image_count"),
    *("audio_seconds", "characters"),
)
_EVENT = tuple(getattr(UsageEvents, name) for name in (*_PLAIN, *_TIMES, "labels"))
_RUN = tuple(getattr(RatingRuns, name.removesuffix("_us")) for name in Run.__dataclass_fields__)
_CORRECTION = tuple(
    getattr(UsageCorrections, name.removesuffix("_us")) for name in Correction.__dataclass_fields__
)


class RatedRow(NamedTuple):
    """A row of `rated_usage`."""

    event_id: str
    kind: str
    run_id: str
    currency: str
    price_id: str
    amount_atto: int
    transfer_id: str | None
    reverses: str | None


class Place(NamedTuple):
    """An event's place in the order of their start."""

    started_at_us: int = -1
    event_id: str = ""

    def written(self) -> str:
        """Return it as a text."""
        return f"{self.started_at_us}:{self.event_id}"

    @classmethod
    def of(cls, text: str) -> "Place":
        """Return the place that `written` returned."""
        started_at, _, event_id = text.partition(":")
        return cls(int(started_at), event_id)


async def list_events(
    session: ReadSession,
    scope: Scope,
    since_us: int,
    until_us: int,
    *,
    organization: str | None,
    after: Place,
    limit: int,
) -> list[UsageEvent]:
    """Return stored events in order of their start.

    Args:
        session: Where from.
        scope: Whose.
        since_us: The earliest start.
        until_us: All start before it.
        organization: Only of this one.
        after: Behind this place.
        limit: Most events.
    """
    conditions: list[ColumnElement[bool]] = [
        scope.where(UsageEvents.organization),
        UsageEvents.started_at >= max(since_us, after.started_at_us),
        UsageEvents.started_at < until_us,
    ]
    if after.event_id:
        order = (UsageEvents.started_at, UsageEvents.event_id)
        types = [column.type for column in order]
        conditions.append(tuple_(*order) > tuple_(*after, types=types))
    if organization is not None:
        conditions.append(UsageEvents.organization == organization)
    statement = (
        select(*_EVENT)
        .where(*conditions)
        .order_by(UsageEvents.started_at, UsageEvents.event_id)
        .limit(limit)
    )
    return [_build(row) for row in await session.rows(statement)]


async def find_event(session: ReadSession, scope: Scope, event_id: str) -> UsageEvent | None:
    """Return a stored event; None when there is none."""
    statement = select(*_EVENT).where(
        scope.where(UsageEvents.organization),
        UsageEvents.day == day_of(event_id),
        UsageEvents.event_id == event_id,
    )
    row = await session.first(statement)
    return None if row is None else _build(row)


async def list_rated(
    session: ReadSession, scope: Scope, event_ids: Collection[str]
) -> dict[str, list[RatedRow]]:
    """Return all that events were rated at, by event."""
    statement = select(
        RatedUsage.event_id,
        RatedUsage.kind,
        RatedUsage.run_id,
        RatedUsage.currency,
        RatedUsage.price_id,
        RatedUsage.amount,
        RatedUsage.amount_rest,
        RatedUsage.transfer_id,
        RatedUsage.reverses,
    ).where(
        scope.where(RatedUsage.organization),
        RatedUsage.day.in_({day_of(event_id) for event_id in event_ids}),
        RatedUsage.event_id.in_(event_ids),
    )
    found: dict[str, list[RatedRow]] = {}
    for row in await session.rows(statement):
        one = RatedRow(*row[:5], join_amount(row[5], row[6]), *row[7:])
        found.setdefault(one.event_id, []).append(one)
    return found


async def list_corrections(
    session: ReadSession, scope: Scope, event_ids: Collection[str]
) -> dict[str, list[Correction]]:
    """Return what was corrected of events, by event."""
    statement = (
        select(*_CORRECTION)
        .where(scope.where(UsageCorrections.organization), UsageCorrections.event_id.in_(event_ids))
        .order_by(UsageCorrections.created_at, UsageCorrections.id)
    )
    found: dict[str, list[Correction]] = {}
    for row in await session.rows(statement):
        one = Correction(*row)
        found.setdefault(one.event_id, []).append(one)
    return found


async def list_corrections_page(
    session: ReadSession,
    scope: Scope,
    page: PageRequest,
    *,
    organization: str | None,
    event_id: str | None,
) -> Page[Correction]:
    """Return a page of corrections, of one organization or event or of all, oldest first."""
    order = (UsageCorrections.created_at, UsageCorrections.id)
    conditions = [scope.where(UsageCorrections.organization), *page.condition(*order)]
    if organization is not None:
        conditions.append(UsageCorrections.organization == organization)
    if event_id is not None:
        conditions.append(UsageCorrections.event_id == event_id)
    statement = select(*_CORRECTION).where(*conditions).order_by(*order).limit(page.limit + 1)
    return page.page([Correction(*row) for row in await session.rows(statement)])


async def insert_correction(session: WriteSession, scope: Scope, correction: Correction) -> None:
    """Store what was wrong about an event."""
    scope.require([correction.organization])
    await session.insert(
        UsageCorrections, {**_columns(correction), "day": day_of(correction.event_id)}
    )


async def insert_run(session: WriteSession, scope: Scope, run: Run) -> None:
    """Store a run that is to be."""
    scope.require([] if run.organization is None else [run.organization])
    await session.insert(RatingRuns, _columns(run))


async def find_run(session: ReadSession, scope: Scope, run_id: str) -> Run | None:
    """Return a run; None when there is none. Runs are the platform's."""
    scope.require([run_id])
    row = await session.first(select(*_RUN).where(RatingRuns.id == run_id))
    return None if row is None else Run(*row)


async def list_runs(
    session: ReadSession, scope: Scope, page: PageRequest, organization: str | None
) -> Page[Run]:
    """Return a page of runs, oldest first: all, or those that looked at an organization's usage."""
    scope.require([])
    order = (RatingRuns.created_at, RatingRuns.id)
    conditions = page.condition(*order)
    if organization is not None:
        is_of_all = RatingRuns.organization.is_(None)
        conditions.append(or_(is_of_all, RatingRuns.organization == organization))
    statement = select(*_RUN).where(*conditions).order_by(*order).limit(page.limit + 1)
    return page.page([Run(*row) for row in await session.rows(statement)])


async def update_run(session: WriteSession, scope: Scope, run: Run) -> None:
    """Store how far a run has come."""
    scope.require([run.id])
    await session.change(
        update(RatingRuns)
        .where(RatingRuns.id == run.id)
        .values(
            place=run.place,
            event_count=run.event_count,
            changed_count=run.changed_count,
            finished_at=run.finished_at_us,
        )
    )


async def find_watermark(session: WriteSession) -> int:
    """Return the number of this transaction; 0 where one ends before the next begins."""
    if not session.has_snapshots:
        return 0
    number = cast(cast(func.pg_current_xact_id(), String), BigInteger)
    return int((await session.rows(select(number)))[0][0])


async def is_past(session: ReadSession, watermark: int) -> bool:
    """Return whether all transactions before that number have ended, and so can be seen."""
    if not watermark:
        return True
    oldest = cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), String), BigInteger)
    return int((await session.rows(select(oldest)))[0][0]) > watermark


def _columns(value: Any) -> dict[str, Any]:
    return {name.removesuffix("_us"): getattr(value, name) for name in value.__dataclass_fields__}


def _build(row: Sequence[Any]) -> UsageEvent:
    members: dict[str, Any] = dict(zip(_PLAIN, row, strict=False))
    members |= {
        f"{name}_ns": None if time_us is None else time_us * 1_000
        for name, time_us in zip(_TIMES, row[len(_PLAIN) :], strict=False)
    }
    labels = tuple((str(name), str(value)) for name, value in row[-1] or ())
    return UsageEvent(**members, labels=labels)
