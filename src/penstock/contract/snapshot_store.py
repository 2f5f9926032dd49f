"""The node's snapshot as records that the agent writes and all workers read in place.

One LMDB environment: a worker opens it and serves at once, however many keys there are; the pages
are shared by all workers of the node. A change is a `Delta`, applied in one transaction: a
reader sees the version before it or the one behind it and nothing between.

Records are found by a letter and a name: `k` + keyed hash (an API key), `a` + alias, `r` + route,
`d` + deployment, `u` + upstream, `e` + id of a sealed credential. By an owner, which is an
organization, or organization + NUL + project: `s` + owner (present while suspended), `p` + owner
(where its data may go), `g` + alias + NUL + owner (present when it may use the alias), `o` +
organization + NUL + upstream (id of the credential of its own that it uses there). By whom they
limit (`owner_name`): `l` (limits) and `b` (hard budgets); `n` + name of a plan (its limits); `c` +
alias (its prices), and `c` + alias + NUL + organization where these are others; `t` + organization
(the currency that all it uses must have a price in). `w` + source are the endpoints that the agent
found there. `m` is what the store holds: format, version, time. Other letters are the writer's own
notes.
"""

import contextlib
import hashlib
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import lmdb
import msgspec

from penstock.contract.limits import Limit, OwnerLimits
from penstock.contract.money import Budget, Price
from penstock.contract.snapshot import (
    FORMAT,
    Alias,
    Deployment,
    Endpoint,
    Key,
    Policy,
    Route,
    SealedCredential,
    Snapshot,
    SnapshotFormatError,
    Upstream,
)

MAP_BYTES = 16 * 1024**3
"""Address space set aside; disk and memory are taken only as far as there are records."""
_READERS = 512
RECORD_NAME_BYTES = 511
"""LMDB's bound."""
_META = b"m"
FEED_LETTERS = tuple(bytes([letter]) for letter in b"abcdegklnoprstu")
"""Of the records that a control plane's feed may bring."""
_AGENTS_ONLY = b"e"
_OF_UPSTREAMS = (b"u", b"w")
"""Letters of the records that say what upstreams are like."""
_PAIR = struct.Struct("<II")

Bytes: TypeAlias = bytes | memoryview
Decoded = TypeVar("Decoded")

_encode = msgspec.msgpack.Encoder().encode
OwnerKind = Literal["organization", "project", "key", "member"]
"""Whom limits and budgets are for."""
_decode_budgets = msgspec.msgpack.Decoder(tuple[Budget, ...]).decode
_decode_limits = msgspec.msgpack.Decoder(OwnerLimits).decode
_decode_plan = msgspec.msgpack.Decoder(tuple[Limit, ...]).decode
_decode_prices = msgspec.msgpack.Decoder(tuple[Price, ...]).decode
_decode_key = msgspec.msgpack.Decoder(Key).decode
_decode_alias = msgspec.msgpack.Decoder(Alias).decode
_decode_deployment = msgspec.msgpack.Decoder(Deployment).decode
_decode_policy = msgspec.msgpack.Decoder(Policy).decode
_decode_sealed = msgspec.msgpack.Decoder(SealedCredential).decode
_decode_route = msgspec.msgpack.Decoder(Route).decode
_decode_upstream = msgspec.msgpack.Decoder(Upstream).decode
_decode_found = msgspec.msgpack.Decoder(tuple[Endpoint, ...]).decode


class Meta(msgspec.Struct, frozen=True):
    """What a store holds."""

    version: int
    created_at_ns: int
    upstreams_version: int
    """Version at which an upstream changed last."""
    format: int = FORMAT


_decode_meta = msgspec.msgpack.Decoder(Meta).decode


class Delta(msgspec.Struct, frozen=True):
    """What leads from one version of the records to a later one."""

    base_version: int
    """Version that it applies to; 0 for a first part that replaces everything."""
    version: int
    created_at_ns: int
    puts: Collection[tuple[bytes, bytes]]
    """Records that are new or changed."""
    deletes: Collection[bytes] = ()
    is_last: bool = True
    """False when further parts of the same version follow; they are applied together."""


def checksum_of(
    base_version: int, version: int, puts: Iterable[tuple[bytes, bytes]], deletes: Iterable[bytes]
) -> bytes:
    """Return a checksum over versions and records, 32 bytes."""
    digest = hashlib.sha256(struct.pack("<QQ", base_version, version))
    for name, value in puts:
        digest.update(_PAIR.pack(len(name), len(value)))
        digest.update(name)
        digest.update(value)
    digest.update(b"\0deletes")
    for name in deletes:
        digest.update(_PAIR.pack(len(name), 0))
        digest.update(name)
    return digest.digest()


def key_record(key: Key) -> tuple[bytes, bytes]:
    """Return name and value of an API key's record."""
    return b"k" + key.mac, _encode(key)


def alias_record(alias: Alias) -> tuple[bytes, bytes]:
    """Return name and value of an alias' record."""
    return b"a" + alias.name.encode(), _encode(alias)


def route_record(route: Route) -> tuple[bytes, bytes]:
    """Return name and value of a route's record."""
    return b"r" + route.name.encode(), _encode(route)


def upstream_record(upstream: Upstream) -> tuple[bytes, bytes]:
    """Return name and value of an upstream's record."""
    return b"u" + upstream.name.encode(), _encode(upstream)


def found_record(source: str, endpoints: tuple[Endpoint, ...]) -> tuple[bytes, bytes]:
    """Return name and value of the record of what the agent found at a source of endpoints."""
    return b"w" + source.encode(), _encode(endpoints)


def deployment_record(deployment: Deployment) -> tuple[bytes, bytes]:
    """Return name and value of a deployment's record."""
    return b"d" + deployment.name.encode(), _encode(deployment)


def policy_record(
    policy: Policy, organization: str, project: str | None = None
) -> tuple[bytes, bytes]:
    """Return name and value of the record that says where an owner's data may go."""
    return b"p" + _owner(organization, project), _encode(policy)


def sealed_record(credential: SealedCredential) -> tuple[bytes, bytes]:
    """Return name and value of a sealed credential's record."""
    return b"e" + credential.id.encode(), _encode(credential)


def own_credential_record(
    organization: str, upstream: str, credential_id: str
) -> tuple[bytes, bytes]:
    """Return name and value of the record of an organization's own credential for an upstream."""
    return b"o" + organization.encode() + b"\0" + upstream.encode(), credential_id.encode()


def grant_name(alias: str, organization: str, project: str | None = None) -> bytes:
    """Return the name of the record that is there while an owner may use an alias."""
    return b"g" + alias.encode() + b"\0" + _owner(organization, project)


def suspension_name(organization: str, project: str | None = None) -> bytes:
    """Return the name of the record that is there while an organization or project may not work."""
    return b"s" + _owner(organization, project)


def owner_name(kind: OwnerKind, organization: str, owner: str = "") -> bytes:
    """Return what names an owner in records of limits and budgets.

    Args:
        kind: What it is.
        organization: Whose it is.
        owner: Id of the project, key or member; "" for the organization itself.
    """
    return b"%b%b\0%b" % (kind[0].encode(), organization.encode(), owner.encode())


def limits_record(owner: bytes, limits: OwnerLimits) -> tuple[bytes, bytes]:
    """Return name and value of the record of an owner's limits; `owner` from `owner_name`."""
    return b"l" + owner, _encode(limits)


def plan_record(plan: str, limits: tuple[Limit, ...]) -> tuple[bytes, bytes]:
    """Return name and value of the record of a plan's limits."""
    return b"n" + plan.encode(), _encode(limits)


def budgets_record(owner: bytes, budgets: tuple[Budget, ...]) -> tuple[bytes, bytes]:
    """Return name and value of the record of an owner's hard budgets."""
    return b"b" + owner, _encode(budgets)


def prices_name(alias: str, organization: str = "") -> bytes:
    """Return the name of the record of an alias' prices: an organization's own, or everybody's."""
    return b"c" + _owner(alias, organization or None)


def prices_record(
    alias: str, prices: tuple[Price, ...], organization: str = ""
) -> tuple[bytes, bytes]:
    """Return name and value of the record of an alias' prices; see `prices_name`."""
    return prices_name(alias, organization), _encode(prices)


def billed_name(organization: str) -> bytes:
    """Return the name of the record that is there while an organization pays for all it uses."""
    return b"t" + organization.encode()


def billed_record(organization: str, currency: str) -> tuple[bytes, bytes]:
    """Return name and value of that record: what it uses must have a price in the currency."""
    return billed_name(organization), currency.encode()


def _owner(organization: str, project: str | None) -> bytes:
    return organization.encode() + (b"" if project is None else b"\0" + project.encode())


def records_of(snapshot: Snapshot) -> dict[bytes, bytes]:
    """Return all records of a snapshot."""
    records = dict(map(key_record, snapshot.keys))
    records |= map(alias_record, snapshot.aliases)
    records |= map(route_record, snapshot.routes)
    records |= map(deployment_record, snapshot.deployments)
    records |= map(upstream_record, snapshot.upstreams)
    records |= {
        grant_name(grant.alias, grant.organization, grant.project): b"" for grant in snapshot.grants
    }
    records |= {
        policy_record(owned.policy, owned.organization, owned.project)
        for owned in snapshot.policies
    }
    return records


class SnapshotStore:
    """The agent's side: the only writer.

    Args:
        path: Folder of the environment; made when missing.

    Raises:
        SnapshotFormatError: What the folder holds is of another format.
        msgspec.DecodeError, lmdb.Error: It holds something else, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        """See the class."""
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._environment = lmdb.open(
            str(path), map_size=MAP_BYTES, max_readers=_READERS, mode=0o600, metasync=True
        )
        self._unfinished: lmdb.Transaction | None = None
        try:
            self._environment.reader_check()  # frees the places of workers that were killed
            with self._environment.begin() as transaction:
                _meta(transaction)
        except BaseException:
            self._environment.close()
            raise

    @property
    def version(self) -> int:
        """Version that readers see; 0 when there is none yet."""
        with self._environment.begin() as transaction:
            meta = _meta(transaction)
        return 0 if meta is None else meta.version

    def find(self, name: bytes) -> bytes | None:
        """Return a record's value."""
        with self._environment.begin() as transaction:
            value: bytes | None = transaction.get(name)
        return value

    def list_sealed(self) -> list[SealedCredential]:
        """Return all sealed credentials; one that cannot be read is left out."""
        return self._list(_AGENTS_ONLY, _decode_sealed)

    def list_upstreams(self) -> list[Upstream]:
        """Return all upstreams; one that cannot be read is left out."""
        return [_with_found(each, self.find) for each in self._list(b"u", _decode_upstream)]

    def list_found(self) -> dict[str, tuple[Endpoint, ...]]:
        """Return what was found last, by source; what cannot be read is left out."""
        found = {}
        with self._environment.begin() as transaction:
            for name, value in _records(transaction, b"w"):
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    found[bytes(name[1:]).decode()] = _decode_found(value)
        return found

    def list_deployments(self) -> list[Deployment]:
        """Return all deployments; one that cannot be read is left out."""
        return self._list(b"d", _decode_deployment)

    def _list(self, letter: bytes, decode: Callable[[Bytes], Decoded]) -> list[Decoded]:
        with self._environment.begin() as transaction:
            return _decode_all(_records(transaction, letter), decode)

    def names(self, *letters: bytes) -> set[bytes]:
        """Return the names of all records of these letters."""
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            return {name for name in cursor.iternext(values=False) if name[:1] in letters}

    def apply(self, delta: Delta) -> bool:
        """Apply one part of a change.

        Args:
            delta: For the version that is here, or a replacement.

        Returns:
            Whether readers see a new version now: false until the last part.

        Raises:
            SnapshotFormatError: It leads from another version; nothing changed.
        """
        try:
            transaction = self._unfinished or self._begin(delta)
            self._write(transaction, delta)
        except BaseException:
            self._abort()
            raise
        if not delta.is_last:
            self._unfinished = transaction
            return False
        self._unfinished = None
        transaction.commit()
        return True

    def close(self) -> None:
        """Let go of the files; a change that was not finished is forgotten."""
        self._abort()
        self._environment.close()

    def _begin(self, delta: Delta) -> lmdb.Transaction:
        transaction = self._environment.begin(write=True)
        self._unfinished = transaction  # for `_abort`, should anything go wrong
        if delta.base_version == 0:
            transaction.drop(self._environment.open_db(txn=transaction), delete=False)
            return transaction
        meta = _meta(transaction)
        version = 0 if meta is None else meta.version
        if version != delta.base_version:
            message = f"the delta leads from version {delta.base_version}, here is {version}"
            raise SnapshotFormatError(message)
        return transaction

    def _write(self, transaction: lmdb.Transaction, delta: Delta) -> None:
        with transaction.cursor() as cursor:
            cursor.putmulti(delta.puts)
        for name in delta.deletes:
            transaction.delete(name)
        before = _meta(transaction)
        touched = delta.base_version == 0 or any(
            name.startswith(_OF_UPSTREAMS)
            for name in (*delta.deletes, *(name for name, _ in delta.puts))
        )
        upstreams = delta.version if touched or before is None else before.upstreams_version
        transaction.put(_META, _encode(Meta(delta.version, delta.created_at_ns, upstreams)))

    def _abort(self) -> None:
        transaction, self._unfinished = self._unfinished, None
        if transaction is not None:
            transaction.abort()


class SnapshotReader:
    """A worker's side: looks records up in the version that `refresh` saw last.

    Args:
        path: Folder of the environment.

    Raises:
        SnapshotFormatError: There is no snapshot, or one of another format.
        lmdb.Error: The folder is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        """See the class."""
        self._environment = lmdb.open(
            str(path), map_size=MAP_BYTES, readonly=True, max_readers=_READERS, create=False
        )
        self._transaction = self._environment.begin(buffers=True)
        self.meta = self._read_meta()

    def refresh(self) -> Meta:
        """See what was written since; return what the store holds now.

        Raises:
            SnapshotFormatError: It is of another format; the version before stays in sight no
                longer, so the caller goes on with what it has in memory, or ends.
        """
        self._transaction.abort()
        self._transaction = self._environment.begin(buffers=True)
        self.meta = self._read_meta()
        return self.meta

    def _read_meta(self) -> Meta:
        meta = _meta(self._transaction)
        if meta is None:
            message = "the snapshot store is empty"
            raise SnapshotFormatError(message)
        names = (bytes(name) for name, _ in _records(self._transaction, b"s"))
        self._suspended = frozenset(names)
        return meta

    def find_key(self, mac: bytes) -> Key | None:
        """Return the API key with this keyed hash, unless its organization or project may not work.

        Raises:
            msgspec.DecodeError: The record is damaged.
        """
        value = self._transaction.get(b"k" + mac)
        if value is None:
            return None
        key = _decode_key(value)
        suspended = self._suspended
        if suspended and (
            suspension_name(key.organization) in suspended
            or suspension_name(key.organization, key.project) in suspended
        ):
            return None
        return key

    def find_alias(self, name: str) -> Alias | None:
        """Return an alias; raises `msgspec.DecodeError`, as all that follow, when it is damaged."""
        value = self._get(b"a" + name.encode())
        return None if value is None else _decode_alias(value)

    def find_route(self, name: str) -> Route | None:
        """Return a route."""
        value = self._get(b"r" + name.encode())
        return None if value is None else _decode_route(value)

    def find_upstream(self, name: str) -> Upstream | None:
        """Return an upstream."""
        value = self._get(b"u" + name.encode())
        return None if value is None else _with_found(_decode_upstream(value), self._get)

    def find_deployment(self, name: str) -> Deployment | None:
        """Return a deployment."""
        value = self._get(b"d" + name.encode())
        return None if value is None else _decode_deployment(value)

    def find_policy(self, organization: str, project: str | None = None) -> Policy | None:
        """Return where the data of an owner may go; None when it may go anywhere."""
        value = self._get(b"p" + _owner(organization, project))
        return None if value is None else _decode_policy(value)

    def has_grant(self, alias: str, organization: str, project: str) -> bool:
        """Return whether a project, or the whole organization, may use an alias."""
        return (
            self._get(grant_name(alias, organization, project)) is not None
            or self._get(grant_name(alias, organization)) is not None
        )

    def find_own_credential(self, organization: str, upstream: str) -> str | None:
        """Return the id of the credential that an organization brought for an upstream."""
        value = self._get(b"o" + organization.encode() + b"\0" + upstream.encode())
        return None if value is None else bytes(value).decode()

    def find_limits(self, owner: bytes) -> OwnerLimits | None:
        """Return the limits of an owner, as `owner_name` names it."""
        value = self._get(b"l" + owner)
        return None if value is None else _decode_limits(value)

    def find_plan(self, plan: str) -> tuple[Limit, ...]:
        """Return the limits of a plan; none when it is not known."""
        value = self._get(b"n" + plan.encode())
        return () if value is None else _decode_plan(value)

    def find_budgets(self, owner: bytes) -> tuple[Budget, ...]:
        """Return the hard budgets of an owner, as `owner_name` names it."""
        value = self._get(b"b" + owner)
        return () if value is None else _decode_budgets(value)

    def find_prices(self, alias: str, organization: str) -> tuple[Price, ...]:
        """Return the prices of an alias for an organization, by currency and time."""
        value = self._get(prices_name(alias, organization)) or self._get(prices_name(alias))
        return () if value is None else _decode_prices(value)

    def find_billed_currency(self, organization: str) -> str | None:
        """Return what all that an organization uses must have a price in; None for nothing."""
        value = self._get(billed_name(organization))
        return None if value is None else bytes(value).decode()

    def list_upstreams(self) -> list[Upstream]:
        """Return all upstreams, by name; one that is damaged is left out."""
        found = _decode_all(_records(self._transaction, b"u"), _decode_upstream)
        return [_with_found(each, self._get) for each in found]

    def list_aliases(self) -> list[Alias]:
        """Return all aliases, by name; one that is damaged is left out."""
        return _decode_all(_records(self._transaction, b"a"), _decode_alias)

    def has_sealed(self) -> bool:
        """Return whether there are credentials that only the agent can open."""
        return next(_records(self._transaction, _AGENTS_ONLY), None) is not None

    def close(self) -> None:
        """Let go of the files."""
        self._transaction.abort()
        self._environment.close()

    def _get(self, name: bytes) -> memoryview | None:
        """Return a record's value; a name longer than any names none."""
        if len(name) > RECORD_NAME_BYTES:
            return None
        value: memoryview | None = self._transaction.get(name)
        return value


def _records(transaction: lmdb.Transaction, letter: bytes) -> Iterator[tuple[Bytes, Bytes]]:
    """Yield names and values of all records of a letter."""
    with transaction.cursor() as cursor:
        if not cursor.set_range(letter):
            return
        for name, value in cursor:
            if bytes(name[:1]) != letter:
                return
            yield name, value


def _decode_all(
    records: Iterable[tuple[Bytes, Bytes]], decode: Callable[[Bytes], Decoded]
) -> list[Decoded]:
    found = []
    for _, value in records:
        with contextlib.suppress(msgspec.DecodeError):
            found.append(decode(value))
    return found


def _with_found(upstream: Upstream, find: Callable[[bytes], Bytes | None]) -> Upstream:
    """Return an upstream with the endpoints that the agent found for it, if it is to find any."""
    if upstream.discover is None:
        return upstream
    value = find(b"w" + upstream.discover.encode())
    endpoints: tuple[Endpoint, ...] = ()
    if value is not None:
        with contextlib.suppress(msgspec.DecodeError):
            endpoints = _decode_found(value)
    kinds = "", upstream.provider
    taken = tuple(endpoint for endpoint in endpoints if endpoint.engine in kinds)
    return msgspec.structs.replace(upstream, endpoints=taken)


def _meta(transaction: lmdb.Transaction) -> Meta | None:
    """Return what a store holds.

    Raises:
        SnapshotFormatError: Records of another format; nothing of them may be read.
    """
    value = transaction.get(_META)
    if value is None:
        return None
    meta = _decode_meta(value)
    if meta.format != FORMAT:
        message = f"the snapshot store is of format {meta.format}, this version reads {FORMAT}"
        raise SnapshotFormatError(message)
    return meta
