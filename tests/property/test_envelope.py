"""Envelope encryption: whatever is exchanged or damaged, nothing opens that should not."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.catalog.credentials.deks import create_dek, open_dek, rewrap_dek
from penstock.catalog.credentials.errors import CredentialUnreadableError
from penstock.catalog.credentials.model import (
    CredentialIdentity,
    Dek,
    SealedCredential,
)
from penstock.catalog.credentials.rules import (
    open_credential,
    reseal_credential,
    seal_credential,
)
from penstock.kit.envelope import DecryptionError, Sealed, SecretBytes, bind, seal, unseal
from penstock.kit.kek.model import (
    Context,
    KekRing,
    KekVersion,
    UnwrapError,
    WrappedKey,
    foreign,
)
from penstock.kit.rotation import Archive, Batch, Progress, rotate

NAMES = st.text(max_size=12)
OWNERS = st.none() | NAMES
SECRETS = st.binary(max_size=100).map(SecretBytes)
IDENTITIES = st.builds(
    CredentialIdentity, organization_id=OWNERS, credential_id=NAMES, provider=NAMES
)


class MemoryKek:
    """A KEK in memory, with versions."""

    def __init__(self, uri: str, random: Random) -> None:
        self.uri = uri
        self.random = random
        self.keys = [SecretBytes(random.randbytes(32))]

    def current(self) -> KekVersion:
        """See `Kek`."""
        return KekVersion(self.uri, len(self.keys))

    def serves(self, uri: str) -> bool:
        """See `Kek`."""
        return uri == self.uri

    def wrap(self, key: SecretBytes, context: Context) -> WrappedKey:
        """See `Kek`."""
        sealed = seal(self.keys[-1], key, self._associated(context), self.random.randbytes)
        return WrappedKey(self.current(), sealed.nonce + sealed.ciphertext)

    def unwrap(self, wrapped: WrappedKey, context: Context) -> SecretBytes:
        """See `Kek`."""
        if wrapped.kek.uri != self.uri:
            raise foreign(wrapped)
        sealed = Sealed(wrapped.ciphertext[:12], wrapped.ciphertext[12:])
        try:
            return unseal(self.keys[wrapped.kek.number - 1], sealed, self._associated(context))
        except DecryptionError as error:
            raise UnwrapError(str(error)) from None

    def rotate(self) -> None:
        """Add a version."""
        self.keys.append(SecretBytes(self.random.randbytes(32)))

    def _associated(self, context: Context) -> bytes:
        return bind(self.uri, *(text for pair in sorted(context.items()) for text in pair))


def flip(content: bytes, bit: int) -> bytes:
    """Return the bytes with one bit turned over."""
    changed = bytearray(content)
    changed[bit // 8 % len(content)] ^= 1 << bit % 8
    return bytes(changed)


def make_dek(organization_id: str | None, random: Random, name: str = "dek_1") -> Dek:
    """Return a data key."""
    key = SecretBytes(random.randbytes(32))
    return Dek(id=name, organization_id=organization_id, key=key)


@given(IDENTITIES, SECRETS, st.integers())
def test_a_credential_comes_back(identity: CredentialIdentity, secret: SecretBytes, n: int) -> None:
    """Whatever it holds and whatever it belongs to, a credential opens to what was sealed."""
    random = Random(n)
    dek = make_dek(identity.organization_id, random)
    stored = seal_credential(identity, secret, dek, random_bytes=random.randbytes)
    assert open_credential(stored, dek) == secret


@given(IDENTITIES, IDENTITIES, SECRETS, st.integers())
def test_it_opens_for_nothing_else(
    identity: CredentialIdentity, other: CredentialIdentity, secret: SecretBytes, n: int
) -> None:
    """With any other organization, credential or provider it fails, also with the same key."""
    random = Random(n)
    dek = make_dek(identity.organization_id, random)
    stored = seal_credential(identity, secret, dek, random_bytes=random.randbytes)
    for wrong in (
        other,
        replace(identity, organization_id=other.organization_id),
        replace(identity, credential_id=other.credential_id),
        replace(identity, provider=other.provider),
    ):
        if wrong == identity:
            continue
        with pytest.raises(CredentialUnreadableError):
            open_credential(
                replace(stored, identity=wrong),
                replace(dek, organization_id=wrong.organization_id),
            )


@given(IDENTITIES, SECRETS, st.integers(), st.integers(min_value=0, max_value=10_000))
def test_a_flipped_bit_is_found(
    identity: CredentialIdentity, secret: SecretBytes, n: int, bit: int
) -> None:
    """One bit turned over in ciphertext, tag, nonce or key, and it does not open."""
    random = Random(n)
    dek = make_dek(identity.organization_id, random)
    stored = seal_credential(identity, secret, dek, random_bytes=random.randbytes)
    sealed = stored.sealed
    changed = (
        replace(stored, sealed=replace(sealed, ciphertext=flip(sealed.ciphertext, bit))),
        replace(stored, sealed=replace(sealed, nonce=flip(sealed.nonce, bit))),
        replace(stored, sealed=replace(sealed, ciphertext=sealed.ciphertext[: bit % 16])),
    )
    for wrong in changed:
        with pytest.raises(CredentialUnreadableError):
            open_credential(wrong, dek)
    with pytest.raises(CredentialUnreadableError):
        open_credential(stored, replace(dek, key=SecretBytes(flip(dek.key.reveal(), bit))))


@given(st.lists(st.none() | st.text(max_size=5)), st.lists(st.none() | st.text(max_size=5)))
def test_binding_is_injective(one: list[str | None], other: list[str | None]) -> None:
    """Only equal parts are bound to equal bytes."""
    assert (bind("p", *one) == bind("p", *other)) == (one == other)


@given(OWNERS, OWNERS, st.integers(), st.lists(st.sampled_from(["rotate", "move", "rewrap"])))
def test_rewrapping_preserves_the_key(
    owner: str | None, other: str | None, n: int, steps: list[str]
) -> None:
    """Through any rotations and moves between KEKs a data key stays itself and its owner's."""
    random = Random(n)
    ring = [MemoryKek("mem:0", random)]
    stored, made = create_dek("dek_1", owner, ring[0], random_bytes=random.randbytes)
    for step in [*steps, "rewrap"]:
        if step == "rotate":
            ring[0].rotate()
        elif step == "move":
            ring.insert(0, MemoryKek(f"mem:{len(ring)}", random))
        else:
            stored = rewrap_dek(stored, KekRing(*ring)) or stored
            assert stored.wrapped.kek == ring[0].current()
        assert open_dek(stored, KekRing(*ring)) == made
    # Nothing but the current KEK is needed at the end.
    assert open_dek(stored, ring[0]) == made
    if other != owner:
        with pytest.raises(CredentialUnreadableError):
            open_dek(replace(stored, organization_id=other), ring[0])


class CrashError(Exception):
    """The process died here."""


class CredentialArchive(Archive[SealedCredential]):
    """An organization's credentials, whose process dies now and then."""

    def __init__(self, records: Sequence[SealedCredential], target: str, random: Random) -> None:
        self.records = {record.id: record for record in records}
        self.target = target
        self.random = random
        self.crashes = 10
        self.progress: Progress | None = None

    def _maybe_crash(self) -> None:
        if self.crashes and self.random.random() < 0.3:
            self.crashes -= 1
            raise CrashError

    async def load(self) -> Progress | None:
        """See `Archive`."""
        return self.progress

    async def list_after(self, cursor: str | None, limit: int) -> Sequence[SealedCredential]:
        """See `Archive`."""
        self._maybe_crash()
        names = sorted(name for name in self.records if cursor is None or name > cursor)
        return [self.records[name] for name in names[:limit]]

    async def store(self, batch: Batch[SealedCredential]) -> None:
        """See `Archive`."""
        self._maybe_crash()
        for old, new in batch.renewed:
            assert self.records[old.id] is old
            self.records[old.id] = new
        self.progress = batch.progress
        self._maybe_crash()

    async def count_outdated(self) -> int:
        """See `Archive`."""
        return sum(record.dek_id != self.target for record in self.records.values())


@given(
    st.dictionaries(NAMES, SECRETS, max_size=8),
    st.integers(min_value=1, max_value=5),
    st.integers(),
)
def test_an_interrupted_rotation_resumes(
    credentials: dict[str, SecretBytes], batch_size: int, n: int
) -> None:
    """However often it dies, in the end all credentials are under the new key and unchanged."""
    random = Random(n)
    old, new = make_dek("org", random, "dek_1"), make_dek("org", random, "dek_2")
    records = [
        seal_credential(
            CredentialIdentity(organization_id="org", credential_id=name, provider="p"), secret, old
        )
        for name, secret in credentials.items()
    ]
    archive = CredentialArchive(records, new.id, random)

    async def run() -> bool:
        while True:
            try:
                report = await rotate(
                    archive,
                    lambda record: reseal_credential(record, old, new),
                    unreadable=(CredentialUnreadableError,),
                    batch_size=batch_size,
                )
            except CrashError:
                continue
            return report.is_complete

    assert asyncio.run(run())
    opened = {name: open_credential(record, new) for name, record in archive.records.items()}
    assert opened == credentials
