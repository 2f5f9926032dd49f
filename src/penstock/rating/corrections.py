"""Use cases of corrections: what was wrong about usage, as facts beside it. None commits."""

import dataclasses
from collections.abc import Mapping
from typing import cast

from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.contract.usage import METERS, Meter
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.metering.service import correct_figures
from penstock.rating import run_store
from penstock.rating.errors import CORRECTION_INVALID
from penstock.rating.model import Correction
from penstock.rating.rerating import Change, Known, Post, rate_again, read_known
from penstock.rating.rules import MAX_QUANTITY
from penstock.storage.errors import OBJECT_UNKNOWN
from penstock.storage.sessions import WriteSession


async def correct_usage(
    session: WriteSession,
    actor: Actor,
    *,
    event_id: str,
    deltas: Mapping[str, int] | None,
    reason: str,
    post: Post,
) -> Correction:
    """Correct what an event counts, and book the difference at the price that it was rated at.

    Args:
        session: Where to.
        actor: Who does it.
        event_id: Which event.
        deltas: By meter: what was counted too little, or, below 0, too much. None voids the event.
        reason: For whoever asks later.
        post: Books the difference.

    Raises:
        PenstockError: `OBJECT_UNKNOWN`, `CORRECTION_INVALID`.
    """
    await session.lock_configuration()
    event = await run_store.find_event(session, session.scope, event_id)
    if event is None:
        raise PenstockError(OBJECT_UNKNOWN)
    (known,) = await read_known(session, [event])
    used = _used_after(known, deltas)
    correction = Correction(
        id=create_id("cor"),
        event_id=event_id,
        organization=event.organization,
        is_void=deltas is None,
        deltas=dict(deltas or {}),
        reason=reason,
        actor=actor.id,
        created_at_us=actor.at_us,
    )
    await run_store.insert_correction(session, session.scope, correction)
    difference = {
        meter: used.get(meter, 0) - known.used.get(meter, 0)
        for meter in METERS
        if used.get(meter, 0) != known.used.get(meter, 0)
    }
    # First figures, then charges, then the books: as usage that comes in locks their rows.
    await correct_figures(session, event, difference)
    rated = await rate_again(session, [Change(known, kind, None, used) for kind in known.heads])
    charge = known.heads.get("charge")
    await post(
        session,
        rated,
        key=correction.id,
        recorded_at_us=actor.at_us,
        run_id=correction.id,
        reverses=None if charge is None else charge.transfer_id,
    )
    await _record(session, actor, correction)
    return correction


def _used_after(known: Known, deltas: Mapping[str, int] | None) -> dict[Meter, int]:
    if known.is_void:
        raise PenstockError(CORRECTION_INVALID, "The event counts for nothing already.")
    if deltas is None:
        return {}
    strange = sorted(set(deltas) - set(METERS))
    if strange or not any(deltas.values()):
        message = f"`deltas`: says by how much one of {', '.join(METERS)} was wrong."
        raise PenstockError(CORRECTION_INVALID, message)
    used = dict(known.used)
    for name, delta in deltas.items():
        meter = cast("Meter", name)
        used[meter] = used.get(meter, 0) + delta
        if not 0 <= used[meter] <= MAX_QUANTITY:
            message = f"`deltas.{meter}`: {used[meter]} would be left of it."
            raise PenstockError(CORRECTION_INVALID, message)
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
