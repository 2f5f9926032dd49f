"""Every SQL statement about budgets, their windows, holds and charges, each within a scope.

Whoever locks rows of several kinds does so in this order: the life of a worker, budgets, windows,
holds; and of one kind in the order of their keys. So none waits for another in a circle.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Select,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)

from penstock.access.tables import ApiKeys
from penstock.limits.budget_model import (
    Budget,
    BudgetCharge,
    BudgetHold,
    BudgetWindow,
    Life,
    WindowKey,
)
from penstock.limits.budget_tables import (
    BudgetCharges,
    BudgetHolds,
    Budgets,
    BudgetWindows,
    WorkerLives,
)
from penstock.limits.prices import join_amount, join_large, split_amount, split_large
from penstock.storage.bulk import Bulk
from penstock.storage.exact_sums import exact_sum, join_halves
from penstock.storage.objects import ObjectStore
from penstock.storage.paging import Page, PageRequest
from penstock.storage.scope import Scope
from penstock.storage.sessions import ReadSession, WriteSession

budgets = ObjectStore(Budgets, Budget, "organization_id")

Ends: TypeAlias = Mapping[WindowKey, tuple[str, int | None]]
"""Windows that are to be there: whose each is, and when it ends."""

_OWNERS = (Budgets.key_id, Budgets.member_id, Budgets.service_account_id)
_WINDOW_KEY = (BudgetWindows.budget_id, BudgetWindows.subject, BudgetWindows.starts_at)
_WINDOWS = select(
    *_WINDOW_KEY,
    BudgetWindows.organization_id,
    BudgetWindows.ends_at,
    BudgetWindows.settled_high,
    BudgetWindows.settled,
    BudgetWindows.settled_rest,
    BudgetWindows.held,
    BudgetWindows.balance_high,
    BudgetWindows.balance,
    BudgetWindows.balance_rest,
    BudgetWindows.told_percentage,
    BudgetWindows.is_exhaustion_told,
)
_HOLD_NAMES = (
    "id",
    "organization_id",
    "take_id",
    "place",
    "budget_id",
    "subject",
    "starts_at",
    "producer",
    "epoch",
    "amount",
    "used",
    "freed",
    "state",
    "created_at",
)
_HOLDS: Select[Any] = select(*(getattr(BudgetHolds, name) for name in _HOLD_NAMES))
_WRITE_WINDOW = (
    update(BudgetWindows)
    .where(
        BudgetWindows.budget_id == bindparam("key_budget_id"),
        BudgetWindows.subject == bindparam("key_subject"),
        BudgetWindows.starts_at == bindparam("key_starts_at"),
    )
    .values(
        settled_high=bindparam("new_settled_high"),
        settled=bindparam("new_settled"),
        settled_rest=bindparam("new_settled_rest"),
        held=bindparam("new_held"),
        balance_high=bindparam("new_balance_high"),
        balance=bindparam("new_balance"),
        balance_rest=bindparam("new_balance_rest"),
        told_percentage=bindparam("new_told_percentage"),
        is_exhaustion_told=bindparam("new_is_exhaustion_told"),
    )
)
_WRITE_HOLD = (
    update(BudgetHolds)
    .where(BudgetHolds.id == bindparam("hold_id"))
    .values(used=bindparam("new_used"), freed=bindparam("new_freed"), state=bindparam("new_state"))
)
_IS_LIFE = (
    WorkerLives.producer == bindparam("life_producer"),
    WorkerLives.epoch == bindparam("life_epoch"),
)
_LOCK_LIFE = select(WorkerLives.is_over, WorkerLives.seen_at).where(*_IS_LIFE).with_for_update()
_SEE_LIFE = (
    update(WorkerLives)
    .where(*_IS_LIFE, WorkerLives.seen_at < bindparam("new_seen_at"))
    .values(seen_at=bindparam("new_seen_at"))
)
_CHARGES = Bulk(
    BudgetCharges,
    (
        "budget_id",
        "event_id",
        "organization_id",
        "subject",
        "starts_at",
        "amount",
        "amount_rest",
    ),
)
_SEEN_US = 60_000_000
"""So old a sign of life is written anew: not at each taking."""


# Budgets


async def list_budgets_of(
    session: ReadSession, scope: Scope, owner_ids: Collection[str]
) -> Sequence[Budget]:
    """Return the budgets of owners: organizations, projects, keys, members and accounts, by id."""
    return await budgets.list_by_id(session, scope, of_owners(owner_ids))


async def lock_budgets(
    session: WriteSession, scope: Scope, condition: ColumnElement[bool]
) -> list[Budget]:
    """Return budgets, in order of id, and let nobody change or remove them before the end."""
    return list(await budgets.share(session, scope, condition))


def with_ids(ids: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that a budget has one of these ids."""
    return Budgets.id.in_(ids)


def of_owners(ids: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that a budget is of an owner with one of these ids."""
    own = (
        (Budgets.owner_kind == "organization") & Budgets.organization_id.in_(ids),
        (Budgets.owner_kind == "project") & Budgets.project_id.in_(ids),
    )
    # Said aloud, so that indexes of the rows that have one are used.
    others = (column.is_not(None) & column.in_(ids) for column in _OWNERS)
    return or_(*own, *others)


async def delete_spending(session: WriteSession, scope: Scope, budget_id: str) -> None:
    """Remove all that was spent and held of a budget, which is locked."""
    for table in (BudgetCharges, BudgetHolds, BudgetWindows):
        await session.change(
            delete(table).where(table.budget_id == budget_id, scope.where(table.organization_id))
        )


async def find_key_owners(
    session: ReadSession, scope: Scope, key_ids: Collection[str]
) -> dict[str, str]:
    """Return the members and service accounts that keys belong to, by key; "" for nobody."""
    statement = select(ApiKeys.id, ApiKeys.member_id, ApiKeys.service_account_id).where(
        scope.where(ApiKeys.organization_id), ApiKeys.id.in_(key_ids)
    )
    rows = await session.rows(statement)
    return {key: member or account or "" for key, member, account in rows}


# Lives of workers


async def lock_life(session: WriteSession, life: Life, now_us: int) -> bool:
    """Note a sign of life, keep others from doing anything for it, and return whether it is over.

    Lives belong to nodes, not to organizations, so there is no scope to apply.
    """
    parameters = {"life_producer": life.producer, "life_epoch": life.epoch}
    found = await session.first(_LOCK_LIFE, parameters)
    if found is None:
        row = {"producer": life.producer, "epoch": life.epoch, "seen_at": now_us, "is_over": False}
        await session.insert_new(WorkerLives, [row], WorkerLives.producer)
        found = await session.first(_LOCK_LIFE, parameters)
    if found is not None and found[1] < now_us - _SEEN_US:
        await see_lives(session, [life], now_us)
    return found is not None and found[0]


async def see_lives(session: WriteSession, lives: Iterable[Life], now_us: int) -> None:
    """Note a sign of each life that anything is known of."""
    await session.change_many(
        _SEE_LIFE,
        [
            {"life_producer": life.producer, "life_epoch": life.epoch, "new_seen_at": now_us}
            for life in sorted(lives)
        ],
    )


async def end_life(session: WriteSession, life: Life) -> None:
    """Note that a life is over: it gets no more holds."""
    await session.change(update(WorkerLives).where(*_is_life(life)).values(is_over=True))


async def lock_silent_life(session: WriteSession, before_us: int) -> Life | None:
    """Return a life that gave no sign since a moment, and lock it; None when there is none."""
    statement = (
        select(WorkerLives.producer, WorkerLives.epoch)
        .where(WorkerLives.seen_at < before_us)
        .order_by(WorkerLives.producer, WorkerLives.epoch)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = await session.first(statement)
    return None if row is None else Life(row[0], row[1])


async def forget_life(session: WriteSession, life: Life) -> None:
    """Remove what is known of a life."""
    await session.change(delete(WorkerLives).where(*_is_life(life)))


def _is_life(life: Life) -> tuple[ColumnElement[bool], ...]:
    return WorkerLives.producer == life.producer, WorkerLives.epoch == life.epoch


# Windows


async def make_windows(session: WriteSession, scope: Scope, wanted: Ends) -> None:
    """Store the windows that are not there, with nothing spent or held."""
    keys = sorted(wanted)
    scope.require(wanted[key][0] for key in keys)
    rows = [
        {
            "budget_id": key.budget_id,
            "subject": key.subject,
            "starts_at": key.starts_at_us,
            "organization_id": wanted[key][0],
            "ends_at": wanted[key][1],
            "settled_high": 0,
            "settled": 0,
            "settled_rest": 0,
            "held": 0,
            "balance_high": 0,
            "balance": 0,
            "balance_rest": 0,
            "told_percentage": 0,
            "is_exhaustion_told": False,
        }
        for key in keys
    ]
    await session.insert_new(BudgetWindows, rows, BudgetWindows.budget_id)


async def lock_windows(
    session: WriteSession, scope: Scope, keys: Collection[WindowKey]
) -> dict[WindowKey, BudgetWindow]:
    """Return windows that are there, and keep others from changing them."""
    if not keys:
        return {}
    found = await _list_windows(
        session, scope, _is_one_of(_WINDOW_KEY, sorted(keys)), for_update=True, limit=None
    )
    return {window.key: window for window in found}


async def write_windows(session: WriteSession, windows: Iterable[BudgetWindow]) -> None:
    """Store what is spent, held and told of windows that are locked."""
    rows = []
    for window in windows:
        settled_high, settled, rest = split_large(window.settled_atto)
        balance_high, balance, balance_rest = split_large(window.balance_atto)
        rows.append(
            {
                "key_budget_id": window.key.budget_id,
                "key_subject": window.key.subject,
                "key_starts_at": window.key.starts_at_us,
                "new_settled_high": settled_high,
                "new_settled": settled,
                "new_settled_rest": rest,
                "new_held": window.held,
                "new_balance_high": balance_high,
                "new_balance": balance,
                "new_balance_rest": balance_rest,
                "new_told_percentage": window.told_percentage,
                "new_is_exhaustion_told": window.is_exhaustion_told,
            }
        )
    await session.change_many(_WRITE_WINDOW, rows)


async def list_windows(
    session: ReadSession, scope: Scope, budget_id: str, *, limit: int
) -> list[BudgetWindow]:
    """Return windows of a budget, those that begin last first, then by subject."""
    statement = _WINDOWS.where(
        scope.where(BudgetWindows.organization_id), BudgetWindows.budget_id == budget_id
    ).order_by(BudgetWindows.starts_at.desc(), BudgetWindows.subject)
    return [_window(row) for row in await session.rows(statement.limit(limit))]


async def list_windows_behind(
    session: ReadSession, scope: Scope, after: WindowKey | None, limit: int
) -> list[BudgetWindow]:
    """Return windows behind one, in their order."""
    condition: tuple[ColumnElement[bool], ...] = ()
    if after is not None:
        types = tuple(column.type for column in _WINDOW_KEY)
        condition = (tuple_(*_WINDOW_KEY) > tuple_(*_values(after), types=types),)
    return await _list_windows(session, scope, *condition, for_update=False, limit=limit)


async def _list_windows(
    session: ReadSession,
    scope: Scope,
    *conditions: ColumnElement[bool],
    for_update: bool,
    limit: int | None,
) -> list[BudgetWindow]:
    statement = (
        _WINDOWS.where(scope.where(BudgetWindows.organization_id), *conditions)
        .order_by(*_WINDOW_KEY)
        .limit(limit)
    )
    if for_update:
        # Charges, which point at them, may be stored meanwhile.
        statement = statement.with_for_update(key_share=True)
    return [_window(row) for row in await session.rows(statement)]


def _window(row: Any) -> BudgetWindow:
    organization_id, ends_at, *settled = row[3:8]
    held, *balance = row[8:12]
    told = row[12:]
    return BudgetWindow(
        WindowKey(*row[:3]),
        organization_id,
        ends_at,
        join_large(*settled),
        held,
        join_large(*balance),
        *told,
    )


def _values(key: WindowKey) -> tuple[str, str, int]:
    return key.budget_id, key.subject, key.starts_at_us


def _is_one_of(columns: Sequence[Any], keys: Collection[WindowKey]) -> ColumnElement[bool]:
    return tuple_(*columns).in_([_values(key) for key in keys])


# Holds


async def insert_holds(session: WriteSession, scope: Scope, holds: Iterable[BudgetHold]) -> None:
    """Store new holds."""
    holds = list(holds)
    scope.require(hold.organization_id for hold in holds)
    await session.insert(
        BudgetHolds,
        *(
            {
                "id": hold.id,
                "organization_id": hold.organization_id,
                "take_id": hold.take_id,
                "place": hold.place,
                "budget_id": hold.window.budget_id,
                "subject": hold.window.subject,
                "starts_at": hold.window.starts_at_us,
                "producer": hold.producer,
                "epoch": hold.epoch,
                "amount": hold.amount,
                "used": hold.used,
                "freed": hold.freed,
                "state": hold.state,
                "created_at": hold.created_at_us,
            }
            for hold in holds
        ),
    )


async def list_taken(session: ReadSession, scope: Scope, take_id: str) -> list[BudgetHold]:
    """Return the holds of a taking, in the order of its asks."""
    statement = _HOLDS.where(
        scope.where(BudgetHolds.organization_id), BudgetHolds.take_id == take_id
    ).order_by(BudgetHolds.place)
    return [_hold(row) for row in await session.rows(statement)]


async def list_holds_of(
    session: ReadSession, scope: Scope, life: Life, ids: Collection[str] | None
) -> list[BudgetHold]:
    """Return holds of a life, in order of id: those of these ids, or all that are open."""
    which = BudgetHolds.state == "open" if ids is None else BudgetHolds.id.in_(ids)
    return await _list_holds(session, scope, *_is_of(life), which)


async def list_holds(session: ReadSession, scope: Scope, ids: Collection[str]) -> list[BudgetHold]:
    """Return holds, whoever's they are, in order of id."""
    return await _list_holds(session, scope, BudgetHolds.id.in_(ids))


async def lock_holds(session: WriteSession, scope: Scope, ids: Collection[str]) -> list[BudgetHold]:
    """Return holds, in order of id, and keep others from them."""
    if not ids:
        return []
    return await _list_holds(session, scope, BudgetHolds.id.in_(ids), for_update=True)


async def write_holds(session: WriteSession, holds: Iterable[BudgetHold]) -> None:
    """Store how far holds that are locked are used up."""
    rows = [
        {
            "hold_id": hold.id,
            "new_used": hold.used,
            "new_freed": hold.freed,
            "new_state": hold.state,
        }
        for hold in holds
    ]
    await session.change_many(_WRITE_HOLD, rows)


async def forget_holds(session: WriteSession, scope: Scope, before_us: int) -> int:
    """Remove holds that are not open and were made before a moment, and count them."""
    return await session.change(
        delete(BudgetHolds).where(
            scope.where(BudgetHolds.organization_id),
            BudgetHolds.state != "open",
            BudgetHolds.created_at < before_us,
        )
    )


async def list_open_holds(
    session: ReadSession, scope: Scope, page: PageRequest, **equal: str | None
) -> Page[BudgetHold]:
    """Return a page of the holds that are open, oldest first.

    Args:
        session: Where from.
        scope: Whose.
        page: Which part.
        **equal: Members of the hold or of its budget that it must have; None leaves one open.
    """
    conditions = []
    for name, value in equal.items():
        if value is None:
            continue
        if hasattr(BudgetHolds, name):
            conditions.append(getattr(BudgetHolds, name) == value)
        else:
            is_of = Budgets.id == BudgetHolds.budget_id
            conditions.append(exists().where(is_of, getattr(Budgets, name) == value))
    statement = (
        _HOLDS.where(
            scope.where(BudgetHolds.organization_id),
            BudgetHolds.state == "open",
            *conditions,
            *page.condition(BudgetHolds.created_at, BudgetHolds.id),
        )
        .order_by(BudgetHolds.created_at, BudgetHolds.id)
        .limit(page.limit + 1)
    )
    return page.page([_hold(row) for row in await session.rows(statement)])


async def sum_held(
    session: ReadSession, scope: Scope, keys: Collection[WindowKey]
) -> dict[WindowKey, int]:
    """Return what the open holds on windows have left; windows without any are left out."""
    columns = (BudgetHolds.budget_id, BudgetHolds.subject, BudgetHolds.starts_at)
    left = func.sum(BudgetHolds.amount - BudgetHolds.used - BudgetHolds.freed)
    statement = (
        select(*columns, left)
        .where(
            scope.where(BudgetHolds.organization_id),
            BudgetHolds.state == "open",
            _is_one_of(columns, keys),
        )
        .group_by(*columns)
    )
    return {WindowKey(*row[:3]): int(row[3]) for row in await session.rows(statement)}


async def _list_holds(
    session: ReadSession,
    scope: Scope,
    *conditions: ColumnElement[bool],
    for_update: bool = False,
) -> list[BudgetHold]:
    statement = _HOLDS.where(scope.where(BudgetHolds.organization_id), *conditions)
    statement = statement.order_by(BudgetHolds.id)
    if for_update:
        statement = statement.with_for_update()
    return [_hold(row) for row in await session.rows(statement)]


def _is_of(life: Life) -> tuple[ColumnElement[bool], ...]:
    return BudgetHolds.producer == life.producer, BudgetHolds.epoch == life.epoch


def _hold(row: Any) -> BudgetHold:
    members = dict(zip(_HOLD_NAMES, row, strict=True))
    key = WindowKey(members.pop("budget_id"), members.pop("subject"), members.pop("starts_at"))
    return BudgetHold(window=key, created_at_us=members.pop("created_at"), **members)


# Charges


async def insert_charges(
    session: WriteSession, scope: Scope, charges: Iterable[BudgetCharge]
) -> None:
    """Store what events cost; what is there stays, for no event must be refused for it."""
    charges = list(charges)
    scope.require(charge.organization_id for charge in charges)
    rows = [
        (
            charge.window.budget_id,
            charge.event_id,
            charge.organization_id,
            charge.window.subject,
            charge.window.starts_at_us,
            *split_amount(charge.amount_atto),
        )
        for charge in charges
    ]
    await session.insert_many_new(_CHARGES, rows)


async def sum_charges(
    session: ReadSession, scope: Scope, keys: Collection[WindowKey]
) -> dict[WindowKey, int]:
    """Return the exact sums of what was charged to windows; those without any are left out."""
    columns = (BudgetCharges.budget_id, BudgetCharges.subject, BudgetCharges.starts_at)
    sums = (*exact_sum(BudgetCharges.amount), *exact_sum(BudgetCharges.amount_rest))
    statement = (
        select(*columns, *sums)
        .where(scope.where(BudgetCharges.organization_id), _is_one_of(columns, keys))
        .group_by(*columns)
    )
    rows: Sequence[Any] = await session.rows(statement)
    return {WindowKey(*row[:3]): join_amount(*join_halves(row[3:])) for row in rows}
