"""Objects that are changed one version after the other: the statements that all kinds share."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import ColumnElement, bindparam, delete, select, true, update
from sqlalchemy.orm import InstrumentedAttribute

from penstock.kit.errors import PenstockError
from penstock.storage.base import Base
from penstock.storage.errors import OBJECT_UNKNOWN, VERSION_CONFLICT, RowConflictError
from penstock.storage.paging import Page, PageRequest
from penstock.storage.scope import Scope, within_scope
from penstock.storage.sessions import Change, ReadSession, WriteSession, insertion


class Versioned(Protocol):
    """What every such object has, besides being a frozen dataclass."""

    @property
    def id(self) -> str:
        """The object's id."""
        ...

    @property
    def version(self) -> int:
        """1 at first, one more with each change."""
        ...

    @property
    def created_at_us(self) -> int:
        """When it was created, in microseconds since the Unix epoch."""
        ...

    @property
    def updated_at_us(self) -> int:
        """When it was changed last."""
        ...


Model = TypeVar("Model", bound=Versioned)


class ObjectStore(Generic[Model]):
    """Finds, lists, inserts and updates objects of one kind, each time within a scope.

    Writers of configuration queue, on PostgreSQL as on SQLite: so none waits for a row of one
    that waits for a row of its own.

    Members and columns have the same names, but times: member `created_at_us` is the column
    `created_at`.

    Args:
        table: A table with the columns of `storage.base.Versioned`.
        model: A frozen dataclass.
        organization: Name of the column that says whose an object is; None for objects of the
            platform, which no organization's scope reaches.
        parts: Names of members that are lists kept in other tables: empty here, for a subclass to
            fill.
    """

    def __init__(
        self,
        table: type[Base],
        model: type[Model],
        organization: str | None,
        parts: tuple[str, ...] = (),
    ) -> None:
        """See the class."""
        self._table: Any = table
        self._model = model
        self._parts = parts
        names = [field.name for field in dataclasses.fields(model)]  # type: ignore[arg-type]  # a dataclass, see above
        self._names = [name for name in names if name not in parts]
        self._columns = tuple(getattr(table, _column(name)) for name in self._names)
        self._organization_name = organization
        # Built once: to build a statement costs several times what it costs to run it.
        self._find = select(*self._columns).where(
            getattr(table, "id") == bindparam("object_id"),  # noqa: B009 - mypy knows no such member of any table
            true() if organization is None else within_scope(getattr(table, organization)),
        )
        self._find_for_update = self._find.with_for_update()

    async def find(
        self, session: ReadSession, scope: Scope, object_id: str, *, for_update: bool = False
    ) -> Model | None:
        """Return an object, or None when it is not there or not within the scope.

        Args:
            session: Where from.
            scope: Whose.
            object_id: Which.
            for_update: Let no other transaction change it before this one ends.
        """
        self._check_scope(scope)
        statement = self._find_for_update if for_update else self._find
        row = await session.first(statement, {"object_id": object_id, **scope.parameters})
        return None if row is None else self._build(row)

    async def get(self, session: ReadSession, scope: Scope, object_id: str) -> Model:
        """Return an object.

        Raises:
            PenstockError: `OBJECT_UNKNOWN`, for what is not there and for what is another's.
        """
        found = await self.find(session, scope, object_id)
        if found is None:
            raise PenstockError(OBJECT_UNKNOWN)
        return found

    async def lock(
        self,
        session: WriteSession,
        scope: Scope,
        object_id: str,
        expected_version: int | None = None,
    ) -> Model:
        """Return an object that is about to be changed, and keep others from changing it.

        Raises:
            PenstockError: `OBJECT_UNKNOWN`, or `VERSION_CONFLICT` when a version is expected and
                it has another.
        """
        await session.lock_configuration()
        found = await self.find(session, scope, object_id, for_update=True)
        if found is None:
            raise PenstockError(OBJECT_UNKNOWN)
        if expected_version is not None and found.version != expected_version:
            raise PenstockError(VERSION_CONFLICT)
        return found

    async def list(
        self,
        session: ReadSession,
        scope: Scope,
        page: PageRequest,
        *conditions: ColumnElement[bool],
        **equal: Any,
    ) -> Page[Model]:
        """Return a page of objects, oldest first.

        Args:
            session: Where from.
            scope: Whose.
            page: Which part.
            *conditions: What else must hold.
            **equal: Members and the values that they must have; None leaves one open.
        """
        created_at: InstrumentedAttribute[int] = self._table.created_at
        object_id: InstrumentedAttribute[str] = self._table.id
        filters = [
            getattr(self._table, name) == value
            for name, value in equal.items()
            if value is not None
        ]
        statement = (
            select(*self._columns)
            .where(
                self._in_scope(scope), *filters, *conditions, *page.condition(created_at, object_id)
            )
            .order_by(created_at, object_id)
            .limit(page.limit + 1)
        )
        return page.page([self._build(row) for row in await session.rows(statement)])

    async def list_by_id(
        self,
        session: ReadSession,
        scope: Scope,
        *conditions: ColumnElement[bool],
        after: str = "",
        limit: int | None = None,
    ) -> Sequence[Model]:
        """Return objects in order of their ids, which no damage of other members puts out of it.

        Args:
            session: Where from.
            scope: Whose.
            *conditions: What must hold.
            after: Behind which id.
            limit: Most objects; all when None.
        """
        object_id: InstrumentedAttribute[str] = self._table.id
        statement = (
            select(*self._columns)
            .where(self._in_scope(scope), object_id > after, *conditions)
            .order_by(object_id)
            .limit(limit)
        )
        return [self._build(row) for row in await session.rows(statement)]

    async def share(
        self, session: WriteSession, scope: Scope, *conditions: ColumnElement[bool]
    ) -> Sequence[Model]:
        """Return objects in order of their ids, and let nobody change them before the end.

        For what is decided by them outside of the queue of configuration's writers.

        Args:
            session: Where from.
            scope: Whose.
            *conditions: What must hold.
        """
        statement = select(*self._columns).where(self._in_scope(scope), *conditions)
        shared = statement.order_by(self._table.id).with_for_update(read=True)
        return [self._build(row) for row in await session.rows(shared)]

    async def insert(self, session: WriteSession, scope: Scope, item: Model) -> None:
        """Store a new object.

        Raises:
            RowConflictError: A rule of the table stands against it.
        """
        change = self.insertion(scope, item)
        await session.lock_configuration()
        await session.change_together(change)

    def insertion(self, scope: Scope, item: Model) -> Change:
        """Return the change that stores a new object, for `WriteSession.change_together`."""
        row = self._row(item)
        self._check_scope(scope)
        if self._organization_name is not None:
            scope.require([row[self._organization_name]])
        return insertion(self._table, row)

    async def update(
        self, session: WriteSession, scope: Scope, before: Model, **values: Any
    ) -> Model:
        """Store the next version of an object that `lock` returned.

        Args:
            session: Where to.
            scope: Whose.
            before: The object as it is stored.
            **values: Members that change; `updated_at_us` belongs here.

        Returns:
            The object as it is now.

        Raises:
            RowConflictError: A rule of the table stands against it.
        """
        after: Model = dataclasses.replace(before, version=before.version + 1, **values)  # type: ignore[type-var]  # a dataclass, see above
        changed = {
            _column(name): value for name, value in values.items() if name not in self._parts
        }
        count = await session.change(
            update(self._table)
            .where(
                self._table.id == before.id,
                self._table.version == before.version,
                self._in_scope(scope),
            )
            .values(version=after.version, **changed)
        )
        if count != 1:
            message = "an object changed although it was locked"
            raise RowConflictError(message)
        return after

    async def delete(self, session: WriteSession, scope: Scope, before: Model) -> None:
        """Remove an object that `lock` returned.

        Raises:
            RowConflictError: Another row names it.
        """
        await session.change(
            delete(self._table).where(self._table.id == before.id, self._in_scope(scope))
        )

    def _in_scope(self, scope: Scope) -> ColumnElement[bool]:
        self._check_scope(scope)
        return scope.where(getattr(self._table, self._organization_name or "id"))

    def _check_scope(self, scope: Scope) -> None:
        if self._organization_name is None and scope.organization is not None:
            message = "an object of the platform was asked for in the scope of an organization"
            raise PermissionError(message)

    def _row(self, item: Model) -> dict[str, Any]:
        return {_column(name): getattr(item, name) for name in self._names}

    def _build(self, row: Any) -> Model:
        parts: dict[str, list[Any]] = {name: [] for name in self._parts}
        return self._model(**dict(zip(self._names, row, strict=True)), **parts)


def _column(name: str) -> str:
    return name.removesuffix("_us")
