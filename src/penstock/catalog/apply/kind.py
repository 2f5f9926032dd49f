"""What applying must know of one kind of objects: where they are, and how names become ids."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement

from penstock.access.model import Principal
from penstock.access.peppers import Peppers
from penstock.audit.model import Actor
from penstock.catalog.apply.model import Change, Members, Wanted
from penstock.catalog.credentials.data_keys import DataKeys
from penstock.catalog.references import Identity
from penstock.storage.objects import ObjectStore
from penstock.storage.sessions import WriteSession

Mention: TypeAlias = tuple[str, str]
"""Section and id of another object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What changes are made with."""

    session: WriteSession
    actor: Actor
    principal: Principal
    """Who asks: nothing is given more rights than it has."""
    peppers: Peppers = field(repr=False)
    data_keys: DataKeys = field(repr=False)


class Names:
    """Names and ids of the objects that were read."""

    def __init__(self) -> None:
        """Know none."""
        self._ids: dict[tuple[str, Identity], str] = {}
        self._identities: dict[Mention, Identity] = {}

    def learn(self, section: str, identity: Identity, object_id: str) -> None:
        """Take note of an object that is there, and in use."""
        self._ids[section, identity] = object_id
        self._identities[section, object_id] = identity

    def learn_id(self, section: str, object_id: str, identity: Identity) -> None:
        """Take note of what an id stands for, whether or not the object is in use."""
        self._identities.setdefault((section, object_id), identity)

    def forget(self, section: str, identity: Identity) -> None:
        """Take note that an object is gone."""
        self._ids.pop((section, identity), None)

    def find_id(self, section: str, *identity: str | None) -> str | None:
        """Return the id of an object, None when there is none in use."""
        return self._ids.get((section, identity))

    def id(self, section: str, *identity: str | None) -> str:
        """Return the id of an object that was looked for before."""
        return self._ids[section, identity]

    def has_identity(self, mention: Mention) -> bool:
        """Tell whether it is known what an id stands for."""
        return mention in self._identities

    def identity(self, section: str, object_id: str) -> Identity:
        """Return what an id stands for."""
        return self._identities[section, object_id]

    def name(self, section: str, object_id: str | None) -> str | None:
        """Return the name of the object with an id; None for no id, and for one of nothing."""
        return self._identities.get((section, object_id or ""), (None,))[-1]


Create: TypeAlias = Callable[[Hands, Names, Identity, Wanted], Awaitable[str]]
Update: TypeAlias = Callable[[Hands, Names, str, Change], Awaitable[None]]
Rotate: TypeAlias = Callable[[Hands, str, Wanted], Awaitable[None]]
Delete: TypeAlias = Callable[[Hands, str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of objects."""

    section: str
    objects: ObjectStore[Any]
    table: Any
    in_use: tuple[ColumnElement[bool], ...] = ()
    """Holds for what is neither archived nor revoked."""
    place: Callable[[Names, Identity], Mapping[str, str] | None]
    """Returns the columns that an object is found by; None when its owner is not there."""
    owners: Callable[[Any], list[Mention]]
    """What must be known to tell an object's identity."""
    identify: Callable[[Names, Any], Identity]
    mentions: Callable[[Any], list[Mention]] = lambda _: []
    """What else must be known to tell its members."""
    members: Callable[[Names, Any], Members]
    create: Create
    update: Update | None = None
    """None for what is made and removed only."""
    rotate: Rotate | None = None
    """Gives it the secret of the document; None for what has none."""
    delete: Delete
    immutable: frozenset[str] = frozenset()
    """Members that an object keeps for life."""
