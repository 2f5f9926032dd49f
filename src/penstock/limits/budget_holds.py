"""Holds: parts of budgets that one life of a worker may spend, and nobody else.

None commits. Nothing here is configuration: neither the audit log nor nodes are told of it.
"""

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from penstock.contract.money import (
    FreeRequest,
    Hold,
    HoldAnswer,
    HoldAsk,
    HoldRequest,
    HoldShortage,
)
from penstock.kit.base62 import create_id
from penstock.kit.time_zones import find_zone
from penstock.limits import budget_store as store
from penstock.limits import log_events
from penstock.limits.budget_model import (
    Budget,
    BudgetHold,
    BudgetWindow,
    HoldState,
    Life,
    WindowKey,
)
from penstock.limits.budget_notices import notices_of
from penstock.limits.budget_rules import (
    EXPIRY_S,
    is_usable,
    seconds_until,
    size_hold,
    usable_ms,
)
from penstock.limits.budget_windows import Window, window_at
from penstock.limits.prices import to_nano
from penstock.limits.wallet_model import Lapse
from penstock.notices.service import record_notices
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

KEEP_HOLDS_S = 7 * 86_400
"""How long holds that are not open are kept, from when they were made."""
FindLapses: TypeAlias = Callable[[ReadSession, str, int], Awaitable[Mapping[str, Lapse]]]
"""Returns which credit of an organization ends within moments of a time, by currency: `ledger`
knows, above us."""
_UNBOUND_MS = 1_000
"""For how long a worker believes that a budget binds nobody, until its snapshot says so, too."""


def window_of(budget: Budget, at_us: int) -> Window | None:
    """Return a budget's window at a moment; None when its time zone is not known (any more)."""
    zone = find_zone(budget.time_zone)
    return None if zone is None else window_at(budget.period, zone, at_us)


async def hold(
    session: WriteSession,
    request: HoldRequest,
    now_us: int,
    find_lapses: FindLapses,
) -> HoldAnswer:
    """Hold something of each budget that is asked for, or nothing of any.

    Repeated under its name a taking gives the same and holds nothing more. Of a life that is over,
    and of holds that are not open any more, nothing is given: both members of the answer are None.

    A budget that is gone, or hard no more, binds nobody: what is wanted of it is given, and held
    nowhere. The worker learns of it from its snapshot.

    Args:
        session: One of all organizations.
        request: What a node asks for.
        now_us: The time.
        find_lapses: Says which credit is about to end: it is held no more, and what is held on
            other credit is used for no longer than that lasts.
    """
    scope = Scope.of(request.organization)
    life = Life(request.producer, request.epoch)
    if await store.lock_life(session, life, now_us):
        return HoldAnswer(None)
    taken = await store.list_taken(session, scope, request.take_id)
    if taken:
        return await _repeat(session, scope, request, taken, find_lapses)
    ids = {ask.budget for ask in request.asks}
    locked = await store.lock_budgets(session, scope, store.with_ids(ids))
    budgets = {one.id: one for one in locked if one.is_hard is not False}
    for index, ask in enumerate(request.asks):
        if ask.budget in budgets and not is_usable(budgets[ask.budget]):
            return HoldAnswer(None, HoldShortage(index, 0, None))
    wanted = [_key_of(budgets.get(ask.budget), ask, now_us) for ask in request.asks]
    ends = {key: (scope.organization or "", ends_at_us) for key, ends_at_us in filter(None, wanted)}
    await store.make_windows(session, scope, ends)
    locked_windows = await store.lock_windows(session, scope, ends)
    windows = dict(locked_windows)
    # With the windows locked nobody books anything on wallets: grants are what balances say.
    lapses = await _find_lapses(session, budgets.values(), now_us, find_lapses)
    holds = []
    answers = []
    for index, (ask, found) in enumerate(zip(request.asks, wanted, strict=True)):
        if found is None:
            answers.append(_unbound(ask))
            continue
        window, lapse = windows[found[0]], lapses.get(ask.budget, Lapse())
        free = window.free_of(budgets[ask.budget].amount - to_nano(lapse.amount_atto))
        amount = size_hold(free, ask.least, ask.want)
        if amount is None:
            await _tell(session, budgets[ask.budget], locked_windows[found[0]], now_us)
            reset_s = seconds_until(window.ends_at_us, now_us)
            return HoldAnswer(None, HoldShortage(index, max(0, free), reset_s))
        windows[window.key] = dataclasses.replace(window, held=window.held + amount)
        holds.append(_new_hold(request, index, window.key, amount, now_us))
        ends_at_us = window.ends_at_us or lapse.next_us
        answers.append(Hold(holds[-1].id, amount, free - amount, usable_ms(ends_at_us, now_us)))
    await store.write_windows(session, windows.values())
    await store.insert_holds(session, scope, holds)
    return HoldAnswer(tuple(answers))


async def free(session: WriteSession, request: FreeRequest, now_us: int) -> None:
    """Give back what a life will not use of its holds; all that is left when it is over.

    Args:
        session: One of all organizations.
        request: What a node says.
        now_us: The time.
    """
    life = Life(request.producer, request.epoch)
    await store.lock_life(session, life, now_us)
    freed = dict(request.freed)
    if request.is_over:
        await store.end_life(session, life)
        await _close(session, life, "closed", None)
    elif freed:
        await _close(session, life, "closed", freed)


async def expire(session: WriteSession, now_us: int) -> int | None:
    """Take back what one life holds that gave no sign for `EXPIRY_S`.

    What it says later that it spent is spent all the same, perhaps beyond a budget's amount.

    Returns:
        How many holds were taken back; None when there is no such life (any more).
    """
    life = await store.lock_silent_life(session, now_us - EXPIRY_S * 1_000_000)
    if life is None:
        return None
    count = await _close(session, life, "expired", None)
    await store.forget_life(session, life)
    if count:
        log_events.HOLDS_EXPIRED.log(producer=life.producer, epoch=life.epoch, count=count)
    return count


async def forget_holds(session: WriteSession, now_us: int) -> int:
    """Remove holds that ended long ago. Usage that names one counts as usage without a hold."""
    return await store.forget_holds(session, session.scope, now_us - KEEP_HOLDS_S * 1_000_000)


async def _close(
    session: WriteSession, life: Life, state: HoldState, freed: Mapping[str, int] | None
) -> int:
    """Free amounts of a life's holds, or all that its open ones have left, and count them."""
    scope = session.scope
    found = await store.list_holds_of(session, scope, life, freed)
    # Those that are gone took their holds with them.
    locked = await store.lock_budgets(
        session, scope, store.with_ids({one.window.budget_id for one in found})
    )
    ids = {budget.id for budget in locked}
    found = [one for one in found if one.window.budget_id in ids]
    windows = await store.lock_windows(session, scope, {one.window for one in found})
    changed = []
    for one in await store.lock_holds(session, scope, [one.id for one in found]):
        if one.state != "open":
            continue
        asked = one.amount if freed is None else freed[one.id]
        total = max(one.freed, min(asked, one.amount - one.used))
        is_empty = one.used + total == one.amount
        windows[one.window] = windows[one.window].release(total - one.freed)
        changed.append(dataclasses.replace(one, freed=total, state=state if is_empty else "open"))
    await store.write_windows(session, windows.values())
    await store.write_holds(session, changed)
    return len(changed)


def ends_of(holds: Iterable[BudgetHold]) -> dict[WindowKey, tuple[str, int | None]]:
    """Return the windows of holds as they are locked; they are there, so ends do not count."""
    return {one.window: (one.organization_id, None) for one in holds}


async def _repeat(
    session: WriteSession,
    scope: Scope,
    request: HoldRequest,
    taken: Sequence[BudgetHold],
    find_lapses: FindLapses,
) -> HoldAnswer:
    by_place = {one.place: one for one in taken}
    is_same = all((one.producer, one.epoch) == (request.producer, request.epoch) for one in taken)
    if not is_same or not all(one.state == "open" or one.amount == 0 for one in taken):
        return HoldAnswer(None)
    ids = {one.window.budget_id for one in taken}
    budgets = {one.id: one for one in await store.lock_budgets(session, scope, store.with_ids(ids))}
    taken = [one for one in taken if one.window.budget_id in budgets]
    windows = await store.lock_windows(session, scope, {one.window for one in taken})
    # As of then: it ends when it would have ended.
    made_at_us = max((one.created_at_us for one in taken), default=0)
    lapses = await _find_lapses(session, budgets.values(), made_at_us, find_lapses)
    answers = []
    for index, ask in enumerate(request.asks):
        one = by_place.get(index)
        if one is None or one.window not in windows:
            answers.append(_unbound(ask))
            continue
        window = windows[one.window]
        left = max(0, window.free_of(budgets[one.window.budget_id].amount))
        lapse = lapses.get(one.window.budget_id, Lapse())
        use_ms = usable_ms(window.ends_at_us or lapse.next_us, one.created_at_us)
        answers.append(Hold(one.id, one.amount, left, use_ms))
    return HoldAnswer(tuple(answers))


async def _find_lapses(
    session: ReadSession, budgets: Iterable[Budget], now_us: int, find: FindLapses
) -> dict[str, Lapse]:
    """Return what is about to end of each wallet, by its id."""
    wallets = [one for one in budgets if one.is_wallet]
    if not wallets:
        return {}
    by_currency = await find(session, wallets[0].organization_id, now_us)
    return {one.id: by_currency.get(one.currency, Lapse()) for one in wallets}


async def _tell(session: WriteSession, budget: Budget, window: BudgetWindow, now_us: int) -> None:
    """Have somebody told, once for a window, that a request was refused for want of money."""
    notices, told = notices_of(budget, window, is_refused=True)
    if told != window:
        await record_notices(session, notices, now_us)
        await store.write_windows(session, [told])


def _unbound(ask: HoldAsk) -> Hold:
    return Hold("", ask.want, ask.want, _UNBOUND_MS)


def _key_of(
    budget: Budget | None, ask: HoldAsk, now_us: int
) -> tuple[WindowKey, int | None] | None:
    window = None if budget is None else window_of(budget, now_us)
    if window is None:
        return None
    return WindowKey(ask.budget, ask.subject, window.starts_at_us), window.ends_at_us


def _new_hold(
    request: HoldRequest, place: int, window: WindowKey, amount: int, now_us: int
) -> BudgetHold:
    return BudgetHold(
        id=create_id("hld"),
        organization_id=request.organization,
        take_id=request.take_id,
        place=place,
        window=window,
        producer=request.producer,
        epoch=request.epoch,
        amount=amount,
        used=0,
        freed=0,
        state="open" if amount else "closed",
        created_at_us=now_us,
    )
