"""Credentials of upstreams: sealed in the node's store, opened here, sent to workers, in memory.

A credential that is open is opened anew every five minutes, so that it ends when its KEK was taken
away. A KEK that is only out of reach takes nothing away.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from penstock.catalog.credentials import model
from penstock.catalog.credentials.deks import DekCache
from penstock.catalog.credentials.errors import (
    CredentialInvalidError,
    CredentialUnreadableError,
    KeysRefusedError,
    KeysUnavailableError,
)
from penstock.catalog.credentials.rules import check_credential, open_credential
from penstock.contract.node import MAX_MESSAGE_BYTES, Credentials
from penstock.contract.snapshot import CREDENTIAL_SCHEME, SealedCredential
from penstock.kit.clock import Clock
from penstock.kit.envelope import Sealed, SecretBytes
from penstock.kit.kek.model import Kek, KekVersion, WrappedKey
from penstock.kit.secrets import SecretUnavailableError, resolve_secret
from penstock.node import log_events

REOPEN_S = 300.0
"""How long a credential is used without asking its KEK again."""
RETRY_S = 5.0
"""When a KEK that could not be asked is asked again."""
_PART_BYTES = MAX_MESSAGE_BYTES - 64 * 1024
_PAIR_BYTES = 16
"""More than what MessagePack adds to an id and a token."""
_UNTRIED = -1


class SealedStore(Protocol):
    """Where sealed credentials are."""

    @property
    def sealed_version(self) -> int:
        """Another number whenever any of them is not what it was."""
        ...

    def list_sealed(self) -> list[SealedCredential]:
        """Return all of them; may block."""
        ...


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of one sealed credential."""

    sealed: SealedCredential
    token: SecretBytes | None
    """None when it does not open, or not yet."""
    period: int
    """In which period it was last tried; `_UNTRIED` when its KEK could not be asked."""


class OpenCredentials:
    """The open credentials of a node.

    Args:
        store: Where sealed ones are.
        kek: Opens data keys; may block.
        clock: Measures periods.
        on_change: Called when workers need to be told.
        reopen_s: See `REOPEN_S`.
        retry_s: See `RETRY_S`.
    """

    def __init__(
        self,
        store: SealedStore,
        kek: Kek,
        clock: Clock,
        on_change: Callable[[], None],
        *,
        reopen_s: float = REOPEN_S,
        retry_s: float = RETRY_S,
    ) -> None:
        """See the class."""
        self._store = store
        self._seen_version = -1
        self._kek = kek
        self._clock = clock
        self._on_change = on_change
        self._reopen_s = reopen_s
        self._retry_s = retry_s
        self._entries: dict[str, _Entry] | None = None
        self._period = 0
        self._period_ends_s = clock.monotonic_s()
        self._cache = DekCache(kek, clock, ttl_s=reopen_s)
        self._wanted = asyncio.Event()
        self._looked = asyncio.Condition()
        self._asked_count = self._looked_count = 0

    @property
    def figures(self) -> Counter[str]:
        """How many are `open`, `unreadable` for ever, and `waiting` for a KEK to be asked."""
        figures = Counter(open=0, unreadable=0, waiting=0)
        for entry in (self._entries or {}).values():
            figures["open"] += entry.token is not None
            figures["waiting"] += entry.period == _UNTRIED
            figures["unreadable"] += entry.token is None and entry.period != _UNTRIED
        return figures

    def messages(self) -> Iterator[Credentials]:
        """Yield what workers are told: everything, in parts that are no longer than a message.

        Nothing while nothing is known: workers go on with what an agent before us told them.
        """
        figures = self.figures
        if self._entries is None or (figures["waiting"] and not figures["open"]):
            return
        tokens: dict[str, str] = {}
        size = 0
        for name, token in self._tokens().items():
            text = token.reveal().decode("ascii")
            if tokens and size + len(name) + len(text) + _PAIR_BYTES > _PART_BYTES:
                yield Credentials(tokens, is_last=False)
                tokens, size = {}, 0
            tokens[name] = text
            size += len(name) + len(text) + _PAIR_BYTES
        yield Credentials(tokens)

    def find(self, reference: str) -> SecretBytes | None:
        """Return what upstreams are shown for a reference; None when it cannot be had."""
        if reference.startswith(CREDENTIAL_SCHEME):
            return self._tokens().get(reference.removeprefix(CREDENTIAL_SCHEME))
        try:
            return check_credential(resolve_secret(reference))
        except (SecretUnavailableError, CredentialInvalidError):
            return None

    async def look(self, patience_s: float) -> None:
        """Open what is new in the store; return when it is done, or patience is at its end."""
        self._asked_count += 1
        wanted = self._asked_count
        self._wanted.set()
        try:
            async with asyncio.timeout(patience_s), self._looked:
                await self._looked.wait_for(lambda: self._looked_count >= wanted)
        except TimeoutError:
            log_events.CREDENTIALS_LATE.log(patience_s=patience_s)

    async def run(self) -> None:
        """Open what there is, whenever it is asked for and from time to time, until cancelled."""
        while True:
            asked_count = self._asked_count
            self._wanted.clear()
            await self._look()
            async with self._looked:
                self._looked_count = asked_count
                self._looked.notify_all()
            pause_s = self._period_ends_s - self._clock.monotonic_s()
            if self.figures["waiting"]:
                pause_s = min(pause_s, self._retry_s)
            try:
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        now_s = self._clock.monotonic_s()
        version = self._store.sealed_version
        is_over = now_s >= self._period_ends_s
        if version == self._seen_version and not is_over and not self.figures["waiting"]:
            return
        self._seen_version = version
        if is_over:
            self._period += 1
            self._period_ends_s = now_s + self._reopen_s
            # Data keys of the last period are not used in this one: their KEK is to be asked.
            self._cache = DekCache(self._kek, self._clock, ttl_s=self._reopen_s)
        is_first, before = self._entries is None, self._tokens()
        self._entries = await asyncio.to_thread(self._open_all, self._entries or {})
        if is_first or self._tokens() != before:
            log_events.CREDENTIALS_OPENED.log(counts=self.figures)
            self._on_change()

    def _open_all(self, before: dict[str, _Entry]) -> dict[str, _Entry]:
        entries: dict[str, _Entry] = {}
        troubles: dict[str, KeysUnavailableError] = {}
        for sealed in self._store.list_sealed():
            known = before.get(sealed.id)
            if known is not None and known.sealed == sealed and known.period == self._period:
                entries[sealed.id] = known
            else:
                entries[sealed.id] = self._open(sealed, known, troubles)
        for kek_uri, error in troubles.items():
            log_events.KEK_NOT_ASKED.log(kek=kek_uri, why=error, retry_s=self._retry_s)
        return entries

    def _open(
        self,
        sealed: SealedCredential,
        known: _Entry | None,
        troubles: dict[str, KeysUnavailableError],
    ) -> _Entry:
        """Open one, unless its KEK could not be asked for another one just now."""
        trouble = troubles.get(sealed.dek.kek_uri)
        if trouble is None:
            try:
                return _Entry(sealed, _unseal(sealed, self._cache), self._period)
            except (CredentialUnreadableError, CredentialInvalidError) as error:
                log_events.CREDENTIAL_DROPPED.log(why=error)
                return _Entry(sealed, None, self._period)
            except KeysUnavailableError as error:
                trouble = troubles[sealed.dek.kek_uri] = error
        is_refused = isinstance(trouble, KeysRefusedError)
        return _Entry(sealed, None if known is None or is_refused else known.token, _UNTRIED)

    def _tokens(self) -> dict[str, SecretBytes]:
        entries = (self._entries or {}).items()
        return {name: entry.token for name, entry in entries if entry.token is not None}


def _unseal(sealed: SealedCredential, cache: DekCache) -> SecretBytes:
    identity = model.CredentialIdentity(
        organization_id=sealed.organization, credential_id=sealed.id, provider=sealed.provider
    )
    wrapped = WrappedKey(
        KekVersion(sealed.dek.kek_uri, sealed.dek.kek_version), sealed.dek.ciphertext
    )
    dek = cache.open(
        model.StoredDek(id=sealed.dek.id, organization_id=sealed.organization, wrapped=wrapped)
    )
    stored = model.SealedCredential(
        identity=identity,
        dek_id=sealed.dek.id,
        aad_version=sealed.aad_version,
        sealed=Sealed(sealed.nonce, sealed.ciphertext),
    )
    # What cannot be sent as a header never reaches a worker, whoever sealed it.
    return check_credential(open_credential(stored, dek).reveal().decode("ascii", "replace"))
