"""Use cases of corrections: what was wrong about usage, as facts beside it. None commits."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import cast

from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.contract.usage import METERS, Meter
from penstock.kit.derived_ids import derive_id
from penstock.kit.errors import PenstockError
from penstock.metering.service import correct_figures
from penstock.rating import run_store
from penstock.rating.errors import CORRECTION_EXISTS, CORRECTION_INVALID
from penstock.rating.model import Booked, Correction, NewCorrection, RatedKind
from penstock.rating.rerating import Change, Known, Post, rate_again, read_known
from penstock.rating.rules import MAX_QUANTITY
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.paging import Page, PageRequest
from penstock.storage.sessions import ReadSession, WriteSession


async def correct_usage(
    session: WriteSession, actor: Actor, new: NewCorrection, post: Post
) -> Booked:
    """Correct what an event counts, and book the difference at the price that it was rated at.

    Said again under its reference, it changes nothing and returns what was booked then.

    Args:
        session: Where to.
        actor: Who does it.
        new: What was wrong.
        post: Books the difference.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `CORRECTION_INVALID`; `CORRECTION_EXISTS` when the
            reference has corrected something else about the event.
    """
    # One run or correction at a time: each changes what the one before has left.
    await session.lock_configuration()
    event = await run_store.find_event(session, session.scope, new.event_id)
    if event is None:
        raise PenstockError(OBJECT_UNKNOWN)
    correction_id = derive_id("cor", new.event_id, new.reference)
    earlier = await run_store.list_corrections(session, session.scope, [new.event_id])
    for one in earlier.get(new.event_id, ()):
        if one.id == correction_id:
            return await _say_again(session, one, new)
    (known,) = await read_known(session, [event])
    used = _used_after(known, new.quantities)
    deltas = {
        meter: used.get(meter, 0) - known.used.get(meter, 0)
        for meter in METERS
        if used.get(meter, 0) != known.used.get(meter, 0)
    }
    if not deltas and new.quantities is not None:
        raise PenstockError(CORRECTION_INVALID, "`quantities`: the event counts just that already.")
    correction = Correction(
        id=correction_id,
        event_id=new.event_id,
        organization=event.organization,
        is_void=new.quantities is None,
        deltas=cast("dict[str, int]", deltas),
        reference=new.reference,
        quantities=new.quantities,
        reason=new.reason,
        actor=actor.id,
        created_at_us=actor.at_us,
    )
    await run_store.insert_correction(session, session.scope, correction)
    # First figures, then charges, then the books: as usage that comes in locks their rows.
    await correct_figures(session, event, deltas)
    await _book(session, correction, known, used, post)
    await _record(session, actor, correction)
    (booked,) = await _read_booked(session, [correction])
    return booked


async def list_corrections(
    session: ReadSession, page: PageRequest, *, organization: str | None, event_id: str | None
) -> Page[Booked]:
    """Return a page of corrections that the session may see, oldest first.

    Args:
        session: Where from.
        page: Which page.
        organization: Only of its usage.
        event_id: Only of this event.
    """
    found = await run_store.list_corrections_page(
        session, session.scope, page, organization=organization, event_id=event_id
    )
    return Page(await _read_booked(session, found.items), found.next_cursor)


async def _book(
    session: WriteSession,
    correction: Correction,
    known: Known,
    used: Mapping[Meter, int],
    post: Post,
) -> None:
    rated = await rate_again(session, [Change(known, kind, None, used) for kind in known.heads])
    charge = known.heads.get("charge")
    await post(
        session,
        rated,
        key=correction.id,
        recorded_at_us=correction.created_at_us,
        run_id=correction.id,
        reverses=None if charge is None else charge.transfer_id,
    )


async def _say_again(session: ReadSession, one: Correction, new: NewCorrection) -> Booked:
    if (one.quantities, one.reason) != (new.quantities, new.reason):
        raise PenstockError(CORRECTION_EXISTS)
    (booked,) = await _read_booked(session, [one])
    return booked


async def _read_booked(session: ReadSession, corrections: Iterable[Correction]) -> list[Booked]:
    corrections = list(corrections)
    event_ids = {one.event_id for one in corrections}
    rated = await run_store.list_rated(session, session.scope, event_ids)
    return [
        Booked(
            one,
            {
                cast("RatedKind", row.kind): (row.currency, row.amount_atto)
                for row in rated.get(one.event_id, ())
                if row.run_id == one.id
            },
        )
        for one in corrections
    ]


def _used_after(known: Known, quantities: Mapping[str, int] | None) -> dict[Meter, int]:
    if known.is_void:
        raise PenstockError(CORRECTION_INVALID, "The event counts for nothing already.")
    if quantities is None:
        return {}
    if not quantities or not quantities.keys() <= set(METERS):
        message = f"`quantities`: says how much of {', '.join(METERS)} was used."
        raise PenstockError(CORRECTION_INVALID, message)
    for name, quantity in quantities.items():
        if not 0 <= quantity <= MAX_QUANTITY:
            message = f"`quantities.{name}`: is not from 0 to {MAX_QUANTITY}."
            raise PenstockError(CORRECTION_INVALID, message)
    used = {**known.used, **cast("Mapping[Meter, int]", quantities)}
    return {meter: amount for meter, amount in used.items() if amount}


async def _record(session: WriteSession, actor: Actor, correction: Correction) -> None:
    entry = Entry(
        actor=actor,
        action="usage_correction.create",
        resource_kind="usage_correction",
        resource_id=correction.id,
        organization_id=correction.organization,
        after=dataclasses.asdict(correction),
    )
    await record(session, entry)
