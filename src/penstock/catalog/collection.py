"""The use cases that upstreams, deployments, routes and aliases have in common.

None commits. Each change records an entry in the audit log and, by the object's name, a change for
data planes, all in the transaction of its session. The time is the actor's.
"""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Literal, Protocol, TypeVar

from penstock.audit.model import Actor, Entry
from penstock.audit.service import record
from penstock.catalog import store
from penstock.catalog.errors import CATALOG_IN_USE
from penstock.catalog.object_rules import check
from penstock.kit.base62 import create_id
from penstock.kit.errors import PenstockError
from penstock.storage.changes import ChangeKind, record_change
from penstock.storage.errors import RowConflictError
from penstock.storage.objects import ObjectStore, Versioned
from penstock.storage.paging import PageRequest
from penstock.storage.sessions import ReadSession, WriteSession
from penstock.tenancy.errors import NAME_TAKEN

Kind = Literal["upstream", "deployment", "route", "alias"]


class Named(Versioned, Protocol):
    """An object whose name never changes."""

    @property
    def name(self) -> str:
        """What others know it by."""
        ...


Item = TypeVar("Item", bound=Named)

ONE = PageRequest(limit=1)


class Collection(Generic[Item]):
    """All objects of one kind.

    Args:
        kind: Which one; also the word for it in the change feed and the audit log.
        model: What an object is.
        prefix: Of ids.
        objects: Where they are stored.
        check_references: Raises when an object that is to be stored names what is not there.
        check: Returns an object unchanged, or raises when it may not be as it is.
        list_users: Returns what names an object, by session, scope, kind and id.
    """

    def __init__(
        self,
        kind: ChangeKind,
        model: type[Item],
        prefix: str,
        objects: ObjectStore[Item],
        check_references: Callable[[ReadSession, Item], Awaitable[None]],
        *,
        check: Callable[[Any], Any] = check,
        list_users: Callable[..., Awaitable[list[str]]] = store.list_users,
    ) -> None:
        """See the class."""
        self._kind: ChangeKind = kind
        self._model: Any = model
        self._prefix = prefix
        self._objects = objects
        self._check_references = check_references
        self._check = check
        self._list_users = list_users

    async def create(self, session: WriteSession, actor: Actor, new: Any) -> Item:
        """Store a new object.

        Raises:
            PenstockError: `CATALOG_INVALID`, `NAME_TAKEN`, and what `check_references` raises.
        """
        await session.lock_configuration()
        members = {field.name: getattr(new, field.name) for field in dataclasses.fields(new)}
        item: Item = self._check(
            self._model(
                **members,
                id=create_id(self._prefix),
                version=1,
                created_at_us=actor.at_us,
                updated_at_us=actor.at_us,
            )
        )
        await self._check_references(session, item)
        try:
            await self._objects.insert(session, session.scope, item)
        except RowConflictError:
            raise PenstockError(NAME_TAKEN) from None
        await self._tell(session, actor, "create", item, after=item)
        return item

    async def find_by_name(self, session: ReadSession, name: str) -> Item | None:
        """Return the object of that name; None when there is none."""
        found = await self._objects.list(session, session.scope, ONE, name=name)
        return next(iter(found.items), None)

    async def update(
        self,
        session: WriteSession,
        actor: Actor,
        object_id: str,
        changes: Mapping[str, Any],
        expected_version: int | None,
    ) -> Item:
        """Change the members that are given; what changes nothing leaves no trace.

        Raises:
            PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `CATALOG_INVALID`, and what
                `check_references` raises.
        """
        before = await self._objects.lock(session, session.scope, object_id, expected_version)
        values = {name: value for name, value in changes.items() if getattr(before, name) != value}
        if not values:
            return before
        wanted: Item = self._check(dataclasses.replace(before, **values))  # type: ignore[type-var]  # a dataclass
        await self._check_references(session, wanted)
        after = await self._objects.update(
            session, session.scope, before, updated_at_us=actor.at_us, **values
        )
        await self._tell(session, actor, "update", after, before=before, after=after)
        return after

    async def delete(
        self, session: WriteSession, actor: Actor, object_id: str, expected_version: int | None
    ) -> None:
        """Remove an object for good.

        Raises:
            PenstockError: `OBJECT_UNKNOWN`, `VERSION_CONFLICT`, `CATALOG_IN_USE` with what names
                it.
        """
        before = await self._objects.lock(session, session.scope, object_id, expected_version)
        users = await self._list_users(session, session.scope, self._kind, object_id)
        if users:
            raise PenstockError(CATALOG_IN_USE, f"It is used by {', '.join(users)}.")
        await self._objects.delete(session, session.scope, before)
        await self._tell(session, actor, "delete", before, before=before)

    async def _tell(
        self, session: WriteSession, actor: Actor, verb: str, item: Item, **states: Item
    ) -> None:
        await record_change(session, self._kind, item.name, actor.at_us)
        await record(session, entry_of(actor, f"{self._kind}.{verb}", item, **states))


def entry_of(
    actor: Actor,
    action: str,
    item: Versioned,
    *,
    before: Any = None,
    after: Any = None,
) -> Entry:
    """Return what the audit log is told of a change; what belongs to nobody is the platform's."""
    return Entry(
        actor=actor,
        action=action,
        resource_kind=action.partition(".")[0],
        resource_id=item.id,
        organization_id=getattr(item, "organization_id", None),
        before=None if before is None else dataclasses.asdict(before),
        after=None if after is None else dataclasses.asdict(after),
    )
